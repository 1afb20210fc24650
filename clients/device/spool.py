"""The samples of a device that wait to be sent, in `device.db`.

A sample is a question about a picture, as vision tokens, with the answer that the student gave when it came,
and what it is worth: how uncertain that answer was. The spool is bounded; what is worth least goes first. A
sample that went up in a reply is **out** until the cloud says whether it took that reply: then it is deleted,
or waits again. What was in a refused reply stands behind what never was, so that it comes up with others, and
is dropped after `TRIES` such replies. Every sample that came waits, is out, was taken or was dropped, each
once, whenever power goes. No torch and no Flower here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clients.device.database import Database

OVERHEAD = 256  # bytes of a sample beside its content
FED = "fed"  # the fact that says what of the feed was read: the key of its last item
TRIES = 3  # refused replies with a sample, after which it is dropped
_COUNTED = ("came", "dropped", "taken", "refused")
_ROW = "id, came, question, tokens, grid, picture, answer, value, key, tries"


@dataclass(frozen=True, eq=False)
class New:
    """A sample that is to be spooled.

    Attributes:
        question: its words.
        tokens: (n, D) float16.
        grid: n, rows, columns of the picture.
        answer: the student's.
        value: what it is worth; more = more.
        picture: encoded, where messages may hold it; else b"".
        key: of the feed's item; "" = it is from no feed.
    """

    question: str
    tokens: np.ndarray
    grid: tuple[int, int, int]
    answer: str
    value: float
    picture: bytes = b""
    key: str = ""

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        texts = len(self.question.encode()) + len(self.answer.encode()) + len(self.key)
        return self.tokens.size * 2 + len(self.picture) + texts + OVERHEAD


@dataclass(frozen=True, eq=False)
class Spooled(New):
    """A sample in the spool: its number, which is never given twice, when it came [s since 1970], and in how
    many replies it was that were refused.
    """

    id: int = 0
    came: float = 0.0
    tries: int = 0


@dataclass(frozen=True)
class Facts:
    """How many samples there are and were: `came == waiting + out + taken + dropped`.

    Attributes:
        waiting: to be sent.
        out: in the reply to the last order.
        bytes: of those that wait or are out.
        came, taken, dropped: since the file was made.
        refused: of the dropped, those that the cloud would not have.
    """

    waiting: int
    out: int
    bytes: int
    came: int
    taken: int
    dropped: int
    refused: int


@dataclass(frozen=True)
class Spool:
    """The samples of a device.

    Attributes:
        database: where they are.
        samples: that are kept, at most.
        bytes: of them, at most.
    """

    database: Database
    samples: int
    bytes: int

    def add(self, new: Sequence[New], fed: str | None = None) -> list[int]:
        """Keep samples, and drop those of least value beyond the bounds; the new ones may be among them.

        Args:
            new: in the order of their coming.
            fed: what of the feed was read with them.

        Returns:
            Their numbers.

        Raises:
            DatabaseError: the disk does not take them; nothing was kept, and `fed` is as it was.
        """
        db, numbers, now = self.database, [], time.time()
        with db.transaction():
            for s in new:
                value = float(s.value) if np.isfinite(s.value) else 0.0
                db.rows(
                    "INSERT INTO samples (came, value, size, key, grid, question, answer, tokens, picture)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(now, value, s.size, s.key, " ".join(map(str, s.grid)), s.question, s.answer),
                        *(np.ascontiguousarray(s.tokens, "<f2").tobytes(), s.picture or None),
                    ),
                )
                numbers.append(db.rows("SELECT last_insert_rowid()")[0][0])
            self._count("came", len(new))
            self._bound()
            if fed is not None:
                db.know(FED, fed)
        return numbers

    def _bound(self) -> None:
        """Drop what is worth least of those that wait; what is out stays, because the cloud may have it."""
        db = self.database
        count, size = db.rows("SELECT count(*), total(size) FROM samples")[0]
        while count > self.samples or size > self.bytes:
            least = db.rows(
                "SELECT id, size FROM samples WHERE round IS NULL ORDER BY value, id LIMIT ?",
                (max(1, count - self.samples),),
            )
            if not least:
                return
            self._drop([row[0] for row in least])
            count, size = count - len(least), size - sum(row[1] for row in least)

    def _drop(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.database.rows("DELETE FROM samples WHERE id = ?", (number,))
        if numbers:
            self._count("dropped", len(numbers))

    def _count(self, what: str, more: int) -> None:
        self.database.know(what, int(self.database.fact(what) or 0) + more)

    def waiting(self, most: int, key: str | None = None) -> list[Spooled]:
        """Samples that wait, in the order of their coming: those refused least often, then those worth most.

        Args:
            most: of them.
            key: only those of this item of the feed.
        """
        of, values = ("", ()) if key is None else (" AND key = ?", (key,))
        rows = self.database.rows(
            f"SELECT {_ROW} FROM samples WHERE round IS NULL{of} ORDER BY tries, value DESC, id LIMIT ?",  # noqa: S608
            (*values, most),
        )
        return sorted((_read(row) for row in rows), key=lambda s: s.id)

    def take(self, round: int, numbers: Iterable[int]) -> None:
        """These samples are in the reply of a round."""
        with self.database.transaction():
            for number in numbers:
                self.database.rows("UPDATE samples SET round = ? WHERE id = ?", (round, number))

    def settle(self, round: int, taken: int | None, refused: int = 0) -> int:
        """What becomes of the samples that are out, before the order of a round is worked on.

        Args:
            round: of the order.
            taken: the last round in which the cloud took this device's reply; None = it does not say, and
                every reply to an earlier order counts as taken.
            refused: the last round in which it refused one; 0 = none.

        Returns:
            How many were taken.
        """
        db = self.database
        which, value = ("round < ?", round) if taken is None else ("round = ?", taken)
        with db.transaction():
            (count,) = db.rows(f"SELECT count(*) FROM samples WHERE {which}", (value,))[0]  # noqa: S608
            if count:
                db.rows(f"DELETE FROM samples WHERE {which}", (value,))  # noqa: S608
                self._count("taken", count)
            if refused:
                db.rows("UPDATE samples SET tries = tries + 1 WHERE round = ?", (refused,))
                tried = [row[0] for row in db.rows("SELECT id FROM samples WHERE tries >= ?", (TRIES,))]
                self._drop(tried)
                self._count("refused", len(tried))
            db.rows("UPDATE samples SET round = NULL WHERE round IS NOT NULL")
            self._bound()
        return count

    def fit(self, width: int) -> int:
        """Drop samples that are not of a model's width, which an earlier model left; how many."""
        db = self.database
        with db.transaction():
            rows = db.rows("SELECT id, grid, length(tokens) FROM samples")
            odd = [i for i, grid, size in rows if int(grid.split()[0]) * width * 2 != size]
            self._drop(odd)
        return len(odd)

    def facts(self) -> Facts:
        """How many samples there are and were, at one moment."""
        db = self.database
        with db.transaction():
            waiting, out, size = db.rows(
                "SELECT count(*) - count(round), count(round), total(size) FROM samples"
            )[0]
            known = {name: int(db.fact(name) or 0) for name in _COUNTED}
        return Facts(waiting, out, int(size), **known)

    @property
    def fed(self) -> str:
        """What of the feed was read: the key that was given with the last of its items; "" = nothing."""
        return str(self.database.fact(FED) or "")


def _read(row: Sequence) -> Spooled:
    number, came, question, tokens, grid, picture, answer, value, key, tries = row
    n, height, width = map(int, grid.split())
    values = np.frombuffer(tokens, "<f2").reshape(n, -1)
    own = number, came, tries
    return Spooled(question, values, (n, height, width), answer, value, picture or b"", key, *own)
