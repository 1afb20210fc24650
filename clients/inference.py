"""Answers for many devices at once.

Device work is a generator: it yields an `Ask`, all that inference needs to know of it, is sent the answers,
and returns the content of its reply. Who drives one work gets an ordinary Flower client; who drives many runs
the questions of all devices in full batches, where a sample costs five times less than alone: adapters with
many questions one after the other, those with few together (`models.by_row`). A device's bytes do not depend
on its company: on a CPU with one thread a row's bits are the same in every batch of `LEAST` rows and more,
once all are padded to one length (docs/fleet.md, Determinism). int8 is the exception, because bitsandbytes
scales activations over a whole batch: there every device has batches of its own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import RecordDict
from torch import nn

from cdc_flower.data.features import Grid
from cdc_flower.disk import DiskError
from cdc_flower.models import adapters, by_row, vlm
from cdc_flower.models.room import together
from cdc_flower.models.shared import Shared
from cdc_flower.session import kept
from cdc_flower.uplink.scores import token_score
from cdc_flower.wire import keys
from clients.store import Adapter
from clients.task import Task

ROWS = 128  # samples in a forward pass, at most (make bench-fleet: the best of 32 to 256)
LEAST = 4, 16  # and at least: in the pass over pictures, and in a step of one token
ENOUGH = 256  # ids of a sequence, from which on the pass over pictures may have one row alone
WAITING = 8 * ROWS  # samples that wait for inference at a time: what `drive` holds in memory
OWN = 32  # rows of one adapter that are answered without others
WORN_BYTES = 2**28  # of different adapters: in a batch, and of those that wait


@dataclass(frozen=True, eq=False)
class Ask:
    """Questions of one device to a model that devices of this process share.

    Attributes:
        task: whose.
        model: with an adapter of any values.
        adapter: what the model is to wear.
        tokens: B arrays (n_i, D) float16.
        questions: B id lists.
        score: name of a token score to read off the pass; "" = nothing.
        grids: how the tokens of each lie; may be left out where all pictures have the same.
    """

    task: Task
    model: nn.Module
    adapter: Adapter
    tokens: Sequence[np.ndarray]
    questions: Sequence[Sequence[int]]
    score: str = ""
    grids: Sequence[Grid] | None = None

    @property
    def length(self) -> int:
        """Token ids that every question is padded to."""
        return self.task.source.longest

    @property
    def group(self) -> tuple[Any, ...]:
        """Asks of equal groups may share batches."""
        apart = id(self) if self.task.models.compression == "int8" else 0
        told, mixes = self.grids is not None, _mixes(self.model)
        alike = b"" if mixes else self.adapter.digest
        return self.model, self.task.shared, alike, self.length, self.score, told, apart


@kept(4)
def _mixes(model: nn.Module) -> bool:
    """Whether adapters can share batches."""
    return by_row.possible(model)


Work = Generator[Ask, vlm.Answers, RecordDict]
"""A device's work in one round."""


def _rows(shared: Shared, length: int) -> int:
    """Samples in a forward pass."""
    return together(shared.config, length, ROWS)


def batch(
    shared: Shared,
    length: int,
    tokens: Sequence[np.ndarray],
    questions: Sequence[Sequence[int]],
    grids: Sequence[Grid] | None = None,
) -> vlm.Inputs:
    """One batch of B samples, padded to `length` token ids and to the least number of rows."""
    least = LEAST[0] if length < ENOUGH else 1
    rows = np.minimum(np.arange(max(least, len(questions))), len(questions) - 1)
    picked, asked = [tokens[i] for i in rows], [questions[i] for i in rows]
    lie = None if grids is None else [grids[i] for i in rows]
    return vlm.collate(shared.text, picked, asked, length=length, grids=lie)


def answer_batch(model: nn.Module, shared: Shared, inputs: vlm.Inputs, score: str = "") -> vlm.Answers:
    """Answers of a batch, and the token score where one is named."""
    read = token_score(score).read if score else None
    return vlm.answer(model, shared.text, inputs, shared.max_answer_tokens, read=read, least=LEAST[1])


def answer(
    model: nn.Module,
    shared: Shared,
    length: int,
    tokens: Sequence[np.ndarray],
    questions: Sequence[Sequence[int]],
    score: str = "",
    grids: Sequence[Grid] | None = None,
) -> vlm.Answers:
    """Answer B questions of the same padded length in batches of up to `ROWS`, as many as go together."""
    if not questions:
        none = np.zeros(0, np.float32)
        return vlm.Answers([], [], none, none, none, none, none, read=[] if score else None)
    found, rows = [], _rows(shared, length)
    for start in range(0, len(questions), rows):
        some, asked = tokens[start : start + rows], questions[start : start + rows]
        lie = None if grids is None else grids[start : start + rows]
        answers = answer_batch(model, shared, batch(shared, length, some, asked, lie), score)
        found.append(part(answers, slice(len(asked))))
    return joined(found)


def part(answers: vlm.Answers, rows: slice) -> vlm.Answers:
    """The answers of some rows."""
    parts: dict[str, Any] = {name: v if v is None else v[rows] for name, v in vars(answers).items()}
    return vlm.Answers(**parts)


def joined(found: Sequence[vlm.Answers]) -> vlm.Answers:
    """Answers one after the other; there is at least one."""

    def all_of(name: str) -> Any:
        values = [getattr(a, name) for a in found]
        if isinstance(values[0], np.ndarray):
            return np.concatenate(values)
        return None if values[0] is None else [x for v in values for x in v]

    return vlm.Answers(**{name: all_of(name) for name in vars(found[0])})


