"""Prequential accuracy: every sample is answered before it can teach, and the answer is compared with the
truth.

Devices say what they answered; the truth is here, on the simulator's side, where no device can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc_flower.data.world import World


def prequential(
    world: World, device: int, round: int, answers: Sequence[str]
) -> dict[str, tuple[float, int]]:
    """What a device's answers of a round are worth, by the task of the run (`cdc_flower.tasks`).

    Args:
        world: whose truths are read.
        device: 0 .. devices - 1.
        round: in which the device answered, from 1.
        answers: its texts, in the order of its stream.

    Returns:
        Domain -> (worth of the answers, how many there are); empty where the number of answers is another
        than that of the questions, because then nobody knows which is whose.
    """
    rows = world.streams[device][round - 1]
    if len(rows) != len(answers):
        return {}
    found: dict[str, tuple[float, int]] = {}
    for domain, row, said in zip(world.domains[rows], rows.tolist(), answers, strict=True):
        right, total = found.get(domain, (0.0, 0))
        found[domain] = (right + world.worth(str(said), world.truths[row]), total + 1)
    return found
