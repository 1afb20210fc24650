"""`cdc-flower settings` and `cdc-flower methods`: what can be chosen, for people and for programs."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from cdc_flower import plugins
from cdc_flower.config import REGISTRIES, ConfigError, sections
from experiments.report.tables import Fitted, show

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def settings(
    stage: Annotated[
        str | None, typer.Argument(help="One stage, such as uplink; default all.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the settings: default, range, meaning, and who reads each."""
    if stage is not None and stage not in sections():
        raise ConfigError(f"unknown stage '{stage}'; allowed: {', '.join(sections())}")
    rows = [row for name, cls in sections().items() if stage in (None, name) for row in of_stage(name, cls)]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    heads = ("setting", "default", "allowed", "read by", "meaning")
    cells = [(r["key"], shown(r["default"]), allowed(r), r["reader"], r["meaning"]) for r in rows]
    show(Fitted(heads, cells, ("read by",), wraps=("default", "allowed", "meaning"), left=heads))


def of_stage(stage: str, cls: Any) -> list[dict[str, Any]]:
    """The settings of a stage's dataclass: key, type, default, bounds, values or registered names where there
    are some, meaning, reader.
    """
    rows = []
    for name, field in cls.__pydantic_fields__.items():
        kind = field.annotation
        values = list(get_args(kind)) if get_origin(kind) is Literal else None
        bounds = {sign: getattr(m, sign) for m in field.metadata for sign in SIGNS if hasattr(m, sign)}
        key = f"{stage}.{name.replace('_', '-')}"
        rows.append(
            {
                "key": key,
                "type": type(field.default).__name__,
                "default": field.default,
                **({"values": values} if values else {}),
                **({"names": registered(key)} if key in REGISTRIES else {}),
                **bounds,
                "meaning": field.description,
                "reader": field.json_schema_extra["reader"],
            }
        )
    return rows


def registered(key: str) -> list[str]:
    """What is registered under the names that a setting may have."""
    module, registry = REGISTRIES[key]
    plugins.extend()
    return list(getattr(import_module(module), registry))


def shown(value: Any) -> str:
    """A default as `--set` takes it."""
    return "''" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)


def allowed(row: dict[str, Any]) -> str:
    """What a setting may be, in a few characters: "nf4, int8", ">= 1, <= 95", "text"."""
    if some := row.get("values", row.get("names")):
        return ", ".join(map(str, some))
    bounds = ", ".join(f"{SIGNS[sign]} {row[sign]:.15g}" for sign in SIGNS if sign in row)
    return bounds or {"bool": "true, false", "str": "text"}.get(row["type"], "a number")


def methods(as_json: Json = False) -> None:
    """List the methods that are installed: what each is, what it asks for, its own settings."""
    from dataclasses import asdict

    from strategies.method import methods as installed

    rows = [
        {
            "name": name,
            "about": method.about,
            "traits": asdict(method.traits),
            "settings": [
                row["key"] for stage, cls in method.settings.items() for row in of_stage(stage, cls)
            ],
        }
        for name, method in installed().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    cells = []
    for row in rows:
        has = ", ".join(trait.replace("_", " ") for trait, value in row["traits"].items() if value)
        sections_of = dict.fromkeys(key.partition(".")[0] for key in row["settings"])
        cells.append((row["name"], row["about"], has or "-", ", ".join(sections_of) or "-"))
    heads = ("method", "about", "traits", "own settings")
    show(Fitted(heads, cells, ("own settings",), wraps=heads[1:]))
