"""A folder has one run at a time; who is refused learns whose it is, and a killed holder leaves no lock."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.lock import FILE, locked, refuse_if_taken, taken

HOLD = """
import sys, time
from pathlib import Path
from cdc_flower.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process of its own that holds the lock of `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_in_one_line_that_names_the_first(holder, tmp_path):
    folder = tmp_path / "run"
    with (
        pytest.raises(
            ConfigError,
            match=rf"in use by process {holder.pid} on .* since 20.*T.* \(-c .*run\); allowed: another",
        ) as refused,
        locked(folder),
    ):
        raise AssertionError
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=f"process {holder.pid}"):
        refuse_if_taken(folder)


def test_a_killed_holder_leaves_no_lock(holder, tmp_path):
    folder = tmp_path / "run"
    holder.kill()
    holder.wait()
    assert (folder / FILE).exists()
    refuse_if_taken(folder)
    with locked(folder), pytest.raises(AssertionError), locked(folder):
        raise AssertionError("a call chain may ask again")
    assert not (folder / FILE).exists()


def test_another_thread_is_refused(tmp_path):
    said = []

    def second():
        try:
            with locked(tmp_path):
                said.append("held")
        except ConfigError as err:
            said.append(str(err))

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"in use by process {os.getpid()} " in said[0]


def test_a_holder_that_writes_nonsense_is_still_a_holder(tmp_path):
    with locked(tmp_path):
        for text in ("", "{", "[]", '{"pid": 1}', "\udcff" * 3):
            (tmp_path / FILE).write_text(text, errors="surrogateescape")
            with pytest.raises(ConfigError, match="in use by another process"):
                _take_again(tmp_path)


def _take_again(folder: Path) -> None:
    from contextvars import Context

    def take():
        with locked(folder):
            pass

    Context().run(take)


def test_what_was_made_for_a_lock_alone_goes_again(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / FILE).exists()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_file_system_without_locks_is_refused_in_one_line(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(
        ConfigError, match=r"has no locks \(Operation not supported\).*allowed: a folder on one"
    ):
        _take_again(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="allowed: a folder that can be written"):
        _take_again(tmp_path / "file")


def test_no_two_of_many_hold_it_at_once(tmp_path):
    """The file goes with each holder, so one that waits may have opened a file that is gone."""
    inside, most, refused = [0], [0], [0]

    def work():
        for _ in range(200):
            try:
                with locked(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except ConfigError:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert refused[0] < 800


def test_a_lock_that_cannot_be_looked_at_is_not_called_free(holder, tmp_path, monkeypatch):
    assert taken(tmp_path / "run")
    assert not taken(tmp_path / "absent")

    def none_left(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        taken(tmp_path / "run")
