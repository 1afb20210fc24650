"""Device work of CDC: take the update, answer the stream, send the tokens it was least sure about.

Forward passes alone, no label: UTS (arXiv 2312.16279, section 3.2) in two stages and a byte budget, which
holds for the whole message and not just for the frame. No picture either, unless the setting `uplink.unit`
asks for one of the controls: the whole picture, or the patches of the kept tokens. With `uplink.tokens-kept`
0 all tokens of a sample go up, with `uplink.budget` 0 all samples do. An update that cannot be applied
(another version, a damaged frame) leaves the adapter as it was; the device answers with it, sends no tokens,
and says which adapter it has, so that the cloud sends the right update next time. It says so by version and
digest: a cloud that was restored from an older checkpoint gives a version's number to another adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from logging import WARNING

import numpy as np
from flwr.supercore import log

from cdc_flower.data.features import Grid
from cdc_flower.models import adapters, vlm
from cdc_flower.models.room import together
from cdc_flower.stages import UplinkConfig
from cdc_flower.uplink import select, token_batch
from cdc_flower.uplink.noise import noised
from cdc_flower.uplink.pictures import picture_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS
from cdc_flower.uplink.sample import Batch, Sample
from cdc_flower.uplink.scores import GATED, SAMPLE_SCORES, Seen, token_score
from cdc_flower.wire import gate, keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.frame import FrameError
from clients.counts import answering, passes
from clients.exchange import overhead, reply, updated
from clients.inference import Ask, Work
from clients.store import Adapter
from clients.task import Resident, Task, resident

BATCH = 32  # samples in a pass of a token score that needs passes of its own


@dataclass(frozen=True)
class Round:
    """What a device knows after it has answered its samples."""

    task: Task
    student: Resident
    adapter: Adapter
    tokens: list[np.ndarray]  # B arrays (n_i, D) float16
    grids: list[Grid]
    asked: list[list[int]]
    answers: vlm.Answers
    told: list[list[int]]  # of each sample, what goes up as its answer

    def sent(self, sample: int, positions: np.ndarray) -> np.ndarray:
        """The kept tokens (k, D) float32 of a sample as they go up.

        Each token of a picture has one noise, drawn for that picture, however often and with whichever others
        it is sent: a cloud that asks again, or for other samples in their place, learns no mean of several.
        """
        up, turn, tokens = self.task.config.uplink, self.task.shared.transform, self.tokens[sample]
        if up.clip:
            rng = self.task.private_rng("noise", np.ascontiguousarray(tokens).tobytes())
            every = np.asarray(tokens, np.float32)
            tokens = noised(every, up.clip, up.noise, rng, None if turn is None else turn.mean)
        return np.asarray(tokens[positions], np.float32)

    def frame(self, chosen: Sequence[int], positions: Sequence[np.ndarray], uncertainty: np.ndarray) -> bytes:
        """The TOKEN_BATCH frame of samples `chosen`; `positions` and `uncertainty` are of all samples."""
        samples = tuple(
            Sample(
                index=int(i),
                grid=self.grids[i],
                positions=np.asarray(positions[i], np.uint16),
                tokens=self.sent(i, positions[i]),
                question_ids=self.asked[i],
                answer_ids=self.told[i],
                uncertainty=float(uncertainty[i]),
            )
            for i in chosen
        )
        return token_batch.encode(
            Batch(self.task.device, self.task.round, self.adapter.version, samples),
            self.task.shared.width,
            self.task.config.uplink.token_bits,
            self.task.shared.transform_for(self.task.config.uplink),
        )


Frame = Callable[[Sequence[int]], bytes]
"""The frame of chosen samples, in that order."""


def token_frames(now: Round, positions: Sequence[np.ndarray], uncertainty: np.ndarray) -> Frame:
    """Frames of the kept tokens."""
    return lambda chosen: now.frame(chosen, positions, uncertainty)


def picture_frames(now: Round, positions: Sequence[np.ndarray], uncertainty: np.ndarray) -> Frame:
    """Frames of pictures, whole or in patches. Each is decoded and coded once; only its code is kept."""
    up, shared = now.task.config.uplink, now.task.shared
    whole = FORMS[up.unit].whole

    @cache
    def sample(i: int) -> Sample:
        where = np.asarray(positions[i][:0] if whole else positions[i], np.uint16)
        pixels = now.task.picture(now.task.items[i])
        return Sample(
            index=i,
            grid=now.grids[i],
            positions=where,
            picture=picture_batch.coded(pixels, where, up.unit, shared.patch, up.picture_quality),
            question_ids=now.asked[i],
            answer_ids=now.told[i],
            uncertainty=float(uncertainty[i]),
        )

    def frame(chosen: Sequence[int]) -> bytes:
        batch = Batch(now.task.device, now.task.round, now.adapter.version, tuple(map(sample, chosen)))
        return picture_batch.encode(batch, up.unit, shared.patch)

    return frame


@dataclass(frozen=True)
class Unit:
    """What goes up of a chosen sample.

    Attributes:
        scored: whether tokens are chosen, or all of a picture counts.
        frames: from answers, positions (B arrays) and uncertainty (B,) to the frame of any samples.
    """

    scored: bool
    frames: Callable[[Round, Sequence[np.ndarray], np.ndarray], Frame]


UNITS = {
    "tokens": Unit(True, token_frames),
    "jpeg": Unit(False, picture_frames),
    "patches": Unit(True, picture_frames),
}
"""Values of the setting `uplink.unit`."""


def scored(config: UplinkConfig) -> bool:
    """Whether tokens are chosen by a score, or all of a picture go up."""
    return UNITS[config.unit].scored and config.tokens_kept > 0


def reading(config: UplinkConfig) -> str:
    """The token score that is read off the pass that answers; "" where there is none."""
    return config.token_score if scored(config) and token_score(config.token_score).read else ""


def choosing(now: Round) -> Counts:
    """What choosing tokens takes beyond the answers, as the score says."""
    config = now.task.config.uplink
    if not scored(config):
        return Counts()
    rule = token_score(config.token_score)
    again = passes(now.task, now.tokens, now.asked, [0] * len(now.asked), now.grids) * rule.passes
    return again + Counts(predicted=rule.predicted * sum(map(len, now.tokens)))


def table(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows (N_i,) as one array (B, N), N the largest; what a shorter row lacks is NaN."""
    n = max(map(len, rows))
    if all(len(row) == n for row in rows):
        return np.stack(rows)
    return np.stack([np.pad(row, (0, n - len(row)), constant_values=np.nan) for row in rows])


