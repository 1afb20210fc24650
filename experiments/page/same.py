"""Which sources of a method are known to do the same, so that an edit without effect throws no cell away.

When a cell is made again because its method's source has changed, and nothing else has, it may end with the
bits that it had: ledger, adapter, answers, operations. That is evidence that the two sources do the same. It
is written to `same.json` beside the cells, and the arm's other cells on that data, of other seeds and pairs,
are kept while their source and today's are connected by such evidence. A cell that ended with other bits on
the same processor, with the same packages, is written down, too, and outweighs any number that did not: then
all are made again. Elsewhere a run has other bits whatever its source, so that other bits there say nothing.

What is proved is one run. What only another seed, another pair or a message that was lost leads to was not
run; each arm and each data set asks for evidence of its own, because settings and lengths of answers lead
elsewhere in the source. Where in doubt, delete the entry, or raise `edition`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cdc_flower import results
from cdc_flower.config import ConfigError
from experiments.page.cells import METHOD
from experiments.page.plan import Cell

FILE = "same.json"
BITS = (
    *("ledger_digest", "adapter_digest", "items", "accuracy", "failures"),
    *("uplink_bytes", "downlink_bytes", "device_gflops", "cloud_gflops"),
)


@dataclass(frozen=True)
class Same:
    """What a cell says about two sources of an arm's method on some data.

    Attributes:
        then, now: digests of the method's source, hex.
        seen: the name of the cell that was made with both.
        bits: whether it ended with the same.
    """

    data: str
    arm: str
    then: str
    now: str
    seen: str
    bits: bool = True


def read(folder: Path) -> list[Same]:
    """All evidence in a folder of results.

    Raises:
        ConfigError: a file that is none of ours.
    """
    path = folder / FILE
    try:
        return [Same(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}; allowed: a file that `page` wrote") from None


def record(folder: Path, cell: Cell, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Write down what a cell that was made again says about its method's sources.

    Args:
        folder: of results.
        cell: that was made again.
        then: its figures, where the method's source alone was another.
        now: its new ones.

    Returns:
        Whether it ended with the same bits.
    """
    bits = then.get("ledger_digest") is not None and all(then.get(what) == now.get(what) for what in BITS)
    one = Same(cell.data, cell.arm, then["digests"][METHOD], now["digests"][METHOD], cell.name, bits)
    known, alike = read(folder), then.get("versions") == now.get("versions")
    says = not witness(known, cell, one.then, one.now) if bits else alike
    if says and one not in known:
        results.write_json(folder / FILE, [asdict(of) for of in (*known, one)])
    return bits


def witness(known: Sequence[Same], cell: Cell, then: str, now: str) -> str:
    """The cells that connect a cell's source with today's, by name, with ", "; "" where none do."""
    mine = [one for one in known if (one.data, one.arm) == (cell.data, cell.arm)]
    reached: dict[str, tuple[str, ...]] = {then: ()}
    while True:
        more = {
            there: (*reached[here], one.seen)
            for one in mine
            for here, there in ((one.then, one.now), (one.now, one.then))
            if one.bits and here in reached and there not in reached
        }
        if not more:
            break
        reached |= more
    if any(not one.bits and {one.then, one.now} <= set(reached) for one in mine):
        return ""
    return ", ".join(dict.fromkeys(reached.get(now, ())))
