"""CDC as a strategy of its own: in another person's app, against devices that send nonsense, and what it
hands on.
"""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from cdc_flower.cloud.distill import Learned
from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.downlink.versions import Mirror
from cdc_flower.fleet.grid import LocalGrid, payload
from cdc_flower.models.adapters import Layout
from cdc_flower.models.pair import load_pair
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.token_batch import Sample, TokenBatch
from clients.client_app import app as client_app
from strategies import cdc
from strategies.base import Fleet
from strategies.pictures import pictures

LAYOUT = Layout(("a", "b"), ((4, 4), (3,)))


class FakeCloud:
    """Learns by adding one to every weight; remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[int, list]] = []
        self.adapter = np.zeros(LAYOUT.total, np.float32)

    def learn(self, samples, round, progress=None) -> Learned:
        self.given.append((round, list(samples)))
        self.adapter = self.adapter + 1
        return Learned(
            self.adapter, len(samples), 0, {"ce": 0.5}, [f"answer {len(self.given)}"] * len(samples)
        )


def sends(frame_of_device) -> ClientApp:
    """Devices whose frame in a round is `frame_of_device(device, round)`."""
    app = ClientApp()

    @app.query()
    def query(message, context):
        return Message(
            RecordDict({"metrics": MetricRecord({"partition-id": context.node_config["partition-id"]})}),
            reply_to=message,
        )

    @app.train()
    def train(message, context):
        order = message.content["config"]
        frame = frame_of_device(context.node_config["partition-id"], order["server-round"])
        content = RecordDict({"metrics": MetricRecord({"version": order["version"]})})
        if frame:
            content["arrays"] = payload(frame)
        return Message(content, reply_to=message)

    return app


def batch(device: int, round: int, pair) -> bytes:
    sample = Sample(
        0, np.array([0, 5], np.uint16), np.full((2, pair.width), device, np.float32), [7], [8], 0.5
    )
    return token_batch.encode(TokenBatch(device, round, 0, (sample,)), pair.n_tokens, pair.width, 8)


@pytest.fixture
def strategy(pair) -> cdc.CDC:
    config = parse({"devices": 3, "samples-per-round": 4})
    mirror = Mirror(np.zeros(LAYOUT.total, np.float32), LAYOUT, "fp16", 10_000, 4)
    return cdc.CDC(Fleet.of(config), FakeCloud(), mirror, pair, config, model=None)


def play(strategy, app, rounds=1):
    return strategy.start(LocalGrid(app, 3, {}), strategy.initial_arrays(), num_rounds=rounds)


def test_it_works_in_another_persons_app(run_settings):
    settings = run_settings(rounds=2)
    app, kept = ServerApp(), {}

    @app.main()
    def main(grid, context):
        config = parse(context.run_config)
        pair = load_pair(config.pair, "scenes")
        strategy = cdc.build(config, pair, load_world(config, pair))
        kept["first"] = strategy.initial_arrays()["p"].numpy()
        kept["result"] = strategy.start(grid, strategy.initial_arrays(), num_rounds=config.run.rounds)

    app(LocalGrid(client_app, 3, settings), Context(1, 1, {}, RecordDict(), settings))
    assert not np.array_equal(kept["result"].arrays["p"].numpy(), kept["first"])
    assert kept["result"].train_metrics_clientapp[2]["answered"] == 3
    assert sum(kept["result"].evaluate_metrics_clientapp[1]["source"]) > 0


def test_samples_reach_the_cloud_in_the_order_of_the_devices(strategy, pair):
    play(strategy, sends(lambda d, r: batch(d, r, pair)))
    ((round, samples),) = strategy.cloud.given
    assert round == 1
    assert [float(s.tokens[0, 0]) for s in samples] == pytest.approx([0, 1, 2], rel=1e-2)
    assert [s.positions.tolist() for s in samples] == [[0, 5]] * 3
    assert samples[0].question_ids == [7]


def test_result_arrays_are_the_newest_adapter_of_the_mirror(strategy, pair):
    result = play(strategy, sends(lambda d, r: batch(d, r, pair)), rounds=3)
    np.testing.assert_array_equal(result.arrays["p"].numpy(), np.full(LAYOUT.total, 3.0, np.float32))
    assert strategy.mirror.newest == 3


@pytest.mark.parametrize("nonsense", [b"nonsense", b"CDCF" + bytes(40)])
def test_a_damaged_frame_is_counted_and_the_round_goes_on(strategy, pair, nonsense):
    play(strategy, sends(lambda d, r: nonsense if d == 1 else batch(d, r, pair)))
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "failed", "ok"]
    assert len(strategy.cloud.given[0][1]) == 2


def test_a_frame_of_another_device_or_round_is_refused(strategy, pair):
    play(strategy, sends(lambda d, r: batch(0, r, pair) if d < 2 else batch(2, r + 1, pair)))
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "failed", "failed"]


def test_without_samples_there_is_no_new_version_and_nothing_goes_down(strategy):
    play(strategy, sends(lambda d, r: b""), rounds=2)
    assert strategy.mirror.newest == 0
    assert strategy.cloud.given == []
    assert strategy.metrics == {"answered": 3, "stale": 0, "uploaded": 0, "version": 0}


def test_a_device_that_says_it_has_an_old_version_gets_the_updates_since(strategy, pair):
    frames = {}

    def spy(version, real=strategy.mirror.frame_for):
        frames.setdefault(strategy.mirror.newest, []).append(version)
        return real(version)

    strategy.mirror.frame_for = spy
    app = sends(lambda d, r: batch(d, r, pair))
    play(strategy, app, rounds=2)
    strategy.known[1] = 0  # as after a restart of the device
    list(strategy.configure_train(3, None, None, LocalGrid(app, 3, {})))
    assert frames == {0: [0, 0, 0], 1: [0, 0, 0], 2: [1, 0, 1]}


def test_examples_show_the_picture_the_device_saw(run_settings):
    config = parse(run_settings())
    pair = load_pair(config.pair, "scenes")
    world = load_world(config, pair)
    row = world.train.iloc[world.streams[2][1][3]]
    asked = pair.text.question_ids(str(row["question"]))
    sample = Sample(3, np.array([0, 63], np.uint16), np.zeros((2, pair.width), np.float32), asked, [], 1.0)
    (shown,) = pictures([cdc.Example(2, 2, sample, "red")], pair, world)
    assert shown["image"] == world.pack.train_images[row["image_id"]]
    assert (shown["side"], shown["positions"], shown["teacher_answer"]) == (8, [0, 63], "red")
    assert str(row["question"]).split()[0].lower() in shown["question"]
