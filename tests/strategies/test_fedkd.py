"""FedKD shares the mentee alone, by singular values whose share of energy rises, both ways."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.downlink import low_rank
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.reply import Reply
from strategies.fedkd import Factors, FedKD, FedKDSettings
from strategies.run import prepare, run_local

SHAPES = ((20, 30), (5,))
BASE = np.zeros(605, np.float32)


def test_the_energy_rises_to_the_last_and_stays():
    own = FedKDSettings(tmin=0.5, tmax=0.9, until=4)
    assert [own.energy(round) for round in (0, 2, 4, 9)] == pytest.approx([0.5, 0.7, 0.9, 0.9])


def test_what_a_frame_leaves_out_stays_with_the_server():
    way = Factors(BASE, SHAPES, FedKDSettings(tmin=0.5, tmax=0.5))
    assert not way.start.any()
    newest = np.random.default_rng(0).normal(size=605).astype(np.float32)
    way.now = 3
    way.end(newest)
    assert way.target(newest) is newest
    assert 0.1 < np.linalg.norm(way.held(newest) - newest) / np.linalg.norm(newest) < 0.75
    _, body = way.sent(0)
    np.testing.assert_array_equal(low_rank.decode(body["p"].data, SHAPES), way.start)


def test_a_change_that_no_training_can_make_is_refused():
    way = Factors(BASE, SHAPES, FedKDSettings())

    def reply(size):
        frame = low_rank.encode(np.full(605, size, np.float32), SHAPES, 0.95)
        return Reply({"num-examples": 8}, {}, frame=frame)

    np.testing.assert_allclose(way.read(0, reply(0.1), 0.1), np.full(605, 0.1), rtol=1e-2)
    with pytest.raises(FrameError, match="2 tensors changed by more than 0.1 a weight"):
        way.read(0, reply(0.2), 0.1)
    assert way.read(0, Reply({"num-examples": 0}, {}), 0.1) is None


def test_a_run_sends_less_than_whole_weights_and_is_measured_with_what_devices_hold(run_settings):
    more = {"rounds": 2, "eval_every": 2, "until": 2}
    found = {
        name: results.read(run_local(parse(run_settings(method=name, **more))))
        for name in ("fedkd", "fedavg_lora")
    }
    rows = {name: one.devices.set_index(["round", "device"]) for name, one in found.items()}
    assert set(rows["fedkd"]["status"]) == {"ok"}
    assert (rows["fedkd"]["uplink_bytes"] < rows["fedavg_lora"]["uplink_bytes"]).all()
    assert rows["fedkd"].loc[1, "downlink_bytes"].max() < 2000  # nothing has changed yet
    assert rows["fedkd"].loc[2, "downlink_bytes"].min() > 2000
    ratio = rows["fedkd"]["flops_backward"] / rows["fedavg_lora"]["flops_backward"]
    assert ratio.to_numpy() == pytest.approx(
        3, rel=0.05
    )  # twice for the mentor's weights, once for the mentee


def test_what_goes_down_next_comes_back_with_a_checkpoint(run_settings):
    setup = prepare(parse(run_settings(method="fedkd")))
    one, two = FedKD.build(setup), FedKD.build(setup)
    one.way.now = 2
    one._newest = one._newest + np.random.default_rng(0).normal(size=len(one._newest)).astype(np.float32)
    one.way.end(one._newest)
    two.load(one.state())
    assert two.way.frame == one.way.frame
    np.testing.assert_array_equal(two.adapter_of(0), one.adapter_of(0))


@pytest.mark.parametrize(("key", "value"), [("fedavg.codec", "dyadic"), ("run.poison-devices", "0")])
def test_settings_of_weights_that_travel_otherwise_are_refused(key, value, run_settings):
    with pytest.raises(ConfigError, match=f"'{key}' = '{value}'"):
        prepare(parse(run_settings(method="fedkd", **{key: value})))
