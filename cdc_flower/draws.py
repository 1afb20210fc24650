"""Random numbers by purpose: every draw has its own generator, seeded by (seed, purpose, device).

So what one part of a run draws never depends on what another drew before it, or on the order of calls.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, device: int = 0) -> np.random.Generator:
    """The generator for `purpose` on `device`; equal arguments give equal draws, in any order of calls."""
    words = np.frombuffer(hashlib.sha256(purpose.encode()).digest()[:16], dtype="<u4")
    return np.random.default_rng([seed, *words.tolist(), device])
