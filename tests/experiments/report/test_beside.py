"""Results side by side: differences by seed, and a warning where they are not of one problem."""

import re

import pandas as pd
import pytest

from cdc_flower.config import ConfigError
from experiments.report import beside
from tests.experiments.report.made import made

PROBLEM = {"data_digest": "d" * 64, "pair_digest": "p" * 64, "data.pack": "scenes", "run.rounds": 2}


def result(folder, right, **others):
    """A result that is named as its folder."""
    found = made(folder, right, answers=others.pop("answers", True))
    return beside.Result(folder.name, found, {**PROBLEM, **others})


def test_an_arm_is_set_against_the_first_result_seed_by_seed(tmp_path):
    found = [
        result(tmp_path / "A", {"static": [10, 12, 11], "cdc": [60, 70, 80]}),
        result(tmp_path / "B", {"cdc": [66, 75, 87], "fedavg_lora": [50, 50, 50]}),
    ]
    rows = beside.rows(found)
    assert [(row.arm, row.result.name) for row in rows] == [
        ("static", "A"),
        ("cdc", "A"),
        ("cdc", "B"),
        ("fedavg_lora", "B"),
    ]
    assert beside.cells(rows, found[0])[2] == (
        *("cdc", "B", "76.0 ±26.2", "2 MB", "3", "A", "+6.0", "+3.5 to +8.5", "3 seeds"),
    )
    assert beside.cells(rows, found[0])[3][5:] == ("", "", "", "")
    what, came = beside.sentences(found, rows)
    assert what == (
        "Side by side are 2 results, A (static and cdc) and B (cdc and fedavg_lora), judged by held-out "
        "questions about what was new."
    )
    assert came == "cdc is 6.0 points better in B than in A (95 % interval +3.5 to +8.5)."
    assert beside.unlike(found) == []


def test_a_difference_that_may_be_chance_is_called_that(tmp_path):
    found = [result(tmp_path / "A", {"cdc": [70, 71]}), result(tmp_path / "B", {"cdc": [69, 71]})]
    _, came = beside.sentences(found, beside.rows(found))
    assert (
        came == "cdc is 0.5 points worse in B than in A (not told apart from 0: 95 % interval -6.9 to +5.9)."
    )


def test_of_one_seed_questions_are_paired_where_both_met_the_same_data(tmp_path):
    first, second = result(tmp_path / "A", {"cdc": [70]}), result(tmp_path / "B", {"cdc": [75]})
    cells = beside.cells(beside.rows([first, second]), first)
    assert cells[1][-3:] == ("+5.0", "+0.7 to +9.3", "questions of one seed")
    other = second._replace(problem={**PROBLEM, "data_digest": "e" * 64})
    cells = beside.cells(beside.rows([first, other]), first)
    assert cells[1][-3:] == ("+5.0", "not known", "other data")


@pytest.mark.parametrize("rights", [[70], [70, 72]])
@pytest.mark.parametrize("personal", [False, True])
def test_the_same_answers_are_called_that(tmp_path, rights, personal):
    one, other, third = (
        beside.Result(name, made(tmp_path / name, {"cdc": right}, personal=personal), PROBLEM)
        for name, right in (("A", rights), ("B", rights), ("C", [right + 1 for right in rights]))
    )
    rows = beside.rows([one, other, third])
    assert [row.same for row in rows] == [False, True, False]
    assert beside.cells(rows, one)[1][-3:-1] == ("+0.0", "same answers")
    assert beside.sentences([one, other], rows[:2])[1] == "cdc has the same answers right in B as in A."
    elsewhere = other._replace(problem={**PROBLEM, "data_digest": "e" * 64})
    assert not beside.rows([one, elsewhere])[1].same


def test_as_many_right_answers_are_not_the_same_ones(tmp_path):
    one, other = result(tmp_path / "A", {"cdc": [70]}), result(tmp_path / "B", {"cdc": [70]})
    items = pd.read_parquet(tmp_path / "B/runs/cdc-0/items.parquet")
    items.assign(worth=items["worth"].to_numpy()[::-1]).to_parquet(tmp_path / "B/runs/cdc-0/items.parquet")
    assert not beside.rows([one, other])[1].same
    (tmp_path / "B/runs/cdc-0/items.parquet").unlink()
    assert not beside.rows([one, other])[1].same


def test_words_that_the_page_does_not_use_are_not_explained(tmp_path):
    found = [result(tmp_path / "A", {"cdc": [70, 71]}), result(tmp_path / "B", {"cdc": [75, 79]})]
    words = re.findall("<dt>(.*?)</dt>", beside.render(found))
    assert {"seed", "bytes", "95 % interval", "held-out"} <= set(words)
    assert not {"GFLOP", "backprop", "gap closed", "forgets", "teacher, stream"} & set(words)


def test_an_arm_that_is_its_method_is_no_setting(tmp_path):
    found = [
        result(tmp_path / "A", {"cdc": [70]}),
        result(tmp_path / "B", {"cdc": [70], "fedavg_lora": [60]}),
    ]
    assert not any("run.method" in row[0] for row in beside.settings(found))
    found[1].made.index["arms"]["fedavg_lora"] = {"run.method": "fedavg_full", "fedavg.lr": 0.1}
    assert ("fedavg_lora: run.method", "-", "fedavg_full") in beside.settings(found)
    assert ("fedavg_lora: fedavg.lr", "-", "0.1") in beside.settings(found)


def test_what_differs_is_said_first_and_listed(tmp_path):
    found = [
        result(tmp_path / "A", {"cdc": [70, 71]}),
        result(tmp_path / "B", {"cdc": [70, 72]}, pair_digest="q" * 64, **{"run.rounds": 4}),
    ]
    found[1].made.index["config"]["run.rounds"] = 4
    assert beside.unlike(found) == [
        "pair digest is pppppppppppp in A and qqqqqqqqqqqq in B",
        "run.rounds is 2 in A and 4 in B",
    ]
    shown = beside.settings(found)
    assert ("data digest", "d" * 12, "d" * 12) in shown
    assert shown[-1] == ("run.rounds", "2", "4")
    page = beside.render(found)
    assert "<strong>These results are not of one problem:</strong> pair digest is" in page
    assert "cdc (A) 70.5" in page
    assert "not of one problem" not in beside.render([found[0], found[0]._replace(name="C")])


def test_nothing_is_concluded_from_what_did_not_end_or_has_no_arm_in_common(tmp_path):
    one, other = result(tmp_path / "A", {"cdc": [70]}), result(tmp_path / "B", {"static": [10]})
    assert beside.sentences([one, other], beside.rows([one, other]))[1].startswith(
        "No arm of one is in another"
    )
    other.made.index["status"] = "interrupted"
    assert "because B did not end" in beside.sentences([one, other], beside.rows([one, other]))[1]


def test_a_folder_is_read_once_and_named_by_itself(of_four):
    with pytest.raises(ConfigError, match="given twice"):
        beside.read([of_four.out, of_four.out])
    (only,) = beside.read([of_four.out])
    assert only.name == "out"
    assert only.problem["run.rounds"] == 4
    assert only.problem["data_digest"] == "d"
