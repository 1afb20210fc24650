"""A, the cloud's own labelled data: what teacher and student were trained on, and a part kept aside from it.

Nothing of it is a picture that a device meets or that a result is reported on. Of generated data it is the
generator with seed 0, which the packaged pair was trained on: its train pictures, and for validation its own
test split (devices draw from seed 1). Of a pack in a folder it is the part of the train split that its pair
was trained on (`cdc_flower.data.splits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cdc_flower.cloud.replay import CloudSample
from cdc_flower.config import Config
from cdc_flower.data import packs
from cdc_flower.data.domains import SOURCE, domains
from cdc_flower.data.features import Features, Progress
from cdc_flower.data.packs import Pack
from cdc_flower.data.world import PRETRAINED, World, encoded, instructed, told_by_card
from cdc_flower.draws import generator
from cdc_flower.models.shared import Shared
from cdc_flower.tasks import Truth, Truths

PICTURES = 2000  # that a transform is estimated from, at least where scenes are drawn


@dataclass(frozen=True)
class SourceItem:
    """A sample of A: all tokens of its picture, its question, and what is true of it."""

    sample: CloudSample
    truth: Truth
    domain: str
    user: str = ""

    @property
    def answer(self) -> str:
        """The label, as the pack has it."""
        return self.truth.answer


@dataclass(frozen=True)
class _Rows:
    """Some rows of A with `image_row` and `drift_domain`, and whose split they are of which pack."""

    rows: pd.DataFrame
    pack: Pack
    split: str = "train"
    what: str = ""


def replay_pool(config: Config, shared: Shared, world: World, own: Shared | None = None) -> list[SourceItem]:
    """Up to `cloud.source-replay` source samples of A's training part, drawn by the run's seed.

    Args:
        config: of the run.
        shared: reads the pictures; tower outputs are cached as those of the devices are.
        world: whose streams and test items are left out.
        own: what a teacher reads with that differs; each sample is then read by it, too.
    """
    count = config.cloud.source_replay
    return _drawn(config, [shared, own], _trained(config, shared, world, count), count) if count else []


def validation_pool(
    config: Config, shared: Shared, world: World, own: Shared | None = None, count: int = 500
) -> list[SourceItem]:
    """Up to `count` source samples of A's validation part: never trained on, met by a device or reported on.

    Empty where a pack leaves no such row. Arguments as in `replay_pool`.
    """
    found = _validation(config, shared, world)
    return _drawn(config, [shared, own], _of(found, [SOURCE]), count, "source validation")


def all_of_a(
    config: Config, shared: Shared, world: World, own: Shared | None = None, count: int = 0
) -> list[SourceItem]:
    """Samples of A's training part of every domain of the run, in an order drawn by its seed; 0 = all.

    Samples of one picture share its tokens. Arguments as in `replay_pool`.
    """
    found = _trained(config, shared, world, config.data.scenes_train, [SOURCE, *config.axes])
    return _drawn(config, [shared, own], found, count or len(found.rows), "all of A")


def source_tokens(
    config: Config, shared: Shared, world: World, progress: Progress | None = None
) -> list[NDArray[np.float16]]:
    """Vision tokens (n, D) of each source picture that is the cloud's."""
    found = _trained(config, shared, world, max(config.cloud.source_replay, PICTURES))
    tokens = encoded(config, shared, found.pack, found.split, progress, found.what)
    return [tokens[i] for i in np.unique(found.rows["image_row"]).tolist()]


def _drawn(
    config: Config, reads: Sequence[Shared | None], found: _Rows, count: int, draw: str = "source replay"
) -> list[SourceItem]:
    """`count` of the rows, as each of `reads` reads them."""
    own = [one for one in reads if one is not None]
    rows = found.rows
    rows = rows.iloc[generator(config.run.seed, draw).permutation(len(rows))[:count]]
    tokens = [encoded(config, one, found.pack, found.split, what=found.what) for one in own]
    pictures: dict[int, np.ndarray] = {}
    items = []
    for picture, question, truth, domain, user in zip(
        rows["image_row"].tolist(),
        rows["question"].astype(str),
        Truths(rows),
        rows["drift_domain"].astype(str),
        rows["user"].astype(str),
        strict=True,
    ):
        sample, *others = (_sample(one, of, picture, question) for one, of in zip(own, tokens, strict=True))
        whole = pictures.setdefault(picture, np.asarray(sample.tokens, np.float32))
        sample = replace(sample, tokens=whole, teacher=others[0] if others else None)
        items.append(SourceItem(sample, truth, domain, user))
    return items


def _sample(reads: Shared, tokens: Features, picture: int, question: str) -> CloudSample:
    grid = tokens.grid(picture)
    return CloudSample(tokens[picture], np.arange(grid.n), reads.text.question_ids(question), grid)


def _trained(
    config: Config, shared: Shared, world: World, pictures: int, wanted: Sequence[str] = (SOURCE,)
) -> _Rows:
    """Rows of A's training part, of the wanted domains; of scenes those of so many pictures."""
    if config.data.pack in packs.GENERATED:
        return _of(_generated(config, shared, pictures, "train"), wanted)
    return _of(_Rows(world.aside, world.pack), wanted)


def _validation(config: Config, shared: Shared, world: World) -> _Rows:
    """Rows of A's validation part, of all domains."""
    if config.data.pack in packs.GENERATED:
        return _generated(config, shared, config.data.scenes_train, "test")
    return _Rows(world.validation, world.pack)


def _of(found: _Rows, wanted: Sequence[str]) -> _Rows:
    return replace(found, rows=found.rows[found.rows["drift_domain"].isin(list(wanted))])


def _generated(config: Config, shared: Shared, pictures: int, split: str) -> _Rows:
    """Rows of a split of the generated data that the pair was trained on; of scenes so many pictures."""
    pictures = min(config.data.scenes_train, pictures)
    data = told_by_card(replace(config.data, scenes_train=pictures), shared.card)
    pack = packs.load(data, seed=PRETRAINED)
    rows, images = {"train": (pack.train, pack.train_images), "test": (pack.test, pack.test_images)}[split]
    rows = packs.questions(rows, pack.clips)
    place = {name: row for row, name in enumerate(images)}
    domain = domains(rows, data, reference=pack.train)
    rows = instructed(rows, data)
    rows = rows.assign(drift_domain=domain, image_row=[place[name] for name in rows["image_id"]])
    return _Rows(rows, pack, split, {"train": "replayed", "test": "validation"}[split])
