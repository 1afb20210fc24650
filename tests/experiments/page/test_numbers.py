"""The intervals of the page against cases that can be computed by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.page import cells, numbers
from experiments.page.plan import TEACHER, Cell


def runs(rates, items=400, pairs=("",)):
    """(pair, seed) -> answers of which a share is right, the same items right in all runs where it can be."""
    return {
        (pair, seed): {
            "source": np.zeros(items),
            "object": (np.arange(items) < round(rate * items)).astype(float),
        }
        for pair in pairs
        for seed, rate in enumerate(rates)
    }


def test_equal_runs_leave_the_spread_of_the_items_alone():
    low, high = numbers.bootstrap(runs([0.8, 0.8, 0.8]), draws=8000)
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5  # the same items in all runs: three runs are no more items
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.006)


def test_items_that_say_nothing_leave_the_spread_of_the_seeds_alone():
    answers = {("", seed): {"object": np.full(50, value)} for seed, value in enumerate((0.0, 1.0))}
    assert numbers.bootstrap(answers) == (0.0, 1.0)  # both of one seed: a draw in four, on either side
    one = {("", 0): {"object": np.full(50, 0.5)}}
    assert numbers.bootstrap(one) == pytest.approx((0.5, 0.5))


def test_pairs_are_drawn_before_seeds():
    answers = {(pair, seed): {"object": np.full(9, float(pair == "b"))} for pair in "ab" for seed in range(9)}
    assert numbers.bootstrap(answers) == (0.0, 1.0)  # as of two runs, though there are eighteen
    alone = {("a", i): of for i, of in enumerate(answers.values())}
    low, high = numbers.bootstrap(alone, draws=8000)
    assert (high - low) / 2 == pytest.approx(1.96 * (0.25 / 18) ** 0.5, abs=0.03)


def test_domains_count_alike_and_the_source_not_at_all():
    answers = {("", 0): {"source": np.zeros(3), "object": np.ones(90), "question": np.zeros(10)}}
    assert numbers.bootstrap(answers) == pytest.approx((0.5, 0.5))


def test_without_equal_items_there_is_no_interval():
    assert numbers.bootstrap({}) is None
    assert numbers.bootstrap({("", 0): {"source": np.ones(3)}}) is None
    assert numbers.bootstrap({("", 0): {"a": np.ones(3)}, ("", 1): {"a": np.ones(4)}}) is None


def test_groups_of_items_have_the_spread_of_the_items():
    worth = np.random.default_rng(1).random(2000) < 0.8
    items = pd.DataFrame({"domain": "object", "worth": worth.astype(float)})
    each, grouped = (
        numbers.bootstrap({("", 0): cells.unpacked(cells.packed(items, alone=alone))})
        for alone in (True, False)
    )
    assert sum(grouped) / 2 == pytest.approx(worth.mean(), abs=0.002)
    assert grouped[1] - grouped[0] == pytest.approx(each[1] - each[0], rel=0.3)
    few = cells.unpacked(cells.packed(items[:15], alone=False))
    assert numbers.bootstrap({("", 0): few}) is None


def test_where_a_curve_reaches_a_level():
    points = [(0.9, 0.8), (0.6, 0.4), (0.75, 0.6)]
    assert numbers.crossing(points, 0.5) == pytest.approx(0.675)
    assert numbers.crossing(points, 0.8) == pytest.approx(0.9)
    assert numbers.crossing(points, 0.9) is None
    assert numbers.crossing([], 0.5) is None


def test_rows_compare_by_seed_and_item_and_measure_the_gap(making, plan):
    making(seeds=2)
    part = plan.parts["main"]
    static, cdc, random = numbers.rows(part, "scenes", numbers.load(making.folder, plan))
    assert (static.acc_drift, cdc.acc_drift) == pytest.approx((0.405, 0.855))  # seed 1 adds 0.01
    assert static.difference == pytest.approx(-0.45)
    assert static.difference_ci is None  # two seeds
    assert static.difference_items_ci == pytest.approx(
        (0.0, 0.0)
    )  # the stand-in answers the same items in all arms
    assert (cdc.to, cdc.difference, random.to) == (None, None, "cdc")
    assert cdc.forgetting == pytest.approx(0.02)
    assert cdc.gap_closed == pytest.approx((0.855 - 0.405) / (0.9 - 0.405))
    assert (cdc.seeds, cdc.items) == (2, 4)
    assert cdc.counts["uplink_bytes"] == 800
    taught = numbers.teacher(part, "scenes", numbers.load(making.folder, plan))
    assert (taught.source, taught.on_test, taught.on_stream) == pytest.approx((0.9, 0.9, 0.8))


def test_runs_of_one_pair_are_no_independent_pairs():
    one = [("", seed) for seed in range(3)]
    assert numbers.over(one, [0.1, 0.2, 0.3]) == numbers.interval([0.1, 0.2, 0.3])
    assert numbers.over(one[:2], [0.1, 0.2]) is None
    several = [(pair, seed) for pair in "abc" for seed in range(2)]
    found = numbers.over(several, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert found == pytest.approx(numbers.interval([0.1, 0.2, 0.3]))


def test_each_pair_counts_alike_however_many_runs_it_has():
    several = [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    assert numbers.mean(several, [0.1, 0.2, 0.3, 0.6]) == pytest.approx(0.4)
    assert numbers.mean(several[:3], [0.1, 0.2, 0.3]) == pytest.approx(0.2)


def test_a_count_is_the_mean_of_the_means_of_pairs():
    several = {("a", 0): {"n": 1}, ("a", 1): {"n": 3}, ("b", 0): {"n": 6}, ("b", 1): {}}
    assert numbers._counted(several, "n") == pytest.approx(4)
    assert numbers._counted({("a", 0): {}}, "n") is None


def test_arms_of_two_pairs_are_compared_by_the_seeds_that_both_have():
    part: Any = SimpleNamespace(seeds=4, pairs={"signs": ("a", "b")})

    def of(arm, pair, values):
        return {
            Cell("signs", pair, arm, seed).path: {"accuracy": {"object": [[0, 0.0], [9, value]]}}
            for seed, value in values.items()
        }

    figures = {
        **of("cdc", "b", {0: 0.5, 1: 0.6, 2: 0.7}),
        **of("fedavg", "a", {0: 0.4, 1: 0.5, 2: 0.9, 3: 0.1}),
    }
    found = numbers.across(part, "signs", figures, ("cdc", "b"), ("fedavg", "a"))
    assert found is not None
    assert found[0] == pytest.approx(0.0)
    assert found[1] == pytest.approx(numbers.interval([0.1, 0.1, -0.2]))
    assert numbers.across(part, "signs", figures, ("cdc", "a"), ("fedavg", "a")) is None


def test_the_teacher_of_a_pair_with_more_cells_counts_no_more():
    part: Any = SimpleNamespace(seeds=3, pairs={"signs": ("a", "b")})
    figures = {
        Cell("signs", pair, TEACHER, seed).path: {
            "on_test": {"source": value, "object": value},
            "on_stream": {"object": value} if pair == "a" else {},
        }
        for pair, seed, value in (("a", 0, 0.9), ("a", 1, 0.9), ("a", 2, 0.9), ("b", 0, 0.6))
    }
    found = numbers.teacher(part, "signs", figures)
    assert found is not None
    assert (found.source, found.on_test, found.on_stream) == pytest.approx((0.75, 0.75, 0.9))
    assert numbers.teacher(part, "signs", {}) is None
