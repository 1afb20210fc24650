"""Device work of CDC: take the update, answer the stream, send the tokens it was least sure about.

Forward passes alone, no label: UTS (arXiv 2312.16279, section 3.2) in two stages and a byte budget, which
holds for the whole message and not just for the frame. No picture either, unless the setting `uplink-unit`
asks for one of the controls: the whole picture, or the patches of the kept tokens. `work_all` is the upper
arm `upload_all`: every sample with every token, float16. An update that cannot be applied (another version, a
damaged frame) leaves the adapter as it was; the device answers with it, sends no tokens, and says which
adapter it has, so that the cloud sends the right update next time. It says so by version and digest: a cloud
that was restored from an older checkpoint gives a version's number to another adapter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from logging import WARNING

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore import log

from cdc_flower.config import UplinkConfig
from cdc_flower.downlink import update
from cdc_flower.fleet.grid import frame_of, message_bytes, payload
from cdc_flower.models import adapters, vlm
from cdc_flower.uplink import picture_batch, select, token_batch
from cdc_flower.uplink.picture_batch import FORMS, PictureBatch, PictureSample, Raster
from cdc_flower.uplink.token_batch import Sample, TokenBatch
from cdc_flower.uplink.uncertainty import SAMPLE_SCORES, TOKEN_SCORES
from cdc_flower.wire import keys
from cdc_flower.wire.frame import FrameError
from clients import evaluate
from clients.task import (
    BATCH,
    Resident,
    Task,
    answer,
    as_read,
    held,
    hold,
    pass_flops,
    pictures,
    questions,
    resident,
)


@dataclass(frozen=True)
class _Round:
    """What a device knows after it has answered its samples."""

    task: Task
    student: Resident
    version: int
    tokens: np.ndarray  # (B, N, D) float16
    asked: list[list[int]]
    answers: vlm.Answers

    def frame(
        self, chosen: Sequence[int], positions: Sequence[np.ndarray], uncertainty: np.ndarray, bits: int
    ) -> bytes:
        """The TOKEN_BATCH frame of samples `chosen`; `positions` and `uncertainty` are of all samples."""
        samples = tuple(
            Sample(
                index=int(i),
                positions=np.asarray(positions[i], np.uint16),
                tokens=np.asarray(self.tokens[i][positions[i]], np.float32),
                question_ids=self.asked[i],
                answer_ids=self.answers.ids[i],
                uncertainty=float(uncertainty[i]),
            )
            for i in chosen
        )
        return token_batch.encode(
            TokenBatch(self.task.device, self.task.round, self.version, samples),
            self.task.pair.n_tokens,
            self.task.pair.width,
            bits,
            self.task.pair.transform_for(self.task.config.uplink),
        )


Frame = Callable[[Sequence[int]], bytes]
"""The frame of chosen samples, in that order."""


def token_frames(now: _Round, positions: Sequence[np.ndarray], uncertainty: np.ndarray) -> Frame:
    """Frames of the kept tokens."""
    return lambda chosen: now.frame(chosen, positions, uncertainty, now.task.config.uplink.token_bits)


def picture_frames(now: _Round, positions: Sequence[np.ndarray], uncertainty: np.ndarray) -> Frame:
    """Frames of pictures, whole or in patches. Each is decoded and coded once; only its code is kept."""
    up, pair = now.task.config.uplink, now.task.pair
    raster, whole = Raster(pair.side, pair.patch), FORMS[up.uplink_unit].whole

    @cache
    def sample(i: int) -> PictureSample:
        where = np.asarray(positions[i][:0] if whole else positions[i], np.uint16)
        pixels = as_read(now.task, now.task.rows[i])
        return PictureSample(
            index=i,
            positions=where,
            picture=picture_batch.coded(pixels, where, up.uplink_unit, raster, up.picture_quality),
            question_ids=now.asked[i],
            answer_ids=now.answers.ids[i],
            uncertainty=float(uncertainty[i]),
        )

    def frame(chosen: Sequence[int]) -> bytes:
        batch = PictureBatch(now.task.device, now.task.round, now.version, tuple(map(sample, chosen)))
        return picture_batch.encode(batch, up.uplink_unit, raster)

    return frame


@dataclass(frozen=True)
class Unit:
    """What goes up of a chosen sample.

    Attributes:
        scored: whether tokens are chosen, or all of a picture counts.
        frames: from answers, positions (B arrays) and uncertainty (B,) to the frame of any samples.
    """

    scored: bool
    frames: Callable[[_Round, Sequence[np.ndarray], np.ndarray], Frame]


UNITS = {
    "tokens": Unit(True, token_frames),
    "jpeg": Unit(False, picture_frames),
    "patches": Unit(True, picture_frames),
}
"""Values of the setting `uplink-unit`."""


def token_passes(config: UplinkConfig) -> int:
    """Forward passes that choosing tokens needs beyond the answer itself."""
    if not UNITS[config.uplink_unit].scored:
        return 0
    once = {"attention": 1, "sampled": 1, "entropy": 1}
    return {**once, "mc_dropout": config.mc_passes}.get(config.token_score, 0)


def token_scores(now: _Round) -> np.ndarray:
    """Scores (B, N) of all samples by the configured rule."""
    config, rng, found = now.task.config.uplink, now.task.rng("token score"), []
    for start in range(0, len(now.asked), BATCH):
        inputs = vlm.collate(
            now.task.pair.text, now.tokens[start : start + BATCH], now.asked[start : start + BATCH]
        )
        found.append(
            TOKEN_SCORES[config.token_score](now.student.model, now.task.pair.text, inputs, rng, config)
        )
    return np.concatenate(found)


def select_within_budget(now: _Round) -> tuple[bytes, int, int]:
    """UTS: the frame, the samples in it and the tokens the cloud gets by it.

    The frame is b"" where not one sample fits.
    """
    config = now.task.config.uplink
    unit = UNITS[config.uplink_unit]
    uncertainty = SAMPLE_SCORES[config.sample_score](now.answers, now.task.rng("sample score"))
    positions = [np.arange(now.task.pair.n_tokens)] * len(now.asked)
    if unit.scored:
        positions = select.top(token_scores(now), config.tokens_kept, config.token_direction)
    frame_of_some = unit.frames(now, positions, uncertainty)
    order = np.argsort(-uncertainty, kind="stable").tolist()
    chosen = select.within_budget(
        order,
        lambda some: len(frame_of_some(some)),
        config.uplink_budget - overhead(),
    )
    frame = frame_of_some(chosen) if chosen else b""
    return frame, len(chosen), sum(len(positions[i]) for i in chosen)


def everything(now: _Round) -> tuple[bytes, int, int]:
    """`upload_all`: every sample with every token in float16."""
    every = [np.arange(now.task.pair.n_tokens)] * len(now.asked)
    frame = now.frame(range(len(now.asked)), every, now.answers.entropy, bits=16)
    return frame, len(every), sum(map(len, every))


def reply(frame: bytes, digest: bytes, metrics: dict[str, int | float]) -> RecordDict:
    records = RecordDict(
        {keys.METRICS: MetricRecord(metrics), keys.CONFIG: ConfigRecord({keys.DIGEST: digest})}
    )
    if frame:
        records[keys.ARRAYS] = payload(frame)
    return records


def overhead() -> int:
    """An upper bound of the bytes a message adds to its frame."""
    largest = 2**62
    names = (keys.VERSION, keys.UPLOADED, keys.TOKENS, keys.FORWARD, keys.BACKWARD)
    metrics = {**dict.fromkeys(names, largest), keys.SECONDS: 1.0}
    return message_bytes(reply(b"-", bytes(update.DIGEST_BYTES), metrics)) + 16


def updated(
    task: Task, message: Message, context: Context, student: Resident
) -> tuple[np.ndarray, int, bool]:
    """The adapter and version after the message, and whether they are what the cloud wanted the device to
    have."""
    flat, version = held(context.state, student.initial)
    frame = frame_of(message.content)
    if frame:
        try:
            flat, version = update.apply(
                frame,
                flat,
                version,
                student.layout.digest,
                student.layout.sizes,
                task.config.downlink.max_downlink_bytes,
            )
            hold(context.state, flat, version)
        except FrameError as err:
            log(WARNING, "device %s keeps version %s: %s", task.device, version, err)
            return flat, version, False
    return flat, version, version == task.order[keys.VERSION]


def _work(task: Task, message: Message, context: Context, everything_up: bool) -> RecordDict:
    began = time.perf_counter()
    student = resident(task.pair, task.config.pair)
    flat, version, current = updated(task, message, context, student)
    adapters.write(student.model, flat)
    tokens, asked = pictures(task, task.rows), questions(task, task.rows)
    answers, spent = answer(task, student.model, tokens, asked)
    evaluate.record(context.state, task.world, task.rows, answers.texts, task.round)
    now = _Round(task, student, version, tokens, asked, answers)
    frame, uploaded, kept = b"", 0, 0
    if current and everything_up:
        frame, uploaded, kept = everything(now)
    elif current:
        frame, uploaded, kept = select_within_budget(now)
        spent += token_passes(task.config.uplink) * pass_flops(task, student.model, asked, [0] * len(asked))
    return reply(
        frame,
        update.digest(flat),
        {
            keys.VERSION: version,
            keys.UPLOADED: uploaded,
            keys.TOKENS: kept,
            keys.FORWARD: spent,
            keys.BACKWARD: 0,
            keys.SECONDS: time.perf_counter() - began,
        },
    )


def work(task: Task, message: Message, context: Context) -> RecordDict:
    """One round of `cdc` on a device."""
    return _work(task, message, context, everything_up=False)


def work_all(task: Task, message: Message, context: Context) -> RecordDict:
    """One round of `upload_all` on a device."""
    return _work(task, message, context, everything_up=True)
