"""What a hostile device sends as token samples: kinds by name, for `run.poison-devices`.

All keep the form of an honest batch, so no check of form refuses them. The teacher answers, not the device:
what harms is what makes the teacher say something wrong, or what makes learning itself fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cdc_flower.data.features import Grid
from cdc_flower.data.source import source
from cdc_flower.draws import generator
from cdc_flower.models import vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import Batch, Sample
from clients.task import Task

HUGE = 100.0  # times a token's length
FEW, SOME = 2, 8  # tokens of a sample: of a flood, of a swamp
STEPS = 40  # of a search for tokens
REACH = 1.0  # of a searched token from the honest one, in deviations of its channel
CREEP = 0.2  # the same, where the cloud is not to see that it is strange

Samples = tuple[Sample, ...]
Kind = Callable[[Task, Batch, Sequence[int]], Samples]
"""The device's work, its honest batch and all poisoners -> the samples that go up instead."""


def _seen(batch: Batch) -> np.ndarray:
    """All tokens (M, D) of a batch."""
    return np.concatenate([sample.tokens for sample in batch.samples])


def _each(batch: Batch, change: Callable[[np.ndarray], np.ndarray]) -> Samples:
    return tuple(replace(s, tokens=change(s.tokens).astype(np.float32)) for s in batch.samples)


def _of_stream(task: Task, device: int, round: int, whose: int) -> Samples:
    """Samples of the stream of any device of a simulated fleet, their tokens drawn as `whose`."""
    own, keep = source(task.config, task.shared, device), task.config.uplink.tokens_kept
    rng, found = generator(task.config.run.seed, f"poison/{round}", whose), []
    for i, item in enumerate(own.items(round).tolist()):
        tokens, grid = own.tokens(item), own.grid(item)
        spots = np.sort(rng.permutation(grid.n)[: keep or grid.n]).astype(np.uint16)
        asked = task.shared.text.question_ids(own.question(item))
        found.append(Sample(i, grid, spots, asked, [], 1.0, np.asarray(tokens[spots], np.float32)))
    return tuple(found)


