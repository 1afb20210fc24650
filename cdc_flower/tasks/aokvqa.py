"""A-OKVQA's two settings (Schwenk et al., arXiv 2206.01718; allenai/aokvqa, evaluation/eval_predictions.py).

Direct answer: min(1, matches / 3) over the ten references. Questions marked `difficult_direct_answer` are not
part of that setting; the importer leaves them out. (An early version of the official script left them out of
the other setting instead.) Multiple choice: 1 where the correct choice was said. The official script compares
strings as they are; here both sides are normalised as in the task `exact`, so that "Yes." is "yes".
"""

from __future__ import annotations

from cdc_flower.tasks.exact import normalise
from cdc_flower.tasks.task import SHORT, Task, Truth, always


def direct(said: str, truth: Truth) -> float:
    """min(1, matches / 3)."""
    own = normalise(said)
    return min(1.0, sum(normalise(reference) == own for reference in truth.answers) / 3)


def choice(said: str, truth: Truth) -> float:
    """1 where what was said is the correct choice, word for word; what is no choice is worth nothing."""
    offered = [normalise(text) for text in truth.choices]
    own = normalise(said)
    return float(own in offered and own == normalise(truth.answer))


DIRECT = Task(always(direct), needs=("answers",), ask=SHORT)
CHOICE = Task(always(choice), needs=("choices",), ask="Answer with the words of one of the choices.")
