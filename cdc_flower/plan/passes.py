"""The widest passes of a run's work: how many rows pass at once, and what they have alive."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cdc_flower.cloud import losses
from cdc_flower.fleet.cost.charges import TEACH_BATCH
from cdc_flower.models import room
from cdc_flower.models.room import FLOAT, HALF
from cdc_flower.models.shared import MOST, picture_bytes
from cdc_flower.plan.checkpoints import Checkpoint
from cdc_flower.plan.facts import Lengths
from cdc_flower.plan.live import Work
from cdc_flower.uplink.scores import token_score

if TYPE_CHECKING:
    from cdc_flower.plan.memory import Run

SLACK = 1.35  # times its widest pass without gradients, what a process keeps of the allocator
TRAINED, BESIDE = 1.6, 0.75  # where it trains: times the widest step, and times the widest other pass
ANSWERED, HELD_OUT, ENCODED = 128, 128, 64  # rows: `clients.inference`, `strategies.accuracy`, the tower


def kept(run: Run, device: bool, cloud: bool, judges: bool) -> float:
    """What passes leave with a process at its peak: the allocator gives little back between two kinds."""
    other = max(_answers(run, device, cloud, judges), default=0.0)
    step = max(_steps(run, device, cloud), default=0.0)
    return max(SLACK * other, TRAINED * step + BESIDE * other)


def _steps(run: Run, device: bool, cloud: bool) -> Iterable[float]:
    """Bytes of a step of training, on a device and in the cloud."""
    student, lengths, own = run.student, run.lengths, run.config.cloud
    if (device and run.holds.trains) or (cloud and run.holds.rehearses):
        yield run.widest(student, _step(run.holds.batch, lengths.prompt, lengths.answer))
    if cloud and run.holds.distils:
        whole = round(own.batch * own.replay_share)
        kept = min(run.config.uplink.tokens_kept or lengths.picture, lengths.picture) + lengths.text
        step = 0.0
        one = room.Pass(lengths.prompt + lengths.answer, lengths.answer, train=True)
        one = dataclasses.replace(one, again=room.again(student.text, one, run.place, student.eager))
        fit = room.rows(student.text, one, run.place, student.eager) * one.length
        groups = [(n, ids) for n, ids in ((whole, lengths.prompt), (own.batch - whole, kept)) if n]
        if sum(n * (ids + lengths.answer) for n, ids in groups) > fit:  # one part after another
            groups = [(max(1, fit // one.length), lengths.prompt)]
        for rows, length in groups:
            if one.again:
                most = dataclasses.replace(one, length=length + lengths.answer)
                step += rows * room.alive(student.text, most, HALF if run.gpu else FLOAT, student.eager)
            else:
                step += run.widest(student, _step(rows, length, lengths.answer), run.gpu)
            if losses.needs_teacher(own.losses):
                step += run.widest(run.teacher, Work(rows, length), run.gpu)
        yield step


def _answers(run: Run, device: bool, cloud: bool, judges: bool) -> Iterable[float]:
    """Bytes of each kind of pass without gradients."""
    student, lengths, up = run.student, run.lengths, run.config.uplink
    if device:
        read = not run.holds.trains and run.holds.distils and up.tokens_kept > 0
        maps = read and bool(token_score(up.token_score).read)
        asked = run.asked * run.config.run.samples_per_round
        rows = room.together(student.config, lengths.prompt, min(ANSWERED, asked), run.place)
        yield run.widest(student, Work(rows, lengths.prompt, attention=maps), run.gpu)
    if cloud:
        yield tower(run)
        if judges:
            yield run.widest(student, Work(held_out(run, student, lengths), lengths.prompt), run.gpu)
        if run.holds.distils:
            most = max(run.config.cloud.source_replay, run.asked * run.config.run.samples_per_round)
            read = Work(min(TEACH_BATCH, most), (run.seen or lengths).prompt)
            yield run.answers(run.teacher, read)


def held_out(run: Run, of: Checkpoint, lengths: Lengths) -> int:
    """Rows of a pass of a model over held-out items."""
    items = (run.config.data.items_per_domain or HELD_OUT) * (1 + len(run.config.axes))
    return room.together(of.config, lengths.prompt, min(HELD_OUT, items), run.place)


def _step(rows: int, prompt: int, answer: int) -> Work:
    return Work(rows, prompt + answer, answer, train=True)


def tower(run: Run, pictures: int = ENCODED) -> float:
    """Bytes of pictures in a tower, as many at once as go together."""
    theirs = _pass(run.teacher, run.seen, pictures) if run.seen else 0.0
    return max(theirs, _pass(run.student, run.lengths, pictures))


def _pass(of: Checkpoint, lengths: Lengths, pictures: int) -> float:
    one = picture_bytes(of.config, lengths.picture)
    return one * min(pictures, max(1, MOST // one))
