"""`device.db`: all that the two processes of a device share, one SQLite file.

The agent computes; the mover, which Flower starts anew for every message, brings orders and takes replies.
A transaction is on the disk when it has ended (`synchronous = FULL`, a write-ahead log), so that power may go
at any moment: afterwards it has happened whole, or not at all. No torch and no Flower here.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cdc_flower.border import one_line
from cdc_flower.config import RunError

FILE = "device.db"
FORMAT = 2  # of the tables
WAIT = 20.0  # s, that a writer waits for another process's transaction
LOG_BYTES = 2**24  # of the write-ahead log, when nobody uses it
_TABLES = (
    "CREATE TABLE orders (round INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    "CREATE TABLE replies (round INTEGER PRIMARY KEY, content BLOB NOT NULL, error TEXT NOT NULL)",
    "CREATE TABLE facts (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, came REAL NOT NULL, value REAL NOT NULL,"
    " round INTEGER, size INTEGER NOT NULL, key TEXT NOT NULL, grid TEXT NOT NULL, question TEXT NOT NULL,"
    " answer TEXT NOT NULL, tokens BLOB NOT NULL, picture BLOB, tries INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX samples_by_value ON samples (round, value)",
)


class DatabaseError(RunError):
    """`device.db` cannot be used; the message names it and says what to do."""


class Damaged(DatabaseError):
    """It never can be again: it is damaged."""


class Database:
    """The file, opened; threads of a process may share it.

    Args:
        path: made where there is none, if its folder is there.
        wait: seconds that a transaction waits for another process's.

    Raises:
        DatabaseError: damaged, of another format, or not writable.
    """

    def __init__(self, path: Path, wait: float = WAIT) -> None:
        self.path = path
        self._one = threading.RLock()
        self._depth = 0
        with self._said():
            path.touch(0o600)  # what is asked of a device is nobody else's; SQLite's other files are alike
            self._open = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
            try:
                self._begin()
            except BaseException:
                self._open.close()
                raise

    def _begin(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {LOG_BYTES}"):
            self._open.execute(f"PRAGMA {pragma}")
        if self._format() == 0:  # a new file, unless another process makes its tables just now
            with self.transaction():
                if self._format() == 0:
                    for table in _TABLES:
                        self._open.execute(table)
                    self._open.execute(f"PRAGMA user_version = {FORMAT}")
        if self._format() != FORMAT:
            raise DatabaseError(
                f"'{self.path}' has tables of format {self._format()}, this version reads {FORMAT}; allowed: "
                "the version that made it, or no such file, with which the device begins anew"
            )

    def _format(self) -> int:
        return self._open.execute("PRAGMA user_version").fetchone()[0]

    def whole(self) -> None:
        """Read all of the file once.

        Raises:
            Damaged: something in it is.
        """
        (found,), *_ = self.rows("PRAGMA quick_check(1)")
        if found != "ok":
            raise Damaged(self._damaged(str(found)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is executed in the `with` block happens whole or not at all; one within another is part of it.

        Raises:
            DatabaseError: the file is damaged, full, or held by another process for too long.
        """
        with self._one, self._said():
            if self._depth:
                yield
                return
            self._open.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._open.execute("COMMIT")
            except BaseException:
                if self._open.in_transaction:
                    self._open.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Execute one statement; what it gives.

        Raises:
            DatabaseError: see `transaction`.
        """
        with self._one, self._said():
            return self._open.execute(sql, values).fetchall()

    def fact(self, key: str) -> Any:
        """What is known under a key; None where nothing is."""
        found = self.rows("SELECT value FROM facts WHERE key = ?", (key,))
        return found[0][0] if found else None

    def know(self, key: str, value: bytes | str | int | float) -> None:
        """Keep something under a key."""
        with self.transaction():
            self.rows("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, value))

    def close(self) -> None:
        """Let go of the file."""
        with self._one:
            self._open.close()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise DatabaseError(f"'{self.path}' cannot be used: {err.strerror}") from None
        except sqlite3.Error as err:
            if (
                type(err) is sqlite3.DatabaseError
            ):  # a subclass says that it cannot now, this that it never can
                raise Damaged(self._damaged(str(err))) from None
            raise DatabaseError(f"'{self.path}' cannot be used: {err}") from None

    def _damaged(self, why: str) -> str:
        return (
            f"'{self.path}' is damaged ({one_line(why)}); move it and the files beside it whose names begin "
            "alike away: the device begins anew, without the samples in it"
        )
