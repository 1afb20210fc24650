"""What a bench prints: figures beside their limits and targets, how long calls take, and where that was."""

from __future__ import annotations

import json
import math
import os
import platform
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One line: `value` and `limit` in the same unit, `ratio` = value / limit, `target` bounds the ratio.

    `target` reads "<= 1.01" or ">= 20"; "" = shown without a target, and `ok` is then true.
    """

    name: str
    value: float
    limit: float
    ratio: float
    target: str
    ok: bool


def figure(name: str, value: float, limit: float, target: str = "", ratio: float | None = None) -> Figure:
    """A figure whose `ok` follows from its target; `ratio` where it is not value / limit (a mean of
    ratios)."""
    ratio = value / limit if ratio is None else ratio
    ok = True
    if target:
        sign, number = target.split()
        ok = ratio <= float(number) if sign == "<=" else ratio >= float(number)
    return Figure(name, float(value), float(limit), float(ratio), target, bool(ok))


def seconds(call: Callable[[], Any], least: float = 0.3, turns: int = 3) -> float:
    """CPU seconds of the fastest of at least `turns` turns, by default so many that take `least` seconds."""
    best, spent, done = math.inf, 0.0, 0
    while done < turns or (turns > 1 and spent < least and done < 200):
        start = time.process_time()
        call()
        took = time.process_time() - start
        best, spent, done = min(best, max(took, 1e-9)), spent + took, done + 1
        if spent > 20:
            break
    return best


def peak(call: Callable[[], Any]) -> int:
    """The most bytes that a call holds at a time, as `tracemalloc` sees them."""
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def host() -> str:
    """One line on where the figures were measured."""
    load = ", ".join(f"{v:.2f}" for v in os.getloadavg())
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, load {load}; Python {platform.python_version()}, "
        f"numpy {np.__version__}; speeds per CPU second of one thread"
    )


def table(figures: Sequence[Figure]) -> Table:
    """The figures for a terminal."""
    made = Table(box=box.SIMPLE)
    for name in ("figure", "value", "limit", "ratio", "target", "ok"):
        made.add_column(name, justify="left" if name in ("figure", "target") else "right")
    for f in figures:
        ok = ("yes" if f.ok else "NO") if f.target else ""
        made.add_row(f.name, f"{f.value:,.5g}", f"{f.limit:,.5g}", f"{f.ratio:.4f}", f.target, ok)
    return made


def write(figures: Sequence[Figure], folder: Path | None, name: str) -> None:
    """Write the figures for programs, where a folder is given."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n")
