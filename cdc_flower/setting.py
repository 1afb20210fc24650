"""One setting: its default, its meaning, who reads it, and what values are allowed; and the TOML files of
machines, whose settings are of the same kind.

A run's settings are flat, `stage.key`, and `cdc_flower.config` reads them. What stands in a machine's own
file (`device.toml`, `cloud.toml`) is one frozen dataclass of `setting` fields: `read` and `written` are its
reader and writer, and refuse in the same words.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from cdc_flower.border import odd_text

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it and what is allowed. Commands exit with 2."""


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


def checked(cls: type[T], values: Mapping[str, Any], named: Callable[[str], str]) -> T:
    """A dataclass of settings from values under the names of its fields.

    Args:
        cls: the dataclass.
        values: field -> value; what is absent takes its default.
        named: how a message names a field.

    Raises:
        ConfigError: a value that is not allowed, or a field that there is not; one line.
    """
    for name, value in values.items():
        if isinstance(value, str) and (odd := odd_text(value)):
            raise ConfigError(f"setting '{named(name)}' = {value!a}: {odd}")
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as err:
        first = err.errors()[0]
        name = str(first["loc"][0])
        fields = cls.__pydantic_fields__  # type: ignore[attr-defined]
        may = allowed(cls, name) if name in fields else ", ".join(named(field) for field in fields)
        raise ConfigError(f"setting '{named(name)}' = {first['input']!r}; allowed: {may}") from None


def allowed(cls: type, name: str) -> str:
    """What a field of a dataclass of settings may be, in words: "a whole number from 1 to 1024"."""
    field: Any = cls.__pydantic_fields__[name]  # type: ignore[attr-defined]
    kind = field.annotation
    if get_origin(kind) is Literal:
        *most, last = map(repr, get_args(kind))
        return f"{', '.join(most)} or {last}" if most else last
    bounds = [
        f"{word} {getattr(m, sign):.15g}"
        for sign, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))
        for m in field.metadata
        if hasattr(m, sign)
    ]
    kinds = {int: "a whole number", bool: "true or false", str: "text"}
    return " ".join([kinds.get(kind, "a number"), *bounds])


def read(cls: type[T], path: Path) -> T:
    """The settings of a machine, from its TOML file; keys are the names of the fields with hyphens.

    Raises:
        ConfigError: no such file, no TOML, an unknown key, or a value that is not allowed; one line that
            names the file.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"'{path}': {err.strerror}; allowed: a file that can be read") from None
    except ValueError as err:  # no UTF-8, no TOML
        raise ConfigError(f"'{path}' is no TOML: {' '.join(str(err).split())}") from None
    known = {f.name.replace("_", "-"): f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(known)}"
            raise ConfigError(f"'{path}': unknown setting '{key}'; {hint}")
    try:
        return checked(cls, {known[k]: v for k, v in values.items()}, lambda name: name.replace("_", "-"))
    except ConfigError as err:
        raise ConfigError(f"'{path}': {err}") from None


def written(settings: Any) -> str:
    """The TOML of a machine's settings, each below its meaning; `read` gives them back."""
    lines = []
    for f in dataclasses.fields(settings):
        meaning = type(settings).__pydantic_fields__[f.name].description
        value = json.dumps(getattr(settings, f.name), ensure_ascii=False)
        lines.append(f"# {meaning}\n{f.name.replace('_', '-')} = {value}\n")
    return "\n".join(lines)
