"""MSRVTT-QA, MSR-VTT captions and ActivityNet-QA: columns, parts, and what a file may not say."""

from __future__ import annotations

import json

import pytest

from cdc_flower.data.pictures import PackError
from cdc_flower.data.published import DATA_SETS
from cdc_flower.data.published.clips import KINDS
from cdc_flower.data.published.files import Source
from tests import published_files as files


def read(name, folder):
    """The parts of a data set by split, as lists of rows, and what was said."""
    said: list[str] = []
    parts = [part for of in DATA_SETS[name] for part in of(Source(folder, said.append))]
    assert all(part.clips for part in parts)
    return {part.split: part.rows.to_pylist() for part in parts}, said


def test_msrvtt_qa_has_the_kind_of_its_first_word_and_the_category(tmp_path):
    files.msrvtt_qa(tmp_path)
    parts, said = read("msrvtt-qa", tmp_path)
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 8, "test": 6}
    first, second = parts["train"][:2]
    assert first["image_id"] == "msrvtt/video0"
    assert (first["question"], first["answer"], first["answers"]) == ("What is it?", "dog", ["dog"])
    assert (first["qtype"], second["qtype"]) == ("what", "who")
    assert (first["domain"], first["task"]) == ("category 0", "exact")
    assert said == ["msrvtt-qa: its part 'val' is left out, as there is 'test'"]


def test_the_validation_part_is_the_test_split_where_there_is_no_other(tmp_path):
    files.msrvtt_qa(tmp_path, train=[0], val=[4])
    parts, said = read("msrvtt-qa", tmp_path)
    assert [row["image_id"] for row in parts["test"]] == ["msrvtt/video4"] * 2
    assert said == []


@pytest.mark.parametrize("one_file", [True, False])
def test_all_captions_of_a_video_are_answers_to_one_question(one_file, tmp_path):
    files.msrvtt_captions(tmp_path, one_file)
    parts, _ = read("msrvtt-captions", tmp_path)
    assert [len(parts[split]) for split in ("train", "test")] == [4, 3]
    last = parts["test"][-1]
    assert last["image_id"] == "msrvtt/video8"
    assert last["answers"] == ["a dog runs", "video 8 of a man"]
    assert (last["answer"], last["qtype"], last["domain"]) == ("a dog runs", "caption", "category 2")


def test_activitynet_qa_joins_questions_and_answers_by_their_numbers(tmp_path):
    files.activitynet_qa(tmp_path)
    parts, said = read("activitynet-qa", tmp_path)
    assert [len(parts[split]) for split in ("train", "test")] == [36, 18]
    assert {(row["question"], row["qtype"]) for row in parts["train"]} == {
        (f"what of {number}", kind) for number, kind in enumerate(KINDS)
    }
    assert {row["image_id"] for row in parts["test"]} == {"activitynet/v_f", "activitynet/v_g"}
    assert said == ["activitynet-qa: its part 'val' is left out, as there is 'test'"]


def changed(path, change):
    """The JSON file, changed in place."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("name", "file", "change", "named"),
    [
        ("msrvtt-qa", "qa/train_qa.json", lambda d: d[1].pop("answer"), r"\[1\]: field 'answer' is missing"),
        (
            "msrvtt-qa",
            "qa/train_qa.json",
            lambda d: d[0].update(video_id=1.5),
            "'video_id' is float, not str",
        ),
        ("msrvtt-qa", "qa/train_qa.json", lambda d: d[0].update(category_id="x"), "'category_id' is str"),
        (
            "msrvtt-captions",
            "MSRVTT_data.json",
            lambda d: d["sentences"][2].update(video_id="video77"),
            r"sentences\[2\]: a caption of video_id 'video77', which is not in 'videos'",
        ),
        (
            "msrvtt-captions",
            "MSRVTT_data.json",
            lambda d: [one.update(split="dev") for one in d["videos"]],
            "no captions of a split; allowed: train, validate, test",
        ),
        (
            "activitynet-qa",
            "dataset/test_a.json",
            lambda d: d[3].update(question_id="x"),
            r"\[3\]: question_id 'x' is not in test_q.json",
        ),
        ("activitynet-qa", "dataset/test_a.json", lambda d: d[0].update(type=9), "type 9; allowed: 0 to 8"),
    ],
)
def test_what_is_not_in_the_published_form_is_refused_by_its_place(name, file, change, named, tmp_path):
    for write in (files.msrvtt_qa, files.msrvtt_captions, files.activitynet_qa):
        write(tmp_path)
    changed(tmp_path / file, change)
    with pytest.raises(PackError, match=named):
        read(name, tmp_path)


@pytest.mark.parametrize("name", ["msrvtt-qa", "msrvtt-captions", "activitynet-qa"])
def test_absent_files_are_named(name, tmp_path):
    with pytest.raises(PackError, match=rf"{name}: '.*json' or '.*json'.* is not in"):
        read(name, tmp_path)


def test_one_of_two_files_is_not_enough(tmp_path):
    files.activitynet_qa(tmp_path)
    (tmp_path / "dataset/test_a.json").unlink()
    with pytest.raises(PackError, match=r"activitynet-qa: 'test_a\.json' is not in"):
        read("activitynet-qa", tmp_path)
