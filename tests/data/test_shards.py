"""Packs of any size: numbered files of row groups in which each picture lies once."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdc_flower.data import shards
from cdc_flower.data.packs import read_pack
from cdc_flower.data.shards import Writer
from cdc_flower.data.video import Clip
from tests.published_files import jpeg


def rows(name: str, count: int = 3) -> pa.Table:
    plain = {column: [""] * count for column in ("qtype", "domain", "user")}
    asked = {"image_id": [name] * count, "question": ["what?"] * count, "answer": ["a"] * count}
    return pa.table({**asked, **plain, "answers": [["a", "b"]] * count})


def write(folder, count: int = 10):
    folder.mkdir(exist_ok=True)
    with Writer(folder) as writer:
        for i in range(count):
            for split in ("train", "test"):
                writer.add(split, jpeg(i), rows(f"{split}{i}"))


def test_files_and_row_groups_are_bounded_by_the_bytes_of_their_pictures(tmp_path, monkeypatch):
    size = len(jpeg(0))
    monkeypatch.setattr(shards, "GROUP", 3 * size // 2)
    monkeypatch.setattr(shards, "SHARD", 7 * size // 2)
    write(tmp_path / "pack")
    names = sorted(p.name for p in (tmp_path / "pack").iterdir())
    assert names == [f"{split}-0000{i}.parquet" for split in ("test", "train") for i in range(3)]
    first = pq.ParquetFile(tmp_path / "pack" / "train-00000.parquet")
    assert [first.metadata.row_group(i).num_rows for i in range(first.num_row_groups)] == [6, 6]
    pack = read_pack(tmp_path / "pack")
    assert len(pack.train) == 30
    assert dict(pack.train_images) == {f"train{i}": jpeg(i) for i in range(10)}


def test_each_picture_lies_once_in_its_row_group(tmp_path):
    many = rows("p", 400)
    tmp_path.joinpath("pack").mkdir()
    with Writer(tmp_path / "pack") as writer:
        writer.add("train", jpeg(1, side=200), many)
    (file,) = (tmp_path / "pack").iterdir()
    assert file.stat().st_size < 2 * len(jpeg(1, side=200))


def test_many_rows_close_a_group_too(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 5)
    write(tmp_path / "pack", 4)
    found = pq.ParquetFile(tmp_path / "pack" / "train-00000.parquet")
    assert [found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)] == [6, 6]


def test_an_error_goes_through_and_open_files_are_closed(tmp_path):
    def broken() -> None:
        with Writer(tmp_path) as writer:
            writer.add("train", jpeg(1), rows("p"))
            writer.add("dev", jpeg(1), rows("p"))

    with pytest.raises(KeyError):
        broken()


def test_each_frame_of_a_clip_lies_once_and_rows_name_the_clip(tmp_path):
    frames = {name: tuple(jpeg(10 * i + k, side=60) for k in range(3 + i)) for i, name in enumerate("ab")}
    with Writer(tmp_path) as writer:
        for i, (name, of) in enumerate(frames.items()):
            writer.add("train", Clip(of, 2.5 + i), rows(name, 200))
    (file,) = tmp_path.iterdir()
    found = pq.read_table(file).to_pylist()
    assert len(found) == 400
    assert all(tuple(row["frames"]) == frames[row["clip_id"]] for row in found)
    assert [found[i]["fps"] for i in (0, 199, 200)] == [2.5, 2.5, 3.5]
    assert "image_id" not in found[0]
    assert file.stat().st_size < 2 * sum(len(frame) for of in frames.values() for frame in of)
