"""A grid that hands a round's answers on as soon as enough of them are there.

Over any Flower grid that takes messages and gives replies apart (`push_messages`, `pull_messages`). It asks
for replies twice a second, where Flower's own `send_and_receive` sleeps three seconds. In rounds of their own
(`enough` = 0) all that was asked is waited for, until the timeout, and what has not come then is forgotten.
With a buffer a message stays open over rounds, until its answer comes or it has had its time: a reply
NODE_UNAVAILABLE says so then, and the strategy may ask the device again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.app import Error, Message
from flwr.serverapp import Grid

from cdc_flower.fleet.engines.local_grid import UNAVAILABLE, Around
from cdc_flower.wire.messages import trains

POLL = 0.5  # s


class Gathering(Around):
    """Rounds over another grid.

    Args:
        inner: does the work.
        enough: answers that end a round; 0 = all.
        clock, sleep: of the tests.
    """

    def __init__(
        self,
        inner: Grid,
        enough: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.inner, self.enough = inner, enough
        self._clock, self._sleep = clock, sleep
        self._open: dict[
            str, tuple[Message, float]
        ] = {}  # id -> a TRAIN message, and when it has had its time

    @property
    def open(self) -> int:
        """How many messages of earlier rounds are still waited for."""
        return len(self._open)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Replies in the order in which they came: to these messages, and with a buffer to earlier ones."""
        messages = list(messages)
        until = self._clock() + (float("inf") if timeout is None else timeout)
        buffered = bool(self.enough) and all(map(trains, messages))
        awaited = self._open if buffered else {}
        ids = list(self.inner.push_messages(messages)) if messages else []
        awaited |= {i: (message, until) for i, message in zip(ids, messages, strict=True) if i}
        replies = [_unavailable(m) for i, m in zip(ids, messages, strict=True) if not i]
        while awaited:
            came = list(self.inner.pull_messages(list(awaited)))
            for reply in came:
                awaited.pop(reply.metadata.reply_to_message_id, None)
            replies += came
            if not awaited or (buffered and len(replies) >= self.enough) or self._clock() >= until:
                break
            self._sleep(POLL)
        if buffered:
            over = [i for i, (_, end) in awaited.items() if self._clock() >= end]
            replies += [_unavailable(awaited.pop(i)[0]) for i in over]
        return replies


def _unavailable(message: Message) -> Message:
    return Message(Error(UNAVAILABLE, "no answer in its time"), reply_to=message)
