"""R@k and median ranks of arms, against values computed by hand; what nobody changed stands there once."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from cdc_flower.tasks.retrieval import WAYS
from experiments.report import page, retrieval, summary
from experiments.report.notes import notes

BEFORE, AFTER = [1, 3, 12, 40], [1, 1, 5, 9]


def table(arm, last, read="bb", seeds=2):
    """Two devices of two captions, before and after round 4."""
    return pd.DataFrame(
        {"method": arm, "seed": seed, "round": round, "device": i // 2, "user": f"u{i // 2}"}
        | {"familiar": ("seen", "unseen")[i // 2], "way": way, "rank": rank}
        | {"read": "aa" if round == 0 else read}
        for seed in range(seeds)
        for round, ranks in ((0, BEFORE), (4, last))
        for way in WAYS
        for i, rank in enumerate(ranks)
    )


@pytest.fixture
def found(comparison):
    both = [table("static", BEFORE, "aa"), table("cdc", AFTER), table("fedavg_lora", BEFORE, "aa")]
    return replace(comparison, retrieval=pd.concat(both, ignore_index=True))


def test_shares_and_medians_are_those_of_the_ranks(found):
    got = retrieval.told(found.retrieval, "cdc")
    assert got["adapted"]
    assert got["text to clip"]["all"] == {
        "before": {"R@1": 0.25, "R@5": 0.5, "R@10": 0.5, "median rank": 7.5},
        "after": {"R@1": 0.5, "R@5": 0.75, "R@10": 1.0, "median rank": 3.0},
    }
    assert got["clip to text"]["unseen"]["after"]["R@5"] == 0.5
    assert not retrieval.told(found.retrieval, "static")["adapted"]


def test_an_arm_that_changed_nothing_it_reads_is_named_once(found):
    assert [row[:2] for row in retrieval.rows(found)] == [
        ("as shipped", WAYS[0]),
        ("as shipped", WAYS[1]),
        ("cdc", WAYS[0]),
        ("cdc", WAYS[1]),
    ]
    first = retrieval.rows(found)[0]
    assert [cell.partition(" ")[0] for cell in first[2:]] == ["25.0", "50.0", "50.0", "7.5"]
    assert next(n for n in notes(found) if "as shipped: nothing" in n).startswith(
        "Retrieval of static, fedavg_lora is that of the student as shipped"
    )
    heads, cells = retrieval.devices(found)
    assert heads[-2:] == ["as shipped", "cdc"]
    assert cells[0] == ("0", "u0", "seen", "2", "50 100 100 / 2", "100 100 100 / 1")


def test_it_stands_in_summary_and_report_and_nowhere_without(comparison, found):
    assert (retrieval.columns(comparison), retrieval.rows(comparison)) == ([], [])
    assert retrieval.devices(comparison) == ([], [])
    said = summary.summary(found)
    jsonschema.validate(said, json.loads(Path("docs/summary.schema.json").read_text()))
    assert "retrieval" not in said["methods"]["fedprox_lora"]
    assert "<h2>Retrieval</h2>" not in page.render(comparison)
    rendered = page.render(found).replace("\u00a0", " ")
    assert all(f">{cell}</t" in rendered for cell in retrieval.rows(found)[2])
