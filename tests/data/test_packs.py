"""The pack format: what is written is read back, and what is wrong is named by file, row and column."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.bitmaps import MAX_PIXELS
from cdc_flower.data.packs import load, read_pack, write_pack
from cdc_flower.data.pictures import PackError
from cdc_flower.tasks import Truth, Truths

REAL = Path(os.environ.get("CDC_FLOWER_PACKS") or Path(__file__).parents[3] / "shared" / "data")


def png(value: int, side: int = 6) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def rows(count: int = 6, **columns: object) -> pd.DataFrame:
    """Two questions about each of `count / 2` pictures."""
    base = {
        "image_id": [f"p{i // 2}" for i in range(count)],
        "image": [png(i // 2) for i in range(count)],
        "question": [f"what is it, {i}?" for i in range(count)],
        "answer": ["yes", "no"] * (count // 2),
        "qtype": ["kind"] * count,
        "domain": ["flat"] * count,
        "user": [""] * count,
    }
    return pd.DataFrame(base | columns)


def write_raw(
    folder: Path, train: pd.DataFrame | pa.Table, test: pd.DataFrame | pa.Table | None = None
) -> Path:
    """A pack folder past the writer's own checks."""
    folder.mkdir(exist_ok=True)
    for split, part in (("train", train), ("test", rows() if test is None else test)):
        table = part if isinstance(part, pa.Table) else pa.Table.from_pandas(part, preserve_index=False)
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


def bomb(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), text, text, st.text(max_size=3).filter(str.isprintable)),
        min_size=1,
        max_size=8,
    )
)
def test_a_written_pack_is_read_back_equal(tmp_path_factory, content):
    frame = pd.DataFrame(
        [
            {
                "image_id": f"p{p}",
                "image": png(p),
                "question": q,
                "answer": a,
                "qtype": k,
                "domain": "d",
                "user": "u",
                "level": p,
            }
            for p, q, a, k in content
        ]
    )
    folder = tmp_path_factory.mktemp("pack")
    write_pack(folder, frame, rows())
    pack = read_pack(folder)
    pd.testing.assert_frame_equal(pack.train, frame.drop(columns="image"), check_dtype=False)
    assert pack.train_images == dict(zip(frame["image_id"], frame["image"], strict=True))
    assert pack.name == folder.name
    assert "image" not in pack.test.columns


def test_references_and_choices_are_kept_as_lists(tmp_path):
    answers, choices = [["yes", "no", "yes"]] * 6, [["yes", "no"], []] * 3
    write_pack(tmp_path / "pack", rows(answers=answers, choices=choices), rows(answers=answers))
    pack = read_pack(tmp_path / "pack")
    assert pack.train["answers"].tolist() == answers
    assert pack.train["choices"].tolist() == choices
    assert Truths(pack.train)[1] == Truth("no", ("yes", "no", "yes"), ())


def test_the_digest_follows_the_content(tmp_path):
    write_pack(tmp_path / "a", rows(), rows())
    write_pack(tmp_path / "b", rows(), rows())
    write_pack(tmp_path / "c", rows(answer=["no"] * 6), rows())
    a, b, c = (read_pack(tmp_path / name).digest for name in "abc")
    assert a == b != c
    assert len(a) == 64


def pictures(first: bytes, second: bytes) -> pd.DataFrame:
    """Valid rows but for the first two pictures."""
    return rows(image=[first] * 2 + [second] * 2 + [png(2)] * 2)


