"""What one device answered, read by its form before anything is made of it.

Whatever a device sends costs that device alone: it ends here in a good answer or in a status and a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from flwr.app import Message

from cdc_flower.fleet.engines.local_grid import UNAVAILABLE
from cdc_flower.wire import counts, keys, reply
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.fields import Field, Flat, Number, Numbers, Texts, clean
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import REFUSED
from cdc_flower.wire.reply import Form, Reply

T = TypeVar("T")
CHARACTERS = 256  # of an answer's token, at most
MOST_SECONDS = 1e9  # of a device's work in a round, on any host
STATUS = {UNAVAILABLE: "missing", REFUSED: "refused"}
"""Code of an error reply -> status of the row; every other is "failed"."""


def counted(most: int) -> dict[str, Field]:
    """The form of what a device says that it computed: `most` bounds each count."""
    return {keys.COUNTS: Numbers(Number(int, 0, min(most, counts.MOST)), len(fields(Counts)))}


def learned(most: int, computed: Mapping[str, Field]) -> dict[str, Field]:
    """The form of what a device says that learned: from how many examples, and with what loss."""
    return {keys.EXAMPLES: Number(int, 0, most), "loss": Number(float), **computed}


COMPUTED = {**counted(counts.MOST), keys.SECONDS: Number(float, 0, MOST_SECONDS)}
"""Metrics of every TRAIN reply beside its method's own."""


@dataclass(frozen=True)
class Taken(Generic[T]):
    """What a method made of a good reply.

    Attributes:
        value: the method's own.
        samples, tokens: in what was sent, as the method counted them, not as the device says.
    """

    value: T
    samples: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What became of a TRAIN message.

    Attributes:
        status: of the ledger's row.
        reason: why it cannot be used; "" where it can, or never came.
        reply: the reply, where it has its form.
        taken: what the method made of it, where it can be used.
    """

    status: str
    reason: str = ""
    reply: Reply | None = None
    taken: Taken[T] | None = None

    @property
    def computed(self) -> Counts:
        """What the device says that it computed."""
        return Counts.of(self.reply.metrics) if self.reply is not None else Counts()

    @property
    def seconds(self) -> float:
        """Host seconds that the device says it took."""
        return self.reply.metrics[keys.SECONDS] if self.reply is not None else 0.0


MISSING: Answer[Any] = Answer("missing")


def train_form(own: Form) -> Form:
    """The form of a TRAIN reply: what every device says of its work, and the method's own, which may bound
    the counts more closely.
    """
    return replace(own, metrics={**COMPUTED, **own.metrics})


def answer(message: Message | None, form: Form, take: Callable[[Reply], Taken[T]]) -> Answer[T]:
    """Read a reply to a TRAIN message.

    Args:
        message: as it came; None where none did.
        form: of the whole reply, see `train_form`.
        take: what the method makes of a good one; raises `FrameError` where it cannot be used.
    """
    if message is None:
        return MISSING
    if message.has_error():
        return Answer(STATUS.get(message.error.code, "failed"), clean(message.error.reason))
    good = None
    try:
        good = reply.read(message.content, form)
        return Answer("ok", "", good, take(good))
    except FrameError as err:
        return Answer("refused", clean(str(err)), good)


def evaluated(message: Message, asked_in: int, samples: int, longest: int, held: int = 0) -> Reply:
    """An EVALUATE reply: in its config the texts that were answered in the round `asked_in`, as its array
    (held,) float32, where it is asked for and the device has it, the beginning of what the device keeps.

    Raises:
        ReplyError: it breaks its form.
    """
    form = Form(
        metrics={keys.ROUND: Number(int, asked_in, asked_in)},
        config={keys.ANSWERS: Texts(samples, longest)},
        array=Flat(held, "float32", required=False) if held else None,
    )
    return reply.read(message.content, form)
