"""A change by its singular values: exact where all stay, short where few do, and no bytes end anything."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.downlink.low_rank import WHOLE, beyond, decode, encode, longest
from cdc_flower.wire.frame import FrameError, Kind, envelope, pack

SHAPES = ((16, 40), (30,), (3, 2), (64, 16))
SIZE = 16 * 40 + 30 + 6 + 64 * 16


def change(rank=3, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            (rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[-1]))).ravel()
            if len(shape) == 2
            else rng.normal(size=shape)
            for shape in SHAPES
        ]
    ).astype(np.float32)


def test_a_change_of_low_rank_is_short_and_exact_but_for_float16():
    made = change(rank=2)
    frame = encode(made, SHAPES, energy=1 - 1e-9)
    assert len(frame) == envelope(2) + 2 * 4 + 2 * (2 * (16 + 40) + 30 + 6 + 2 * (64 + 16))
    np.testing.assert_allclose(decode(frame, SHAPES), made, atol=2e-2)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_the_fewest_singular_values_that_hold_the_energy_stay(energy):
    made = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    back = decode(encode(made, SHAPES, energy), SHAPES)
    matrix, got = (x[-64 * 16 :].reshape(64, 16) for x in (made, back))
    values = np.linalg.svd(matrix, compute_uv=False) ** 2
    rank = np.linalg.matrix_rank(got, tol=0.1)
    assert values[:rank].sum() >= energy * values.sum() or rank == 16
    if rank < 12:  # from 13 on the factors would be no shorter: it is whole
        assert values[: rank - 1].sum() < energy * values.sum()
        np.testing.assert_allclose(((matrix - got) ** 2).sum(), values[rank:].sum(), rtol=1e-2)


def test_no_change_takes_no_values_and_the_longest_frame_is_whole():
    nothing = encode(np.zeros(SIZE, np.float32), SHAPES, 0.95)
    assert len(nothing) == envelope(2) + 2 * len(SHAPES)
    assert not decode(nothing, SHAPES).any()
    whole = np.random.default_rng(2).normal(size=SIZE).astype(np.float32)
    assert len(encode(whole, SHAPES, 1.0)) == longest(SHAPES)


def test_what_is_too_far_is_seen_tensor_by_tensor():
    made = np.full(SIZE, 0.01, np.float32)
    assert beyond(decode(encode(made, SHAPES, 0.9), SHAPES), SHAPES, 0.01) == 0
    assert beyond(made * 3, SHAPES, 0.01) == 4
    made[640:670] = 1
    assert beyond(made, SHAPES, 0.01) == 1


def section(*ranks):
    return np.array(ranks, "<u2").tobytes()


@pytest.mark.parametrize(
    ("ranks", "values", "says"),
    [
        (section(0, 0, 0), b"", "4 ranks in the first"),
        (section(0, 1, 0, 0), b"\x00" * 2 * 30, "rank 1 of"),
        (section(12, 0, 0, 0), b"\x00" * 2 * 12 * 56, "rank 12 of"),
        (section(1, 0, 0, 0), b"\x00" * 2, "2 bytes of values; allowed: 112"),
        (section(0, 0, WHOLE, 0), b"\x00\x7c" * 6, "not finite"),
    ],
)
def test_frames_that_say_something_else_are_refused(ranks, values, says):
    with pytest.raises(FrameError, match=says):
        decode(pack(Kind.LOW_RANK, ranks, values), SHAPES)


def test_another_kind_is_refused():
    with pytest.raises(FrameError, match="expected 4"):
        decode(pack(Kind.UPDATE, section(0, 0, 0, 0), b""), SHAPES)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_comes_is_a_change_or_one_error(ranks, values):
    for data in (values, pack(Kind.LOW_RANK, ranks, values)):
        with suppress(FrameError):
            assert decode(data, SHAPES).shape == (SIZE,)
