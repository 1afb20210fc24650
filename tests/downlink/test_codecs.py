"""Claims about every codec: deterministic, finite, within its budget and its declared error; bad input is an
error.
"""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc_flower.downlink import baselines
from cdc_flower.downlink.codecs import BY_ID, CODECS
from cdc_flower.wire.frame import FrameError

FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1e-45, -3.4e38]
)
TENSORS = st.lists(st.lists(FLOAT, max_size=12), max_size=5)
ALL = pytest.mark.parametrize("name", list(CODECS))


def _vector(tensors):
    return np.array([v for t in tensors for v in t], np.float32), [len(t) for t in tensors]


@given(TENSORS, st.integers(1, 400), st.sampled_from(list(CODECS)))
@example([], 1, "dyadic")
@example([[], [0.0], []], 1, "dyadic")
@example([[3.4028234e38]], 400, "dyadic")
@example([[1e-45, 1e-38, 1.0]], 400, "dyadic")
@example([[1e30, 1.0]], 400, "int8")
@example([[3.4028234e38, -1.0]], 400, "nf4")
@example([[3.4028234e38, 3.4028234e38, 1e-45]], 400, "stc")
@example([[3.4028234e38, 3.4028234e38, 1e-45]], 400, "topk_int4")
def test_any_finite_delta_goes_through(tensors, budget, name):
    delta, sizes = _vector(tensors)
    codec = CODECS[name]
    payload = codec.encode(delta, sizes, budget)
    back = codec.decode(payload, sizes)
    assert back.dtype == np.float32
    assert back.shape == delta.shape
    assert np.isfinite(back).all()
    assert payload == codec.encode(delta, sizes, budget)
    if codec.budgeted:
        assert len(payload) <= budget


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@ALL
def test_nan_and_infinity_are_not_encoded(name, bad):
    with pytest.raises(ValueError, match="1 elements that are NaN or infinite"):
        CODECS[name].encode(np.array([1, bad], np.float32), [2], 100)


@ALL
def test_arguments_that_do_not_fit_are_named(name):
    encode, x = CODECS[name].encode, np.ones(3, np.float32)
    with pytest.raises(ValueError, match="sizes sum to 4, delta has 3"):
        encode(x, [4], 100)
    with pytest.raises(ValueError, match="float64"):
        encode(x.astype(np.float64), [3], 100)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="budget of 0 bytes"):
        encode(x, [3], 0)


def test_ids_are_those_of_the_wire_format():
    assert {i: c.name for i, c in BY_ID.items()} == {
        1: "dyadic",
        2: "fp16",
        3: "int8",
        4: "topk",
        5: "nf4",
        6: "topk_int4",
        7: "stc",
    }


def _delta(seed=0, n=20_000):
    return np.random.default_rng(seed).laplace(scale=1e-3, size=n).astype(np.float32)


