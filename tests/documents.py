"""The documents' commands: read out of them, and held against the command line without running anything."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import click
import typer

from cdc_flower import plugins
from cdc_flower.config import ConfigError, parse
from clients.device.settings import DeviceConfig
from experiments.cli.app import app
from experiments.cli.checked import Place
from experiments.page import plan
from experiments.run import arms, settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(<!-- not run: ([^\n]+) -->\n)?```(\w*)[^\n]*\n(.*?)^```", re.S | re.M)
INLINE = re.compile(r"`((?:cdc-flower|make|python -m|pytest) [^`]+)`")
OURS = ("cdc-flower", "make", "python", "pytest")
HARMLESS = ("export", "cd", "rm", "tar")
"""Of a shell or of every Linux: only their form is looked at."""
UNKNOWN = "not known here"


@dataclass(frozen=True)
class Block:
    """A block of code of a document, and why it is not run, where its source says so."""

    document: str
    kind: str
    text: str
    not_run: str


def blocks(kind: str = "") -> list[Block]:
    """All blocks of code of the documents, of a kind."""
    found = [
        Block(path.name, match[3], match[4], match[2] or "")
        for path in DOCUMENTS
        for match in BLOCK.finditer(path.read_text())
    ]
    return [block for block in found if kind in ("", block.kind)]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block, each in words; variables that it exports are put in."""
    text = text.replace("\\\n", " ")
    for line in re.findall(r"^export (.*)$", text, re.M):
        for name, value in (word.split("=", 1) for word in shlex.split(line, comments=True)):
            text = re.sub(rf"\${name}\b", value.replace("\\", r"\\"), text)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
        lexer.whitespace_split, words = True, list[str]()
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def inline() -> list[tuple[str, list[str]]]:
    """Commands in the text of a document, with its name; without those that only show a form."""
    found = []
    for path in DOCUMENTS:
        if path.name == "log.md":  # dated: what it names may be gone
            continue
        for command in INLINE.findall(re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)):
            if not re.search(r"\[-|\.\.\.", command):
                found.append((path.name, shlex.split(command.replace("\n", " "))))
    return found


def wrong(words: list[str], mentioned: bool = False) -> str:
    """What cannot be right about a command; "" where nothing is known to be wrong.

    Args:
        words: of the command.
        mentioned: it stands in a sentence, where arguments may be left out.
    """
    while words and re.fullmatch(r"[A-Z_]+=.*|sudo|-u", words[0]):
        words = words[2 if words[0] == "-u" else 1 :]
    name = Path(words[0]).name if words else "export"
    if name == "cdc-flower":
        return _ours(words[1:], mentioned)
    if "--run-config" in words:  # of `flwr run`
        return _run_config(words[words.index("--run-config") + 1]) or f"{name}: {UNKNOWN}"
    if name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        return "".join(f"no target {w}; " for w in words[1:] if "=" not in w and w not in targets)
    if name == "pytest" or words[1:3] == ["-m", "pytest"]:
        named = [w.partition("::")[0] for w in words if w.startswith("tests/")]
        return "".join(f"no file {w}; " for w in named if not (ROOT / w).exists())
    if name == "python" and words[1:2] == ["-m"] and words[2] != "venv":
        return _module(words[2], words[3:])
    return "" if name in (*HARMLESS, *OURS) else f"{name}: {UNKNOWN}"


def _run_config(text: str) -> str:
    """What is wrong with settings as `flwr run` gets them."""
    try:
        parse(settings.flattened(tomllib.loads("\n".join(text.split()))))
    except (ConfigError, tomllib.TOMLDecodeError) as err:
        return str(err)
    return ""


def _module(name: str, rest: list[str]) -> str:
    """What is wrong with a module that is run: it is not there, or does not know an option."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return f"no module {name}"
    source = Path(found.origin).read_text()
    options = [word[2:] for word in rest if word.startswith("--")]
    return "".join(
        f"no option --{option}; "
        for option in options
        if not re.search(rf"--{option}\b|\b{option.replace('-', '_')}: ", source)
    )


@cache
def _commands() -> Any:
    """The command line."""
    return typer.main.get_command(app)


def _ours(words: list[str], mentioned: bool) -> str:
    """What is wrong with a command of ours: its name, its options, or their values."""
    command, path = _commands(), list[str]()
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        path.append(words[0])
        command = command.commands.get(words.pop(0))
    if command is None:
        return f"no command {' '.join(path)}"
    context = click.Context(command)
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        if rest:
            return f"unexpected {rest}"
        values = {
            name: value for name, value in values.items() if isinstance(value, str | bool | list | tuple)
        }
        for param in command.params:
            value = values.get(param.name)
            if value is None and param.required and not mentioned:
                return f"{param.name} is missing"
            if value is not None and not isinstance(param.type, Place):
                param.type_cast_value(context, value)
        return _values(path, values)
    except click.BadOptionUsage as err:  # an option is named, and its value left out
        return "" if mentioned else err.format_message()
    except click.ClickException as err:
        return err.format_message()
    except ConfigError as err:
        return str(err)


def _values(path: list[str], values: dict[str, Any]) -> str:
    """Which settings, methods, arms or parts of the page that are named are not there.

    Raises:
        ConfigError: settings that are not, or cannot be.
    """
    sets, allowed = (
        list(values.get("sets") or values.get("changes") or ()),
        {*plugins.names(plugins.METHODS), "all"},
    )
    if path == ["provision", "device"]:
        known = {f.name.replace("_", "-") for f in fields(DeviceConfig)}
        return "".join(f"no setting {s}; " for s in sets if s.partition("=")[0] not in known)
    parse(settings.resolve(values.get("data"), values.get("preset"), sets)[0])
    named = [n for n in (values.get("methods") or values.get("method") or "").split(",") if n]
    if unknown := set(named) - allowed:
        return f"no method {unknown}"
    if (study := values.get("arms")) and not study.endswith(".toml"):
        arms.read(study)
    if path == ["page"] and values.get("only"):
        plan.read().cells(values["only"].split(","))
    return ""
