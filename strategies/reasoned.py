"""The reasoner of a run: trained on the cloud's own clips as devices would send them, or from the cache.

One reasoner serves every rule of anchor frames: it is asked with all of them in turn. The run's seed is not
among the things that it depends on, so seeds and arms share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cdc_flower.cloud import adr_training, trained
from cdc_flower.cloud.adr import Reasoner
from cdc_flower.cloud.source import source_tokens
from cdc_flower.config import Config, ConfigError
from cdc_flower.data.features import cache_folder
from cdc_flower.data.world import World
from cdc_flower.models.shared import Shared
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.anchors import ANCHORS, choose

MOST = 1500  # clips of A
LESSON = adr_training.Lesson()


def arrives(config: Config, shared: Shared) -> adr_training.Arrive:
    """What the cloud reads of tokens (M, D), under the run's uplink."""
    if config.uplink.token_bits == 16:
        return lambda tokens: tokens.astype(np.float16).astype(np.float32)
    transform = shared.transform_for(config.uplink)
    return partial(token_batch.quantized, bits=config.uplink.token_bits, transform=transform)


def any_rule(tokens: NDArray[np.floating], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Anchor frames by a rule that is drawn."""
    return choose(tuple(ANCHORS)[int(rng.integers(len(ANCHORS)))], tokens, k, rng)


def clips_of_a(config: Config, shared: Shared, world: World, most: int = MOST) -> NDArray[np.float16]:
    """Tokens (M, F, n, D) of clips of A, evenly spread over all there are.

    Raises:
        ConfigError: a pair or a pack of pictures, or too few clips.
    """
    if not shared.frames:
        raise ConfigError(f"pair '{shared.name}' reads pictures; allowed for a reasoner: a pair for clips")
    found = source_tokens(config, shared, world)
    if len(found) < adr_training.ASIDE:
        raise ConfigError(f"A has {len(found)} clips; allowed for a reasoner: at least {adr_training.ASIDE}")
    rows = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).astype(int))
    return np.stack([found[i].reshape(shared.frames, -1, shared.width) for i in rows]).astype(np.float16)


def reasoner_of(
    config: Config, shared: Shared, world: World, tell: Callable[[str, int, int], None] | None = None
) -> Reasoner:
    """The reasoner of a run, trained now where the cache has none.

    Args:
        config: of the run.
        shared: of a pair for clips, whose tokens all lie in one grid.
        world: says which clips are the cloud's.
        tell: progress.

    Raises:
        ConfigError: a pair of pictures, or too few clips.
        DiskError: the cache cannot be written.
    """
    clips = clips_of_a(config, shared, world)
    frames, places, width = clips.shape[1:]
    counts = tuple(k for k in LESSON.anchors if k < frames) or (1,)
    lesson = replace(LESSON, anchors=counts)
    turn = shared.transform_for(config.uplink)
    said = config.uplink.token_bits, turn.digest if turn else b"", tuple(ANCHORS), lesson
    name = f"{adr_training.digest(clips, said)}.safetensors"
    path = cache_folder(config.pair.token_cache) / "reasoners" / name

    def make() -> Reasoner:
        return adr_training.train(clips, any_rule, arrives(config, shared), lesson, tell)

    return trained.kept(path, Reasoner(frames, places, width), make)
