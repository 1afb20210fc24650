"""What a device sent, as tokens: read from its frame, or made by the tower from the pictures in it.

One entry for each value of the setting `uplink.unit`; behind it the method does not know the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from PIL import Image

from cdc_flower.config import Config
from cdc_flower.data.source import longest_question
from cdc_flower.data.world import World
from cdc_flower.models import vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures import mosaic, picture_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS
from cdc_flower.uplink.sample import MAX_BYTES, Batch, Limits
from cdc_flower.wire.frame import FrameError

BATCH = 64  # pictures per call of the tower

Read = Callable[[bytes, Shared, Teacher, Config, Limits, MutableMapping[str, float]], Batch]
"""Frame, shared, teacher, settings, limits, host seconds by stage (added to) -> the batch; raises
FrameError."""


def limits_of(config: Config, shared: Shared, world: World) -> Limits:
    """The most that an honest device of a run sends: the questions of its data, answers, samples and tokens
    as the settings say."""
    question, answer = longest_question(shared, world), shared.max_answer_tokens
    return Limits(config.run.samples_per_round, question, answer, config.uplink.tokens_kept)


def most_bytes(config: Config) -> int:
    """The longest frame that is read: what a whole message may have, where there is a budget."""
    return min(config.uplink.budget or MAX_BYTES, MAX_BYTES)


@contextmanager
def _timed(seconds: MutableMapping[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began


def tokens(
    frame: bytes,
    shared: Shared,
    teacher: Teacher,
    config: Config,
    limits: Limits,
    seconds: MutableMapping[str, float],
) -> Batch:
    """A TOKEN_BATCH frame."""
    with _timed(seconds, "codec"):
        return token_batch.decode(
            frame,
            shared.fits,
            shared.width,
            shared.vocab,
            most_bytes(config),
            limits=limits,
            transform=shared.transform_for(config.uplink),
        )


def pictures(
    frame: bytes,
    shared: Shared,
    teacher: Teacher,
    config: Config,
    limits: Limits,
    seconds: MutableMapping[str, float],
) -> Batch:
    """A PICTURE_BATCH frame: all N tokens of a whole picture, or those whose patches came.

    Patches stand on a grey canvas while the tower reads them, so each of their tokens has seen the others'
    patches and nothing else.
    """
    form, patch = config.uplink.unit, shared.patch
    with _timed(seconds, "codec"):
        batch, seen = picture_batch.decode(
            frame, form, patch, shared.fits, shared.vocab, most_bytes(config), limits=limits
        )
        places = [np.asarray(s.positions) for s in batch.samples]
        if FORMS[form].whole:
            places = [np.arange(s.grid[0], dtype=np.uint16) for s in batch.samples]
        else:
            grey = vlm.grey(shared.processor)
            seen = [
                mosaic.place(pixels, s.positions, *s.grid[1:], patch, grey)
                for pixels, s in zip(seen, batch.samples, strict=True)
            ]
    with _timed(seconds, "cloud"):
        outputs = [
            row
            for start in range(0, len(seen), BATCH)
            for row, _ in shared.encode([Image.fromarray(p) for p in seen[start : start + BATCH]])
        ]
    samples = []
    for sample, where, output in zip(batch.samples, places, outputs, strict=True):
        kept = output[where].astype(np.float32)
        if not np.isfinite(kept).all():
            raise FrameError(f"picture batch: the tower gives no finite tokens for sample {sample.index}")
        samples.append(replace(sample, positions=where, tokens=kept, picture=b""))
    return replace(batch, samples=tuple(samples))


READ: dict[str, Read] = {"tokens": tokens, "jpeg": pictures, "patches": pictures}
"""Values of the setting `uplink.unit`."""
