"""How much passes through a model at once, whatever devices sent: batches cut by the ids of their sequences.

Sequences of a batch are padded to the longest of them, so one long sample makes all of them long. A pass
takes no more padded ids than a full batch of sequences of the longest that is expected (`longest`), and no
more than what fits into memory (`models.room`). Where all pictures of a small pair have one grid every batch
that the readers let in fits, and nothing is cut. Where one picture is as long as ten others, or the models
are large, a batch is cut into parts whose gradients are added: the loss is the same but for the order of
sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cdc_flower.cloud.replay import CloudSample, PseudoLabelled
from cdc_flower.data.features import Grid
from cdc_flower.models.shared import Shared


def longest(shared: Shared, question: int) -> int:
    """Ids of the longest sequence about a picture of the smallest grid.

    Args:
        shared: says the prompt and the longest answer.
        question: ids of the longest question.
    """
    return len(shared.text.prefix(Grid(*shared.grid)).ids) + question + shared.max_answer_tokens + 1


def sequence(shared: Shared, sample: CloudSample, answer: int) -> int:
    """Ids of a sample's sequence, with an answer of so many ids and its end."""
    grid = Grid(*sample.grid)
    prompt = len(shared.text.prefix(grid).ids) - grid.n
    return prompt + len(sample.positions) + len(sample.question_ids) + answer + 1


def cut(lengths: Sequence[int], most: int) -> list[slice]:
    """Runs of sequences of at most `most` ids, all padded to the longest of all; one run where all fit, and
    at least one sequence in each. 0 = no bound."""
    rows = max(1, most // max(lengths)) if most else len(lengths)
    return [slice(at, at + rows) for at in range(0, len(lengths), rows)]


class Part(NamedTuple):
    """Samples of a step that are padded together.

    Attributes:
        rows: the samples.
        length: to which their sequences are padded.
        samples, positions: which share they are of the samples and of the positions of their group.
        group: which share the group is of the step.
    """

    rows: list[PseudoLabelled]
    length: int
    samples: float
    positions: float
    group: float


def passes(shared: Shared, batch: Sequence[PseudoLabelled], most: int) -> list[list[Part]]:
    """What of a step passes at once: all where it has at most `most` padded ids, else one part after another.

    Complete and partial pictures are groups of their own, so that neither pads the other.
    """
    parts, padded = list[Part](), 0
    for whole in (False, True):
        group = [q for q in batch if q.sample.whole is whole]
        lengths = [sequence(shared, q.sample, len(q.answer_ids)) for q in group]
        if not group:
            continue
        padded += len(group) * max(lengths)
        for some in cut(lengths, most):
            shares = len(group[some]) / len(group), sum(lengths[some]) / sum(lengths)
            parts.append(Part(group[some], max(lengths), *shares, len(group) / len(batch)))
    return [parts] if padded <= most or not most else [[part] for part in parts]
