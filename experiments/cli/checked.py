"""Commands whose input is checked before they do anything: values that no command can use are refused here.

Every command of an `App` is a `Checked`: an option given twice, an empty or unprintable value, and a number
that is not finite are refused whatever the command. What else an option may be is said where it is declared:
`min` and `max` of a number, and for a path one of the types below.
"""

from __future__ import annotations

import inspect
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import click
import typer
from typer.core import TyperCommand, TyperGroup

from cdc_flower.border import nearest, no_file, no_folder, odd_text

SHOWN = 60  # characters of a value that is no text


class Place(click.ParamType):
    """A path. A subclass says what is wrong with one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path.

        Raises:
            click.BadParameter: no path, or one that cannot be used.
        """
        try:
            path = Path(value).expanduser()
        except RuntimeError as err:  # no home for ~
            self.fail(f"'{value}': {err}", param, ctx)
        if wrong := self.wrong(path):
            self.fail(f"'{value}'{wrong}", param, ctx)
        return path

    def wrong(self, path: Path) -> str:
        """Why a path cannot be used, as it stands behind the path; "" where it can."""
        raise NotImplementedError


class Folder(Place):
    """A folder that is there."""

    name = "folder"

    def wrong(self, path: Path) -> str:
        """That it is none."""
        return "" if _is(path.is_dir) else " is no folder; allowed: a folder that is there"


class File(Place):
    """A file that is there."""

    name = "file"

    def wrong(self, path: Path) -> str:
        """That it is none."""
        return "" if _is(path.is_file) else " is no file; allowed: a file that is there"


class NewFolder(Place):
    """A folder that is there or can be made, to write to."""

    name = "folder"

    def wrong(self, path: Path) -> str:
        """That nobody can write there."""
        return f": {why}" if (why := no_folder(path)) else ""


class NewFile(Place):
    """A file to write, in a folder that is there."""

    name = "file"

    def wrong(self, path: Path) -> str:
        """That nobody can write there."""
        return f": {why}" if (why := no_file(path)) else ""


def _is(asked: Any) -> bool:
    try:
        return asked()
    except (OSError, ValueError):  # a name that is too long, on some systems
        return False


class Stopped(click.ClickException):
    """Ctrl-C, and what is to be said of it."""

    exit_code = 130


@contextmanager
def goes_on(how: Callable[[], str]) -> Iterator[None]:
    """At Ctrl-C in this block the command says, beside that it was interrupted, what `how` returns: where
    what was done lies, and what goes on with it. A command to paste is behind a line break of its own.
    """
    try:
        yield
    except KeyboardInterrupt as err:
        err.add_note(how())
        raise


def program() -> str:
    """`cdc-flower` as it can be typed here: its name, or the path that it was called by."""
    called, found = sys.argv[0], shutil.which("cdc-flower")
    if Path(called).name != "cdc-flower" or (
        found and os.path.exists(called) and os.path.samefile(called, found)
    ):
        return "cdc-flower"
    return shlex.quote(called)


def written(path: Path) -> int:
    """When a file was last written; 0 = never. Tells whether a command has begun to write its own."""
    return path.stat().st_mtime_ns if path.exists() else 0


def typed(*more: str) -> str:
    """The command that is being called, as it was typed, with more options. What goes on replaces nothing:
    `--resume` is in the place of `--replace`.
    """
    words = click.get_current_context().meta[TYPED]
    if "--resume" in more:
        words = [word for word in words if word != "--replace"]
    return f"{program()} {shlex.join([*words, *(one for one in more if one not in words)])}"


TYPED = "experiments.cli.typed"


class Whole(click.Command):
    """In the list of its group the first paragraph of its help is whole, on as many lines as it takes."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """That paragraph; click would cut it at `limit` characters."""
        return " ".join((self.help or "").split("\n\n")[0].split())


class Group(Whole, TyperGroup):
    """A group of commands, which says what they are when it is asked for another."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Click's.

        Raises:
            click.UsageError: names the nearest command, and all.
        """
        asked, there = args[0], self.list_commands(ctx)
        if asked not in there and not asked.startswith("-"):
            said = f"No such command {asked[:SHOWN]!a}; {nearest(asked, there)}allowed: {', '.join(there)}"
            raise click.UsageError(said, ctx)
        return super().resolve_command(ctx, args)


class Checked(Whole, TyperCommand):
    """A command that refuses what no command can use."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        hints = get_type_hints(inspect.unwrap(self.callback), include_extras=True) if self.callback else {}
        for param in self.params:
            if isinstance(param, click.Argument) and not param.help:  # typer 0.20 loses it from click 8.5 on
                param.help = next((m.help for m in getattr(hints[str(param.name)], "__metadata__", ())), None)

    def invoke(self, ctx: click.Context) -> Any:
        """Call it.

        Raises:
            Stopped: Ctrl-C, which typer would make a number of.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as err:
            raise Stopped("; ".join(getattr(err, "__notes__", []))) from None

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Nothing: typer lists them with the options, and click 8.5 would once more."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Typer's, without the markup that it writes for rich."""
        super().format_help(ctx, formatter)
        formatter.buffer = [text.replace("\\[", "[") for text in formatter.buffer]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Click's, with the checks before and after.

        Raises:
            click.BadParameter: names the option and what is allowed.
        """
        at, names = ctx, list[str]()
        while at.parent is not None:
            at, names = at.parent, [str(at.info_name), *names]
        ctx.meta[TYPED] = [*names, *args]
        if args or not self.no_args_is_help:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for param in order:
                if order.count(param) > 1 and not (param.multiple or param.nargs == -1):
                    raise click.BadParameter("given twice; allowed: once", ctx, param)
                for value in _texts(given.get(param.name)):
                    wrong = odd_text(value) if value else "empty; allowed: a value, or nothing at all"
                    if wrong:
                        raise click.BadParameter(f"{value[:SHOWN]!a}: {wrong}", ctx, param)
        rest = super().parse_args(ctx, args)
        for param in self.params:
            value = ctx.params.get(str(param.name))
            if isinstance(value, float) and not math.isfinite(value):
                raise click.BadParameter(f"{value} is no number; allowed: a finite one", ctx, param)
        return rest


def _texts(value: Any) -> list[str]:
    many = value if isinstance(value, list | tuple) else [value]
    return [one for one in many if isinstance(one, str)]


class App(typer.Typer):
    """A typer app whose commands are `Checked`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """As typer's."""
        return super().command(name, cls=Checked, **settings)
