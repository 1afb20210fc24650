"""Orders for the agent and its replies, in `device.db`.

A device works on one order at a time, so there is one of each. An order that comes again as it was gets the
reply that it had: it was computed once, and its samples count once. One that comes again and says something
else (the cloud was restored from a checkpoint) is worked on anew. No torch and no Flower here: contents are
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from clients.device.database import Database

MOST_BYTES = 2**29  # of an order
MOST_ERROR = 2000  # characters


@dataclass(frozen=True)
class Order:
    """What the cloud asks for in a round."""

    round: int
    content: bytes


@dataclass(frozen=True)
class Reply:
    """What became of an order: `content`, or why there is none."""

    content: bytes
    error: str = ""


@dataclass(frozen=True)
class Mailbox:
    """The orders and replies of a device."""

    database: Database

    def put(self, order: Order) -> None:
        """Leave an order for the agent, in place of every earlier one.

        Raises:
            ValueError: it is too long.
            DatabaseError: see `Database.transaction`.
        """
        if len(order.content) > MOST_BYTES:
            raise ValueError(f"an order of {len(order.content)} bytes; allowed: {MOST_BYTES}")
        db = self.database
        with db.transaction():
            if not db.rows(
                "SELECT 1 FROM orders WHERE round = ? AND content = ?", (order.round, order.content)
            ):
                db.rows("DELETE FROM replies WHERE round = ?", (order.round,))
                db.rows("DELETE FROM orders")
                db.rows("INSERT INTO orders VALUES (?, ?)", (order.round, order.content))
            db.rows("DELETE FROM replies WHERE round = ? AND error != ''", (order.round,))

    def waits(self) -> Order | None:
        """The order that has no reply yet."""
        found = self.database.rows(
            "SELECT round, content FROM orders WHERE round NOT IN (SELECT round FROM replies)"
        )
        return Order(*found[0]) if found else None

    def answer(self, round: int, reply: Reply) -> None:
        """Leave the reply to a round's order, in place of every earlier one."""
        with self.database.transaction():
            self.database.rows("DELETE FROM replies")
            values = round, reply.content, reply.error[:MOST_ERROR]
            self.database.rows("INSERT INTO replies VALUES (?, ?, ?)", values)

    def reply(self, round: int) -> Reply | None:
        """The reply to a round's order; None where there is none yet."""
        found = self.database.rows("SELECT content, error FROM replies WHERE round = ?", (round,))
        return Reply(*found[0]) if found else None
