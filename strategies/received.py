"""What a device sent, as tokens: read from its frame, or made by the tower from the pictures in it.

One entry for each value of the setting `uplink.unit`; behind it the method does not know the difference. A
teacher that differs from the student gets what it reads itself: a picture's tokens by its own tower, and the
question in its own words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from cdc_flower.cloud.replay import CloudSample
from cdc_flower.config import Config
from cdc_flower.data.features import Grid
from cdc_flower.data.source import longest_question
from cdc_flower.data.world import World
from cdc_flower.downlink import update
from cdc_flower.models import vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures import mosaic, picture_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS
from cdc_flower.uplink.sample import MAX_BYTES, Batch, Limits, Sample
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Bytes, Field, Frame, Number
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.reply import Form

BATCH = 64  # pictures per call of the tower
WITHOUT_FRAME = 512  # bytes of a reply without a frame, at most; it may come whatever the budget

Pixels = Sequence[np.ndarray] | None
Read = Callable[[bytes, Shared, Config, Limits, MutableMapping[str, float]], tuple[Batch, Pixels]]
"""Frame, shared, settings, limits, host seconds by stage (added to) -> the batch, and its pictures where it
has any; raises FrameError."""


@dataclass(frozen=True)
class Received:
    """A batch, and its samples as the cloud learns from them."""

    batch: Batch
    samples: tuple[CloudSample, ...]


def limits_of(config: Config, shared: Shared, world: World) -> Limits:
    """The most that an honest device of a run sends: the questions of its data, answers, samples, tokens and
    pixels as the settings say."""
    question, answer = longest_question(shared, world), shared.max_answer_tokens
    pixels = 0
    if config.uplink.unit != "tokens":
        pixels = int(world.train_tokens.index[:, 2:].prod(1).max()) * shared.patch**2
    return Limits(config.run.samples_per_round, question, answer, config.uplink.tokens_kept, pixels)


def most_bytes(config: Config) -> int:
    """The longest frame that is read: what a whole message may have, where there is a budget."""
    return min(config.uplink.budget or MAX_BYTES, MAX_BYTES)


def form_of(config: Config, computed: Mapping[str, Field], tokens: int) -> Form:
    """A reply with a batch, within `uplink.budget`: version and digest of the adapter that a device has, how
    much it says to have sent, and a frame.

    A version may be above the newest: a device is ahead of a cloud that was restored from an older
    checkpoint, and is brought back by what it says.

    Args:
        config: of the run.
        computed: the form of what the device computed.
        tokens: of a sample, at most.
    """
    most, budget = config.run.samples_per_round, config.uplink.budget
    return Form(
        metrics={
            keys.VERSION: Number(int, 0, 2**32 - 1),
            keys.UPLOADED: Number(int, 0, most),
            keys.TOKENS: Number(int, 0, most * tokens),
            **computed,
        },
        config={keys.DIGEST: Bytes(update.DIGEST_BYTES)},
        array=Frame(most_bytes(config)),
        max_bytes=max(budget, WITHOUT_FRAME) if budget else 0,
    )


def check_sender(batch: Batch, device: int, round: int) -> None:
    """Refuse a batch that says to be of another device or round.

    Raises:
        FrameError: names both.
    """
    if (batch.device, batch.round) != (device, round):
        raise FrameError(f"the batch says device {batch.device}, round {batch.round}")


@contextmanager
def _timed(seconds: MutableMapping[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began


def received(
    frame: bytes,
    shared: Shared,
    teacher: Teacher,
    config: Config,
    limits: Limits,
    seconds: MutableMapping[str, float],
    words: int = 0,
) -> Received:
    """What a frame holds, for student and teacher.

    Args:
        frame: what came.
        shared: the student's.
        teacher: who is to answer.
        config: of the run.
        limits: of an honest device.
        seconds: host seconds by stage, added to.
        words: the longest question in the teacher's own ids, where it has its own.

    Raises:
        FrameError: anything that an honest device would not have sent.
    """
    batch, pictures = READ[config.uplink.unit](frame, shared, config, limits, seconds)
    samples = [CloudSample(s.tokens, s.positions, list(s.question_ids), s.grid) for s in batch.samples]
    if teacher.own is not None:
        with _timed(seconds, "cloud"):
            theirs = _own(teacher.own, shared, samples, None if teacher.tokens else pictures, words)
            samples = [replace(s, teacher=other) for s, other in zip(samples, theirs, strict=True)]
    return Received(batch, tuple(samples))


def _own(
    own: Shared, shared: Shared, samples: Sequence[CloudSample], pictures: Pixels, words: int
) -> Iterator[CloudSample]:
    """Samples as a teacher reads them that differs; without pictures it reads the student's tokens."""
    seen = None if pictures is None else _encoded(own, pictures)
    for i, sample in enumerate(samples):
        asked = own.text.question_ids(shared.text.question_of(sample.question_ids))
        if len(asked) > 2 * words:  # spaces may have come or gone on the way
            raise FrameError(f"question of {len(asked)} ids in the teacher's words; allowed: {2 * words}")
        if seen is None:
            yield replace(sample, question_ids=asked)
        else:
            tokens, grid = seen[i]
            yield CloudSample(tokens.astype(np.float32), np.arange(grid.n), asked, grid)