def replaced(column: str, row: int, value: object) -> pd.DataFrame:
    frame = rows().astype(object)
    frame.at[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("train", "named"),
    [
        (rows().drop(columns="qtype"), ["column 'qtype' is missing"]),
        (rows(answer=[1, 2, 3, 4, 5, 6]), ["column 'answer' holds int64", "text"]),
        (rows(image=["a"] * 6), ["column 'image' holds", "bytes"]),
        (rows(0), ["split is empty"]),
        (replaced("question", 3, "  "), ["row 3", "column 'question'", "empty"]),
        (replaced("answer", 4, ""), ["row 4", "column 'answer'", "empty"]),
        (replaced("answer", 2, None), ["row 2", "column 'answer'", "no value"]),
        (rows(answers=["a"] * 6), ["column 'answers' holds", "lists of texts"]),
        (rows(answers=[["a"]] * 5 + [[]]), ["row 5", "column 'answers'", "no list"]),
        (rows(answers=[["a"]] * 5 + [["b", " "]]), ["row 5", "column 'answers'", "empty text"]),
        (rows(answers=[["a"]] * 4 + [["a", "x" * 1001], ["a"]]), ["row 4", "'answers'", "1001 characters"]),
        (rows(choices=[[]] * 5 + [None]), ["row 5", "column 'choices'", "no list"]),
        (replaced("answer", 5, "x" * 1001), ["row 5", "column 'answer'", "1001 characters", "1000"]),
        (replaced("image", 5, png(99)), ["row 5", "column 'image'", "row 4", "'p2'"]),
        (pictures(png(0), png(1)[:-30]), ["row 2", "column 'image'", "'p1'", "broken"]),
        (pictures(png(0), b"GIF? no"), ["row 2", "column 'image'", "PNG, JPEG"]),
        (pictures(bomb(5000, 5000), png(1)), ["row 0", "5000x5000", str(MAX_PIXELS)]),
        (pictures(bomb(60000, 60000), png(1)), ["row 0", "pixels", str(MAX_PIXELS)]),
    ],
    ids=[
        "column",
        "type",
        "bytes",
        "split",
        "question",
        "answer",
        "none",
        "no lists",
        "empty list",
        "empty reference",
        "long reference",
        "null list",
        "long",
        "twice",
        "torn",
        "format",
        "big",
        "bomb",
    ],
)
def test_what_is_wrong_is_named_by_file_row_and_column(tmp_path, train, named):
    if not len(train):
        train = pa.Table.from_pandas(rows(), preserve_index=False).slice(0, 0)
    folder = write_raw(tmp_path / "pack", train)
    with pytest.raises(PackError) as error:
        read_pack(folder)
    for part in [str(folder / "train.parquet"), *named]:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_the_test_split_is_checked_as_well(tmp_path):
    folder = write_raw(tmp_path / "pack", rows(), replaced("answer", 1, ""))
    with pytest.raises(PackError, match=r"test\.parquet: row 1, column 'answer'"):
        read_pack(folder)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (pa.array(["cup", None, "hat"] * 2), ["cup", "", "hat"]),
        (pa.array(["cup", None, "hat"] * 2).dictionary_encode(), ["cup", "", "hat"]),
        (pa.array([1, None, 20] * 2, pa.int64()), ["1", "", "20"]),
        (pa.array([True, None, False] * 2), ["True", "", "False"]),
        (pa.nulls(6), ["", "", ""]),
    ],
    ids=["text", "categories", "whole", "truth", "none"],
)
def test_a_null_of_a_further_column_is_an_empty_text(tmp_path, values, read):
    table = pa.Table.from_pandas(rows(), preserve_index=False).append_column("concept", values)
    folder = write_raw(tmp_path / "pack", table)
    for pack in (read_pack(folder), read_pack(folder, pictures=False)):
        assert pack.train["concept"].tolist() == read * 2


def test_a_null_makes_no_fractions_of_whole_numbers_and_leaves_rates_alone(tmp_path):
    table = pa.Table.from_pandas(rows(), preserve_index=False)
    table = table.append_column("level", pa.array([1, None, 2] * 2)).append_column(
        "rate", pa.array([0.5, None, 2.0] * 2)
    )
    folder = write_raw(tmp_path / "pack", table, rows(level=[1, 2, 3] * 2, rate=[0.5] * 6))
    pack = read_pack(folder)
    assert set(pack.train["level"]) - {""} <= set(pack.test["level"].astype(str))
    assert pack.train["rate"].dtype == float


