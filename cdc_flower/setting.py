"""One setting: its default, its meaning, who reads it, and what values are allowed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

Reader = Literal["device", "cloud", "device, cloud", "simulator", "all"]
MESSAGE_BYTES = 272  # what a message adds to its frame, at most
YEAR = 366 * 86_400.0  # s, the longest time that a setting names
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def setting(default: Any, meaning: str, reader: Reader = "all", **bounds: Any) -> Any:
    """A field of a stage's dataclass.

    Args:
        default: its type and its value where nobody says otherwise.
        meaning: one line for `cdc-flower settings`; units in brackets.
        reader: who acts on it.
        **bounds: `ge`, `gt`, `le`, `lt`, as pydantic takes them; every number has a lower and an upper one.
    """
    return Field(default=default, description=meaning, json_schema_extra={"reader": reader}, **bounds)
