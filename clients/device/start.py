"""A device's agent is made of its bundle: lock, models, database, feed, each checked before it is used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from cdc_flower.config import ConfigError
from cdc_flower.data.instruction import BY_ROW, told_by_card
from cdc_flower.lock import locked
from clients.device import (
    lean,  # noqa: F401  first: it says how bitsandbytes is imported
    preflight,
)
from clients.device.agent import Agent
from clients.device.answering import Student
from clients.device.database import FILE, Database
from clients.device.feed import Feed
from clients.device.feeds import FEEDS
from clients.device.settings import RUN, Bundle
from clients.device.spool import FED
from clients.device.stream import Stream

TRIES = 5, 0.2  # for the lock, s apart: whoever looks whether the agent runs holds it for a moment


@contextmanager
def opened(folder: Path) -> Iterator[Agent]:
    """The agent of a bundle, ready to run; it holds the lock of the bundle's state for the `with` block.

    Raises:
        ConfigError: settings or models that cannot be used, or another agent runs.
        RunError: the database cannot be used.
    """
    bundle = Bundle.of(folder)
    with _alone(bundle):
        preflight.arithmetic(bundle)
        student = Student.of(bundle)
        database = Database(bundle.state / FILE)
        try:
            database.whole()
            feed, student = _feed(bundle, student, str(database.fact(FED) or ""))
            yield Agent.of(bundle, student, database, feed)
        finally:
            database.close()


@contextmanager
def _alone(bundle: Bundle) -> Iterator[None]:
    """Hold the lock; it may be held for a moment by who looks whether the agent runs."""
    bundle.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    tries, apart = TRIES
    with ExitStack() as held:
        for left in reversed(range(tries)):
            try:
                held.enter_context(locked(bundle.state))
                break
            except ConfigError:
                if not left:
                    raise
                time.sleep(apart)
        yield


def _feed(bundle: Bundle, student: Student, fed: str) -> tuple[Feed, Student]:
    """The feed that the settings name, and the student with the longest question that it may be asked."""
    own = bundle.device
    if own.feed == "stream":
        stream = Stream.of(student.config, student.shared, own.number)
        longest = own.longest_question or stream.longest_question(student.shared)
        return stream, replace(student, longest=longest, padded=stream.source.longest)
    if not own.longest_question:
        raise ConfigError(
            f"'{bundle.folder / 'device.toml'}': setting 'longest-question' = 0 with feed '{own.feed}'; "
            "allowed: the ids of the longest question that the cloud takes, see `cdc-flower provision`"
        )
    data = told_by_card(student.config.data, student.shared.card)
    if data.task == BY_ROW and data.instruction == "auto":
        raise ConfigError(
            f"'{bundle.folder / RUN}': setting 'data.task' = '{BY_ROW}' has an instruction for each row, and "
            f"feed '{own.feed}' has no rows; allowed: words or none for 'data.instruction'"
        )
    return FEEDS[own.feed](bundle.feed, fed, student.shared.frames), student
