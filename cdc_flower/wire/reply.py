"""The one reader of what devices answer: a reply has a declared form, or it is refused as a whole.

A form names every record, key, type, shape and bound; what it does not name is refused, so a strategy never
sees anything that it did not ask for. Sizes are looked at before contents: records and keys are counted, then
the length of every list, text and array is compared with its bound, and only then is the exact size of the
message taken and anything converted. 10^5 keys or an array of 1 GB cost nothing but the memory in which
Flower already holds them. Nothing is unpickled; the header of a numpy array is compared, not parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cdc_flower.wire import keys
from cdc_flower.wire.fields import Field, Flat, Frame, ReplyError, clean
from cdc_flower.wire.messages import KINDS, message_bytes

_ENVELOPE = 64  # bytes, at most, that protobuf adds to an entry


@dataclass(frozen=True)
class Form:
    """All that a reply holds, under the names of `wire.keys`. What is declared must be there.

    Attributes:
        metrics: keys of its MetricRecord.
        config: keys of its ConfigRecord; {} = there is none.
        array: its one array; None = there is none.
        max_bytes: of the whole content in Flower's protobuf; 0 = as much as the rest allows.
    """

    metrics: Mapping[str, Field] = field(default_factory=dict)
    config: Mapping[str, Field] = field(default_factory=dict)
    array: Frame | Flat | None = None
    max_bytes: int = 0

    @cached_property
    def most(self) -> int:
        """The bytes that a reply of this form can have at most."""
        fields = [*self.metrics.items(), *self.config.items()]
        most = sum(4 * len(name) + _ENVELOPE + kind.bytes for name, kind in fields) + 8 * _ENVELOPE
        most += self.array.bytes if self.array is not None else 0
        return min(most, self.max_bytes or most)


@dataclass(frozen=True, eq=False)
class Reply:
    """A reply that has its form.

    Attributes:
        metrics, config: every declared key, and no other.
        frame: b"" where the reply has none.
        array: as the form declares it; read-only; None where the reply has none.
        bytes: of the content in Flower's protobuf, exactly.
    """

    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    frame: bytes = b""
    array: np.ndarray | None = None
    bytes: int = 0


def read(content: Any, form: Form) -> Reply:
    """What a device answered.

    Args:
        content: a `RecordDict` as it came.
        form: that it must have.

    Raises:
        ReplyError: it has another.
    """
    declared = {keys.METRICS: form.metrics, keys.CONFIG: form.config, keys.ARRAYS: form.array}
    _only(content, [name for name, part in declared.items() if part], "the reply")
    for name, record in content.items():
        if not isinstance(record, KINDS[name]):
            raise ReplyError(f"the record '{name}' is of another kind than its name says")
    metrics = _fields(content, keys.METRICS, form.metrics)
    config = _fields(content, keys.CONFIG, form.config)
    data = _data(content, form.array)
    size = message_bytes(content)
    if size > form.most:
        raise ReplyError(f"the reply has {size} bytes; allowed: up to {form.most}")
    made = form.array.read(data) if data is not None and form.array is not None else b""
    if isinstance(made, bytes):
        return Reply(metrics, config, frame=made, bytes=size)
    return Reply(metrics, config, array=made, bytes=size)


def _only(found: Any, names: Sequence[str], what: str) -> None:
    """Refuse what is not declared, by number first."""
    allowed = f"allowed: {', '.join(names) or 'nothing'}"
    if len(found) > len(names):
        raise ReplyError(f"{what} has {len(found)} entries; {allowed}")
    for name in found:
        if name not in names:
            raise ReplyError(f"{what} has an entry '{clean(name, 40)}'; {allowed}")


def _record(content: Any, name: str, entries: Sequence[str]) -> Any:
    """A record with exactly these entries."""
    if name not in content:
        raise ReplyError(f"the reply lacks its record '{name}' with {', '.join(entries)}")
    _only(content[name], entries, f"the record '{name}'")
    for key in entries:
        if key not in content[name]:
            raise ReplyError(f"the record '{name}' lacks {key}")
    return content[name]


def _fields(content: Any, name: str, declared: Mapping[str, Field]) -> dict[str, Any]:
    """The values of a record."""
    if not declared:
        return {}
    record, values = _record(content, name, list(declared)), {}
    for key, kind in declared.items():
        try:
            values[key] = kind.read(record[key])
        except ReplyError as err:
            raise ReplyError(f"{key} is {err}") from None
    return values


def _data(content: Any, declared: Frame | Flat | None) -> bytes | None:
    """The data of the array, of which everything but the values is as declared."""
    if declared is None or (keys.ARRAYS not in content and not declared.required):
        return None
    array = _record(content, keys.ARRAYS, [keys.PAYLOAD])[keys.PAYLOAD]
    declared.weigh(array)
    return array.data
