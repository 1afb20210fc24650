"""Lines over rounds as SVG that stands in a page: coordinates alone, all colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 28
Point = tuple[float, float | None]
"""A round and a value; None = there is none."""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where, and what it says."""

    at: float
    words: str


@dataclass(frozen=True)
class Line:
    """One line; `parts` are polylines, `dots` its points."""

    name: str
    parts: Sequence[str]
    dots: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Drawing:
    """Lines with their axes."""

    lines: Sequence[Line]
    x: Sequence[Tick]
    y: Sequence[Tick]


def drawing(
    lines: Sequence[tuple[str, Sequence[Point]]], low: float, high: float, unit: str
) -> Drawing | None:
    """Lines over rounds; None where there is no point.

    Args:
        lines: name and points, in order of rounds.
        low, high: of the values' axis.
        unit: "%" = values are shares, shown in percent; "" = whole numbers.
    """
    known = [x for _, points in lines for x, value in points if value is not None]
    if not known:
        return None
    first, last = min(known), max(known)
    wide, tall = max(last - first, 1), max(high - low, 1e-9)

    def across(x: float) -> float:
        return round(LEFT + (x - first) / wide * (WIDTH - LEFT - RIGHT), 1)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / tall * (HEIGHT - TOP - BOTTOM), 1)

    found = []
    for name, points in lines:
        parts: list[list[tuple[float, float]]] = [[]]
        for x, value in points:
            if value is None:
                parts.append([])
            else:
                parts[-1].append((across(x), up(value)))
        whole = [" ".join(f"{x},{y}" for x, y in part) for part in parts if len(part) > 1]
        found.append(Line(name, whole, [dot for part in parts for dot in part]))
    marks = sorted({low + (high - low) * i / 4 for i in range(5)} if unit else _whole(low, high))
    return Drawing(
        found,
        [Tick(across(x), f"{x:g}") for x in _whole(first, last)],
        [Tick(up(value), f"{value:.0%}" if unit else f"{value:g}") for value in marks],
    )


def _whole(low: float, high: float) -> list[int]:
    """About five whole numbers from `low` to `high`."""
    first, last = int(low), int(high)
    step = next(s * 10**e for e in range(19) for s in (1, 2, 5) if (last - first) / (s * 10**e) <= 5)
    return list(range(-(-first // step) * step, last + 1, step))