def _encoded(reads: Shared, pictures: Sequence[np.ndarray]) -> list[tuple[np.ndarray, Grid]]:
    """Tokens of pictures.

    Raises:
        FrameError: a picture that the processor does not take, or whose tokens are not finite.
    """
    found: list[tuple[np.ndarray, Grid]] = []
    for start in range(0, len(pictures), BATCH):
        some = [Image.fromarray(picture) for picture in pictures[start : start + BATCH]]
        try:
            found += reads.encode(some)
        except ValueError as err:
            raise FrameError(
                f"picture batch: the processor of '{reads.name}' takes not all of it: {err}"
            ) from None
    for i, (tokens, _) in enumerate(found):
        if not np.isfinite(tokens).all():
            raise FrameError(f"picture batch: the tower gives no finite tokens for picture {i}")
    return found


def tokens(
    frame: bytes, shared: Shared, config: Config, limits: Limits, seconds: MutableMapping[str, float]
) -> tuple[Batch, Pixels]:
    """A TOKEN_BATCH frame, in the run's own coding: no device chooses how precise its tokens are."""
    with _timed(seconds, "codec"):
        batch = token_batch.decode(
            frame,
            shared.fits,
            shared.width,
            shared.vocab,
            most_bytes(config),
            limits=limits,
            transform=shared.transform_for(config.uplink),
            bits=config.uplink.token_bits,
        )
        return batch, None


def pictures(
    frame: bytes, shared: Shared, config: Config, limits: Limits, seconds: MutableMapping[str, float]
) -> tuple[Batch, Pixels]:
    """A PICTURE_BATCH frame: all N tokens of a whole picture, or those whose patches came.

    Patches stand on a grey canvas while the tower reads them, so each of their tokens has seen the others'
    patches and nothing else.
    """
    form, patch = config.uplink.unit, shared.patch
    with _timed(seconds, "codec"):
        batch, seen = picture_batch.decode(
            frame, form, patch, shared.fits, shared.vocab, most_bytes(config), limits=limits
        )
        if not FORMS[form].whole:
            grey = vlm.grey(shared.processor)
            seen = [
                mosaic.place(pixels, s.positions, *s.grid[1:], patch, grey)
                for pixels, s in zip(seen, batch.samples, strict=True)
            ]
    with _timed(seconds, "cloud"):
        found = _encoded(shared, seen)
    samples = list[Sample]()
    for sample, (output, grid) in zip(batch.samples, found, strict=True):
        where = np.arange(grid.n, dtype=np.uint16) if FORMS[form].whole else np.asarray(sample.positions)
        kept = output[where].astype(np.float32)
        samples.append(replace(sample, grid=grid, positions=where, tokens=kept, picture=b""))
    return replace(batch, samples=tuple(samples)), seen


READ: dict[str, Read] = {"tokens": tokens, "jpeg": pictures, "patches": pictures}
"""Values of the setting `uplink.unit`."""
