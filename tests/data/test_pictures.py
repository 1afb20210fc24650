"""Pictures stay in their files: read in order, decoded once, and never more than a few groups in memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cdc_flower.data import pictures
from cdc_flower.data.packs import read_pack
from cdc_flower.data.pictures import PackError


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def rows(names: list[int], **columns: object) -> pd.DataFrame:
    base = {
        "image_id": [f"p{n}" for n in names],
        "image": [png(n) for n in names],
        "question": [f"what is {i}?" for i in range(len(names))],
        "answer": "yes",
        "qtype": "",
        "domain": "",
        "user": "",
    }
    return pd.DataFrame(base | columns)


def write(folder: Path, files: dict[str, pd.DataFrame], group: int = 2) -> Path:
    folder.mkdir()
    for name, frame in {"test": rows([90, 91]), **files}.items():
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=group)
    return folder


def test_a_split_of_several_files_is_one_split(tmp_path):
    parts = {"train-00001": rows([2, 3, 0]), "train-00000": rows([0, 0, 1, 2])}
    pack = read_pack(write(tmp_path / "pack", parts))
    assert pack.train["image_id"].tolist() == ["p0", "p0", "p1", "p2", "p2", "p3", "p0"]
    assert dict(pack.train_images) == {f"p{n}": png(n) for n in (0, 1, 2, 3)}
    assert list(pack.train_images) == ["p0", "p1", "p2", "p3"]


def test_reading_in_order_reads_each_group_once_and_keeps_few(tmp_path, monkeypatch):
    folder = write(tmp_path / "pack", {f"train-0000{i}": rows(list(range(9 * i, 9 * i + 9))) for i in (0, 1)})
    pack = read_pack(folder, pictures=False)
    real, read = pictures.read_columns, []

    def counted(path, file, columns, group=None):
        read.append((path.name, group))
        return real(path, file, columns, group)

    monkeypatch.setattr(pictures, "read_columns", counted)
    assert list(pack.train_images.values()) == [png(n) for n in range(18)]
    assert read == [(f"train-0000{i}.parquet", group) for i in (0, 1) for group in range(5)]
    assert len(pack.train_images._kept) == pictures.GROUPS  # type: ignore[attr-defined]


def test_a_repeated_picture_is_in_memory_once(tmp_path):
    folder = write(tmp_path / "pack", {"train": rows([1] * 50 + [2] * 50)}, group=100)
    column = pictures.read_columns(folder / "train.parquet", "train", ["image"])["image"]
    assert len(pictures.pictures_of(column).dictionary) == 2


def test_a_repeated_picture_is_decoded_once(tmp_path, monkeypatch):
    folder, opened = write(tmp_path / "pack", {"train": rows([1] * 50 + [2] * 50)}, group=100), []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **more: opened.append(args) or real(*args, **more))
    read_pack(folder)
    assert len(opened) == 4  # two are of the test split


def test_a_broken_picture_is_named_when_it_is_asked_for_or_when_all_are_checked(tmp_path):
    broken = rows([0, 1, 2, 3], image=[png(0), png(1), png(2), png(3)[:45]])
    folder = write(tmp_path / "pack", {"train-00000": rows([7]), "train-00001": broken})
    named = r"train-00001\.parquet: row 3, column 'image' \(image_id 'p3'\): broken picture"
    with pytest.raises(PackError, match=named):
        read_pack(folder)
    found = read_pack(folder, pictures=False).train_images
    assert found["p2"] == png(2)
    with pytest.raises(PackError, match=named):
        found["p3"]


def test_one_name_for_two_pictures_is_found_across_files(tmp_path):
    folder = write(
        tmp_path / "pack", {"train-00000": rows([0, 1]), "train-00001": rows([5, 1], image=png(8))}
    )
    with pytest.raises(PackError, match=r"00001.*row 1.*not the picture of row 1 of .*00000.*'p1'"):
        read_pack(folder)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"train": rows([0]), "train-00000": rows([0])}, "there is train-00000.parquet, too"),
        ({"train-00000": rows([0]), "train-00001": rows([1], more="x")}, "00001.parquet: other columns"),
        (
            {"train-00000": rows([0]), "train-00001": rows([1], answer=" ")},
            "00001.parquet: row 0, column 'ans",
        ),
        ({"train-0": rows([0])}, "train.parquet: no such file"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, files, named):
    with pytest.raises(PackError, match=named):
        read_pack(write(tmp_path / "pack", files))


def test_files_that_go_while_a_pack_is_used_are_named(tmp_path):
    folder = write(tmp_path / "pack", {"train": rows([0])})
    pack = read_pack(folder, pictures=False)
    (folder / "train.parquet").unlink()
    with pytest.raises(PackError, match=r"train\.parquet: not a readable parquet file"):
        pack.train_images["p0"]
