"""Device work of `mmpg_cdc`: as of `mmpg`, and in the room that is left tokens of what it doubted most.

One frame holds all questions and the anchor frames, by which the cloud knows the device, and kept tokens of
further samples, most uncertain first, as `cdc` picks them. Forward passes alone, no label, no answer goes up.
"""

from __future__ import annotations

import numpy as np

from cdc_flower.uplink import select
from cdc_flower.uplink.scores import SAMPLE_SCORES, Seen
from clients import cdc
from clients.inference import Work
from clients.mmpg import anchored, anchors_of, room_of
from clients.task import Task


def work(task: Task) -> Work:
    """One round of `mmpg_cdc` on a device."""
    return cdc.work(task, lambda items: [[] for _ in items], both)


def both(now: cdc.Round) -> tuple[bytes, int, int]:
    """The frame, the samples in it and the tokens the cloud gets by it; without room for any sample's tokens
    as `anchored`.
    """
    if not now.asked:
        return b"", 0, 0
    config, anchors, room = now.task.config.uplink, anchors_of(now), room_of(now)
    seen = Seen(now.answers, now.asked, None, config.least_worth)
    found = SAMPLE_SCORES[config.sample_score](seen, now.task.rng("sample score"))
    kept = [np.arange(len(tokens)) for tokens in now.tokens]
    if cdc.scored(config):
        best = select.top(cdc.token_scores(now), config.tokens_kept)
        kept = [p[p < len(tokens)] for p, tokens in zip(best, now.tokens, strict=True)]

    def where(chosen: list[int]) -> list[np.ndarray]:
        some = set(chosen)
        return [anchors.get(i, p if i in some else p[:0]) for i, p in enumerate(kept)]

    def frame(chosen: list[int]) -> bytes:
        return now.frame(range(len(kept)), where(chosen), now.answers.entropy)

    order = [i for i in np.argsort(-found, kind="stable").tolist() if found[i] > -np.inf and i not in anchors]
    chosen = select.within_budget(order, lambda some: len(frame(list(some))), room)
    if not chosen:
        return anchored(now)
    return frame(chosen), len(kept), sum(map(len, where(chosen)))
