"""Who meets what, when: the share of drift by round, and the rows of a device's stream in their order.

Every device draws from its own generators (`cdc_flower.draws`), so a stream never depends on which other
stream was made before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from cdc_flower.config import Config, ConfigError
from cdc_flower.data.domains import SOURCE
from cdc_flower.draws import generator
from cdc_flower.stages import DriftConfig

KEPT = 4096  # streams in memory, per process


def drift_share(config: DriftConfig, device: int, devices: int, round: int) -> float:
    """Share of drifted samples that a device meets in a round.

    A device's onset is `drift_onset` plus its place in the spread: devices in order, in `drift_spread + 1`
    equal groups. Sudden drift is full from the onset on; gradual drift grows evenly and is full in the
    `drift_ramp`-th round.

    Args:
        config: drift settings.
        device: 0 .. devices - 1.
        devices: how many there are.
        round: counted from 1.

    Returns:
        0 .. 1 - source_share.
    """
    if config.axes.strip() in ("", "none"):
        return 0.0
    onset = config.onset + device * (config.spread + 1) // devices
    if round < onset:
        return 0.0
    return (1.0 - config.source_share) * min(1.0, (round - onset + 1) / config.ramp)


class _Deck:
    """Rows of one domain on one device, drawn without replacement and shuffled anew when used up."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        self.rows, self.rng = rows, rng
        self.pile: list[int] = []

    def draw(self, count: int) -> list[int]:
        drawn: list[int] = []
        while len(drawn) < count:
            if not self.pile:
                self.pile = self.rng.permutation(self.rows).tolist()
            taken = count - len(drawn)
            drawn += self.pile[:taken]
            self.pile = self.pile[taken:]
        return drawn


def schedule(domain: np.ndarray, rows: np.ndarray, config: Config, device: int) -> list[np.ndarray]:
    """The stream of one device: which rows it is asked about in rounds 1 .. R.

    The counts follow `drift_share` exactly over time (what is rounded off in one round comes in a later one).
    The drifted samples take the device's axes in turn: all that are configured, or with `drift_per_device`
    "one" the axis at `device` modulo their number. A device without a row of an axis goes on with the others
    it has; one without source rows or without drifted rows uses what it has.

    Args:
        domain: (train rows,) str, from `domains`; rows of domains that are not in the run are never drawn.
        rows: (n,) int64 positions that belong to the device.
        config: the whole configuration.
        device: 0 .. devices - 1.

    Returns:
        R arrays (samples_per_round,) int64, positions in the train frame, in the order in which they come.
    """
    seed, count = config.run.seed, config.run.samples_per_round
    rows = np.asarray(rows, dtype=np.int64)
    decks = {
        name: _Deck(rows[domain[rows] == name], generator(seed, f"stream/{name}", device))
        for name in (SOURCE, *config.axes)
    }
    decks = {name: deck for name, deck in decks.items() if len(deck.rows)}
    axes = [axis for axis in config.axes if axis in decks]
    if axes and config.drift.per_device == "one":
        own = config.axes[device % len(config.axes)]
        axes = [own if own in decks else axes[device % len(axes)]]
    rng = generator(seed, "order", device)
    stream, due, turn = [], 0.0, device
    for round in range(1, config.run.rounds + 1):
        share = drift_share(config.drift, device, config.run.devices, round)
        before, due = int(due + 1e-9), due + share * count
        drifted = int(due + 1e-9) - before
        if not axes:
            drifted = 0
        elif SOURCE not in decks:
            drifted = count
        drawn = decks[SOURCE].draw(count - drifted) if SOURCE in decks else []
        turns = [(turn + i) % len(axes) for i in range(drifted)]
        turn += drifted
        for i, axis in enumerate(axes):
            drawn += decks[axis].draw(turns.count(i))
        stream.append(rng.permutation(np.array(drawn, dtype=np.int64)))
    return stream


def repeats(streams: np.ndarray) -> dict[str, float]:
    """How often devices meet a row again, for run.json.

    Args:
        streams: (devices, rounds, samples), as published; of many devices the first `KEPT` are counted.

    Returns:
        `questions` of a device, its `distinct_rows` (mean and least over devices), and `repeating_devices`.
    """
    some = streams[:KEPT].reshape(min(len(streams), KEPT), -1)
    distinct = [len(np.unique(rows)) for rows in some]
    return {
        "questions": some.shape[1],
        "distinct_rows": round(sum(distinct) / len(distinct), 1),
        "fewest_distinct_rows": min(distinct),
        "repeating_devices": sum(n < some.shape[1] for n in distinct),
    }


class Streams(Sequence[list[np.ndarray]]):
    """[device][round - 1] -> (samples_per_round,) int64 positions in the train frame.

    Each is made when it is asked for: of ten thousand devices most are idle, and an idle one costs its rows.
    Those asked for last are kept.

    Args:
        domain: (train rows,) str, from `domains`.
        parts: rows of each device, from `partition`.
        config: the whole configuration.

    Raises:
        ConfigError: a device has no row of the source or of any configured axis.
    """

    def __init__(self, domain: np.ndarray, parts: Sequence[np.ndarray], config: Config) -> None:
        usable = np.isin(domain, (SOURCE, *config.axes))
        for device, rows in enumerate(parts):
            if not usable[rows].any():
                raise ConfigError(
                    f"device {device} has no rows of the source or of the drift axes ({len(rows)} other "
                    "rows); fewer devices or another partition are needed"
                )
        self._parts = parts
        self._made = lru_cache(maxsize=KEPT)(lambda device: schedule(domain, parts[device], config, device))

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, device):
        if not 0 <= device < len(self):
            raise IndexError(f"device {device} of {len(self)}")
        return self._made(device)
