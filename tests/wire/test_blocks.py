"""Blocks of an adapter go over the wire whole, and hostile bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.models.adapters import Layout
from cdc_flower.wire.blocks import Blocks, block_of
from cdc_flower.wire.frame import FrameError

NAMES = ("m.embed_tokens.A", "m.layers.0.q.A", "m.layers.0.q.B", "m.layers.11.norm", "m.lm_head.A", "m.norm")
LAYOUT = Layout(NAMES, ((3, 2), (2, 2), (2, 2), (5,), (4, 2), (7,)))
BLOCKS = Blocks.read(LAYOUT)


def test_a_block_is_a_layer_or_what_lies_around_the_layers():
    assert BLOCKS.names == ("embedding", "layer 0", "layer 11", "head", "rest")
    assert BLOCKS.sizes.tolist() == [6, 8, 5, 8, 7]
    assert block_of("base.multi_modal_projector.linear_1.weight") == "projector"
    assert BLOCKS.places([1, 3]).tolist() == [*range(6, 14), *range(19, 27)]


@pytest.mark.parametrize("mix", [[0], [1, 3], [0, 1, 2, 3, 4]])
def test_some_blocks_come_back_as_float16_and_nothing_else_goes(mix):
    flat = np.random.default_rng(0).normal(size=LAYOUT.total).astype(np.float32)
    data = BLOCKS.encode(mix, flat)
    assert len(data) == 1 + 2 * BLOCKS.sizes[mix].sum()
    found, values = BLOCKS.decode(data)
    assert found == mix
    np.testing.assert_array_equal(values, flat[BLOCKS.places(mix)].astype(np.float16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x20" + b"\x00" * 12,
        b"\x01" + b"\x00" * 11,
        b"\x01" + b"\x00" * 13,
        b"\x01" + b"\xff" * 12,
    ],
)
def test_what_is_no_mix_of_blocks_is_refused(data):
    with pytest.raises(FrameError):
        BLOCKS.decode(data)


def test_a_device_gets_the_blocks_that_are_worth_most_a_weight_within_its_share():
    worth = np.array([60.0, 8.0, 10.0, 16.0, 0.0])  # a weight: 10, 1, 2, 2, 0
    assert BLOCKS.fitting(worth, 1.0) == [0, 1, 2, 3, 4]
    assert BLOCKS.fitting(worth, 12 / 34) == [0, 2]
    assert BLOCKS.fitting(worth, 6 / 34) == [0]
    assert BLOCKS.fitting(worth, 0.01) == [2]  # none fits: the smallest
