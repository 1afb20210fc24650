"""The world: all that a run reads, made once per process from a pack, a configuration and a pair.

The vision tower is frozen and shared by teacher and student, so its outputs never change: they are computed
once per (tower, pack, split), stored as one float16 array, and memory-mapped by every process and every later
run. What is left of a picture after this module are its tokens; the pack keeps the encoded pictures, and only
who sends or shows one decodes it.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from cdc_flower.config import Config, ConfigError, DataConfig
from cdc_flower.data import packs, stream
from cdc_flower.data.packs import Pack

if TYPE_CHECKING:
    from cdc_flower.models.pair import Pair

BATCH = 64  # pictures per call of the tower
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class World:
    """What a run reads.

    Attributes:
        pack: the whole pack, unrestricted.
        train: its train rows that are of the source or of a configured drift axis, numbered from 0, with the
            columns `drift_domain` (str) and `image_row` (int64, row of `train_tokens`).
        test: the held-out items of each of these domains, the same for every run seed; the same extra
            columns.
        train_tokens: (pictures, N, D) float16, memory-mapped.
        test_tokens: (pictures, N, D) float16, memory-mapped.
        streams: [device][round - 1] -> (samples_per_round,) int64 positions in `train`.
    """

    pack: Pack
    train: pd.DataFrame
    test: pd.DataFrame
    train_tokens: np.ndarray
    test_tokens: np.ndarray
    streams: Sequence[list[np.ndarray]]


def cache_folder(setting: str = "") -> Path:
    """Where tower outputs are kept: the setting, else `$CDC_FLOWER_CACHE`, else `~/.cache/cdc_flower`."""
    named = setting or os.environ.get("CDC_FLOWER_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "cdc_flower"


def _encode(model: Any, processor: Any, images: list[Image.Image]) -> np.ndarray:
    from cdc_flower.models import vlm

    return vlm.encode_images(model, processor, images)


def open_picture(data: bytes) -> Image.Image:
    """A picture of a pack, in RGB; packs were checked when they were read."""
    return Image.open(io.BytesIO(data), formats=packs.FORMATS).convert("RGB")


def _stored(path: Path, pictures: int) -> np.ndarray | None:
    """The stored tokens, or None where there are none that can be used."""
    try:
        tokens = np.lib.format.open_memmap(path, mode="r")  # never unpickles: object arrays are refused
    except (OSError, ValueError):
        return None
    right = tokens.ndim == 3 and len(tokens) == pictures and tokens.dtype == np.float16
    return tokens if right else None


def tokens_of(
    images: Mapping[str, bytes],
    path: Path,
    pair: Pair,
    progress: Progress | None = None,
    stage: str = "tokens",
) -> np.ndarray:
    """The tower's outputs of all pictures, from `path` or computed and stored there.

    The file appears whole or not at all, so processes that start together at worst compute the same thing
    twice.

    Args:
        images: name -> encoded picture; the order gives the rows.
        path: an `.npy` file.
        pair: its teacher holds the vision tower.
        progress: see `Progress`.
        stage: the word handed to `progress`.

    Returns:
        (pictures, N, D) float16, read-only memory map.

    Raises:
        ConfigError: the tower gives values that are not finite, or the file cannot be written.
    """
    stored = _stored(path, len(images))
    if stored is not None:
        return stored
    names, pictures = list(images), list(images.values())
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(temporary)
        store: np.memmap | None = None
        for start in range(0, len(pictures), BATCH):
            decoded = [open_picture(picture) for picture in pictures[start : start + BATCH]]
            batch = np.asarray(_encode(pair.teacher, pair.processor, decoded)).astype(np.float16)
            finite = np.isfinite(batch).all(axis=(1, 2))
            if not finite.all():
                raise ConfigError(
                    f"the vision tower of pair '{pair.name}' gives values that are not finite "
                    f"in float16 for picture '{names[start + int(np.argmin(finite))]}'"
                )
            if store is None:
                store = np.lib.format.open_memmap(
                    part, mode="w+", dtype=np.float16, shape=(len(pictures), *batch.shape[1:])
                )
            store[start : start + len(batch)] = batch
            if progress is not None:
                progress(stage, start + len(batch), len(pictures))
        assert store is not None
        store.flush()
        del store
        os.replace(part, path)
    except OSError as err:
        raise ConfigError(
            f"token cache '{path.parent}': cannot be written: {err}; allowed: any writable "
            "folder (setting 'pair.token-cache' or variable CDC_FLOWER_CACHE)"
        ) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, mode="r")


def _with_domains(
    rows: pd.DataFrame, domain: np.ndarray, images: Mapping[str, bytes], wanted: tuple[str, ...]
) -> pd.DataFrame:
    """The rows of the wanted domains, numbered from 0, with `drift_domain` and `image_row`."""
    place = {name: row for row, name in enumerate(images)}
    image_row = np.array([place[name] for name in rows["image_id"]], dtype=np.int64)
    frame = rows.assign(drift_domain=domain, image_row=image_row)
    return frame.loc[np.isin(domain, wanted)].reset_index(drop=True)


def held_out(test: pd.DataFrame, wanted: tuple[str, ...], count: int, items: str = "test") -> pd.DataFrame:
    """Up to `count` rows of each wanted domain, the same in every run whatever its seed, from 0.

    Items "tuning" are the next `count` of the same shuffled rows, so that settings can be chosen by items
    that no result is reported on.

    Raises:
        ConfigError: nothing is left for tuning.
    """
    kept = []
    start = {"test": 0, "tuning": count}[items]
    for name in wanted:
        rows = np.flatnonzero(test["drift_domain"].to_numpy() == name)
        if len(rows) <= start:
            raise ConfigError(
                f"setting 'data.items' = '{items}': domain '{name}' has {len(rows)} test items; allowed: "
                f"items-per-domain below that, now {count}"
            )
        kept.append(stream.generator(0, f"test/{name}").permutation(rows)[start : start + count])
    return test.iloc[np.sort(np.concatenate(kept))].reset_index(drop=True)


@dataclass(frozen=True)
class _Ground:
    """The part of a world that no seed changes."""

    pack: Pack
    train: pd.DataFrame
    test: pd.DataFrame
    train_tokens: np.ndarray
    test_tokens: np.ndarray


_PACKS: dict[DataConfig, Pack] = {}
_GROUNDS: dict[tuple[Any, ...], _Ground] = {}
_WORLDS: dict[tuple[Any, ...], World] = {}
_KEPT = 4  # of each, per process


def _remember(cache: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    if key not in cache:
        value = make()
        while len(cache) >= _KEPT:
            del cache[next(iter(cache))]
        cache[key] = value
    return cache[key]


def forget() -> None:
    """Empty the cache of this process, e.g. after a pack folder was changed."""
    for cache in (_PACKS, _GROUNDS, _WORLDS):
        cache.clear()


def told_by_card(data: DataConfig, card: Mapping[str, Any]) -> DataConfig:
    """The `known_*` settings; from the pair's card where none is set."""
    known = card.get("known", {})
    if data.known_styles or data.known_objects or data.known_questions or not known:
        return data
    return replace(data, **known)


