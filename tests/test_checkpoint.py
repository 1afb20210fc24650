"""A checkpoint comes back bit for bit, or it is noticed that it cannot."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cdc_flower import checkpoint
from cdc_flower.checkpoint import load_newest, path_of, save
from cdc_flower.disk import DiskError

PARTS = {"cloud": {"mean": np.arange(5, dtype=np.float32), "steps": 7, "payloads": b"\0\1", "name": "é"}}
DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
KIND = arrays.arrays(st.sampled_from([*DTYPES, ">f4", ">i8"]), SHAPES)
VALUES = st.one_of(
    KIND,
    st.binary(max_size=40),
    st.integers(),
    st.integers(-(2**300), 2**300),
    st.floats(),
    st.text(st.characters()),
    st.just(b""),
)
ANYWHERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        native = a.astype(a.dtype.newbyteorder("="))
        return (
            isinstance(b, np.ndarray)
            and b.dtype == native.dtype
            and b.shape == a.shape
            and b.tobytes() == native.tobytes()
        )
    return type(a) is type(b) and repr(a) == repr(b)


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), VALUES, max_size=6), max_size=4))
@ANYWHERE
def test_every_kind_of_value_comes_back_as_it_was(tmp_path: Path, parts):
    save(tmp_path, 3, parts)
    round, found = load_newest(tmp_path) or (None, {})
    assert round == 3
    assert list(found) == list(parts)
    for name, part in parts.items():
        assert list(found[name]) == list(part)
        assert all(same(value, found[name][key]) for key, value in part.items())


def test_arrays_that_are_views_come_back_as_they_look(tmp_path):
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    save(tmp_path, 0, {"p": {"t": grid.T, "s": grid[::2, 1:], "nan": np.array([np.nan, -0.0, np.inf])}})
    found = (load_newest(tmp_path) or (0, {}))[1]["p"]
    assert np.array_equal(found["t"], grid.T)
    assert np.array_equal(found["s"], grid[::2, 1:])
    assert found["nan"].tobytes() == np.array([np.nan, -0.0, np.inf]).tobytes()
    found["t"][:] = 0  # an owner may go on with it


@pytest.mark.parametrize(
    "value", [True, None, [1], np.float32(1), np.array(["a"]), np.array([None]), np.array([1], np.longdouble)]
)
def test_what_cannot_be_saved_exactly_is_refused_and_leaves_no_file(tmp_path, value):
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        pytest.skip("longdouble is double here")
    with pytest.raises(TypeError, match=r"p\.x is .*; allowed: a plain array, bytes, int, float, str"):
        save(tmp_path, 1, {"p": {"x": value}})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, logger="cdc_flower.checkpoint")
    return lambda: [r.getMessage() for r in caplog.records]


def test_a_file_cut_anywhere_is_noticed_and_the_one_before_is_used(tmp_path, said):
    save(tmp_path, 1, PARTS)
    whole = save(tmp_path, 2, PARTS).read_bytes()
    for length in range(len(whole)):
        path_of(tmp_path, 2).write_bytes(whole[:length])
        round, parts = load_newest(tmp_path) or (None, {})
        assert (round, parts["cloud"]["steps"]) == (1, 7)
    assert len(said()) == len(whole)
    assert all(str(path_of(tmp_path, 2)) in line for line in said())


def test_a_file_that_grew_is_noticed(tmp_path, said):
    path = save(tmp_path, 2, PARTS)
    path.write_bytes(path.read_bytes() + b"\0")
    assert load_newest(tmp_path) is None
    assert "its head says" in said()[0]


@given(st.data())
@ANYWHERE
def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path, data):
    path = save(tmp_path, 2, PARTS)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert load_newest(tmp_path) is None


def test_what_is_wrong_is_said_in_one_line_with_the_files_name(tmp_path, said):
    damaged = bytearray(save(tmp_path, 8, PARTS).read_bytes())
    damaged[-1] ^= 1
    whole = save(tmp_path, 9, PARTS).read_bytes()
    foreign, renamed, cut = whole[:8] + struct.pack("<I", 7) + whole[12:], whole, whole[:-1]
    for round, content in enumerate([b"", b"x" * 100, foreign, renamed, cut, damaged], start=3):
        path_of(tmp_path, round).write_bytes(content)
    path_of(tmp_path, 9).unlink()
    assert load_newest(tmp_path) is None
    for line, part in zip(
        said(),
        [
            "checksum is wrong",
            "its head says",
            "of round 9",
            "format 7",
            "does not begin as a checkpoint",
            "fewer than a head",
        ],
        strict=True,
    ):
        assert part in line
        assert "\n" not in line


def test_a_file_larger_than_the_cap_is_not_read(tmp_path, said, monkeypatch):
    path = save(tmp_path, 1, PARTS)
    with path.open("r+b") as file:
        file.truncate(2**40)  # sparse: takes no room on the disk
    assert load_newest(tmp_path) is None
    assert "more than" in said()[0]
    head = struct.pack("<8sIQQ", checkpoint.MAGIC, checkpoint.FORMAT, 1, 2**63)
    path.write_bytes(head + bytes(100))  # a length that nobody could allocate
    assert load_newest(tmp_path) is None
    assert "its head says" in said()[1]


def test_a_payload_of_someone_else_with_a_fitting_checksum_is_skipped(tmp_path, said, monkeypatch):
    monkeypatch.setattr(checkpoint, "_packed", lambda parts: b"\xff" * 30)
    save(tmp_path, 1, PARTS)
    assert load_newest(tmp_path) is None
    assert "its payload cannot be read" in said()[0]


def test_a_leftover_temporary_file_is_not_read_and_removed(tmp_path, said):
    save(tmp_path, 1, PARTS)
    left = tmp_path / ".round-000002.ckpt.4242.tmp"
    left.write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert (load_newest(tmp_path) or (None,))[0] == 1
    assert not left.exists()
    left.write_bytes(b"half")
    save(tmp_path, 2, PARTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "notes.txt",
        "round-000001.ckpt",
        "round-000002.ckpt",
    ]
    assert said() == []


def test_a_disk_that_is_full_leaves_the_checkpoints_before(tmp_path, monkeypatch):
    save(tmp_path, 1, PARTS)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        save(tmp_path, 2, PARTS)
    assert [p.name for p in tmp_path.iterdir()] == ["round-000001.ckpt"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_files_stay(tmp_path, keep):
    for round in range(6):
        save(tmp_path, round, PARTS, keep)
        assert list(checkpoint.found(tmp_path)) == list(range(max(0, round - keep + 1), round + 1))


def test_files_of_later_rounds_go_when_an_older_line_goes_on(tmp_path):
    for round in (4, 5):
        save(tmp_path, round, PARTS)
    path_of(tmp_path, 5).write_bytes(b"torn")
    save(tmp_path, 5, PARTS)
    path_of(tmp_path, 9).write_bytes(b"torn")
    save(tmp_path, 6, PARTS, keep=1)
    assert list(checkpoint.found(tmp_path)) == [6]


def test_an_empty_or_absent_folder_has_no_checkpoint(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "absent") is None
