"""A file is there whole or as it was, and a disk that does not take it is one line."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from cdc_flower import disk
from cdc_flower.disk import DiskError


def test_a_file_is_replaced_whole_and_has_ordinary_rights(tmp_path):
    path = tmp_path / "a.json"
    disk.replace(path, b"one")
    disk.replace(path, b"two")
    assert path.read_bytes() == b"two"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_a_disk_refuses_is_one_line_and_the_old_file_stays(code, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"one")
    with pytest.raises(DiskError) as refused, disk.writing(path), disk.whole(path) as file:
        _half(file, code)
    assert str(refused.value).startswith(f"'{path}' cannot be written: {os.strerror(code)}; what was written")
    assert "\n" not in str(refused.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"one"}


def test_a_folder_that_is_not_there_is_no_traceback(tmp_path):
    with pytest.raises(DiskError, match="No such file or directory"):
        disk.replace(tmp_path / "absent" / "a", b"")


def _half(file, code):
    file.write(b"half")
    raise OSError(code, os.strerror(code))


@pytest.fixture
def kept(monkeypatch):
    """What was brought to the disk: files by what is in them by then, folders as such."""
    done = []

    def fsync(number):
        path = Path(f"/proc/self/fd/{number}").resolve()
        done.append(path if path.is_dir() else path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    return done


def test_what_was_promised_is_on_the_disk_and_then_its_name_and_nothing_else_is_waited_for(tmp_path, kept):
    disk.replace(tmp_path / "a", b"one")
    assert kept == []
    disk.replace(tmp_path / "a", b"two", kept=True)
    assert kept == [b"two", tmp_path]
    assert (tmp_path / "a").read_bytes() == b"two"
