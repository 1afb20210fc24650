"""One line before the libraries are loaded that take seconds, so that nobody waits before an empty screen.

It goes to standard error when the first of them is imported, wherever that is; a command that needs none of
them says nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import typer

HEAVY = frozenset({"torch", "transformers", "flwr", "pandas", "matplotlib", "ray"})
LINE = "loading libraries ..."


class Notice(MetaPathFinder):
    """Finds no module; says `LINE` when the first of `HEAVY` is looked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None, so that the module is found where it is."""
        if fullname in HEAVY and self in sys.meta_path:
            sys.meta_path.remove(self)
            typer.echo(LINE, err=True)
        return None


def announced() -> None:
    """From now on the first heavy import is announced; where one has been made, none is."""
    if HEAVY.isdisjoint(sys.modules):
        sys.meta_path.insert(0, Notice())