def _error(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(np.sqrt(((x - y) ** 2).sum() / (x**2).sum()))


def test_fp16_errs_by_half_precision_and_saturates():
    x = np.array([0.1, -0.0, 7e4, -1e30, 6e-8], np.float32)
    back = CODECS["fp16"].decode(CODECS["fp16"].encode(x, [5], 1), [5])
    assert back.tolist() == [float(np.float16(0.1)), 0.0, 65504.0, -65504.0, float(np.float16(6e-8))]
    assert np.signbit(back[1])


def test_int8_errs_by_at_most_half_a_step_of_each_tensor():
    x = _delta()
    x[:5000] *= 1000
    sizes = [5000, 0, 15_000]
    payload = CODECS["int8"].encode(x, sizes, 1)
    assert len(payload) == 20_000 + 12
    error = np.abs(CODECS["int8"].decode(payload, sizes) - x)
    for part in (slice(0, 5000), slice(5000, None)):
        assert error[part].max() <= np.abs(x[part]).max() / 254 * (1 + 1e-5)


def test_topk_keeps_exactly_the_largest_and_ties_by_place():
    x = np.array([1, -3, 2, 3, 0, 3], np.float32)
    back = CODECS["topk"].decode(CODECS["topk"].encode(x, [6], 13), [6])
    assert back.tolist() == [0, -3, 0, 3, 0, 0]
    assert len(CODECS["topk"].encode(x, [6], 10**6)) == 5 * 6


@given(TENSORS.filter(lambda t: any(t)))
def test_nf4_errs_by_at_most_half_its_widest_gap_of_the_largest_of_64(tensors):
    x, sizes = _vector(tensors)
    payload = CODECS["nf4"].encode(x, sizes, 1)
    assert len(payload) == 4 * -(-len(x) // 64) + (len(x) + 1) // 2
    peak = max(float(np.abs(x).max()), 1e-30)
    assert (np.abs(x.astype(np.float64) - CODECS["nf4"].decode(payload, sizes)) <= 0.152 * peak).all()


def test_nf4_is_exact_on_its_own_code_book():
    x = np.tile((baselines.NF4_CODE * 4).astype(np.float32), 8)
    back = CODECS["nf4"].decode(CODECS["nf4"].encode(x, [128], 1), [128])
    assert np.array_equal(back, x)


@given(TENSORS, st.integers(1, 300))
def test_topk_int4_errs_by_a_fourteenth_of_a_scale_where_it_sends(tensors, budget):
    x, sizes = _vector(tensors)
    back = CODECS["topk_int4"].decode(CODECS["topk_int4"].encode(x, sizes, budget), sizes)
    for a, b in zip(np.split(x, np.cumsum(sizes)), np.split(back, np.cumsum(sizes)), strict=True):
        sent, peak = b != 0, float(np.abs(a).max(initial=0))
        assert (np.abs(a.astype(np.float64) - b)[sent] <= max(peak / 14 * (1 + 1e-5), 1e-44)).all()


@given(TENSORS, st.integers(1, 300))
def test_stc_sends_signs_and_one_magnitude_per_tensor(tensors, budget):
    x, sizes = _vector(tensors)
    back = CODECS["stc"].decode(CODECS["stc"].encode(x, sizes, budget), sizes)
    for a, b in zip(np.split(x, np.cumsum(sizes)), np.split(back, np.cumsum(sizes)), strict=True):
        sent = b != 0
        assert len(set(np.abs(b[sent]).tolist())) <= 1
        assert (np.signbit(a[sent]) == np.signbit(b[sent])).all()
        if sent.any():
            assert abs(b[sent][0]) == pytest.approx(np.abs(a[sent].astype(np.float64)).mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["topk_int4", "stc"])
@pytest.mark.parametrize("budget", [300, 1500])
def test_sparse_codecs_use_their_budget(name, budget):
    payload = CODECS[name].encode(_delta(), [10_000, 10_000], budget)
    assert 0.98 * budget < len(payload) <= budget


def test_positions_of_stc_cost_what_choosing_them_costs():
    x = np.zeros(100_000, np.float32)
    where = np.random.default_rng(0).choice(100_000, 1000, replace=False)
    x[where] = 1.0
    payload = CODECS["stc"].encode(x, [100_000], 10**6)
    limit = math.log2(math.comb(100_000, 1000)) / 8
    assert len(payload) - 4 - 125 < 1.01 * limit + 12


def test_dyadic_needs_a_sixth_of_the_bytes_of_topk_at_equal_error():
    x = _delta(n=50_000)
    topk = CODECS["topk"].encode(x, [50_000], 30_000)
    target = _error(x, CODECS["topk"].decode(topk, [50_000]))
    small = CODECS["dyadic"].encode(x, [50_000], 4_700)
    assert _error(x, CODECS["dyadic"].decode(small, [50_000])) < target


def test_the_same_bytes_in_another_process():
    code = (
        "import numpy as np; from cdc_flower.downlink.codecs import CODECS; import hashlib\n"
        "x = np.sin(np.arange(3000, dtype=np.float64) ** 1.5).astype(np.float32) ** 5\n"
        "for c in CODECS.values():\n"
        "    p = c.encode(x, [1000, 2000], 900)\n"
        "    print(hashlib.blake2b(p + c.decode(p, [1000, 2000]).tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].split()) == len(CODECS)


@given(st.binary(max_size=60), st.lists(st.integers(0, 40), max_size=4), st.sampled_from(list(CODECS)))
def test_any_bytes_decode_or_raise_a_frame_error(payload, sizes, name):
    try:
        back = CODECS[name].decode(payload, sizes)
    except FrameError:
        return
    assert back.shape == (sum(sizes),)
    assert np.isfinite(back).all()


@pytest.mark.parametrize(
    ("name", "payload", "says"),
    [
        ("fp16", b"\0" * 3, "3 bytes for 2 elements"),
        ("fp16", np.array([np.inf, 0], "<f2").tobytes(), "not finite"),
        ("int8", b"\0" * 5, "5 bytes, 1 tensors, 2 elements"),
        ("int8", np.array([np.nan], "<f4").tobytes() + b"\0\0", "not finite"),
        ("int8", np.array([-1], "<f4").tobytes() + b"\0\0", "negative scale"),
        ("int8", np.array([1], "<f4").tobytes() + b"\x80\0", "symbol -128"),
        ("topk", b"\0" * 7, "not pairs of 6"),
        ("topk", np.array([2], "<u4").tobytes() + b"\0\0", "rise strictly below 2"),
        ("topk", np.array([1, 1], "<u4").tobytes() + b"\0\0\0\0", "rise strictly"),
        ("topk", np.array([1], "<u4").tobytes() + np.array([np.nan], "<f2").tobytes(), "not finite"),
        ("nf4", b"\0" * 6, "6 bytes for 2 elements in 1 blocks"),
        ("nf4", np.array([np.inf], "<f4").tobytes() + b"\0", "not finite"),
        ("nf4", np.array([-1], "<f4").tobytes() + b"\0", "negative scale"),
        ("stc", b"", "count: integer cut short"),
        ("stc", b"\3", "3 values of 2 elements"),
        ("stc", b"\0\0", "bytes after an empty update"),
        ("stc", b"\1\7\0\1", "cut short in its gaps"),
        ("stc", b"\1\6\2\1\0\0\0\0", "position 2 in a vector of 2"),
        ("stc", b"\1\6\1\1\0\0\0\0\0", "cut short in its scales"),
        ("stc", b"\1\6\1\1\0\0\0\0" + np.array([1], "<f4").tobytes(), "0 bytes for 1 bits"),
        ("stc", b"\1\6\1\1\0\0\0\0" + np.array([1], "<f4").tobytes() + b"\x01", "signs: padding"),
        (
            "topk_int4",
            b"\1\6\1\1\0\0\0\0" + np.array([1], "<f4").tobytes(),
            "0 bytes for 1 symbols of 4 bits",
        ),
        ("topk_int4", b"\1\6\1\1\0\0\0\0" + np.array([1], "<f4").tobytes() + b"\0", "symbol -8"),
        ("topk_int4", b"\1\6\1\1\0\0\0\0" + np.array([1], "<f4").tobytes() + b"\x11", "padding"),
    ],
)
def test_a_damaged_payload_is_named(name, payload, says):
    with pytest.raises(FrameError, match=says):
        CODECS[name].decode(payload, [2])


def test_top_k_never_needs_more_than_its_pairs():
    assert len(CODECS["topk"].encode(np.ones(1, np.float32), [1], 6)) == baselines.PAIR