def test_a_column_of_two_types_is_refused_with_both(tmp_path):
    message = r"column 'concept' holds int64, in the train split double; allowed: one type in both"
    folder = write_raw(tmp_path / "raw", rows(concept=[0.0, 1.0] * 3), rows(concept=[0, 1] * 3))
    with pytest.raises(PackError, match=rf"test\.parquet: {message}"):
        read_pack(folder)
    with pytest.raises(PackError, match=f"test rows: {message}"):
        write_pack(tmp_path / "pack", rows(concept=[0.0, 1.0] * 3), rows(concept=[0, 1] * 3))
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("one", "other"), [(pa.int32(), pa.int64()), (pa.string(), pa.large_string()), (pa.null(), pa.string())]
)
def test_types_of_one_look_are_one(tmp_path, one, other):
    some = [None] * 6 if one == pa.null() else [1] * 6 if pa.types.is_integer(one) else ["a"] * 6
    train, test = (
        pa.Table.from_pandas(rows(), preserve_index=False).append_column("concept", pa.array(some, kind))
        for kind in (one, other)
    )
    pack = read_pack(write_raw(tmp_path / "pack", train, test))
    assert pack.train["concept"].astype(str).tolist() == pack.test["concept"].astype(str).tolist()


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(PackError, match="no such folder"):
        read_pack(tmp_path / "nowhere")
    folder = write_raw(tmp_path / "pack", rows())
    (folder / "test.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(PackError, match=r"test\.parquet: not a readable parquet file"):
        read_pack(folder)
    (folder / "test.parquet").unlink()
    with pytest.raises(PackError, match=r"test\.parquet: no such file"):
        read_pack(folder)


def test_nothing_is_written_unless_both_splits_are_valid(tmp_path):
    with pytest.raises(PackError, match="test rows: row 0, column 'answer'"):
        write_pack(tmp_path / "pack", rows(), replaced("answer", 0, " "))
    assert not (tmp_path / "pack").exists()


def test_text_that_no_file_can_hold_is_said_in_a_line(tmp_path):
    with pytest.raises(PackError, match=r"test rows: no text that UTF-8 can hold: .*surrogates"):
        write_pack(tmp_path / "pack", rows(), replaced("question", 1, "\ud800"))
    assert not (tmp_path / "pack").exists()


def test_no_leftovers_stay_beside_a_written_pack(tmp_path):
    write_pack(tmp_path / "pack", rows(), rows())
    assert sorted(p.name for p in (tmp_path / "pack").iterdir()) == ["test.parquet", "train.parquet"]


def test_a_pack_is_replaced_but_no_folder_of_other_things(tmp_path):
    write_pack(tmp_path / "pack", rows(), rows())
    write_pack(tmp_path / "pack", rows(4), rows())
    assert len(read_pack(tmp_path / "pack").train) == 4
    (tmp_path / "pack" / "notes.txt").write_text("mine")
    with pytest.raises(PackError, match=r"holds other things than a pack: notes\.txt"):
        write_pack(tmp_path / "pack", rows(), rows())
    assert len(read_pack(tmp_path / "pack").train) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]


@pytest.mark.parametrize("name", ["", "no-such-data"])
def test_unknown_data_is_refused_naming_what_is_allowed(name):
    with pytest.raises(ConfigError, match="'scenes', 'clips' or the path of a folder"):
        load(parse({"data.pack": name}).data)


def test_scenes_and_folders_load_by_name(tmp_path):
    pack = load(parse({"data.scenes-train": 8, "data.scenes-test": 4}).data)
    assert pack.name == "scenes"
    assert len(pack.train_images) == 8
    write_pack(tmp_path / "mine", rows(), rows())
    assert load(parse({"data.pack": str(tmp_path / "mine")}).data).name == "mine"


@pytest.mark.packs
@pytest.mark.parametrize(
    ("name", "train", "train_images", "test", "test_images"),
    [
        ("easyvqa", 38_575, 4_000, 9_673, 1_000),
        ("emoji", 35_340, 6_473, 8_551, 1_570),
        ("signdigits", 6_268, 1_567, 1_980, 495),
    ],
)
def test_real_packs_hold_what_their_source_says(name, train, train_images, test, test_images):
    if not (REAL / name).is_dir():
        pytest.skip(f"no data pack {name} in {REAL}; set CDC_FLOWER_PACKS")
    pack = read_pack(REAL / name)
    assert (len(pack.train), len(pack.train_images)) == (train, train_images)
    assert (len(pack.test), len(pack.test_images)) == (test, test_images)