def noise(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """Noise with the mean and the deviation of each channel."""
    seen, rng = _seen(batch), task.rng("poison")
    return _each(batch, lambda tokens: rng.normal(seen.mean(0), seen.std(0), tokens.shape))


def shuffled(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """Pictures under the questions of others."""
    order = task.rng("poison").permutation(len(batch.samples)).tolist()
    asked = [batch.samples[i].question_ids for i in order]
    return tuple(replace(s, question_ids=q) for s, q in zip(batch.samples, asked, strict=True))


def mirrored(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """Tokens on the other side of the mean."""
    mean = _seen(batch).mean(0)
    return _each(batch, lambda tokens: 2 * mean - tokens)


def average(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """Every token is the mean token: the teacher answers, and there is nothing to see."""
    mean = _seen(batch).mean(0)
    return _each(batch, lambda tokens: np.broadcast_to(mean, tokens.shape))


def huge(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """Tokens `HUGE` times as long."""
    return _each(batch, lambda tokens: HUGE * tokens)


def replayed(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """The device's samples of round 1, again and again."""
    return _of_stream(task, task.device, 1, task.device)


def copied(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """What the next device has in this round."""
    return _of_stream(task, (task.device + 1) % task.config.run.devices, task.round, task.device)


def sybil(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """All poisoners send the same samples, those of the first of them in round 1."""
    return _of_stream(task, poisoners[0], 1, poisoners[0])


def flood(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """As many samples as there may be, each of so few tokens that all fit, and these are huge: where honest
    devices have bytes for a few samples, this one gives as many as all of them.
    """
    own = _of_stream(task, task.device, task.round, task.device)
    return tuple(
        replace(s, positions=s.positions[:FEW], tokens=(HUGE * s.tokens[:FEW]).astype(np.float32))
        for s in own
    )


@kept(2)
def _shipped(pair: PairConfig, shared: Shared) -> nn.Module:
    return twin_model(shared, pair)


@kept(2)
def _teacher(pair: PairConfig, shared: Shared, data_name: str) -> nn.Module:
    from cdc_flower.models.teacher import load_teacher  # an honest device does not even import it

    return load_teacher(pair, shared, data_name).model


def misleading(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """Tokens near honest ones to which the teacher gives another sample's answer, and is sure of it."""
    return _misled(task, batch)


def swamp(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """The same in as many samples as there may be, each of few tokens, so that all fit: where honest devices
    have bytes for a few, two such devices give more than all of them.
    """
    own = _of_stream(task, task.device, task.round, task.device)
    return _misled(task, replace(batch, samples=tuple(_thinned(s, SOME) for s in own)))


def colliding(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """As `misleading`, and the student as shipped makes nearly of them what it makes of the honest ones: as
    if the device had written a wrong answer under an honest picture.
    """
    return _misled(task, batch, hidden=True)


def creeping(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """As `colliding`, so near to honest tokens that a doorkeeper takes most of them."""
    return _misled(task, batch, hidden=True, most=CREEP)


def crowding(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """As `colliding`, in as many samples of few tokens as a `swamp`."""
    own = _of_stream(task, task.device, task.round, task.device)
    return _misled(task, replace(batch, samples=tuple(_thinned(s, SOME) for s in own)), hidden=True)


def mislabelled(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
    """Honest tokens with the answers of others. It harms where a device's answers are taught (`labelled`):
    there a device has what no device has in `cdc`, the choice of what the teacher says.
    """
    said, asked = [s.answer_ids for s in batch.samples], [s.question_ids for s in batch.samples]
    return tuple(replace(s, answer_ids=aimed(said, asked, i)) for i, s in enumerate(batch.samples))


def _thinned(sample: Sample, most: int) -> Sample:
    """With up to so many of its tokens, evenly taken."""
    some = np.unique(np.linspace(0, len(sample.positions) - 1, most).astype(int))
    return replace(sample, positions=sample.positions[some], tokens=sample.tokens[some])


def _misled(task: Task, batch: Batch, hidden: bool = False, most: float = REACH) -> Samples:
    """Tokens that the teacher is surely wrong about. The device knows the teacher, as where it is a published
    model, and searches along its gradient; what it finds is found as the frame will carry it.

    Args:
        task: the device's work.
        batch: honest samples.
        hidden: whether the student as shipped is to see no difference.
        most: of a token from the honest one, in deviations of its channel.
    """
    shared, up = task.shared, task.config.uplink
    text, turn = shared.text, shared.transform_for(up)
    teacher = _teacher(task.config.pair, shared, task.config.data.name)
    samples = batch.samples
    grids, asked = [Grid(*s.grid) for s in samples], [s.question_ids for s in samples]
    spots = [s.positions for s in samples]
    honest = [s.tokens for s in samples]
    said = _answers(teacher, shared, samples)
    told = [aimed(said, asked, i) for i in range(len(samples))]
    reach, steps = most * _seen(batch).std(0), 3 * STEPS // 2 if hidden else STEPS
    now = batch
    moved = [t.copy() for t in honest]
    student = first = None
    if hidden:
        student = _shipped(task.config.pair, shared)
        with torch.no_grad():
            first = vlm.forward(student, vlm.collate(text, honest, asked, told, spots, grids=grids))
    with torch.enable_grad():
        for _ in range(steps):
            made = token_batch.encode(now, shared.width, up.token_bits, turn)
            now = token_batch.decode(made, shared.fits, shared.width, shared.vocab, len(made), transform=turn)
            inputs = vlm.collate(text, [s.tokens for s in now.samples], asked, told, spots, grids=grids)
            tokens = inputs.tokens.requires_grad_()
            out = vlm.forward(teacher, replace(inputs, tokens=tokens))
            assert inputs.answer_ids is not None
            loss = nn.functional.cross_entropy(
                out.logits.flatten(0, 1), inputs.answer_ids.flatten(), ignore_index=-100
            )
            if student is not None and first is not None:
                loss = loss + _apart(vlm.forward(student, replace(inputs, tokens=tokens)), first)
            (way,) = torch.autograd.grad(loss, tokens)
            rate = 2.5 * reach / steps
            for i, (m, h) in enumerate(zip(moved, honest, strict=True)):
                m -= rate * np.sign(way[i, : len(m)].numpy())
                np.clip(m, h - reach, h + reach, out=m)
            now = replace(
                batch, samples=tuple(replace(s, tokens=m) for s, m in zip(samples, moved, strict=True))
            )
    return now.samples


def _answers(model: nn.Module, shared: Shared, samples: Samples) -> list[list[int]]:
    """Ids of a model's answers to samples."""
    grids, asked = [Grid(*s.grid) for s in samples], [s.question_ids for s in samples]
    arrays, spots = [s.tokens for s in samples], [s.positions for s in samples]
    inputs = vlm.collate(shared.text, arrays, asked, None, spots, grids=grids)
    return vlm.answer(model, shared.text, inputs, shared.max_answer_tokens).ids


def _apart(seen: vlm.Output, first: vlm.Output) -> torch.Tensor:
    """How far the states of a pass are from those of another one, in their deviations, squared; a mean."""
    mask = first.mask[..., None]
    far = ((seen.hidden - first.hidden) / (first.hidden.std() + 1e-6)).square() * mask
    return far.sum() / (mask.sum() * seen.hidden.shape[-1])


def reached(task: Task, honest: Batch, harmful: Samples) -> tuple[float, float]:
    """Shares of the samples of a harmful batch, as the frame will carry it: to which the teacher gives the
    answer that was aimed at, and to which the student as shipped answers as it did to the honest ones.
    """
    shared, up = task.shared, task.config.uplink
    turn = shared.transform_for(up)
    made = token_batch.encode(replace(honest, samples=harmful), shared.width, up.token_bits, turn)
    sent = token_batch.decode(
        made, shared.fits, shared.width, shared.vocab, len(made), transform=turn
    ).samples
    teacher = _teacher(task.config.pair, shared, task.config.data.name)
    student = _shipped(task.config.pair, shared)
    (said, now), (before, after) = (
        [_answers(model, shared, samples) for samples in (honest.samples, sent)]
        for model in (teacher, student)
    )
    asked = [s.question_ids for s in honest.samples]
    hit = [ids == aimed(said, asked, i) for i, ids in enumerate(now)]
    same = [a == b for a, b in zip(before, after, strict=True)]
    return float(np.mean(hit)), float(np.mean(same))


def aimed(said: Sequence[Sequence[int]], asked: Sequence[Sequence[int]], i: int) -> list[int]:
    """An answer that is not that of sample i: the next in order that its question has, else that any has."""
    own = tuple(said[i])
    same = sorted({tuple(s) for s, q in zip(said, asked, strict=True) if list(q) == list(asked[i])})
    every = same if len(same) > 1 else sorted({tuple(s) for s in said} | {own})
    return list(every[(every.index(own) + 1) % len(every)])


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        *(noise, shuffled, mirrored, average, huge, misleading, replayed, copied, sybil, flood, swamp),
        *(mislabelled, colliding, creeping, crowding),
    )
}
"""Names in `run.poison-devices`."""
