"""The first screen says what was compared and who came first, whichever way the numbers fall."""

import re
from dataclasses import replace

import pytest

from experiments.report import first
from tests.experiments.report.made import TRAITS, made


def test_what_was_compared_is_one_sentence(tmp_path):
    said = first.compared(made(tmp_path, {"static": [10, 11], "cdc": [70, 71]}))
    assert said == (
        "On the data “scenes”, models on 10 devices met objects that they were not trained on, for 2 "
        "rounds; static and cdc were to keep their answers right, each in 2 runs of different seeds, judged "
        "by 100 questions about what was new that nothing was learned from."
    )


def test_many_arms_are_counted_and_names_with_a_comma_are_quoted():
    arms = [f"a{i}" for i in range(9)]
    assert (
        first.named({"methods": arms, "arms": {arm: {"run.method": "cdc"} for arm in arms}}) == "9 variants"
    )
    assert first.named({"methods": ["a, b", "c"], "arms": {}}) == "“a, b” and c"


@pytest.mark.parametrize(
    ("right", "said"),
    [
        pytest.param(
            {"static": [10], "cdc": [73]},
            "First is cdc (73.0 % right, 2 MB sent, no true labels), 63.0 points ahead of static (10.0 % "
            "right, the model as shipped); that lead lies between +53.5 and +72.5 (95 % interval over "
            "questions), but one seed was run, and another may end otherwise.",
            id="one seed",
        ),
        pytest.param(
            {"static": [10, 11, 12], "cdc": [70, 73, 74]},
            "First is cdc (72.3 % right, 2 MB sent, no true labels), 61.3 points ahead of static (11.0 % "
            "right, the model as shipped); that lead lies between +58.5 and +64.2 (95 % interval over 3 "
            "seeds).",
            id="seeds",
        ),
        pytest.param(
            {"cdc": [70], "fedavg_lora": [71]},
            "No winner can be named: fedavg_lora (71.0 % right, 30 MB sent, with true labels, training on "
            "devices) is 1.0 points ahead of cdc (70.0 % right, 2 MB sent, no true labels), which may be "
            "chance; cdc sent the least; the lead over cdc lies between -1.0 and +3.0 (95 "
            "% interval over questions), but one seed was run, and another may end otherwise.",
            id="a tie",
        ),
        pytest.param(
            {"static": [10, 12, 11], "cdc": [70, 71, 72], "labelled": [72, 71, 71]},
            "No winner can be named: labelled (71.3 % right, 2 MB sent, with true labels) is 0.3 points "
            "ahead of cdc (71.0 % right, 2 MB sent, no true labels), which may be chance; "
            "60.3 points behind is static (11.0 % right, the model as shipped); the lead over cdc lies "
            "between -3.5 and +4.1 (95 % interval over 3 seeds).",
            id="a tie over seeds",
        ),
        pytest.param(
            {"static": [10], "cdc": [60], "labelled": [75], "fedavg_lora": [68]},
            "First is labelled (75.0 % right, 2 MB sent, with true labels), 7.0 points ahead of fedavg_lora "
            "(68.0 % right, 30 MB sent, with true labels, training on devices), and 15.0 points ahead of the "
            "best without true labels, cdc (60.0 % right, 2 MB sent, no true labels); the first lead lies "
            "between +2.0 and +12.0 (95 % interval over questions), but one seed was run, and another may "
            "end otherwise.",
            id="a ceiling with labels",
        ),
        pytest.param(
            {"static": [50], "cdc": [30]},
            "Nothing did better than no change at all: first is static (50.0 % right, the model as shipped), "
            "20.0 points ahead of cdc (30.0 % right, 2 MB sent, no true labels); that lead lies between "
            "+12.1 and +27.9 (95 % interval over questions), but one seed was run, and another may end "
            "otherwise.",
            id="harm",
        ),
        pytest.param(
            {"cdc": [73]},
            "It ended as cdc (73.0 % right, 2 MB sent, no true labels) after 10.0 % right as shipped; "
            "nothing else was run to compare it with, and its share lies between 64.3 and 81.7 (95 % "
            "interval over questions), but one seed was run, and another may end otherwise.",
            id="one method",
        ),
        pytest.param(
            {"static": [10]},
            "Nothing was tried but static (10.0 % right, the model as shipped), so there is no winner.",
            id="only static",
        ),
    ],
)
def test_who_came_first_at_what_cost_and_how_sure_that_is(tmp_path, right, said):
    assert first.verdict(made(tmp_path, right)) == said


def test_shares_and_their_difference_agree(tmp_path):
    said = first.verdict(made(tmp_path, {"static": [63, 63, 63, 64], "cdc": [73, 73, 73, 74]}))
    assert "cdc (73.3 % right" in said
    assert "10.0 points ahead of static (63.3 % right" in said


def test_ties_of_many_arms_name_two(tmp_path):
    said = first.verdict(made(tmp_path, {arm: [70] for arm in TRAITS}))
    assert "labelled (70.0 % right, 2 MB sent, with true labels) and 2 others, which may be chance" in said
    assert "one run cannot say how sure the lead over cdc is" in said
    said = first.verdict(made(tmp_path / "two", {arm: [70, 70] for arm in TRAITS}))
    assert "runs that are all alike cannot say how sure the lead over cdc is" in said


def test_where_answers_were_not_kept_one_run_cannot_say_how_sure_it_is(tmp_path):
    said = first.verdict(made(tmp_path, {"static": [10], "cdc": [73]}, answers=False))
    assert said.startswith("No winner can be named: ")
    assert said.endswith("one run cannot say how sure the lead over static is.")


def test_where_nothing_drifts_what_was_known_counts(tmp_path):
    comparison = made(tmp_path, {"static": [80], "cdc": [95]}, drift=False)
    assert "met only what they were trained on" in first.compared(comparison)
    assert "judged by 100 questions that nothing was learned from" in first.compared(comparison)
    assert first.verdict(comparison).startswith("First is cdc (95.0 % right")


def test_devices_with_their_own_items_are_judged_by_those(tmp_path):
    comparison = made(tmp_path, {"static": [10], "cdc": [73]}, personal=True)
    assert "judged by 200 questions of the devices' own that" in first.compared(comparison)
    assert "(95 % interval over devices), but one seed was run" in first.verdict(comparison)
    several = made(tmp_path / "b", {"static": [10, 12], "cdc": [73, 74]}, personal=True)
    assert first.verdict(several).endswith("(95 % interval over 2 seeds and their devices).")


def test_runs_that_did_not_end_name_no_winner(tmp_path):
    comparison = made(tmp_path, {"static": [10], "cdc": [73]})
    stopped = replace(comparison, runs=comparison.runs.assign(status=["completed", "interrupted"]))
    assert first.verdict(stopped).startswith("No winner can be named: 1 of 2 runs did not end")
    nothing = replace(comparison, methods=comparison.methods[:0])
    assert first.verdict(nothing).startswith("No run has come to an evaluation")


def test_a_sentence_is_one(tmp_path):
    for i, right in enumerate(
        ({"static": [10]}, {"static": [10], "cdc": [70]}, {"cdc": [1], "labelled": [1]})
    ):
        for said in first.sentences(made(tmp_path / str(i), right)):
            assert len(re.findall(r"\.(?= |$)", said)) == 1