def _ground(config: Config, pair: Pair, progress: Progress | None) -> _Ground:
    pack: Pack = _remember(_PACKS, config.data, lambda: packs.load(config.data, seed=1))
    wanted = (stream.SOURCE, *dict.fromkeys(config.axes))
    train_domain = stream.domains(pack.train, config.data)
    test_domain = stream.domains(pack.test, config.data, reference=pack.train)
    stream.check_domains(train_domain, test_domain, config.axes)
    train = _with_domains(pack.train, train_domain, pack.train_images, wanted)
    test = held_out(
        _with_domains(pack.test, test_domain, pack.test_images, wanted),
        wanted,
        config.data.items_per_domain,
        config.data.items,
    )
    stem = cache_folder(config.pair.token_cache) / "tokens" / f"{pair.tower_digest[:12]}-{pack.digest[:12]}"
    tokens = [
        tokens_of(images, Path(f"{stem}-{split}.npy"), pair, progress, f"tokens of {split} pictures")
        for split, images in (("train", pack.train_images), ("test", pack.test_images))
    ]
    return _Ground(pack, train, test, *tokens)


def load_world(config: Config, pair: Pair, progress: Progress | None = None) -> World:
    """The world of a run; the same settings in the same process give the same object.

    Args:
        config: the whole configuration.
        pair: `name`, `tower_digest`, `teacher` (holds the vision tower) and `processor` are used.
        progress: called while tower outputs are computed, the only slow part.

    Raises:
        PackError: the pack cannot be used.
        ConfigError: an empty domain, a partition that is not possible, a cache folder that cannot be written.
    """
    run = config.run
    config = replace(config, data=told_by_card(config.data, getattr(pair, "card", {})))
    base = (config.data, config.axes, config.pair.token_cache, pair.tower_digest)

    def make() -> World:
        ground: _Ground = _remember(_GROUNDS, base, lambda: _ground(config, pair, progress))
        domain = ground.train["drift_domain"].to_numpy(dtype=str)
        parts = stream.partition(ground.train, config.data, run.devices, run.seed)
        streams = stream.Streams(domain, parts, config)
        return World(ground.pack, ground.train, ground.test, ground.train_tokens, ground.test_tokens, streams)

    key = (*base, config.drift, run.seed, run.devices, run.rounds, run.samples_per_round)
    return _remember(_WORLDS, key, make)
