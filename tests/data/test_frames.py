"""Packs of clips: frames are stored and read once, and what is wrong is named by file, row and column."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cdc_flower.data import frames as clip_frames
from cdc_flower.data.features import ORIENTATION
from cdc_flower.data.packs import read_pack, write_pack
from cdc_flower.data.pictures import PackError


def png(value: int, side: int = 4) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def rows(clips: dict[str, list[bytes]], times: int = 2) -> pd.DataFrame:
    """So many questions about each clip."""
    names = [name for name in clips for _ in range(times)]
    return pd.DataFrame(
        {
            "clip_id": names,
            "frames": [clips[name] for name in names],
            "fps": 4.0,
            "question": [f"what is {i}?" for i in range(len(names))],
            "answer": "yes",
            "qtype": "",
            "domain": "",
            "user": names,
        }
    )


GOOD = {"one": [png(1), png(2), png(3)], "two": [png(2)]}


def test_a_written_pack_of_clips_is_read_back_equal(tmp_path):
    write_pack(tmp_path / "pack", rows(GOOD), rows({"three": [png(9)] * 5}))
    pack = read_pack(tmp_path / "pack", pictures=False)
    assert pack.clips
    assert dict(pack.train_images) == {name: tuple(frames) for name, frames in GOOD.items()}
    assert pack.test_images["three"] == (png(9),) * 5
    assert pack.train["image_id"].tolist() == ["one", "one", "two", "two"]
    assert "frames" not in pack.train
    assert pack.train["fps"].tolist() == [4.0] * 4
    table = pq.ParquetFile(
        tmp_path / "pack" / "train.parquet", read_dictionary=["frames.list.element"]
    ).read()
    assert len(table["frames"].chunk(0).values.dictionary) == 3, "of ten in all rows"


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "row 2, column 'frames' .clip_id 'bad'.: no frames; allowed: 1 to"),
        ([png(1), b"nothing"], "row 2, column 'frames' .clip_id 'bad'.: frame 1: not a readable picture"),
        ([png(1), png(1, side=5)], "row 2, .*frame 1 has 5x5 pixels, the first 4x4"),
        ([png(1)] * 100_000, "row 2, column 'frames' .clip_id 'bad'.: 100000 frames; allowed: 1 to 4096"),
    ],
    ids=["none", "broken", "sizes", "many"],
)
def test_a_clip_that_cannot_be_used_is_named(tmp_path, monkeypatch, frames, message):
    with pytest.raises(PackError, match=f"train rows: {message}"):
        write_pack(tmp_path / "pack", rows({"good": GOOD["one"], "bad": frames}), rows(GOOD))
    monkeypatch.setattr(clip_frames.Clips, "check", lambda self, names: None)
    write_pack(tmp_path / "raw", rows({"good": GOOD["one"], "bad": frames}), rows(GOOD))
    pack = read_pack(tmp_path / "raw", pictures=False)
    assert pack.train_images["good"] == tuple(GOOD["one"])
    with pytest.raises(PackError, match=f"train.parquet: {message}"):
        pack.train_images["bad"]


def test_one_clip_id_names_one_clip(tmp_path):
    twice = pd.concat([rows(GOOD), rows({"one": [png(1), png(3), png(2)]})])
    message = "row 4, column 'frames': not the frames of row 0, which has the same clip_id 'one'"
    with pytest.raises(PackError, match=message):
        write_pack(tmp_path / "pack", twice, rows(GOOD))


def test_a_pack_has_clips_in_both_splits_or_in_none(tmp_path):
    pictures = rows({"p": [png(1)]}).rename(columns={"clip_id": "image_id"})
    pictures = pictures.assign(image=png(1)).drop(columns=["frames", "fps"])
    write_pack(tmp_path / "clips", rows(GOOD), rows(GOOD))
    write_pack(tmp_path / "pictures", pictures, pictures)
    (tmp_path / "clips" / "test.parquet").unlink()
    (tmp_path / "pictures" / "test.parquet").rename(tmp_path / "clips" / "test.parquet")
    with pytest.raises(PackError, match="one split has clips, the other pictures"):
        read_pack(tmp_path / "clips", pictures=False)


@pytest.mark.parametrize(("name", "clips", "frames"), [("penstrokes", 3870, 16), ("robotbottle", 798, 12)])
def test_real_packs_of_clips_are_read_lazily(packs_folder, name, clips, frames):
    if not (packs_folder / name).is_dir():
        pytest.skip(f"no pack {name} at {packs_folder}")
    pack = read_pack(packs_folder / name, pictures=False)
    assert pack.clips
    assert len(pack.train_images) == clips
    first = pack.test_images[pack.test["image_id"].iloc[0]]
    assert len(first) == frames


def test_frames_are_of_one_size_as_they_are_opened():
    sideways, stream, upright = Image.Exif(), io.BytesIO(), io.BytesIO()
    sideways[ORIENTATION] = 6
    Image.new("RGB", (6, 4)).save(stream, "JPEG", exif=sideways)
    Image.new("RGB", (4, 6)).save(upright, "JPEG")
    assert clip_frames.check_frames([stream.getvalue(), upright.getvalue()]) is None
    Image.new("RGB", (6, 4)).save(lying := io.BytesIO(), "JPEG")
    wrong = clip_frames.check_frames([stream.getvalue(), lying.getvalue()])
    assert wrong == "frame 1 has 6x4 pixels, the first 4x6"
