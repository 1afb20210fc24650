"""What a hostile device says: seeded lies, made of what an honest device would have said.

A lie takes the content of an honest reply and changes it. Lies of `REFUSED` no method may take: a record or
key too many or too few, another type, a value out of all bounds, an array that is not what it says, an error.
Lies of `PLAUSIBLE` may be true of somebody: old replies, other devices' replies, small numbers, noise in
place of weights or tokens. A run must survive both. After the first alone, the rows of honest devices must be
those of a run in which the liars said nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.wire import frame, keys
from cdc_flower.wire.messages import copied

INTEGERS = (-1, -(2**63), 2**53 + 1, 2**62, 2**63 - 1, 2**64 - 1)
NOT_FINITE = (math.nan, math.inf, -math.inf)
HUGE = 1 << 16  # bytes of a long text
MANY = 2_000  # values of a long list, keys of a full record
RECORDS = (MetricRecord, ConfigRecord, ArrayRecord)

Lie = Callable[[Random, RecordDict], RecordDict | Error | None]
"""Random numbers and an honest content, the liar's to change -> what is said instead; None where this content
has nothing to lie about in this way."""


def _pick(rng: Random, content: RecordDict, *kinds: type) -> tuple[str, Any] | None:
    """A record of these kinds that holds something."""
    found = [(name, record) for name, record in content.items() if isinstance(record, kinds) and record]
    return rng.choice(found) if found else None


def _with(rng: Random, content: RecordDict, value: Callable[[Any], Any]) -> RecordDict | None:
    """The content with one value of its metrics or its config changed."""
    chosen = _pick(rng, content, MetricRecord, ConfigRecord)
    if chosen is None:
        return None
    record = chosen[1]
    key = rng.choice(list(record))
    try:
        record[key] = value(record[key])
    except (TypeError, ValueError):  # Flower itself lets no such value into this record
        return None
    return content


# --- lies that must be refused ------------------------------------------------------------------------------


def nothing(rng: Random, content: RecordDict) -> RecordDict:
    """An answer without a record."""
    return RecordDict()


def without_a_record(rng: Random, content: RecordDict) -> RecordDict | None:
    """The metrics or the config are left out."""
    chosen = _pick(rng, content, MetricRecord, ConfigRecord)
    if chosen is None:
        return None
    del content[chosen[0]]
    return content


def without_a_key(rng: Random, content: RecordDict) -> RecordDict | None:
    """One value is left out. Not the host's seconds, which an engine adds."""
    chosen = _pick(rng, content, MetricRecord, ConfigRecord)
    keys_there = [k for k in chosen[1] if k != keys.SECONDS] if chosen else []
    if chosen is None or not keys_there:
        return None
    del chosen[1][rng.choice(keys_there)]
    return content


def another_record(rng: Random, content: RecordDict) -> RecordDict:
    """A record that nobody asked for."""
    kind = rng.choice(RECORDS)
    content[_name(rng)] = kind() if kind is ArrayRecord else kind({"a": 1})
    return content


def other_keys(rng: Random, content: RecordDict) -> RecordDict | None:
    """One or very many keys that nobody asked for."""
    chosen = _pick(rng, content, MetricRecord, ConfigRecord)
    if chosen is None:
        return None
    for i in range(rng.choice((1, 2, MANY))):
        chosen[1][f"{_name(rng)}{i}"] = i
    return content


def another_name(rng: Random, content: RecordDict) -> RecordDict | None:
    """A record under another name than its own."""
    chosen = _pick(rng, content, *RECORDS)
    if chosen is None:
        return None
    content[_name(rng)] = chosen[1]
    del content[chosen[0]]
    return content


def another_type(rng: Random, content: RecordDict) -> RecordDict | None:
    """A list for a number, a number for a list, a text for bytes."""

    def value(was: Any) -> Any:
        if isinstance(was, list):
            return 1
        return [was, was] if isinstance(was, int | float) else "text"

    return _with(rng, content, value)


