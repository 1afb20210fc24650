"""What the cloud replays that no device sent: unlabelled samples of what the student was trained on.

Nothing of it is a picture that a device meets or that a result is reported on. For `scenes` it is the pool
that the packaged pair was trained on, the generator with seed 0 (devices draw from seed 1). Of a pack in a
folder the world sets a share of the train pictures aside, by a stable hash of their names, which no device's
stream has (`World.aside`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cdc_flower.cloud.replay import CloudSample
from cdc_flower.config import Config
from cdc_flower.data import packs
from cdc_flower.data.domains import SOURCE, domains
from cdc_flower.data.features import Features, Progress
from cdc_flower.data.packs import Pack
from cdc_flower.data.world import World, encoded, instructed, told_by_card
from cdc_flower.draws import generator
from cdc_flower.models.shared import Shared

PICTURES = 2000  # that a transform is estimated from, at least where scenes are drawn
PRETRAINED = 0  # seed of the scenes that the packaged pair was trained on


def replay_pool(config: Config, shared: Shared, world: World, own: Shared | None = None) -> list[CloudSample]:
    """Up to `cloud.source-replay` unlabelled source samples, drawn by the run's seed; whole pictures.

    Args:
        config: of the run.
        shared: reads the pictures; tower outputs are cached as those of the devices are.
        world: whose streams and test items are left out.
        own: what a teacher reads with that differs; each sample is then read by it, too.
    """
    count = config.cloud.source_replay
    if not count:
        return []
    both = [reads for reads in (shared, own) if reads is not None]
    rows, pack, what = _source(config, shared, world, count)
    rows = rows.iloc[generator(config.run.seed, "source replay").permutation(len(rows))[:count]]
    tokens = [encoded(config, reads, pack, "train", what=what) for reads in both]
    found = []
    for picture, question in zip(rows["image_row"].tolist(), rows["question"].astype(str), strict=True):
        sample, *others = (
            _sample(reads, of, picture, question) for reads, of in zip(both, tokens, strict=True)
        )
        whole = np.asarray(sample.tokens, np.float32)
        found.append(replace(sample, tokens=whole, teacher=others[0] if others else None))
    return found


def source_tokens(
    config: Config, shared: Shared, world: World, progress: Progress | None = None
) -> list[NDArray[np.float16]]:
    """Vision tokens (n, D) of each source picture that is the cloud's."""
    rows, pack, what = _source(config, shared, world, max(config.cloud.source_replay, PICTURES))
    tokens = encoded(config, shared, pack, "train", progress, what)
    return [tokens[i] for i in np.unique(rows["image_row"]).tolist()]


def _source(config: Config, shared: Shared, world: World, pictures: int) -> tuple[pd.DataFrame, Pack, str]:
    """Source rows that are the cloud's, their pack, and what it is in words; of scenes so many pictures."""
    if config.data.pack == "scenes":
        return *_scenes(config, shared, pictures), "replayed"
    return world.aside[world.aside["drift_domain"] == SOURCE], world.pack, ""


def _sample(reads: Shared, tokens: Features, picture: int, question: str) -> CloudSample:
    grid = tokens.grid(picture)
    return CloudSample(tokens[picture], np.arange(grid.n), reads.text.question_ids(question), grid)


def _scenes(config: Config, shared: Shared, pictures: int) -> tuple[pd.DataFrame, Pack]:
    """Source rows of the first pictures that the pair was trained on, and these pictures."""
    pictures = min(config.data.scenes_train, pictures)
    data = told_by_card(replace(config.data, scenes_train=pictures), shared.card)
    pack = packs.load(data, seed=PRETRAINED)
    place = {name: row for row, name in enumerate(pack.train_images)}
    rows = pack.train[domains(pack.train, data) == SOURCE]
    rows = instructed(rows, data)
    return rows.assign(image_row=[place[name] for name in rows["image_id"]]), pack
