"""What one device reads in a run: its questions round by round, and the vision tokens of their pictures.

A device sees no label, no test item, and of the other devices nothing. In a simulation its part of the data
is published by the driver before round 1 (`publish`), as a folder in the cache whose name follows from the
run config and the shared part of the models alone, so that a client process finds it without reading any data
pack. Files are `.npy` and JSON; nothing is unpickled. Labels lie in a file of their own, written only for
methods that say that their devices learn from labels, and opened only by their device work.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cdc_flower.config import Config, ConfigError
from cdc_flower.data import features
from cdc_flower.data.features import Features, Grid, cache_folder
from cdc_flower.disk import whole
from cdc_flower.session import kept

if TYPE_CHECKING:
    from cdc_flower.data.world import World
    from cdc_flower.models.shared import Shared

FORMAT = 1
STREAMS, _ROWS, _ENDS = "streams.npy", "rows.npy", "picture_ends.npy"
_META, _QUESTIONS, _COMPRESSION, _PICTURES = "meta.json", "questions.json", "compression.json", "pictures.bin"


class Source(Protocol):
    """What one device reads; items are numbered, and an item is a question about a picture."""

    @property
    def longest(self) -> int:
        """Length of the longest prompt of any device: batches are padded to it."""
        ...

    @property
    def compression(self) -> str:
        """Of the student on this device; "" = what the run config says."""
        ...

    def items(self, round: int) -> np.ndarray:
        """(samples,) int64: what the device is asked in a round, counted from 1, in that order."""
        ...

    def tokens(self, item: int) -> np.ndarray:
        """Vision tokens (n, D) float16 of the item's picture."""
        ...

    def grid(self, item: int) -> Grid:
        """How these tokens lie."""
        ...

    def question(self, item: int) -> str:
        """The words of the question."""
        ...

    def picture(self, item: int) -> bytes:
        """The encoded picture."""
        ...

    def label(self, item: int) -> str:
        """The true answer, where devices learn from labels."""
        ...


@dataclass(frozen=True, eq=False)
class Published:
    """The opened folder of a simulated fleet, shared by the devices of a process.

    Attributes:
        streams: (devices, rounds, samples) int32, items.
        rows: (items, 2) int32: of each item its picture and its question.
        questions: the words of every question.
        features: vision tokens of all pictures.
        longest: length of the longest prompt.
        compressions: of each device; empty where the run config says it.
        pictures: all encoded pictures, one after another (bytes,) uint8, and where each ends.
        labels: the file of true answers, which may be absent.
    """

    streams: np.ndarray
    rows: np.ndarray
    questions: Sequence[str]
    features: Features
    longest: int
    compressions: Sequence[str]
    pictures: tuple[np.ndarray, np.ndarray] | None
    labels: Path


@dataclass(frozen=True)
class Simulated:
    """The `Source` of one device of a simulated fleet."""

    published: Published
    device: int

    @property
    def longest(self) -> int:
        """See `Source`."""
        return self.published.longest

    @property
    def compression(self) -> str:
        """See `Source`."""
        return self.published.compressions[self.device] if self.published.compressions else ""

    def items(self, round: int) -> np.ndarray:
        """See `Source`."""
        return np.array(self.published.streams[self.device, round - 1], np.int64)

    def tokens(self, item: int) -> np.ndarray:
        """See `Source`."""
        return self.published.features[self.published.rows[item, 0]]

    def grid(self, item: int) -> Grid:
        """See `Source`."""
        return self.published.features.grid(int(self.published.rows[item, 0]))

    def question(self, item: int) -> str:
        """See `Source`."""
        return self.published.questions[int(self.published.rows[item, 1])]

    def picture(self, item: int) -> bytes:
        """See `Source`."""
        assert self.published.pictures is not None, "published for units that need no picture"
        data, ends = self.published.pictures
        picture = int(self.published.rows[item, 0])
        return data[ends[picture - 1] if picture else 0 : ends[picture]].tobytes()

    def label(self, item: int) -> str:
        """See `Source`."""
        path = self.published.labels
        return _labels(path, path.stat().st_mtime_ns)[item]


@kept(2)
def _labels(path: Path, changed: int) -> list[str]:
    return json.loads(path.read_text())


def folder_of(config: Config, shared: Shared) -> Path:
    """Where the streams of a run are: a name made of the settings that they depend on."""
    return cache_folder(config.pair.token_cache) / "streams" / _name(config, shared)


@kept(4)
def _name(config: Config, shared: Shared) -> str:
    run = config.run
    settings: dict[str, Any] = {
        "format": FORMAT,
        "data": asdict(config.data),
        "drift": asdict(config.drift),
        "run": [run.seed, run.devices, run.rounds, run.samples_per_round],
        "unit": config.uplink.unit,
        "models": [shared.digest, shared.tokens_digest, bool(shared.card), shared.card.get("split")],
    }
    if config.pair.compression == "auto":
        settings["fleet"] = [config.fleet.mix, config.fleet.cost_model]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]


def _labels_path(folder: Path) -> Path:
    return folder.parent.parent / "labels" / f"{folder.name}.json"


@kept(2)  # of student and teacher
def longest_question(shared: Shared, world: World) -> int:
    """Ids of the longest question that any device is asked, with what the prompt has behind it."""
    return max(len(shared.text.question_ids(q)) for q in set(world.train["question"].astype(str)))