@dataclass(eq=False)
class _Running:
    """A device's work: `ask` while it waits for answers, `ended` once it has."""

    work: Work
    ask: Ask | None = None
    ended: RecordDict | Exception | None = None
    seconds: float = 0.0  # its own steps, and its share of batches

    def go_on(self, sent: vlm.Answers | Exception | None, share: float = 0.0) -> None:
        """To its next question or to its end; `share` are the seconds that the answers took."""
        began, self.ask = time.perf_counter(), None
        try:
            if isinstance(sent, Exception):
                self.ask = self.work.throw(sent)
            else:
                self.ask = self.work.send(sent)  # type: ignore[arg-type]
        except StopIteration as end:
            self.ended = end.value
        except DiskError:  # the disk that all devices of a simulation share
            raise
        except Exception as err:  # a device's own: the others go on
            self.ended = err
        self.seconds += share + time.perf_counter() - began
        if isinstance(self.ended, RecordDict) and keys.METRICS in self.ended.metric_records:
            self.ended.metric_records[keys.METRICS][keys.SECONDS] = self.seconds


def drive(works: Iterable[Work]) -> list[RecordDict | Exception]:
    """Run device works together, each to its reply or to what it raised; in the order of the works."""
    upcoming, all_of_them = iter(works), list[_Running]()
    waiting: list[_Running] = []
    while True:
        samples = sum(len(r.ask.questions) for r in waiting if r.ask)
        worn = {id(r.ask.adapter.flat): r.ask.adapter.flat.nbytes for r in waiting if r.ask}
        held = sum(worn.values())
        while samples < WAITING and held < WORN_BYTES and (work := next(upcoming, None)) is not None:
            running = _Running(work)
            all_of_them.append(running)
            running.go_on(None)
            if running.ask:
                waiting.append(running)
                samples += len(running.ask.questions)
                flat = running.ask.adapter.flat
                held += flat.nbytes * (id(flat) not in worn)
                worn[id(flat)] = flat.nbytes
        if not waiting:
            return [r.ended for r in all_of_them]  # type: ignore[misc]
        groups: dict[tuple[Any, ...], list[_Running]] = defaultdict(list)
        for running in waiting:
            groups[running.ask.group].append(running)  # type: ignore[union-attr]
        for group in groups.values():
            _answer_group(group)
        waiting = [r for r in waiting if r.ask]


def alone(work: Work) -> RecordDict:
    """Run one device's work.

    Raises:
        Exception: what the work raised.
    """
    (found,) = drive([work])
    if isinstance(found, Exception):
        raise found
    return found


def _answer_group(group: Sequence[_Running]) -> None:
    asks = [r.ask for r in group if r.ask]
    began = time.perf_counter()
    try:
        answers: list[vlm.Answers | Exception] = list(_batch(asks))
    except Exception as err:
        if len(group) > 1:  # one of them spoilt it: each by itself, with the same bits
            for running in group:
                _answer_group([running])
            return
        answers = [err]
    per_row = (time.perf_counter() - began) / max(1, sum(len(a.questions) for a in asks))
    for running, own, sent in zip(group, asks, answers, strict=True):
        running.go_on(sent, per_row * len(own.questions))


def _batch(asks: Sequence[Ask]) -> list[vlm.Answers]:
    """Answers of asks of one group."""
    found: dict[int, vlm.Answers] = {}
    for some in _shares(asks):
        answers = _answers([asks[i] for i in some])
        ends = np.cumsum([len(asks[i].questions) for i in some]).tolist()
        for i, *of_one in zip(some, [0, *ends[:-1]], ends, strict=True):
            found[i] = part(answers, slice(*of_one))
    return [found[i] for i in range(len(asks))]


def _shares(asks: Sequence[Ask]) -> list[list[int]]:
    """The places of asks that share batches: those of an adapter with many questions alone, the others
    together, by the number of their rows and the bytes of their adapters.
    """
    wearing: dict[bytes, list[int]] = defaultdict(list)
    for i, ask in enumerate(asks):
        wearing[ask.adapter.digest].append(i)
    most, found = _rows(asks[0].task.shared, asks[0].length), list[list[int]]()
    few, rows, held = list[int](), 0, 0
    for own in wearing.values():
        more, size = sum(len(asks[i].questions) for i in own), asks[own[0]].adapter.flat.nbytes
        if more >= OWN:
            found.append(own)
            continue
        if rows and (rows + more > most or held + size > WORN_BYTES):
            found.append(few)
            few, rows, held = [], 0, 0
        few, rows, held = few + own, rows + more, held + size
    return [*found, few] if few else found


def _answers(asks: Sequence[Ask]) -> vlm.Answers:
    """Of asks that share batches; those of one adapter stand together."""
    first, worn = asks[0], {ask.adapter.digest: ask.adapter.flat for ask in asks}
    place = {digest: i for i, digest in enumerate(worn)}
    which = [place[ask.adapter.digest] for ask in asks for _ in ask.questions]
    if len(worn) == 1:
        adapters.write(first.model, first.adapter.flat)
    with by_row.wearing(first.model, list(worn.values()), which) if len(worn) > 1 else nullcontext():
        return answer(
            first.model,
            first.task.shared,
            first.length,
            [tokens for ask in asks for tokens in ask.tokens],
            [question for ask in asks for question in ask.questions],
            first.score,
            None if first.grids is None else [grid for ask in asks for grid in ask.grids or ()],
        )