def token_scores(now: Round) -> np.ndarray:
    """Scores (B, N) of all samples by the configured rule, with the device's own draws; NaN where a picture
    has fewer tokens.
    """
    config, rng = now.task.config.uplink, now.task.rng("token score")
    rule, text = token_score(config.token_score), now.task.shared.text
    if rule.read:
        assert now.answers.read is not None
        return rule.of_read(table(now.answers.read), rng)
    found, model, longest = [], now.student.model, now.task.source.longest
    adapters.write(model, now.adapter.flat)
    rows = together(now.task.shared.config, longest, BATCH)
    for start in range(0, len(now.asked), rows):
        some = slice(start, start + rows)
        part = now.tokens[some], now.asked[some]
        inputs = vlm.collate(text, *part, length=longest, grids=now.grids[some])
        found.append(rule(model, text, inputs, rng))
    return table([row for part in found for row in part])


def gate_of(task: Task) -> gate.Weights | None:
    """What the cloud says of whom to ask; None where it says nothing, or nothing that can be read."""
    if keys.GATE not in task.order:
        return None
    try:
        return gate.unpack(task.order[keys.GATE])
    except FrameError as err:
        log(WARNING, "device %s: %s", task.device, err)
        return None


def select_within_budget(now: Round) -> tuple[bytes, int, int]:
    """UTS: the frame, the samples in it and the tokens the cloud gets by it.

    The frame is b"" where not one sample fits.
    """
    config = now.task.config.uplink
    seen = Seen(now.answers, now.asked, gate_of(now.task), config.least_worth)
    found = SAMPLE_SCORES[config.sample_score](seen, now.task.rng("sample score"))
    uncertainty = now.answers.entropy if config.sample_score in GATED else found
    positions = [np.arange(len(tokens)) for tokens in now.tokens]
    if scored(config):
        kept = select.top(token_scores(now), config.tokens_kept)
        positions = [p[p < len(tokens)] for p, tokens in zip(kept, now.tokens, strict=True)]
    frames = UNITS[config.unit].frames(now, positions, uncertainty)
    frame_of_some = cache(frames)  # the one that is sent was weighed before
    order = [i for i in np.argsort(-found, kind="stable").tolist() if found[i] > -np.inf]
    room = config.budget and max(1, config.budget - overhead())
    chosen = select.within_budget(order, lambda some: len(frame_of_some(tuple(some))), room)
    frame = frame_of_some(tuple(chosen)) if chosen else b""
    return frame, len(chosen), sum(len(positions[i]) for i in chosen)


def whole(now: Round, chosen: Sequence[int], uncertainty: np.ndarray) -> tuple[bytes, int, int]:
    """The frame of chosen samples with all of their tokens, how many they are, and their tokens; b"" without
    one. `uncertainty` (B,) is of all samples.
    """
    if not chosen:
        return b"", 0, 0
    every = [np.arange(len(tokens)) for tokens in now.tokens]
    return now.frame(chosen, every, uncertainty), len(chosen), sum(len(every[i]) for i in chosen)


def work(
    task: Task,
    label: Callable[[np.ndarray], list[list[int]]] | None = None,
    choose: Callable[[Round], tuple[bytes, int, int]] = select_within_budget,
) -> Work:
    """One round of `cdc` on a device.

    Args:
        task: the device's.
        label: what goes up as the answers to items; its own where it is left out.
        choose: the frame, the samples in it and the tokens the cloud gets by it.
    """
    student = resident(task.shared, task.models)
    adapter, current = updated(task, student)
    tokens, asked = task.tokens(task.items), task.questions(task.items)
    score = reading(task.config.uplink) if current else ""
    grids = task.grids(task.items)
    answers = yield Ask(task, student.model, adapter, tokens, asked, score, grids)
    task.store.say(task.round, answers.texts)
    told = answers.ids if label is None else label(task.items)
    now = Round(task, student, adapter, tokens, grids, asked, answers, told)
    counts = answering(task, tokens, asked, answers.ids, grids)
    frame, uploaded, kept_tokens = b"", 0, 0
    if current:
        frame, uploaded, kept_tokens = choose(now)
        counts += choosing(now)
    own = {keys.VERSION: adapter.version, keys.UPLOADED: uploaded, keys.TOKENS: kept_tokens}
    return reply(frame, adapter.digest, {**own, **counts.metrics()})
