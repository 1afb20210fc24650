"""The world: all that the simulator and the cloud's side of a run read, from a pack, a configuration, a pair.

Labels, the test split and every device's stream are here, so no device process ever opens one: devices read
what `cdc_flower.data.source` has written for them. What is left of a picture after this module are its tokens
(`cdc_flower.data.features`); the pack keeps the encoded pictures, and only who sends or shows one decodes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from cdc_flower.config import Config, ConfigError
from cdc_flower.data import packs
from cdc_flower.data.domains import SOURCE, check_domains, domains
from cdc_flower.data.features import OPENED, Features, Grid, Progress, cache_folder, features_of
from cdc_flower.data.instruction import BY_ROW, asked, said, told_by_card
from cdc_flower.data.own import Owners, owners
from cdc_flower.data.packs import Pack
from cdc_flower.data.partition import partition
from cdc_flower.data.pictures import Picture
from cdc_flower.data.prequential import prequential
from cdc_flower.data.rows import as_words
from cdc_flower.data.schedule import Streams
from cdc_flower.data.splits import Parts, parts_of
from cdc_flower.draws import generator
from cdc_flower.session import session
from cdc_flower.stages import DataConfig
from cdc_flower.tasks import TASKS, Truths, Worth

if TYPE_CHECKING:
    from cdc_flower.models.shared import Shared


@dataclass(frozen=True, eq=False)
class World:
    """What a run reads.

    Attributes:
        pack: the whole pack, unrestricted.
        train: its train rows that are of the source or of a configured drift axis, numbered from 0, with the
            columns `drift_domain` (str) and `image_row` (int64, row of `train_tokens`).
        test: the held-out items of each of these domains, the same for every run seed; the same extra
            columns.
        train_tokens, test_tokens: vision tokens of the pictures of both splits.
        streams: [device][round - 1] -> (samples_per_round,) int64 positions in `train`.
        aside: A, train rows of a pack that no device has, for the cloud (`cloud.source`).
        validation: A's validation part, which the cloud does not train on, either.
        tested: the pack that has the pictures of `test`, and its split.
        worth: of an answer, beside what is true.
        task: whose worth it is.
        captions: of held-out clips: rows as in `test`, which no device is asked.
        owners: whose test items are whose, where a device is judged by its own; None = all are everybody's.
    """

    pack: Pack
    train: pd.DataFrame
    test: pd.DataFrame
    train_tokens: Features
    test_tokens: Features
    streams: Sequence[list[np.ndarray]]
    aside: pd.DataFrame
    validation: pd.DataFrame
    tested: tuple[Pack, str]
    worth: Worth
    task: str
    captions: pd.DataFrame
    owners: Owners | None = None

    def own(self, device: int) -> np.ndarray:
        """(items,) int64 positions in `test` of the items that a device is judged by."""
        return np.arange(len(self.test)) if self.owners is None else self.owners.items(device)

    @cached_property
    def domains(self) -> np.ndarray:
        """(train rows,) object: the domain of each."""
        return self.train["drift_domain"].to_numpy(object)

    @cached_property
    def answers(self) -> np.ndarray:
        """(train rows,) object: the label of each, a string."""
        return self.train["answer"].astype(str).to_numpy(object)

    @cached_property
    def truths(self) -> Truths:
        """What is true of each train row."""
        return Truths(self.train)

    def judge(self, device: int, round: int, answers: Sequence[str]) -> dict[str, tuple[float, int]]:
        """What a device's answers of a round are worth, by domain: see `prequential`."""
        return prequential(self, device, round, answers)


def _encode(shared: Shared, images: list[Image.Image]) -> list[tuple[np.ndarray, Grid]]:
    return shared.encode(images)


def _with_domains(
    rows: pd.DataFrame, domain: np.ndarray, images: Mapping[str, Picture], wanted: tuple[str, ...]
) -> pd.DataFrame:
    """The rows of the wanted domains, numbered from 0, with `drift_domain` and `image_row`."""
    place = {name: row for row, name in enumerate(images)}
    image_row = np.array([place[name] for name in rows["image_id"]], dtype=np.int64)
    frame = rows.assign(drift_domain=domain, image_row=image_row)
    return frame.loc[np.isin(domain, wanted)].reset_index(drop=True)


