"""`device.db` is one file for two processes: whole after every end, and else refused in one line."""

import sqlite3
import subprocess
import sys
import threading

import pytest

from clients.device.database import FILE, Database, DatabaseError


@pytest.fixture
def path(tmp_path):
    return tmp_path / FILE


def test_a_fact_is_there_for_the_other_process_and_a_transaction_is_whole_or_nothing(path):
    one, other = Database(path), Database(path)
    one.know("a", b"\x00\xff")
    assert other.fact("a") == b"\x00\xff"
    assert other.fact("b") is None

    def fails():
        with one.transaction():
            one.know("a", 1)
            with one.transaction():
                one.know("b", 2)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert other.fact("a") == b"\x00\xff"
    assert other.fact("b") is None
    assert path.stat().st_mode & 0o077 == 0


def test_power_is_cut_only_after_the_disk_has_it(path):
    """What SQLite calls FULL: every transaction is synced; NORMAL would lose the last ones."""
    db = Database(path)
    assert db.rows("PRAGMA synchronous") == [(2,)]
    assert db.rows("PRAGMA journal_mode") == [("wal",)]


def test_who_waits_too_long_for_the_other_is_told(path):
    one, other = Database(path), Database(path, wait=0.05)
    with one.transaction(), pytest.raises(DatabaseError, match="locked"):
        other.know("a", 1)
    other.know("a", 1)


def test_threads_share_it_one_after_the_other(path):
    db = Database(path)

    def more():
        for _ in range(20):
            with db.transaction():
                db.know("n", int(db.fact("n") or 0) + 1)

    threads = [threading.Thread(target=more) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.fact("n") == 80


@pytest.mark.parametrize("damage", ["no database", "torn", "zeros"])
def test_a_damaged_file_is_one_clear_error(path, damage):
    db = Database(path)
    with db.transaction():
        for i in range(300):
            db.know(f"key {i}", bytes(300))
    db.close()  # the last one moves the log into the file
    data = bytearray(path.read_bytes())
    if damage == "no database":
        data[:100] = b"x" * 100
    elif damage == "torn":
        del data[len(data) // 2 :]
    else:
        data[8192:-4096] = bytes(len(data) - 12288)
    path.write_bytes(data)
    with pytest.raises(DatabaseError) as caught:
        Database(path).whole()
    said = str(caught.value)
    assert "is damaged" in said
    assert str(path) in said
    assert "move it" in said
    assert "\n" not in said


def test_a_file_of_another_version_is_not_touched(path):
    Database(path).close()
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA user_version = 9")
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="format 9"):
        Database(path)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(DatabaseError, match="cannot be used"):
        Database(tmp_path / "nowhere" / FILE)


def test_the_mover_s_side_of_it_needs_neither_torch_nor_flower():
    code = (
        "import sys, clients.device.mailbox, clients.device.spool\n"
        "print([m for m in ('torch', 'transformers', 'flwr') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
