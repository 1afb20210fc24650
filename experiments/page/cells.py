"""A cell's figures on disk: one small JSON, with all that they depend on, so that it is made once.

They are kept as long as edition, settings, pair, data and the method's source are what they were
(`experiments.page.digests`). Settings are compared one by one: one that did not exist when the cell was made
counts as unchanged while it has its default, so that a new setting throws nothing away. Of the settings only
those are compared that the run reads: of methods its own sections without what others of the section read
alone (`READ_BY`), of `fleet` none without virtual time.
Where things lie (pack, pair, caches, output) does not count.

Of generated data a cell holds what each held-out answer was worth. A pack's items belong to others, so that
a cell of a pack has no answer by itself: it holds sums over groups of at least `LEAST` items, the same groups
in all cells, which is what an interval over items needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cdc_flower import results
from cdc_flower.config import STAGES, Config, ConfigError, flat, parse
from experiments.page import teacher
from experiments.page.plan import TEACHER, Cell
from strategies.method import method

FOLDER = "cells"
PLACES = (
    "data.pack",
    "pair.folder",
    "pair.token-cache",
    "run.out-dir",
    "run.threads",
    "run.callbacks",
    "run.device",
)
FORMAT = 1
GENERATED = "scenes"  # the data that is no pack
GROUPS = 40  # of a domain's items, in a cell of a pack
LEAST = 10  # items of such a group
METHOD = "method"  # digest of a method's source
READ_BY = {"fedavg.lr-full": ("fedavg_full", "fedkd")}
"""Settings of a section that several methods share, and those of them that read it."""


@dataclass(frozen=True)
class Depends:
    """What the figures of a cell depend on.

    Attributes:
        settings: those that its run reads.
        digests: `pair`, `data`, `method`.
    """

    edition: int
    settings: Mapping[str, Any]
    digests: Mapping[str, str]

    @property
    def digest(self) -> str:
        """sha256 hex of all of it."""
        said = json.dumps([FORMAT, self.edition, dict(self.settings), dict(self.digests)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


def read_settings(config: Config, arm: str = "") -> dict[str, Any]:
    """The settings that a run reads, without places; those that decide what the teacher is asked."""
    own = {"data", "drift", "pair", "run"}
    if arm != TEACHER:
        own = {*STAGES, *method(config.run.method).settings}
    if config.fleet.mode == "off":
        own.discard("fleet")
    not_its = {key for key, methods in READ_BY.items() if config.run.method not in methods}
    every = flat(config).items()
    return {k: v for k, v in every if k.partition(".")[0] in own and k not in not_its and k not in PLACES}


def changed(saved: Mapping[str, Any], now: Depends) -> str:
    """What a cell's figures depend on that is another now, in a few words; "" where they are kept. It is
    `METHOD` where its source alone has changed.
    """
    if saved.get("format") != FORMAT:
        return f"format {saved.get('format')}"
    if saved["edition"] != now.edition:
        return f"edition {saved['edition']} -> {now.edition}"
    for what in ("pair", "data"):
        if saved["digests"].get(what) != now.digests[what]:
            return what
    defaults = flat(parse({}))
    before = saved["settings"]
    unread = defaults.keys() - now.settings.keys()
    for key in sorted({*before, *now.settings} - unread):
        was = before.get(key, defaults.get(key))
        if key not in now.settings or was != now.settings[key]:
            return f"{key} {was!r} -> {now.settings.get(key, 'gone')!r}"
    return "" if saved["digests"].get(METHOD) == now.digests.get(METHOD) else METHOD


def file_of(folder: Path, cell: Cell) -> Path:
    """Where a cell's figures lie, below the folder of results."""
    return folder / FOLDER / cell.path


def read(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """A cell's figures; None where there are none.

    Raises:
        ConfigError: a file that is none of ours.
    """
    path = file_of(folder, cell)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}; allowed: a file that `page` wrote") from None
    if not isinstance(found, dict) or not {"format", "edition", "settings", "digests", "items"} <= set(found):
        raise ConfigError(f"{path}: no cell; allowed: a file that `page` wrote")
    return found


