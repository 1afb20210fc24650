"""Device work of `mmpg`: wear the adapter that came, answer, and send a few anchor frames and all questions.

Forward passes alone, no label, and no answer goes up. Of the first clips of a round, each once, all tokens
of some frames go (`uplink.anchors`); of every other sample the ids of its question alone. Where that is more
than `uplink.budget` fewer clips go, then fewer questions.
"""

from __future__ import annotations

import hashlib

import numpy as np

from cdc_flower.uplink import anchors
from clients import cdc
from clients.exchange import overhead
from clients.inference import Work
from clients.task import Task

MOST = 1024  # clips and frames that a server may ask for


def work(task: Task) -> Work:
    """One round of `mmpg` on a device."""
    return cdc.work(task, lambda items: [[] for _ in items], anchored)


def anchored(now: cdc.Round) -> tuple[bytes, int, int]:
    """The frame, the samples in it and the tokens the cloud gets by it; b"" where not one sample fits."""
    room, positions = room_of(now), anchors_of(now)
    clips, nothing = list(positions), np.zeros(0, np.uint16)
    doubt, samples = np.zeros(len(now.asked)), len(now.asked)
    while samples:
        kept = {i: positions[i] for i in clips if i < samples}
        where = [kept.get(i, nothing) for i in range(samples)]
        frame = now.frame(range(samples), where, doubt)
        if not room or len(frame) <= room:
            return frame, samples, sum(map(len, where))
        clips, samples = (clips[:-1], samples) if clips else (clips, samples // 2)
    return b"", 0, 0


def room_of(now: cdc.Round) -> int:
    """Bytes that a frame may have; 0 = any."""
    budget = now.task.config.uplink.budget
    return budget and max(1, budget - overhead())


def anchors_of(now: cdc.Round) -> dict[int, np.ndarray]:
    """Sample -> positions of its anchor frames, of the clips of which they go up."""
    return {i: _anchors(now, i) for i in _first(now)[: min(int(now.task.order["clips"]), MOST)]}


def _first(now: cdc.Round) -> list[int]:
    """The samples in which a clip is met for the first time in this round."""
    found: dict[bytes, int] = {}
    for i, tokens in enumerate(now.tokens):
        found.setdefault(hashlib.blake2b(np.ascontiguousarray(tokens).data, digest_size=16).digest(), i)
    return list(found.values())


def _anchors(now: cdc.Round, sample: int) -> np.ndarray:
    """Positions of all tokens of a clip's anchor frames."""
    order, frames = now.task.order, now.task.shared.frames or 1
    tokens = np.asarray(now.tokens[sample], np.float32)
    tokens = tokens.reshape(frames, -1, tokens.shape[-1])
    most = min(int(order["frames"]), frames)
    rng = now.task.rng(f"anchors/{sample}")
    return anchors.positions(anchors.choose(str(order["anchors"]), tokens, most, rng), tokens.shape[1])
