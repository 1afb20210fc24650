"""What a task is: how an answer is judged, and against what.

A task is made fit for a test split once (`Task.fit`), because some metrics need counts over all of its
references; what comes of that judges one answer at a time, on the stream and on held-out items alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # a device, which reads no table, imports tasks, too
    import pandas as pd


class Truth(NamedTuple):
    """What the data says about one question.

    Attributes:
        answer: the label.
        answers: all reference answers; the label alone where the data has no others.
        choices: the answers that were offered; () = the question is open.
        task: the task of this row (column `task`), "" where the data names none.
    """

    answer: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    task: str = ""


class Truths(Sequence[Truth]):
    """The truths of the rows of a pack, each made when it is asked for.

    Args:
        frame: column `answer`; `answers` and `choices` (lists of strings) and `task` where the pack has them.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._answer = frame["answer"].astype(str).to_numpy(object)
        self._lists = {name: frame[name].array for name in ("answers", "choices") if name in frame}
        self._task = frame["task"].astype(str).to_numpy(object) if "task" in frame else None

    def __len__(self) -> int:
        return len(self._answer)

    def __getitem__(self, row):
        answer = self._answer[row]
        task = "" if self._task is None else self._task[row]
        return Truth(answer, self._list("answers", row) or (answer,), self._list("choices", row), task)

    def _list(self, name: str, row: int) -> tuple[str, ...]:
        found = self._lists[name][row] if name in self._lists else ()
        return tuple(map(str, found))


Worth = Callable[[str, Truth], float]
"""What was said, and what is true -> what that is worth."""
Corpus = Callable[[Sequence[str], Sequence[Truth]], float | None]
"""What was said to many questions, and what is true -> a figure; None where it cannot be computed here."""


@dataclass(frozen=True)
class Task:
    """A way of judging answers.

    Attributes:
        fit: the truths of the whole test split -> the worth of an answer.
        unit: what the mean worth is called.
        needs: columns that the data must have.
        beside: further figures of all held-out answers together, by name.
        by: a column of the data by whose values the mean worth is told, too; "" = none.
        ask: how to answer, said behind a question to models that were not trained on the data.
        cut: share of the questions whose every answer may be longer than what a model may say: one that is
            cut short has worth in some tasks, and in a large data set there is always an odd one.
    """

    fit: Callable[[Sequence[Truth]], Worth]
    unit: str = "accuracy"
    needs: tuple[str, ...] = ()
    beside: Mapping[str, Corpus] = field(default_factory=dict)
    by: str = ""
    ask: str = ""
    cut: float = 0.001

    @property
    def shown(self) -> str:
        """What stands behind a worth times 100: "%" for shares, else the unit."""
        return "%" if self.unit == "accuracy" else self.unit


SHORT = "Answer the question using a single word or phrase."
"""LLaVA-1.5's words (arXiv 2310.03744, table 7)."""


def always(worth: Worth) -> Callable[[Sequence[Truth]], Worth]:
    """The `fit` of a task that needs no counts over the test split."""
    return lambda truths: worth
