"""A folder of videos and a table become a pack of clips; what cannot is one line, and nothing is written."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from cdc_flower.data.pictures import PackError
from cdc_flower.data.video import Sampling
from cdc_flower.data.video_folder import from_videos
from tests import videos
from tests.data.test_video import is_of


def row(i, **more):
    return {"file": f"of/{i}.mp4", "question": f"what is {i}?", "answer": f"a{i}"} | more


def folder(tmp_path, rows, name="about.csv"):
    """Four videos of 3, 4, 5 and 6 frames, and a table."""
    source = tmp_path / "source"
    for i in range(4):
        videos.video(source / "of" / f"{i}.mp4", 3 + i)
    with (source / name).open("w", newline="") as file:
        if name.endswith(".csv"):
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(one) + "\n" for one in rows)
    return source


def read(pack):
    return {split: pq.read_table(pack / f"{split}-00000.parquet").to_pylist() for split in ("train", "test")}


@pytest.mark.parametrize("name", ["about.csv", "about.jsonl"])
def test_a_table_of_either_kind_makes_clips_with_their_frames_rate_and_further_columns(name, tmp_path):
    rows = [row(i, user=f"u{i % 2}", split="test" if i > 2 else "train", weather="rain") for i in range(4)]
    said = []
    source = folder(tmp_path, [*rows, {**rows[0], "question": "again?"}], name)
    from_videos(source, tmp_path / "pack", sampling=Sampling(frames=2), say=said.append)
    found = read(tmp_path / "pack")
    train, (test,) = found["train"], found["test"]
    assert [one["clip_id"] for one in train] == ["of/0.mp4", "of/0.mp4", "of/1.mp4", "of/2.mp4"]
    assert [one["question"] for one in train[:2]] == ["what is 0?", "again?"]
    assert train[0]["frames"] == train[1]["frames"]
    is_of(test["frames"], [0, 5])
    assert test["fps"] == pytest.approx(2), "two frames, half a second apart"
    assert (test["user"], test["weather"], test["qtype"], test["answer"]) == ("u1", "rain", "", "a3")
    assert not {"split", "file", "image_id"} & test.keys()
    assert said == [f"{source / name}: further columns: weather"]


def test_whole_clips_are_held_out_where_no_line_is_of_the_test_split(tmp_path):
    rows = [{**row(i), "question": f"q{k}"} for i in range(4) for k in range(3)]
    from_videos(folder(tmp_path, rows), tmp_path / "pack", test_share=0.5)
    found = read(tmp_path / "pack")
    ids = {split: {one["clip_id"] for one in of} for split, of in found.items()}
    assert not ids["train"] & ids["test"]
    assert sum(map(len, found.values())) == 12


def test_a_mapping_renames_and_answers_may_be_lists(tmp_path):
    rows = [{"clip": f"of/{i}.mp4", "q": "what?", "said": ["a", "b", "b"], "choices": []} for i in range(4)]
    rows[1]["choices"] = ["a", "b"]
    mapping = {"file": "clip", "question": "q", "answer": "said"}
    from_videos(folder(tmp_path, rows, "t.jsonl"), tmp_path / "pack", mapping=mapping, test_share=0.5)
    found = [one for of in read(tmp_path / "pack").values() for one in of]
    assert {one["answer"] for one in found} == {"b"}
    assert sorted(one["choices"] for one in found) == [[], [], [], ["a", "b"]]
    assert found[0]["answers"] == ["a", "b", "b"]


def torn(path):
    path.write_bytes(b"torn")


def resized(path):
    path.unlink()
    videos.video(path.with_suffix(".mkv"), 4, sizes=[(32, 32), (48, 32)], codec="mjpeg").rename(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (torn, r"of/1\.mp4: not a video that can be decoded: .*; 1 such videos, allowed 0\.0% \(--missing\)"),
        (lambda path: path.unlink(), r"1 of 4 videos are not in '.*', first 'of/1\.mp4'; allowed"),
        (videos.without_frames, r"of/1\.mp4: no frames in it"),
        (resized, r"of/1\.mp4: its size changes: 32x32 pixels, then 48x32 at"),
    ],
    ids=["torn", "absent", "empty", "resized"],
)
def test_a_video_that_cannot_be_used_is_named_or_left_out(change, named, tmp_path):
    source = folder(tmp_path, [row(i, split="train" if i < 3 else "test") for i in range(4)])
    change(source / "of" / "1.mp4")
    with pytest.raises(PackError, match=named.replace("of 4", "of 3")) as refused:
        from_videos(source, tmp_path / "pack")
    assert "\n" not in str(refused.value)
    assert [p.name for p in tmp_path.iterdir()] == ["source"], "nothing half-written"
    said = []
    from_videos(source, tmp_path / "pack", missing=0.5, say=said.append)
    assert [one["clip_id"] for one in read(tmp_path / "pack")["train"]] == ["of/0.mp4", "of/2.mp4"]
    assert "questions are left out" in said[0]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (
            [row(0), row(1, file="../../etc/passwd")],
            "line 3: video '../../etc/passwd' is outside of the source",
        ),
        ([row(0), row(1, file="/etc/passwd")], "line 3: video '/etc/passwd' is outside"),
        ([row(0), row(1, file="a\0.mp4")], r"line 3: video 'a\\x00.mp4' is no path"),
        ([row(0), row(1, file="")], r"line 3: field 'file' \(column 'file'\) must be the path of a video"),
        ([row(0), row(1, answer=" ")], "line 3, column 'answer': empty"),
        ([row(0, split="dev")], "line 2: split 'dev'; allowed: train, test"),
        ([{"file": "of/0.mp4", "question": "q"}], r"line 2: field 'answer' \(column 'answer'\) is missing"),
        ([row(0)], "none of the videos is left|the split is empty"),
    ],
    ids=range(8),
)
def test_a_line_that_cannot_be_used_is_named(rows, named, tmp_path):
    source = folder(tmp_path, rows)
    with pytest.raises(PackError, match=named):
        from_videos(source, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_the_table_must_be_told_where_there_are_several_or_none(tmp_path):
    source = folder(tmp_path, [row(0)])
    (source / "b.jsonl").write_text("")
    with pytest.raises(PackError, match=r"2 files named \*\.csv or \*\.jsonl \(about\.csv, b\.jsonl\)"):
        from_videos(source, tmp_path / "pack")
    for table in ("nowhere.csv", "of/0.mp4"):
        with pytest.raises(PackError, match="allowed: a file in the folder that ends in .csv or .jsonl"):
            from_videos(source, tmp_path / "pack", table=table)


def test_a_pack_is_not_overwritten_unless_it_is_said(tmp_path):
    source = folder(tmp_path, [row(i) for i in range(4)])
    from_videos(source, tmp_path / "pack", test_share=0.5)
    with pytest.raises(PackError, match="holds a pack already; allowed: another folder, or --replace"):
        from_videos(source, tmp_path / "pack", test_share=0.5)
    from_videos(source, tmp_path / "pack", test_share=0.5, replacing=True)
