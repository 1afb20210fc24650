"""Lines of commands for people: wrapped between words in a terminal, whole in a pipe or a file.

What a program reads (JSON, Markdown) is no such line, and goes through `typer.echo`.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from functools import partial

import typer


def say(text: str, err: bool = False) -> None:
    """Print lines on standard output, or on standard error; a word that is longer than a line stays whole."""
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        wrap = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
        text = "\n".join(map(wrap, text.splitlines()))
    typer.echo(text, err=err)
