"""A-OKVQA in both settings: difficult questions are not answered directly, but have choices."""

import json

import pytest

from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.aokvqa import aokvqa, aokvqa_choice
from cdc_flower.data.published.files import Source
from cdc_flower.tasks import TASKS, Truths
from tests import published_files


def test_direct_answers_are_kept_but_of_difficult_questions(tmp_path):
    said = []
    published_files.aokvqa(tmp_path, train=range(1, 7), val=[9])
    train, test = aokvqa(Source(tmp_path, said.append))
    assert train.rows["image_id"].to_pylist() == [f"coco/{i:012d}" for i in (1, 2, 4, 5)]
    assert said == ["aokvqa_v1p0_train.json: 2 questions have difficult_direct_answer and are left out"]
    (row,) = test.rows.to_pylist()
    assert row["answers"] == ["circle"] * 5 + ["red"] * 3 + ["square"] * 2
    assert row["choices"] == ["play", "red", "circle", "two"]
    assert (row["question"], row["answer"], row["qtype"]) == ("what is it for?", "circle", "knowledge")
    (truth,) = Truths(test.rows.to_pandas())
    assert TASKS["by-row"].fit([truth])("square", truth) == pytest.approx(2 / 3)


def test_choices_are_in_the_words_and_the_right_one_is_the_label(tmp_path):
    published_files.aokvqa(tmp_path, train=range(1, 7), val=[9])
    train, test = aokvqa_choice(Source(tmp_path, print))
    assert len(train.rows) == 6
    (row,) = test.rows.to_pylist()
    assert row["question"] == "what is it for? Choices: play, red, circle, two."
    assert (row["answer"], row["answers"], row["task"]) == ("circle", ["circle"], "aokvqa-choice")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"difficult_direct_answer": None},
            r"train\.json: \[0\]: field 'difficult_direct_answer' is NoneType",
        ),
        ({"direct_answers": []}, r"\[0\]: field 'direct_answers' must be a list of texts"),
        ({"image_id": "1"}, r"\[0\]: field 'image_id' is str, not int"),
        ({"choices": "a"}, r"\[0\]: field 'choices' is str, not list"),
    ],
)
def test_what_is_not_of_the_published_form_is_named(tmp_path, change, named):
    published_files.aokvqa(tmp_path, train=[1], val=[9])
    path = tmp_path / "aokvqa" / "aokvqa_v1p0_train.json"
    path.write_text(json.dumps([{**json.loads(path.read_text())[0], **change}]))
    with pytest.raises(PackError, match=named):
        aokvqa(Source(tmp_path, print))


def test_a_right_choice_that_was_not_offered_is_named(tmp_path):
    published_files.aokvqa(tmp_path, train=[1], val=[9])
    path = tmp_path / "aokvqa" / "aokvqa_v1p0_train.json"
    path.write_text(json.dumps([{**json.loads(path.read_text())[0], "correct_choice_idx": 4}]))
    with pytest.raises(PackError, match="'correct_choice_idx' = 4 of 4 choices"):
        aokvqa_choice(Source(tmp_path, print))
