"""Tables on standard output."""

from __future__ import annotations

from typing import Any


def show(*shown: Any) -> None:
    """Print tables and text; nothing is cut where a file or a pipe reads."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe: nothing is cut
    for one in shown:
        console.print(one)


def new_table(*heads: str) -> Any:
    """A plain table: the first column to the left, the others to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for i, head in enumerate(heads):
        made.add_column(head, justify="left" if i == 0 else "right", no_wrap=True)
    return made
