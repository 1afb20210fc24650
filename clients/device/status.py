"""How a device is, read from its folder: `device.db` and the lock. The agent need not run; no torch here."""

from __future__ import annotations

from typing import Any

from cdc_flower.fleet.engines.adapter_files import HELD
from cdc_flower.lock import taken
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_of
from clients.device.conditions import may_send, read
from clients.device.database import FILE, Damaged, Database
from clients.device.mailbox import Mailbox
from clients.device.settings import Bundle
from clients.device.spool import Spool

STATE = "state"  # the fact in which the agent keeps what device work keeps


def status(bundle: Bundle) -> dict[str, Any]:
    """What a device is and has.

    Raises:
        DatabaseError: `device.db` cannot be used.
    """
    own, path = bundle.device, bundle.state / FILE
    found: dict[str, Any] = {
        "device": own.number,
        "name": own.name,
        "running": taken(bundle.state),
        "superlink": own.superlink,
        "feed": own.feed,
        "held_back": may_send(own, read(bundle.state)) or None,
    }
    if not path.exists():
        return found | {"version": 0, "digest": None, "order": None, "error": None, "samples": None}
    database = Database(path)
    try:
        spool, mailbox = Spool(database, own.spool_samples, own.spool_bytes), Mailbox(database)
        order, facts, kept = mailbox.waits(), spool.facts(), database.fact(STATE)
        last = database.rows("SELECT round, error FROM replies ORDER BY round DESC LIMIT 1")
    finally:
        database.close()
    version, digest = _version(kept) if kept else (0, None)
    round, error = last[0] if last else (None, "")
    return found | {
        "version": version,
        "digest": digest,
        "order": order.round if order else None,
        "round": round,
        "error": error or None,
        "samples": vars(facts),
    }


def _version(kept: bytes) -> tuple[int, str | None]:
    try:
        record = state_of(kept).config_records.get(HELD)
        return (int(record[keys.VERSION]), bytes(record[keys.DIGEST]).hex()) if record else (0, None)  # type: ignore[arg-type]
    except Exception as err:  # protobuf's own
        raise Damaged(f"the state in '{FILE}' cannot be read ({type(err).__name__})") from None
