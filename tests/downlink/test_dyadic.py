"""Claims about the codec `dyadic`: its size is near the entropy, its dead zone fills the budget, sums are
exact.
"""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.downlink import dyadic
from cdc_flower.wire import coder, columns
from cdc_flower.wire.frame import FrameError
from tests import memory


def _laplace(n, seed=0, scale=1e-3):
    return np.random.default_rng(seed).laplace(scale=scale, size=n).astype(np.float32)


def _error(x, y):
    return float(np.sqrt(((x - y).astype(np.float64) ** 2).sum() / (x.astype(np.float64) ** 2).sum()))


def test_more_bytes_never_mean_more_error():
    x = _laplace(10_000)
    payloads = [dyadic.encode(x, [10_000], budget) for budget in (1, 100, 400, 1600, 6400, 9000)]
    errors = [_error(x, dyadic.decode(payload, [10_000])) for payload in payloads]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == 1.0


def _best_uniform(x, budget):
    """Error of the best step of any size, without dead zone or models per tensor, at the entropy of its
    symbols."""
    errors = []
    for step in np.abs(x).max() * 2.0 ** -np.arange(0, 8, 0.05):
        q = np.sign(x) * np.floor(np.abs(x) / step + 0.4)
        share = np.unique(q, return_counts=True)[1] / len(q)
        if -(share * np.log2(share)).sum() * len(q) / 8 <= budget:
            errors.append(_error(x, (q * step).astype(np.float32)))
    return min(errors)


@pytest.mark.parametrize("budget", [200, 1000, 8000])
@pytest.mark.parametrize("scale", [1e-3, 1.4e-3])
def test_the_dead_zone_fills_the_budget_on_powers_of_two(budget, scale):
    x, sizes = _laplace(40_000, scale=scale), [10_000] * 4
    payload = dyadic.encode(x, sizes, budget)
    assert 0.97 * budget < len(payload) <= budget
    step, _ = dyadic.read(payload, sizes)
    assert np.frexp(step)[0] == 0.5
    back = dyadic.decode(payload, sizes)
    assert (back / step == np.rint(back / step)).all()
    assert _error(x, back) < 1.12 * _best_uniform(x, budget)


def test_values_of_one_size_are_sent_where_their_signs_fit():
    x = 1e-3 * np.random.default_rng(0).choice([-1, 1], 43_000).astype(np.float32)
    for budget in (6000, 20_000):
        payload = dyadic.encode(x, [43_000], budget)
        assert 43_000 / 8 < len(payload) <= budget
        assert _error(x, dyadic.decode(payload, [43_000])) < 0.3


@pytest.mark.parametrize("tensors", [57, 500])
def test_a_budget_that_holds_nothing_ends_in_nothing(tensors):
    assert dyadic.encode(_laplace(20 * tensors), [20] * tensors, 20) == dyadic.ALL_ZERO


VALUES = st.tuples(st.integers(-(2**23), 2**23), st.integers(-20, -14))


@given(st.lists(st.lists(VALUES, max_size=8), max_size=6))
def test_exact_differences_come_back_bit_for_bit(tensors):
    delta = np.array([whole * 2.0**octave for t in tensors for whole, octave in t])
    sizes = [len(t) for t in tensors]
    payload = dyadic.encode_exact(delta, sizes)
    assert payload is not None
    assert dyadic.decode(payload, sizes).astype(np.float64).tobytes() == (delta + 0.0).tobytes()


@pytest.mark.parametrize("value", [2.0**-25, 1 / 3, 1 + 2.0**-24, 2.0**29, 2.0**30, np.inf, np.nan])
def test_what_is_no_multiple_of_the_finest_step_has_no_exact_payload(value):
    assert dyadic.encode_exact(np.array([0.5, value]), [2]) is None


def test_an_exact_payload_costs_its_entropy():
    table = np.rint(np.random.default_rng(0).laplace(scale=2, size=50_000))
    share = np.unique(table, return_counts=True)[1] / len(table)
    payload = dyadic.encode_exact(table / 32, [1000] * 50)
    assert payload is not None
    assert len(payload) < 1.01 * -(share * np.log2(share)).sum() * len(table) / 8