def held_out(test: pd.DataFrame, wanted: tuple[str, ...], count: int, by: str = "") -> pd.DataFrame:
    """Up to `count` rows of each wanted domain that there is, 0 = all; the same in every run, from 0.

    Args:
        test: with `drift_domain`.
        wanted: domains.
        count: of rows, of each value of the column `by` where one is named.
    """
    kept, domain = [], test["drift_domain"].to_numpy()
    values = as_words(test[by]).to_numpy() if by else np.full(len(test), "")
    for name in wanted:
        for value in np.unique(values):
            rows = np.flatnonzero((domain == name) & (values == value))
            purpose = f"test/{name}/{value}" if by else f"test/{name}"
            kept.append(generator(0, purpose).permutation(rows)[: count or len(rows)])
    return test.iloc[np.sort(np.concatenate(kept))].reset_index(drop=True)


LIVED, TUNED = 1, 2  # seeds of the generated data of devices, and of what settings are chosen by
PRETRAINED = 0  # seed of the generated data that the packaged pair was trained on: A
_KEPT = 4  # packs, grounds and worlds, of each, per process


@dataclass(frozen=True)
class _Ground:
    """The part of a world that no seed changes."""

    pack: Pack
    train: pd.DataFrame
    aside: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    train_tokens: Features
    test_tokens: Features
    tested: tuple[Pack, str]
    worth: Worth
    captions: pd.DataFrame
    by: str


def encoded(
    config: Config, shared: Shared, pack: Pack, split: str, progress: Progress | None = None, what: str = ""
) -> Features:
    """Vision tokens of a split's pictures, from the cache or computed and stored there; see `features_of`."""
    images = {"train": pack.train_images, "test": pack.test_images}[split]
    frames = checked_frames(config, shared, pack)
    read = f"{split}-{frames}" if frames else split
    name = f"{shared.tokens_digest[:12]}-{pack.digest[:12]}-{read}-v{OPENED}.npy"
    path = cache_folder(config.pair.token_cache) / "tokens" / name
    stage = f"tokens of {what or split} {'clips' if frames else 'pictures'}"
    return features_of(images, path, lambda some: _encode(shared, some), shared.name, progress, stage, frames)


def checked_frames(config: Config, shared: Shared, pack: Pack) -> int:
    """How many frames models read of a sample of a pack; 0 = it is a picture.

    Raises:
        ConfigError: clips for models of pictures, or the other way round; other frames than a pair was made
            for; a unit that is made of a picture.
    """
    frames, wanted, unit = shared.frames, config.data.frames, config.uplink.unit
    if frames and wanted not in (0, frames):
        raise ConfigError(
            f"setting 'data.frames' = {wanted}: pair '{shared.name}' reads {frames}; allowed: 0"
        )
    if frames and unit != "tokens":
        raise ConfigError(f"setting 'uplink.unit' = '{unit}': of a clip, tokens go up; allowed: 'tokens'")
    if pack.clips and not shared.card and not frames:
        raise ConfigError(
            f"setting 'data.frames' = 0: pack '{pack.name}' has clips, and checkpoints do not say how many "
            "frames they read; allowed: 1 to 64"
        )
    if bool(frames) != pack.clips:
        data, models = ("clips", "pictures") if pack.clips else ("pictures", f"clips of {frames} frames")
        raise ConfigError(
            f"setting 'data.pack': pack '{pack.name}' has {data}, and pair '{shared.name}' reads {models}; "
            f"allowed: a pair for {data}, by `cdc-flower pretrain`"
        )
    return frames