def not_finite(rng: Random, content: RecordDict) -> RecordDict | None:
    """NaN or infinity for a number or in a list of numbers."""
    bad = rng.choice(NOT_FINITE)
    return _with(rng, content, lambda was: [bad] * len(was) if isinstance(was, list) and was else bad)


def out_of_bounds(rng: Random, content: RecordDict) -> RecordDict | None:
    """An integer that counts nothing."""
    bad = rng.choice(INTEGERS)
    chosen = _pick(rng, content, MetricRecord)
    whole = [k for k, v in chosen[1].items() if isinstance(v, int | list)] if chosen else []
    if chosen is None or not whole:
        return None
    key = rng.choice(whole)
    was = chosen[1][key]
    chosen[1][key] = [bad] * max(1, len(was)) if isinstance(was, list) else bad
    return content


def too_long(rng: Random, content: RecordDict) -> RecordDict | None:
    """A list of thousands, a text or bytes of 64 KiB."""

    def value(was: Any) -> Any:
        if isinstance(was, bytes):
            return was * HUGE
        if isinstance(was, list) and was and isinstance(was[0], str):
            return ["a" * HUGE] * len(was) if rng.random() < 0.5 else was[:1] * MANY
        return was * MANY if isinstance(was, list) and was else [1] * MANY

    return _with(rng, content, value)


def _array(content: RecordDict) -> Array | None:
    record = content.array_records.get(keys.ARRAYS)
    return record.get(keys.PAYLOAD) if record is not None else None