def _two_levels(n):
    rng = np.random.default_rng(0)
    x, order, sign = np.zeros(n, np.float32), rng.permutation(n), rng.choice([-1, 1], n)
    x[order[:300]] = rng.uniform(1, 1.5, 300)
    x[order[300 : 300 + n // 2]] = 0.1 + 1e-4 * rng.standard_normal(n // 2)
    return x * sign.astype(np.float32)


@pytest.mark.parametrize("budget", [600, 1000, 1500, 3000, 6000])
def test_values_of_two_levels_are_sent_though_bytes_jump_between_them(budget):
    x = _two_levels(60_000)
    payload = dyadic.encode(x, [60_000], budget)
    assert len(payload) <= budget
    assert _error(x, dyadic.decode(payload, [60_000])) < 0.68


def test_a_cheap_delta_stops_at_the_error_floor():
    x = _laplace(1000)
    payload = dyadic.encode(x, [1000], 10**6)
    assert len(payload) < 2300
    assert 0.3e-4 < _error(x, dyadic.decode(payload, [1000])) < 1.3e-4


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.integers(1, 200))
def test_every_element_is_zeroed_below_a_step_or_within_a_step(values, budget):
    x = np.array(values, np.float32)
    payload = dyadic.encode(x, [len(x)], budget)
    y = dyadic.decode(payload, [len(x)])
    if payload == dyadic.ALL_ZERO:
        assert not y.any()
        return
    step, _ = dyadic.read(payload, [len(x)])
    assert (np.abs(x.astype(np.float64) - y)[y != 0] <= step * 1.01).all()
    assert ((y == 0) | (np.signbit(x) == np.signbit(y))).all()


def test_the_whole_payload_is_within_three_percent_of_positions_and_values():
    x = _laplace(100_000)
    payload = dyadic.encode(x, [10_000] * 10, 8000)
    y = dyadic.decode(payload, [10_000] * 10)
    levels, counts = np.unique(y, return_counts=True)
    shares = counts / len(y)
    entropy = float(-(shares * np.log2(shares)).sum()) * len(y) / 8
    assert len(levels) > 2
    assert len(payload) <= 1.03 * entropy


def test_tensors_of_unlike_scale_get_their_own_models():
    x = np.concatenate([_laplace(20_000, 0, 1.0), _laplace(20_000, 1, 0.2), np.zeros(20_000, np.float32)])
    sizes = [20_000] * 3
    one = dyadic.encode(x, [60_000], 15_000)
    three = dyadic.encode(x, sizes, 15_000)
    assert _error(x, dyadic.decode(three, sizes)) < 0.9 * _error(x, dyadic.decode(one, [60_000]))


def test_classes_of_interleaved_tensors_come_back_over_many_parts():
    rng = np.random.default_rng(0)
    sizes = [30_000, 1, 50_000, 0, 40_000, 70_000, 33_000, 20_000]
    scales = (1.0, 1.0, 0.1, 1.0, 1.0, 0.1, 1.0, 0.02)
    x = (rng.laplace(size=sum(sizes)) * np.repeat(scales, sizes)).astype(np.float32)
    payload = dyadic.encode(x, sizes, 80_000)
    _, classes = dyadic.read(payload, sizes)
    assert len(classes) > 1
    assert max(c.count for c in classes) > 2 * dyadic._PART
    y = dyadic.decode(payload, sizes)
    assert _error(x, y) < 0.2
    assert np.array_equal(np.signbit(x[y != 0]), np.signbit(y[y != 0]))


@pytest.mark.parametrize("bits", [0.8, 4.0])
def test_memory_stays_within_three_times_the_adapter(bits):
    n = 10**6
    x, sizes = _laplace(n), [n // 50] * 50
    payload = dyadic.encode(x, sizes, round(n * bits / 8))
    for call in (lambda: dyadic.encode(x, sizes, round(n * bits / 8)), lambda: dyadic.decode(payload, sizes)):
        assert memory.peak(call, calls=1) <= 3 * x.nbytes


def test_nothing_to_send_costs_one_byte():
    for x in (np.zeros(5, np.float32), np.zeros(0, np.float32), np.full(5, 1e-45, np.float32)):
        assert dyadic.encode(x, [len(x)], 100) == b"\x00"
    assert dyadic.encode(_laplace(5), [5], 1) == b"\x00"


def test_a_lone_outlier_does_not_cost_the_others_their_place():
    x = _laplace(10_000)
    x[77] = 1e6
    y = dyadic.decode(dyadic.encode(x, [10_000], 10**5), [10_000])
    assert y[77] == pytest.approx(1e6, rel=2e-4)


def _payload(
    octave=0, sent=1, labels=(1,), counts=(1,), classes=None, signs=b"\0", streams=((3,), (0,)), of=5
):
    column = columns.pack_column(np.array(labels), 1)
    return b"".join(
        (
            struct.pack("<Bb", sent, octave),
            columns.varint(len(column)),
            column,
            bytes((len(counts) if classes is None else classes,)),
            *map(columns.varint, counts),
            signs,
            coder.encode([np.array(s) for s in streams], [(max(counts[0], 1), of), dyadic.EVEN]),
        )
    )


def test_the_payload_is_laid_out_as_documented():
    assert dyadic.decode(_payload(), [5]).tolist() == [0, 0, 0, 1, 0]
    two = _payload(octave=-1, counts=(2,), signs=b"\x40", streams=((0, 1), (0, 1)), of=3)
    assert dyadic.decode(two, [3]).tolist() == [0.5, 0, -1]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "cut short in its head"),
        (_payload(sent=3), "begins with 3"),
        (_payload(octave=-127), r"step 2\*\*-127"),
        (_payload(labels=(2,)), "1 classes, map up to 2"),
        (_payload(classes=16), "16 classes"),
        (_payload(counts=(6,)), "6 non-zero symbols in a class of 5"),
        (_payload(counts=(0,), signs=b"", streams=()), "0 non-zero symbols"),
        (_payload(streams=((5,), (0,))), "position 5 in a class of 5"),
        (_payload()[:4], "class map"),
        (_payload() + b"x", "raw bits"),
        (_payload(signs=b"\1"), "signs: padding that is not zero"),
    ],
)
def test_a_damaged_payload_is_named(payload, says):
    with pytest.raises(FrameError, match=says):
        dyadic.decode(payload, [5])