@kept(1)
def longest_prompt(shared: Shared, world: World) -> int:
    """Length of the longest prompt: of the widest picture and the longest question."""
    grids = {Grid(*grid) for grid in world.train_tokens.index[:, 1:].tolist()}
    picture = max(len(shared.text.prefix_ids(grid)) for grid in grids)
    return picture + longest_question(shared, world)


def publish(
    config: Config, shared: Shared, world: World, *, compression: Sequence[str] = (), labels: bool = False
) -> Path:
    """Write what devices read, where that is not there already; the folder appears whole or not at all.

    Args:
        config: of the run.
        shared: of its models.
        world: of the run.
        compression: of each device, where the setting is "auto".
        labels: write the labels, too: for methods whose devices learn from them.

    Returns:
        The folder.

    Raises:
        ConfigError: it cannot be written.
    """
    folder = folder_of(config, shared)
    tokens = Path(world.train_tokens.flat.filename)  # type: ignore[attr-defined]
    meta = {
        "data": world.pack.digest,
        "features": os.path.relpath(tokens, folder.parent),
        "longest": longest_prompt(shared, world),
        "compression": hashlib.sha256(json.dumps(list(compression)).encode()).hexdigest(),
    }
    try:
        if labels:
            _labels_path(folder).parent.mkdir(parents=True, exist_ok=True)
            with whole(_labels_path(folder)) as file:
                file.write(json.dumps(world.answers.tolist()).encode())
        if _meta(folder) == meta:
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder.parent))
        try:
            _write(part, config, world, compression)
            (part / _META).write_text(json.dumps(meta))
            features.place_folder(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as err:
        raise ConfigError(
            f"folder of streams '{folder}': cannot be written: {err}; allowed: any writable folder "
            "(setting 'pair.token-cache' or variable CDC_FLOWER_CACHE)"
        ) from None
    return folder


def _meta(folder: Path) -> Mapping[str, Any] | None:
    try:
        return json.loads((folder / _META).read_text())
    except (OSError, ValueError):
        return None


def _write(part: Path, config: Config, world: World, compression: Sequence[str]) -> None:
    run = config.run
    shape = (run.devices, run.rounds, run.samples_per_round)
    with (part / STREAMS).open("wb") as file:  # not mapped: a full disk would end the process
        about = {"descr": "<i4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        for device in range(run.devices):
            file.write(np.ascontiguousarray(world.streams[device], "<i4").tobytes())
    asked = world.train["question"].astype(str)
    questions = list(dict.fromkeys(asked))
    number = {question: i for i, question in enumerate(questions)}
    rows = np.column_stack([world.train["image_row"], [number[question] for question in asked]])
    np.save(part / _ROWS, rows.astype(np.int32), allow_pickle=False)
    (part / _QUESTIONS).write_text(json.dumps(questions))
    (part / _COMPRESSION).write_text(json.dumps(list(compression)))
    if config.uplink.unit != "tokens":
        with (part / _PICTURES).open("wb") as file:
            sizes = [file.write(picture) for picture in world.pack.train_images.values()]
        np.save(part / _ENDS, np.cumsum(sizes), allow_pickle=False)


def files(config: Config, shared: Shared, *, labels: bool = False) -> dict[str, Path]:
    """What `publish` wrote and where the tower's outputs are: name in the cache folder -> file.

    Args:
        config: of the run.
        shared: of its models.
        labels: with the labels, too.
    """
    folder, cache = folder_of(config, shared), cache_folder(config.pair.token_cache)
    tokens = Path(os.path.normpath(folder.parent / json.loads((folder / _META).read_text())["features"]))
    found = [*(p for p in folder.iterdir() if p.is_file()), tokens, features.index_path(tokens)]
    return {p.relative_to(cache).as_posix(): p for p in found + [_labels_path(folder)] * labels}


def source(config: Config, shared: Shared, device: int) -> Source:
    """What a device of a run reads.

    Raises:
        ConfigError: nothing was published for this run.
    """
    folder = folder_of(config, shared)
    try:
        changed = (folder / _META).stat().st_mtime_ns
    except OSError:
        raise ConfigError(
            f"no streams of this run in '{folder}': the server publishes them before the first round; on "
            "another machine its cache folder must be found under 'pair.token-cache' or CDC_FLOWER_CACHE"
        ) from None
    return Simulated(_opened(folder, changed), device)


@kept(4)
def _opened(folder: Path, changed: int) -> Published:
    meta = json.loads((folder / _META).read_text())
    found = features.read(Path(os.path.normpath(folder.parent / meta["features"])))
    if found is None:
        raise ConfigError(f"vision tokens '{meta['features']}' of '{folder.parent}' cannot be read")
    pictures = None
    if (folder / _PICTURES).is_file():
        pictures = np.memmap(folder / _PICTURES, np.uint8, "r"), np.load(folder / _ENDS, allow_pickle=False)
    return Published(
        np.lib.format.open_memmap(folder / STREAMS, mode="r"),
        np.load(folder / _ROWS, allow_pickle=False),
        json.loads((folder / _QUESTIONS).read_text()),
        found,
        meta["longest"],
        json.loads((folder / _COMPRESSION).read_text()),
        pictures,
        _labels_path(folder),
    )
