"""`mmpg`: what goes down, whose it is, and what a liar or a stop in between can do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdc_flower import results
from cdc_flower.cloud.fda import Seen
from cdc_flower.config import ConfigError, parse
from cdc_flower.downlink import update
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import Batch, Sample
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.reply import Reply
from strategies.fleet import Asked
from strategies.mmpg import LATELY, Mmpg, _joined
from strategies.run import prepare, run_local


@pytest.fixture
def build(clip_settings):
    """A strategy whose hypernetwork was not trained but whose map is not zero."""

    def make(**more) -> Mmpg:
        made = Mmpg.build(prepare(parse(clip_settings(method="mmpg", **more))))
        torch.manual_seed(0)
        with torch.no_grad():
            made.adaptor.basis.normal_(std=0.1)
        return made

    return make


def sent(made: Mmpg, seed: int, samples: int = 3) -> Seen:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(samples, made.reader.size)).astype(np.float32)
    return Seen(rows, [rng.integers(0, made.shared.vocab, 4).tolist() for _ in range(samples)])


def generated(made: Mmpg, devices: int = 4) -> None:
    for device in range(devices):
        made.lately[device] = sent(made, device)
    for device in range(devices):
        made._generate(device, 1)


def test_every_device_decodes_its_own_adapter_from_version_0(build):
    made = build()
    generated(made)
    flats = [made.adapter_of(d) for d in range(4)]
    assert len({update.digest(flat) for flat in flats}) == 4
    for device, flat in enumerate(flats):
        frame = made._frame(made.given[device])
        assert update.stands_alone(frame, 10**6)
        assert len(frame) <= made.config.downlink.budget
        found, version = update.apply(frame, made.base, 0, made.layout.digest, made.layout.sizes, 10**6)
        np.testing.assert_array_equal(found, flat)
        assert version == 1
    np.testing.assert_array_equal(made.adapter_of(7), made.base)


def test_the_shuffled_control_gives_each_device_what_another_s_data_make(build):
    made, control = build(), build(**{"mmpg.summary": "shuffled"})
    generated(made)
    generated(control)
    other = control.apart
    assert other in (1, 2, 3)
    for device in range(4):
        np.testing.assert_array_equal(control.adapter_of(device), made.adapter_of((device + other) % 4))


def test_what_a_device_sent_lately_is_bounded_and_the_newest_stays(build):
    made = build()
    first, more = sent(made, 0, LATELY), sent(made, 1, 5)
    both = _joined(_joined(None, first), more)
    assert len(both.questions) == LATELY == len(both.features)
    np.testing.assert_array_equal(both.features[-5:], more.features)
    np.testing.assert_array_equal(both.features[0], first.features[5])
    assert both.questions[-1] == more.questions[-1]


def test_its_state_brings_back_what_was_sent_and_given_bit_for_bit(build):
    made, again = build(), build()
    generated(made)
    made.heard = {0: (1, made.given[0].digest), 2: (0, b"12345678")}
    made.metrics = {"answered": 3.0}
    shown = Sample(0, made.shared.grid, np.arange(3, dtype=np.uint16), [3], [], 0.0)
    made.examples.keep([(Batch(1, 1, 0, (shown,)), shown)], [""])
    again.load(made.state())
    for device in range(3):
        np.testing.assert_array_equal(again.adapter_of(device), made.adapter_of(device))
        np.testing.assert_array_equal(again.lately[device].features, made.lately[device].features)
        assert again.lately[device].questions == made.lately[device].questions
    assert (again.heard, again.metrics) == (made.heard, made.metrics)
    assert again.examples.written() == made.examples.written() != "[]"
    lost = {0: made.given[0].digest, 1: b"12345678", 9: b"87654321"}
    assert list(again.restored(lost)) == [made.given[0].digest]


def test_a_run_sends_each_device_its_adapter_once_and_moves_no_label_and_no_answer(clip_settings):
    settings = clip_settings(method="mmpg", rounds=2)
    found = results.read(run_local(parse(settings)))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    down = found.devices.groupby("round")["downlink_bytes"].max()
    assert down[1] < down[2]
    assert (found.devices["flops_backward"] == 0).all()
    assert (found.devices["uploaded_samples"] == parse(settings).run.samples_per_round).all()
    assert found.metrics.set_index("name").loc["generated", "value"].tolist() == [4, 4]
    assert found.summaries["device"].tolist() == [0, 1, 2, 3]
    assert set(found.pictures["device"]) == {0, 1, 2, 3}


def test_more_clips_than_asked_for_are_refused(build):
    made, device = build(**{"mmpg.clips": 1}), 1
    n = made.shared.n_tokens // made.shared.frames  # of one frame
    every = np.arange(n, dtype=np.uint16)
    tokens = np.ones((n, made.shared.width), np.float32)
    samples = tuple(Sample(i, made.shared.grid, every, [3], [], 0.0, tokens) for i in range(2))
    made.fleet._asked[device] = Asked(1, 0)

    def came(some: tuple[Sample, ...], by: int = device, round: int = 1):
        bits, transform = made.config.uplink.token_bits, made.shared.transform_for(made.config.uplink)
        frame = token_batch.encode(Batch(by, round, 0, some), made.shared.width, bits, transform)
        return made._came(device, Reply({}, {}, frame))

    assert np.isfinite(came(samples[:1]).seen.features).all()
    with pytest.raises(FrameError, match="anchor frames of 2 clips; allowed: 1"):
        came(samples)
    with pytest.raises(FrameError, match="the batch says device 2, round 1"):
        came(samples[:1], by=2)
    with pytest.raises(FrameError, match="not whole frames"):
        came((replace(samples[0], positions=every[1:], tokens=tokens[1:]),))
    with pytest.raises(FrameError, match="answer lengths"):
        came((replace(samples[0], answer_ids=[3]),))
    with pytest.raises(FrameError, match="no samples; allowed: at least one"):
        came(())


@pytest.mark.parametrize(
    "alike", [{"run.devices": 1}, {"data.partition": "iid"}, {"data.partition": "shared"}]
)
def test_a_shuffled_summary_is_refused_where_another_device_s_would_say_the_same(alike, clip_settings):
    told = {"method": "mmpg", "mmpg.summary": "shuffled", **alike}
    with pytest.raises(ConfigError, match=r"'mmpg.summary' = 'shuffled' with .*allowed: two devices or more"):
        run_local(parse(clip_settings(**told)))