def false_array(rng: Random, content: RecordDict) -> RecordDict | None:
    """An array of another type, shape or length than it says, cut, doubled, or a pickle."""
    was = _array(content)
    if was is None:
        return None
    data = was.data
    made = rng.choice(
        (
            lambda: Array(was.dtype, was.shape, "pickle", data),
            lambda: Array("uint8", was.shape, was.stype, data[: len(data) // 2]),
            lambda: Array(was.dtype, was.shape, was.stype, data[: len(data) // 2]),
            lambda: Array("float64", (2**31 - 1, 2**31 - 1), was.stype, b"\x80\x04" + data[2:]),
            lambda: Array(was.dtype, (-1,), was.stype, b""),
            lambda: Array(np.zeros((3, 2))),
            lambda: Array("object", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O'}"),
            lambda: Array("float16", (2**31 - 1,), "numpy.ndarray", _header("<f2", (2**50,))),
        )
    )()
    content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: made})
    return content


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """The header alone of an array in NumPy's format."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def more_arrays(rng: Random, content: RecordDict) -> RecordDict:
    """A second array."""
    was = _array(content) or Array(np.zeros(2, np.float16))
    content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: was, _name(rng): was})
    return content


def damaged(rng: Random, content: RecordDict) -> RecordDict | None:
    """A frame with one bit changed."""
    was = _array(content)
    if was is None or was.stype != keys.STYPE:
        return None
    data = bytearray(was.data)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(was.dtype, was.shape, was.stype, bytes(data))})
    return content


def an_error(rng: Random, content: RecordDict) -> Error:
    """An error reply of any code, with a reason that a terminal had better not print."""
    reason = rng.choice(("", "x", "\x1b[2J" * 100, "line\n" * 1000, "\x00", "é" * HUGE))
    return Error(rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 99, 2**31 - 1)), reason)


def _name(rng: Random) -> str:
    return rng.choice(("a", "metrics2", "loss2", "..", "\x1b[31mred", "a\nb", "n" * 1000, ""))


REFUSED: dict[str, Lie] = {
    lie.__name__: lie
    for lie in (
        nothing,
        without_a_record,
        without_a_key,
        another_record,
        other_keys,
        another_name,
        another_type,
        not_finite,
        out_of_bounds,
        too_long,
        false_array,
        more_arrays,
        damaged,
        an_error,
    )
}

# --- lies that may pass -------------------------------------------------------------------------------------


def the_truth(rng: Random, content: RecordDict) -> RecordDict:
    """What another device said, or this one at another time."""
    return content


def small_numbers(rng: Random, content: RecordDict) -> RecordDict | None:
    """Numbers near zero for every number."""
    chosen = _pick(rng, content, MetricRecord)
    if chosen is None:
        return None
    for key, was in chosen[1].items():
        drawn = [rng.randrange(2) for _ in was] if isinstance(was, list) else rng.randrange(2)
        chosen[1][key] = float(drawn) if isinstance(was, float) and isinstance(drawn, int) else drawn
    return content


def large_numbers(rng: Random, content: RecordDict) -> RecordDict | None:
    """Numbers that no device computes, but that are numbers."""
    chosen = _pick(rng, content, MetricRecord)
    if chosen is None:
        return None
    for key, was in chosen[1].items():
        most = rng.choice((10**6, 10**12, 2**53))
        large = [most] * len(was) if isinstance(was, list) else most
        chosen[1][key] = min(1e9, float(most)) if isinstance(was, float) else large
    return content


def sealed_noise(rng: Random, content: RecordDict) -> RecordDict | None:
    """A frame with bytes of its sections changed and a right checksum; noise for weights."""
    was = _array(content)
    if was is None:
        return None
    if was.stype != keys.STYPE:
        return _noise(rng, content, was)
    data = was.data
    kind = frame.Kind(data[5])
    sections = [bytearray(s) for s in frame.unpack(data, kind, len(data))]
    for _ in range(rng.choice((1, 2, 8))):
        section = rng.choice([s for s in sections if s] or [bytearray(1)])
        section[rng.randrange(len(section))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    made = frame.pack(kind, *map(bytes, sections))
    content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array("uint8", (len(made),), keys.STYPE, made)})
    return content


def _noise(rng: Random, content: RecordDict, was: Array) -> RecordDict:
    flat = was.numpy()
    scale = rng.choice((1e-3, 1.0, 1e4))
    drawn = np.random.default_rng(rng.randrange(2**32)).standard_normal(flat.shape) * scale
    made = drawn.clip(-6e4, 6e4).astype(flat.dtype)
    content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(made)})
    return content


PLAUSIBLE: dict[str, Lie] = {
    lie.__name__: lie for lie in (the_truth, small_numbers, large_numbers, sealed_noise)
}

# --- a client that tells them -------------------------------------------------------------------------------


class Liars:
    """Wraps a ClientApp: some of its devices lie, the others are as they were.

    Args:
        app: the honest one.
        devices: who lies.
        seed: of the lies.
        lies: what may be said.
        works: whether a liar does the honest work first and changes its own reply; else it changes the last
            honest reply of the same kind, which costs nothing (for lies in great number, in one process).
        query: whether they also lie about who they are.

    Attributes:
        told: (kind of message, lie) -> how many.
    """

    def __init__(
        self,
        app: ClientApp,
        devices: Iterable[int],
        seed: int,
        lies: dict[str, Lie],
        *,
        works: bool = True,
        query: bool = False,
    ) -> None:
        self.app, self.devices, self.seed, self.lies, self.works = app, frozenset(devices), seed, lies, works
        self.kinds = {"train", "evaluate"} | ({"query"} if query else set())
        self.told: Counter[tuple[str, str]] = Counter()
        self._heard: dict[str, RecordDict] = {}

    def __call__(self, message: Message, context: Context) -> Message:
        """The reply to a message."""
        device, kind = int(context.node_config[keys.DEVICE]), message.metadata.message_type
        lies = device in self.devices and kind in self.kinds
        honest = None
        if not lies or self.works or kind not in self._heard:
            honest = self.app(message, context)
        if not lies:
            assert honest is not None
            if honest.has_content():
                self._heard[kind] = honest.content
            return honest
        content = honest.content if honest is not None else self._heard[kind]
        rng = Random(f"{self.seed}/{device}/{kind}/{message.metadata.group_id}")
        while True:
            name = rng.choice(list(self.lies))
            said = self.lies[name](rng, copied(content))
            if said is not None:
                break
        self.told[kind, name] += 1
        return Message(said, reply_to=message)  # type: ignore[call-overload]
