"""Tables of texts for the terminal, as wide as it is: nothing is cut.

What does not fit is left out by whole columns, in an order that the table says, and a line below says which.
Where none can be spared any more, long words take several lines.
A file or a pipe gets every column.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # rich is loaded with the first table
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

INTERVALS = "intervals"  # in `spare`: of all cells what stands behind " ±"
PIPE = 10_000  # columns of what is no terminal
NARROW = 16  # columns that a text takes several lines in, at least
WORD = 44  # characters of a word that stays whole


@dataclass(frozen=True)
class Fitted:
    """A table that fits its console.

    Attributes:
        heads: of the columns; "\\n" begins a second line.
        rows: a text for each column.
        spare: heads of what a narrow terminal goes without, in this order; may have `INTERVALS` in it.
        wraps: heads of the columns whose texts may take several lines.
        left: heads of the columns that begin at the left; the first does, and those of `wraps`.
        title: above the table.
        elsewhere: where to find what was left out.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    spare: Sequence[str] = ()
    wraps: Sequence[str] = ()
    left: Sequence[str] = ()
    title: str = ""
    elsewhere: str = "a wider terminal or a pipe has them"

    def fit(self, width: int) -> tuple[list[str], list[list[str]], list[str]]:
        """Heads and rows that fit into `width` columns, and what was left out for it."""
        heads, rows = list(self.heads), [list(row) for row in self.rows]
        spare, gone = list(self.spare), []
        while spare and self._least(heads, rows) > width:
            less = spare.pop(0)
            if less == INTERVALS:
                plain = [[cell.partition(" ±")[0] for cell in row] for row in rows]
                gone += [less] if plain != rows else []
                rows = plain
            elif less in heads:
                at = heads.index(less)
                gone.append(less.replace("\n", " ").strip())
                del heads[at]
                rows = [row[:at] + row[at + 1 :] for row in rows]
        return heads, rows, gone

    def _widths(self, heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
        """Of the columns, `width` together at most: rich shares it out without a look at their least."""
        tried = (self._leasts(heads, rows, word) for word in range(WORD, NARROW, -1))
        least = next((of for of in tried if sum(of) <= width), self._leasts(heads, rows, NARROW))
        whole = [
            max(_cells(line) for text in texts for line in text.split("\n"))
            for texts in _columns(heads, rows)
        ]
        more = [most - has for most, has in zip(whole, least, strict=True)]
        share = min(1.0, max(0, width - sum(least)) / max(1, sum(more)))
        return [has + int(share * wants) for has, wants in zip(least, more, strict=True)]

    def _least(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
        """Columns of the terminal that the table needs: one space between its own."""
        return sum(self._leasts(heads, rows)) + len(heads) - bool(heads)

    def _leasts(self, heads: Sequence[str], rows: Sequence[Sequence[str]], word: int = WORD) -> list[int]:
        """Of each column alone."""
        return [
            self._column(head, texts, word) for head, texts in zip(heads, _columns(heads, rows), strict=True)
        ]

    def _column(self, head: str, texts: Sequence[str], word: int = WORD) -> int:
        """Columns of the terminal that one of the table's needs at least; words of so many stay whole."""
        lines = [line for text in texts for line in text.split("\n")]
        whole = max(map(_cells, lines))
        if head not in self.wraps:
            return whole
        words = [one for line in lines for one in line.split()]
        return min(whole, max([NARROW, *(n for n in map(_cells, words) if n <= word)]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, for the width that rich has."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        heads, rows, gone = self.fit(options.max_width)
        apart = 2 if self._least(heads, rows) + len(heads) - 1 <= options.max_width else 1
        widths = self._widths(heads, rows, options.max_width - apart * (len(heads) - 1))
        made = Table(
            title=Text(self.title, style="italic") if self.title else None,
            caption=Text(f"too narrow for: {', '.join(gone)}; {self.elsewhere}") if gone else None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, apart - 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        for head, width in zip(heads, widths, strict=True):
            made.add_column(
                Text(head),
                justify="left" if head in (heads[0], *self.left, *self.wraps) else "right",
                no_wrap=head not in self.wraps,
                overflow="fold",
                width=width,
                vertical="top",
            )
        for row in rows:
            made.add_row(*map(Text, row))
        yield made


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The texts of each column, its head first."""
    return [[head, *(row[i] for row in rows)] for i, head in enumerate(heads)]


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def on_two_lines(head: str) -> str:
    """A head on two lines: "gap closed %" -> "gap", "closed %"."""
    first, _, rest = head.partition(" ")
    return f"{first}\n{rest}" if rest else f"\n{first}"


def console_of(stderr: bool = False) -> Console:
    """A console of this process; with NO_COLOR (https://no-color.org) no bold and no italics either."""
    from rich.console import Console

    plain: Any = {"color_system": None} if os.environ.get("NO_COLOR") else {}
    return Console(stderr=stderr, highlight=False, **plain)


def show(*shown: RenderableType) -> None:
    """Print tables and lines on standard output; lines are wrapped between words."""
    console = console_of()
    if not console.is_terminal:
        console.width = PIPE
    for one in shown:
        if isinstance(one, str):
            console.print(one, markup=False, soft_wrap=not console.is_terminal)
        else:
            console.print(one)
