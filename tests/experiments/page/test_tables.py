"""Tables say what the cells say, and no figure between the marks of a document was typed."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.page import numbers, tables
from experiments.page import plan as planning

ROOT = Path(__file__).parents[3]


def test_a_table_has_a_row_an_arm_and_the_command_that_makes_it(making, plan):
    making(seeds=2)
    made = tables.blocks(plan, numbers.load(making.folder, plan))
    lines = made["main scenes"].splitlines()
    assert lines[0].startswith(
        "| method | labels | backprop | source | drift | drift, items too | gap closed |"
    )
    assert lines[3].startswith("| cdc | no | no | 88.0 | 85.5 | [")  # two seeds have no interval over seeds
    assert "+2.0 | 800 B | 80 B | 8 |" in lines[3]
    assert lines[5].startswith("| teacher |  |  | 90.0 | 90.0 (on the stream 80.0) |")
    assert lines[-1] == "Shares are of 4 held-out questions. Made by `cdc-flower page --only main,scenes`."
    assert made["main emoji"] == "Not made yet: `cdc-flower page --only main,emoji`.\n"
    assert set(made) == {
        *("main scenes", "main emoji", "main summary", "main by domain"),
        *("ladder scenes", "budgets scenes", "crossing scenes"),
    }


def test_a_summary_has_a_line_an_arm_with_all_data(making, plan):
    making(only=("main",), seeds=2)
    lines = tables.blocks(plan, numbers.load(making.folder, plan))["main summary"].splitlines()
    assert lines[0].startswith(
        "| method | scenes: drift | forgets | emoji: drift | forgets | scenes: bytes |"
    )
    assert lines[2].startswith("| cdc | 85.5 | +2.0 |  |  | 880 B | 8 | ")  # emoji was not made
    assert lines[3].startswith("| random tokens | ")
    assert lines[4] == "| teacher, of what devices meet | 80.0 |  |  |  |  |  |  |"
    assert lines[-1] == "Made by `cdc-flower page --only main`."


def test_a_summary_of_nothing_is_empty_lines(plan):
    made = tables.blocks(plan, {})
    assert made["main summary"].splitlines()[2] == "| cdc |  |  |  |  |  |  |  |"
    assert made["main by domain"].splitlines()[2] == "| cdc |"


def test_the_arms_of_a_summary_are_shown_by_domain(making, plan):
    making(only=("main", "scenes", "cdc"), seeds=2)
    lines = tables.blocks(plan, numbers.load(making.folder, plan))["main by domain"].splitlines()
    assert lines[0] == "| method | scenes: object | scenes: question |"
    assert lines[2] == "| cdc | 85.5 | 85.5 |"
    assert lines[3] == "| random tokens |  |  |"


def test_budgets_name_variant_and_arm(making, plan):
    making(only=("budgets", "scenes"))
    lines = tables.blocks(plan, numbers.load(making.folder, plan))["budgets scenes"].splitlines()
    assert [line[:15] for line in lines[2:4]] == ["| 1 kB | cdc | ", "| 2 kB | cdc | "]


@pytest.mark.parametrize(
    ("drift", "said"),
    [
        (0.6, "1 kB (50 %)"),
        (0.7, "2 kB (100 %)"),
        (0.5, "less than 1 kB, its least"),
        (0.9, "not with 4 kB, its most"),
    ],
)
def test_budgets_say_with_how_many_bytes_cdc_is_where_another_arm_is(drift, said):
    other: Any = SimpleNamespace(counts={"uplink_bytes": 2000.0}, acc_drift=drift)
    points = [(math.log(bytes_), share) for bytes_, share in ((1000, 0.6), (2000, 0.7), (4000, 0.8))]
    assert tables._as_much(points, other) == said
    assert tables._as_much([], other) == ""


def test_more_bytes_that_did_worse_do_not_hide_that_fewer_are_enough():
    other: Any = SimpleNamespace(counts={"uplink_bytes": 1000.0}, acc_drift=0.65)
    falling = [(math.log(1000), 0.7), (math.log(2000), 0.6)]
    assert tables._as_much(falling, other) == "less than 1 kB, its least"


def test_the_arm_of_a_variant_is_compared_with_by_its_plain_name(making, page_file):
    text = page_file.read_text().replace('kind = "budget"', 'arms = ["random tokens"]')
    page_file.write_text(text)
    plan = planning.read(page_file)
    making(only=("budgets", "scenes"), of=plan)
    heads, *rows = tables._main(plan.parts["budgets"], "scenes", numbers.load(making.folder, plan))
    assert [row[0] for row in rows][1::2] == ["random tokens, 1 kB", "random tokens, 2 kB"]
    assert heads[-2] == "drift − cdc"


@pytest.mark.parametrize(("runs", "said"), [((3,), "3"), ((3, 3), "2 x 3"), ((3, 1, 2), "3 + 1 + 2")])
def test_a_row_says_the_seeds_of_each_pair(runs, said):
    row: Any = SimpleNamespace(runs=runs, seeds=max(runs))
    assert tables._runs(row) == said


def test_a_crossing_has_a_row_a_teacher_and_says_where_curves_meet(making, plan, monkeypatch, tmp_path):
    from experiments.run import pairs

    monkeypatch.setattr(pairs, "folder", lambda name: tmp_path / name)
    (tmp_path / "weak").mkdir()
    (tmp_path / "weak/pair.json").write_text("{}")
    making(only=("crossing", "scenes"))
    lines = tables.blocks(plan, numbers.load(making.folder, plan))["crossing scenes"].splitlines()
    assert lines[0] == "| teacher on the stream | teacher on test | cdc | cdc forgets | cdc − fedprox_lora |"
    assert lines[2] == lines[3] == "| 80.0 | 90.0 | 85.0 | +2.0 | -5.0 |"
    assert lines[4] == "| the other arm itself |  |  |  | 90.0 |"
    assert lines[5] == "| the lines cross |  |  |  | with none of these |"


@pytest.mark.parametrize(
    ("level", "ci", "said"),
    [
        (0.5, None, "at 67.5"),
        (0.5, (0.4, 0.9), "at 67.5 [60.0, nowhere]"),
        (0.3, (0.2, 0.4), "with all of these"),
        (0.9, None, "with none of these"),
    ],
)
def test_where_a_line_reaches_an_arm_has_the_interval_of_the_arm(level, ci, said):
    row: Any = SimpleNamespace(acc_drift=level, drift_ci=ci)
    assert tables._place([(0.6, 0.4), (0.9, 0.8)], row) == said
    assert tables._place([], row) == ""


def test_what_stands_between_marks_is_made_anew_and_nothing_else():
    text = "before\n<!-- page: main scenes -->\nold\n<!-- /page -->\nafter\n"
    made = {"main scenes": "new\n"}
    assert tables.filled(text, made) == text.replace("old", "new")
    assert tables.filled(tables.filled(text, made), made) == text.replace("old", "new")
    with pytest.raises(ValueError, match="mark 'page: main scenes'; allowed: other"):
        tables.filled(text, {"other": ""})


@pytest.mark.parametrize(
    ("value", "ci", "shown"), [(-0.031, None, "-3.1"), (0.02, (0.01, 0.03), "+2.0 ±1.0"), (0.0, None, "0.0")]
)
def test_differences_have_signs(value, ci, shown):
    assert tables.signed(value, ci) == shown


def test_the_documents_say_what_the_committed_cells_say():
    plan, folder = planning.read(), ROOT / "docs" / "results"
    made = tables.blocks(plan, numbers.load(folder, plan))
    texts = {folder / name: text for name, text in tables.documents(plan, made).items()}
    for path in tables.marked(folder):
        texts[path] = tables.filled(path.read_text(), made)
    wrong = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
    assert wrong == [], "run `cdc-flower page --tables`"
