"""Blocks are merged by those who trained them, within what each may hold and what training can do."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.models.adapters import Layout
from cdc_flower.wire import keys
from cdc_flower.wire.blocks import Blocks
from cdc_flower.wire.frame import FrameError
from strategies.eclm import ECLM, Mix
from strategies.run import prepare, run_local

LAYOUT = Layout(("m.layers.0.a", "m.layers.1.a", "m.norm"), ((4,), (4,), (2,)))


def playing(heard=None):
    made = ECLM()
    made.blocks, made.shares = Blocks.read(LAYOUT), [0.5, 1.0]
    made.base = made.flat = np.zeros(10, np.float32)
    made.own, made.order = {}, {"epochs": 2, "batch": 4, "lr": 0.01}
    made.most, made.reads = 8, 3
    made.fleet = SimpleNamespace(receive=lambda *_: heard, computed=lambda _: {})
    return made


def test_a_weight_is_the_mean_of_those_who_trained_it_by_their_examples():
    heard = {
        0: Mix([0], np.full(4, 1, np.float16), 1),
        1: Mix([0, 2], np.array([5, 5, 5, 5, 7, 7], np.float16), 3),
    }
    made = playing(heard)
    made.aggregate_train(1, [])
    assert made.flat.tolist() == [4.0] * 4 + [0.0] * 4 + [7.0] * 2
    assert made.adapter_of(0).tolist() == [1.0] * 4 + [0.0] * 6  # its own blocks, as it trained them
    assert made.adapter_of(2).tolist() == [0.0] * 10
    again = playing()
    again.load(made.state())
    assert again.flat.tolist() == made.flat.tolist()
    assert again.adapter_of(1).tolist() == made.adapter_of(1).tolist()
    assert again.own[1].examples == 3


@pytest.mark.parametrize(
    ("device", "mix", "value", "refused"),
    [
        (0, [0], 0.01, ""),
        (0, [0, 1], 0.01, "up to 5"),
        (1, [0, 1], 0.01, ""),
        (1, [0], 0.9, "most of training"),
    ],
)
def test_more_than_a_share_and_more_than_training_are_refused(device, mix, value, refused):
    made = playing()
    frame = made.blocks.encode(mix, np.full(10, value, np.float32))
    reply = SimpleNamespace(frame=frame, metrics={keys.EXAMPLES: 8})
    if refused:
        with pytest.raises(FrameError, match=refused):
            made._take(device, reply)
    else:
        assert made._take(device, reply).value.blocks == mix


@pytest.mark.slow
def test_a_run_gives_each_device_a_mix_and_sends_it_alone(run_settings):
    settings = run_settings(method="eclm", rounds=2, least=0.3)
    made = ECLM.build(prepare(parse(settings)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ECLM, "build", classmethod(lambda cls, setup: made))
        found = results.read(run_local(parse(settings)))
    assert set(found.devices["status"]) == {"ok"}
    sizes = {device: len(mix.values) for device, mix in made.own.items()}
    assert sizes[2] == len(made.base) > 3 * sizes[0]
    down = found.devices[found.devices["round"] == 2].set_index("device")["downlink_bytes"]
    assert 2 * sizes[0] < down[0] < 2 * sizes[0] + 500 < down[2]
