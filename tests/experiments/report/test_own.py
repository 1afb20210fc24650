"""Devices on their own items: means and intervals, against values computed by hand."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from experiments.report import own, page, summary
from experiments.report.notes import notes

USERS, SEEDS, ITEMS = 40, 5, 10


def table(hard, arm="cdc", seeds=SEEDS, named=True, ahead=0.0):
    """Each seed gives its devices the users in an order of its own; user u answers 10 * hard[u] + ahead."""
    rows = []
    for seed in range(seeds):
        for device, user in enumerate(np.random.default_rng(seed).permutation(len(hard))):
            rows += [
                {
                    **{"method": arm, "seed": seed, "round": round, "device": device},
                    **{"user": f"u{user}" if named else "", "domain": "source"},
                    "familiar": "seen" if user < len(hard) // 2 else "unseen",
                    "worth": (10 * hard[user] + ahead) * (round == 4),
                    "items": ITEMS,
                }
                for round in (0, 4)
            ]
    return pd.DataFrame(rows)


@pytest.fixture
def hard():
    return np.random.default_rng(7).uniform(0.2, 0.8, USERS)


def width(rows):
    low, high = own.interval(rows)
    return high - low


def test_the_last_evaluation_counts_and_the_familiar_are_apart(hard):
    found = table(hard)
    assert own.kinds(found) == ["seen", "unseen", "all"]
    assert own.mean(own.last(found, "cdc")) == pytest.approx(hard.mean())
    assert own.mean(own.last(found, "cdc", "unseen")) == pytest.approx(hard[USERS // 2 :].mean())
    assert own.mean(own.last(found, "static")) is None


def test_users_that_all_seeds_share_are_not_counted_as_others_in_each(hard):
    """The half width is 1.96 deviations of the mean over users; more seeds of the same users add nothing."""
    expected = 2 * 1.96 * hard.std() / USERS**0.5
    assert width(own.last(table(hard), "cdc")) == pytest.approx(expected, rel=0.1)
    assert width(own.last(table(hard, seeds=1), "cdc")) == pytest.approx(expected, rel=0.1)
    nobody = own.last(table(hard, named=False), "cdc")
    assert width(nobody) == pytest.approx(expected / SEEDS**0.5, rel=0.1)


def test_what_is_hard_for_both_arms_is_not_in_their_difference(hard):
    mine, theirs = own.last(table(hard, ahead=1.0), "cdc"), own.last(table(hard), "cdc")
    apart, (low, high) = own.difference(mine, theirs)
    assert (apart, low, high) == pytest.approx((0.1, 0.1, 0.1))
    assert own.difference(mine, theirs[theirs["seed"] > 0]) is None
    assert own.difference(mine, theirs.iloc[:0]) is None


def test_one_device_of_one_seed_has_no_interval(hard):
    mine, theirs = (own.last(table(hard[:1], seeds=1, ahead=more), "cdc") for more in (1.0, 0.0))
    assert own.interval(mine) is None
    assert own.difference(mine, theirs) == (pytest.approx(0.1), None)
    assert own.interval(own.last(table(hard[:2], seeds=1), "cdc")) is not None
    both = pd.concat([table(hard[:1], "static", seeds=1), table(hard[:1], seeds=1, ahead=1.0)])
    assert own.figures(both, "cdc")["all"]["ci95"] is None


def test_it_stands_in_summary_report_and_notes_and_nowhere_without(comparison, hard):
    assert (own.columns(comparison), own.rows(comparison)) == ([], [])
    assert "own items" not in " ".join(notes(comparison))
    both = pd.concat([table(hard, "static"), table(hard, "cdc", ahead=1.0)])
    some = replace(comparison, personal=both)
    assert own.columns(some) == ["method", "seen devices %", "unseen devices %", "all devices %"]
    assert [row[0] for row in own.rows(some)] == ["static", "cdc"]
    said = summary.summary(some)
    jsonschema.validate(said, json.loads(Path("docs/summary.schema.json").read_text()))
    assert said["methods"]["cdc"]["own"]["all"]["accuracy"] == pytest.approx(hard.mean() + 0.1)
    assert said["methods"]["cdc"]["own"]["unseen"]["devices"] == USERS // 2
    assert "own" not in said["methods"]["fedprox_lora"]
    rendered = page.render(some)
    cells = ("<h2>Devices on their own items</h2>", *own.rows(some)[1])
    assert [cell for cell in cells if cell not in rendered.replace("\xa0", " ")] == []
    assert [line for line in notes(some) if line.startswith("static against cdc on devices' own")] == [
        "static against cdc on devices' own items, points: seen -10.0 [-10.0, -10.0], unseen -10.0 "
        "[-10.0, -10.0], all -10.0 [-10.0, -10.0]."
    ]
