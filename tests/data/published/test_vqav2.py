"""VQAv2: every question with its ten answers, whatever the order of the files."""

import json

import pytest

from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.files import Source
from cdc_flower.data.published.vqav2 import vqav2
from cdc_flower.tasks import TASKS, Truths
from tests import published_files


def test_questions_and_annotations_meet_by_their_number(tmp_path):
    published_files.vqav2(tmp_path, train=[1, 2], val=[3])
    train, test = vqav2(Source(tmp_path, print))
    assert (train.split, len(train.rows), test.split, len(test.rows)) == ("train", 6, "test", 3)
    rows = {(r["image_id"], r["qtype"]): r for r in train.rows.to_pylist()}
    assert sorted({image for image, _ in rows}) == ["coco/000000000001", "coco/000000000002"]
    number = rows["coco/000000000002", "number"]
    assert number["question"] == "how many circles?"
    assert number["answer"] == "2"
    assert number["answers"] == ["2"] * 6 + ["two"] * 3 + ["3"]
    assert (number["question_type"], number["task"], number["domain"]) == ("how many", "vqa", "vqav2")
    truths = Truths(test.rows.to_pandas())
    worth = TASKS["by-row"].fit(truths)
    assert {worth("Two", truth) for truth in truths} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        (
            "questions",
            lambda told: told["questions"].pop(),
            r"annotations\.json: question_id 2002 is not in v2_",
        ),
        ("questions", lambda told: told.pop("questions"), "no list 'questions' in it; found: info"),
        (
            "questions",
            lambda told: told["questions"][1].pop("image_id"),
            r"questions\[1\]: field 'image_id' is m",
        ),
        (
            "annotations",
            lambda told: told["annotations"][2].pop("answers"),
            r"annotations\[2\]: field 'answers'",
        ),
        (
            "annotations",
            lambda told: told["annotations"][0].update(answers=[{}]),
            r"answers\[0\]: field 'answer'",
        ),
    ],
)
def test_what_is_not_of_the_published_form_is_named(tmp_path, file, change, named):
    published_files.vqav2(tmp_path, train=[1, 2], val=[3])
    (path,) = tmp_path.glob(f"v2_*train2014_{file}.json")
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(PackError, match=named):
        vqav2(Source(tmp_path, print))