def figures(cell: Cell, depends: Depends, run: Path) -> dict[str, Any]:
    """The figures of a cell, from the folder of its run (`TEACHER`: from what its engine wrote there)."""
    head = {
        "format": FORMAT,
        "data": cell.data,
        "pair": cell.pair,
        "arm": cell.arm,
        "seed": cell.seed,
        "digest": depends.digest,
        "edition": depends.edition,
        "digests": dict(depends.digests),
        "settings": dict(depends.settings),
    }
    if cell.arm == TEACHER:
        return {**head, **json.loads((run / teacher.FILE).read_text(encoding="utf-8"))}
    found = results.read(run)
    total = results.totals(found.devices)
    traits = method(found.config["run.method"]).traits
    test = found.rounds[found.rounds["kind"] == "test"]
    return {
        **head,
        "method": found.config["run.method"],
        "labels": traits.labels,
        "device_backprop": traits.device_backprop,
        "adapts": traits.adapts,
        "accuracy": {
            str(domain): [
                [int(r), round(float(a), 6)] for r, a in zip(rows["round"], rows["accuracy"], strict=True)
            ]
            for domain, rows in test.groupby("domain")
        },
        "items": packed(results.read_items(run), alone=found.config["data.pack"] == GENERATED),
        "uplink_bytes": int(total.get("uplink_bytes", 0)),
        "downlink_bytes": int(total.get("downlink_bytes", 0)),
        "device_gflops": round(total["device_flops"] / 1e9, 6),
        "cloud_gflops": _of(found.run, total, "cloud_flops"),
        "failures": int(total["failures"]),
        "seconds": round(float(found.run.get("wall_seconds", 0.0)), 1),
        "ledger_digest": found.run.get("ledger_digest"),
        "adapter_digest": found.run.get("adapter_digest"),
        "versions": found.info.get("versions", {}),
    }


def _of(run: Mapping[str, Any], total: Mapping[str, float], name: str) -> float | None:
    """A figure in GFLOP that not every run has."""
    value = total.get(name, run.get(name, run.get("totals", {}).get(name)))
    return None if value is None else round(float(value) / 1e9, 6)


def packed(items: pd.DataFrame, alone: bool = True) -> dict[str, Any]:
    """Domain -> what the held-out answers were worth.

    Args:
        items: with `domain` and `worth`.
        alone: each by itself, "0110..." where all are right or wrong, else numbers; or as sums over groups,
            of which answer `i` of a domain is in group `i` modulo their number.
    """
    found: dict[str, Any] = {}
    for domain, rows in items.groupby("domain", sort=True):
        worth = rows["worth"].to_numpy(float)
        bits = bool(np.isin(worth, (0.0, 1.0)).all())
        if not alone:
            many = max(min(GROUPS, len(worth) // LEAST), 1)
            sums = [round(float(worth[group::many].sum()), 4) for group in range(many)]
            found[str(domain)] = {"items": len(worth), "sums": sums}
        elif bits:
            found[str(domain)] = "".join("01"[int(w)] for w in worth)
        else:
            found[str(domain)] = [round(float(w), 4) for w in worth]
    return found


def unpacked(items: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The other way: domain -> (answers,) float64, or (groups,) of their means; none for a single group."""
    found = {}
    for domain, worth in items.items():
        if isinstance(worth, Mapping):
            many = len(worth["sums"])
            sizes = [len(range(group, worth["items"], many)) for group in range(many)]
            found[domain] = np.array(worth["sums"]) / sizes if many > 1 else np.zeros(0)
        else:
            found[domain] = np.array([float(w) for w in worth])
    return found


def count(items: Mapping[str, Any]) -> int:
    """How many answers they were."""
    return sum(worth["items"] if isinstance(worth, Mapping) else len(worth) for worth in items.values())
