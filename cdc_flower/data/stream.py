"""Who sees what, when: the domain of a row, the rows of a device, and the rounds of its stream.

A sample is drifted when something in it was never shown to the student while it was trained: the object, the
kind of question, or the style of the picture (the two shifts of arXiv 2312.16279, VQAv2 -> A-OKVQA and COCO
-> nocaps, are the question and the object axis). Devices are cut by Flower Datasets' partitioners. Every
random draw comes from its own generator, seeded by (seed, purpose, device), so a stream never depends on
which other stream was made before.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from cdc_flower.config import Config, ConfigError, DataConfig, DriftConfig

KEPT = 4096  # streams in memory, per process
SOURCE = "source"
DOMAINS = (SOURCE, "object", "question", "style", "mixed")


def generator(seed: int, purpose: str, device: int = 0) -> np.random.Generator:
    """The generator for `purpose` on `device`; equal arguments give equal draws, in any order of calls."""
    words = np.frombuffer(hashlib.sha256(purpose.encode()).digest()[:16], dtype="<u4")
    return np.random.default_rng([seed, *words.tolist(), device])


# --- domains ------------------------------------------------------------------------------------------------


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _known(
    frame: pd.DataFrame, reference: pd.DataFrame, column: str, column_key: str, key: str, spec: str
) -> np.ndarray | None:
    """Which rows of `frame` have a value of `column` that the student knows, (rows,) bool; None = all."""
    if not spec.strip():
        return None
    for part in (frame, reference):
        if column not in part.columns:
            raise ConfigError(
                f"setting '{key}' = {spec!r} needs column '{column}' (setting "
                f"'{column_key}'), which the data does not have; allowed columns: "
                f"{', '.join(map(str, part.columns))}"
            )
    values = reference[column].astype(str).unique().tolist()
    if spec.strip().endswith("%"):
        try:
            share = float(spec.strip()[:-1]) / 100
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise ConfigError(
                f"setting '{key}' = {spec!r}: allowed: a share from above 0% to 100%, such as '50%'"
            )
        count = max(1, round(share * len(values)))
        limit = sorted(map(_hash, values))[count - 1]
        return frame[column].astype(str).map(lambda value: _hash(value) <= limit).to_numpy(dtype=bool)
    known = [value.strip() for value in spec.split(",") if value.strip()]
    for value in known:
        if value not in values:
            some = sorted(values)
            listed = ", ".join(some[:20]) + (f", ... ({len(some)} in all)" if len(some) > 20 else "")
            raise ConfigError(
                f"setting '{key}' = {spec!r}: column '{column}' has no value '{value}'; "
                f"allowed: {listed}, or a share such as '50%'"
            )
    return frame[column].astype(str).isin(known).to_numpy(dtype=bool)


def domains(frame: pd.DataFrame, config: DataConfig, reference: pd.DataFrame | None = None) -> np.ndarray:
    """The domain of every row: what in it the student never saw.

    Args:
        frame: rows of a pack.
        config: the `known_*` settings and the columns they speak of. A share ("50%") takes the values whose
            sha256 is lowest, so it does not depend on the order of the rows.
        reference: the rows whose values may be named and are counted for a share; `frame` itself by default.
            Pass the train rows with a test frame: its objects may be held out, and both splits must share one
            boundary.

    Returns:
        (rows,) str: "source", "object", "question", "style", or "mixed" where more than one is unknown.

    Raises:
        ConfigError: a column that is missing, a value that does not occur, or a share that is none.
    """
    reference = frame if reference is None else reference
    axes = {
        "object": (config.object_column, "data.object-column", "data.known-objects", config.known_objects),
        "question": ("qtype", "data.known-questions", "data.known-questions", config.known_questions),
        "style": (config.style_column, "data.style-column", "data.known-styles", config.known_styles),
    }
    names = np.full(len(frame), SOURCE, dtype=object)
    unknown = np.zeros(len(frame), dtype=np.int64)
    for axis, (column, column_key, key, spec) in axes.items():
        known = _known(frame, reference, column, column_key, key, spec)
        if known is not None:
            names[~known] = axis
            unknown += ~known
    names[unknown > 1] = "mixed"
    return names.astype(str)


def check_domains(train: np.ndarray, test: np.ndarray, axes: Sequence[str]) -> None:
    """Refuse a run with an empty domain.

    Args:
        train: (rows,) domains of the train rows.
        test: the same for the test rows.
        axes: the drift axes of the run; the source is needed as well.

    Raises:
        ConfigError: names the domain, the split, and how many rows the domains that exist have.
    """
    for split, rows in (("train", train), ("test", test)):
        found = {name: int(np.sum(rows == name)) for name in DOMAINS}
        for name in (SOURCE, *axes):
            if not found[name]:
                there = ", ".join(f"{n} {count}" for n, count in found.items() if count)
                hint = (
                    "everything is unknown to the student"
                    if name == SOURCE
                    else "allowed in setting 'drift.axes': the domains that exist, or none"
                )
                raise ConfigError(
                    f"domain '{name}' is empty in the {split} split; rows there: {there}; "
                    f"{hint} (settings known-objects, known-questions and known-styles say "
                    "what is drifted)"
                )


# --- devices ------------------------------------------------------------------------------------------------


def partition(frame: pd.DataFrame, config: DataConfig, devices: int, seed: int) -> list[np.ndarray]:
    """Give every row to one device, by a Flower Datasets partitioner, or (`shared`) all rows to every device.

    `iid` cuts shuffled rows evenly; `natural` gives a device whole values of `partition_by` (several, if
    there are more values than devices); `dirichlet` draws each value's shares over devices from
    Dirichlet(alpha).

    Args:
        frame: train rows.
        config: partition settings.
        devices: how many.
        seed: of the shuffle or the draw.

    Returns:
        For each device the (rows,) int64 positions in `frame`, sorted; together every position once, but for
        `shared`.

    Raises:
        ConfigError: fewer rows or natural values than devices, a missing column, or no division with a row
            for each.
    """
    if config.partition == "shared":
        return [np.arange(len(frame), dtype=np.int64)] * devices
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner, GroupedNaturalIdPartitioner, IidPartitioner

    if len(frame) < devices:
        raise ConfigError(
            f"setting 'run.devices' = {devices}: the data has {len(frame)} usable train rows; "
            f"allowed: at most {len(frame)}, or 'partition' = 'shared'"
        )
    rng = generator(seed, "partition")
    rows = np.arange(len(frame), dtype=np.int64)
    if config.partition == "iid":
        table = {"row": rng.permutation(rows)}
        cutter = IidPartitioner(num_partitions=devices)
    else:
        if config.partition_by not in frame.columns:
            raise ConfigError(
                f"setting 'data.partition-by' = {config.partition_by!r}: the data has no such "
                f"column; allowed: {', '.join(map(str, frame.columns))}"
            )
        by = frame[config.partition_by].astype(str)
        if config.partition == "natural":
            values = sorted(by.unique())
            if len(values) < devices:
                raise ConfigError(
                    f"setting 'run.devices' = {devices}: column '{config.partition_by}' (setting "
                    f"'data.partition-by') has {len(values)} values; allowed with partition "
                    f"natural: at most {len(values)}"
                )
            groups = np.array_split(rng.permutation(np.array(values, dtype=object)), devices)
            owner = {value: device for device, group in enumerate(groups) for value in group}
            table = {"row": rows, "by": np.array([owner[value] for value in by], dtype=np.int64)}
            cutter = GroupedNaturalIdPartitioner(partition_by="by", group_size=1, sort_unique_ids=True)
        else:
            table = {"row": rows, "by": by.to_numpy(dtype=object)}
            cutter = DirichletPartitioner(
                num_partitions=devices,
                partition_by="by",
                min_partition_size=1,
                alpha=config.dirichlet_alpha,
                seed=int(rng.integers(2**31)),
            )
    cutter.dataset = Dataset.from_dict(table)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every redrawn Dirichlet sample warns
            parts = [cutter.load_partition(device)["row"][:] for device in range(devices)]
    except ValueError as err:
        raise ConfigError(
            f"setting 'data.dirichlet-alpha' = {config.dirichlet_alpha}: no division of "
            f"{len(frame)} rows over {devices} devices with a row for each was found; "
            f"allowed: a larger alpha or fewer devices ({str(err).split('.')[0]})"
        ) from None
    return [np.sort(np.asarray(part, dtype=np.int64)) for part in parts]


# --- rounds -------------------------------------------------------------------------------------------------


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