def instructed(rows: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """Rows whose questions say how to answer, in a line of its own; `data` is as `told_by_card` gives it."""
    if data.instruction == "none":
        return rows
    own = rows["task"] if data.task == BY_ROW and data.instruction == "auto" else [""] * len(rows)
    words = [asked(question, said(data, task)) for question, task in zip(rows["question"], own, strict=True)]
    return rows.assign(question=pd.array(words, rows["question"].dtype))


def _ground(config: Config, shared: Shared, progress: Progress | None) -> _Ground:
    pack = session().once("packs", config.data, lambda: packs.load(config.data, seed=LIVED), _KEPT)
    checked_frames(config, shared, pack)
    data, worth = config.data, _worth(config.data, pack)
    wanted = (SOURCE, *dict.fromkeys(config.axes))
    generated, tuning = data.pack in packs.GENERATED, data.items == "tuning"
    if generated and data.split_by:
        raise ConfigError(
            f"setting 'data.split-by' = '{data.split_by}': '{data.pack}' are drawn anew for each part; "
            "allowed: ''"
        )
    none, every = np.zeros(len(pack.train), bool), np.ones(len(pack.train), bool)
    parts = Parts(none, none, every) if generated else parts_of(shared.card, pack, data)
    met = parts.met & ~parts.tuned if tuning and parts.tuned is not None else parts.met
    domain = domains(pack.train, data)

    def of_train(mask: np.ndarray) -> pd.DataFrame:
        return _with_domains(pack.train[mask], domain[mask], pack.train_images, wanted)

    trained, validation, train = map(of_train, (parts.trained, parts.validation, met))
    tested, own = (pack, "test"), judged_by_own(data, pack)
    if tuning:
        seed = TUNED if own else PRETRAINED
        tested = (packs.load(data, seed=seed), "test") if generated else (pack, "train")
    elif parts.held is not None:
        tested = pack, "train"
    if tested == (pack, "train"):
        picked = parts.held if not tuning else parts.tuned
        test = validation if picked is None else of_train(picked)
    else:
        rows, images = tested[0].test, tested[0].test_images
        test = _with_domains(rows, domains(rows, data, reference=pack.train), images, wanted)
    captions = test[test["qtype"] == packs.CAPTION].reset_index(drop=True) if pack.clips else test[:0]
    trained, validation, train, test = (
        packs.questions(frame, pack.clips).reset_index(drop=True)
        for frame in (trained, validation, train, test)
    )
    what = ("tuning items" if own else "validation part of A") if tuning else "test split"
    check_domains(train["drift_domain"].to_numpy(), test["drift_domain"].to_numpy(), config.axes, what)
    by = data.partition_by if own else ""
    test = held_out(_having(test, by), wanted, data.items_per_domain, by)
    train_tokens, test_tokens = (encoded(config, shared, *of, progress) for of in ((pack, "train"), tested))
    train, aside, validation, test = (instructed(frame, data) for frame in (train, trained, validation, test))
    return _Ground(
        pack, train, aside, validation, test, train_tokens, test_tokens, tested, worth, captions, by
    )


def judged_by_own(data: DataConfig, pack: Pack) -> bool:
    """Whether a device is judged by its own test items; see the setting `data.tested`."""
    return data.tested == "own" or (data.tested == "auto" and pack.clips and data.partition == "natural")


def _having(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """A frame that has the column `by`, if one is named."""
    if by and by not in frame.columns:
        raise ConfigError(
            f"setting 'data.tested' = 'own': the data has no column '{by}' (setting 'data.partition-by'); "
            f"allowed: all, or a column of the data: {', '.join(map(str, frame.columns))}"
        )
    return frame


def _worth(config: DataConfig, pack: Pack) -> Worth:
    """The task's judge, fit for the whole test split of a pack.

    Raises:
        ConfigError: the pack lacks what the task is judged by.
    """
    task = TASKS[config.task]
    for column in task.needs:
        if column not in pack.train or column not in pack.test:
            able = [name for name, other in TASKS.items() if all(c in pack.train for c in other.needs)]
            raise ConfigError(
                f"setting 'data.task' = '{config.task}': pack '{pack.name}' has no column '{column}'; "
                f"allowed: {', '.join(able)}"
            )
    if "task" in task.needs:
        task.fit(Truths(pack.train))
    return task.fit(Truths(pack.test))


def load_world(config: Config, shared: Shared, progress: Progress | None = None) -> World:
    """The world of a run; the same settings in the same process give the same object.

    Args:
        config: the whole configuration.
        shared: `name`, `tokens_digest`, `card` and `encode` are used.
        progress: called while tower outputs are computed, the only slow part.

    Raises:
        PackError: the pack cannot be used.
        ConfigError: an empty domain, a partition that is not possible, a cache folder that cannot be written.
    """
    run = config.run
    config = replace(config, data=told_by_card(config.data, shared.card))
    split = json.dumps(shared.card.get("split"))
    base = (config.data, config.axes, config.pair.token_cache, shared.tokens_digest, shared.frames, split)

    def make() -> World:
        ground = session().once("grounds", base, lambda: _ground(config, shared, progress), _KEPT)
        domain = ground.train["drift_domain"].to_numpy(dtype=str)
        parts = partition(ground.train, config.data, run.devices, run.seed)
        streams = Streams(domain, parts, config)
        tokens = ground.train_tokens, ground.test_tokens
        return World(
            ground.pack,
            ground.train,
            ground.test,
            *tokens,
            streams=streams,
            aside=ground.aside,
            validation=ground.validation,
            tested=ground.tested,
            worth=ground.worth,
            task=config.data.task,
            captions=ground.captions,
            owners=owners(ground.train, parts, ground.test, ground.by) if ground.by else None,
        )

    key = (*base, config.drift, run.seed, run.devices, run.rounds, run.samples_per_round)
    return session().once("worlds", key, make, _KEPT)
