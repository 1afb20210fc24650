"""The step and the dead zone whose payload fills a byte budget with the least error.

For a step, a power of two, the dead zone is widened until the bytes fit. The steps tried are the largest one
at which sending all that is at least half of it would fill the budget, and its neighbours: the finer, of
which fewer values go, and the coarser, where no dead zone is needed. Sizes are computed from token counts;
only what is nearly right is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cdc_flower.downlink.candidates import Significant, collect, narrowed, survey
from cdc_flower.downlink.significant import Symbols, symbols

SMALLEST_STEP = float(np.finfo(np.float32).tiny)
OCTAVES = range(-126, 128)  # of steps that are normal float32
RELATIVE_ERROR_FLOOR = 1e-4
LEAST_DEAD = 0.5  # of a step; what is smaller is nearer to nothing
_TURNS = 16  # of looking for a dead zone
_WRITES = 5  # payloads written, at least one that fits among them or more
_FEWER = 4  # times fewer symbols than candidates, and those that are left are gathered
_MANY = 2**18  # candidates: where there are more, those of a coarser step are collected anew
_LOOKED_AT = 2**14  # magnitudes that the first guess is made from


class Search:
    """The step of one update; candidates are collected anew only where the dead zone leaves their range.

    Args:
        delta: (P,) float32, finite.
        bounds: (T + 1,), the elements of each tensor.
        write: the payload of symbols.
        around: bytes of a payload that are neither symbols nor the tables and heads of its classes.
    """

    def __init__(
        self,
        delta: NDArray[np.float32],
        bounds: NDArray[np.int64],
        write: Callable[[Symbols], bytes],
        around: Callable[[Symbols], int],
    ):
        self._delta, self._bounds, self._write, self._around = delta, bounds, write, around
        self._peak, energy, nonzero = survey(delta) if len(delta) else (0.0, 0.0, 0)
        floor = RELATIVE_ERROR_FLOOR * math.sqrt(12 * energy / max(nonzero, 1))
        self._finest = _octave(max(floor, SMALLEST_STEP))
        self._found: Significant | None = None
        self._most = math.inf  # times its threshold, from where on fewer are collected

    def within(self, budget: int) -> bytes:
        """The payload found that leaves the least error in at most `budget` bytes; b"" if there is none."""
        if self._peak < SMALLEST_STEP:
            return b""
        octave = max(_octave(_guess(self._delta, 8 * budget / len(self._delta))), self._finest)
        size = self._bytes(self._plan(octave))
        while size < budget and octave > self._finest:
            octave -= 1
            size = self._bytes(self._plan(octave))
        while size >= budget and octave + 1 in OCTAVES:
            above = self._bytes(self._plan(octave + 1))
            if above < budget:
                break
            octave, size = octave + 1, above
        finer = octave - 1 if size > budget and octave > self._finest else octave
        last = octave + 1 if octave + 1 in OCTAVES else octave
        tried = [self._tried(o, budget) for o in range(finer, last + 1)]
        _, best, dead, labels = max(tried, key=lambda t: t[0])
        return self._written(self._plan(best, dead, labels), budget) if dead < math.inf else b""

    def _tried(self, octave: int, budget: int) -> tuple[float, int, float, NDArray[np.int64]]:
        """What the plan of a step gains, and what names it: a plan holds on to its candidates."""
        plan = self._fitting(self._plan(octave), budget)
        return plan.gain, octave, plan.dead, plan.labels

    def _written(self, plan: Symbols, budget: int) -> bytes:
        """The payload of a plan, moved by what its size was misjudged by; b"" if nothing fits."""
        aim, best = float(budget), b""
        for turn in range(50):
            if not plan.count or aim < 1 or (best and turn >= _WRITES):
                break
            payload = self._write(plan)
            left = budget - len(payload)
            if len(best) < len(payload) <= budget:
                best = payload
            if left >= 0 and (left <= max(8.0, 0.004 * budget) or plan.dead == LEAST_DEAD):
                break
            aim = self._bytes(plan) + left - (1 if left < 0 else 0) if turn < _WRITES else 0.97 * aim
            plan = self._fitting(self._plan(_octave(plan.step), labels=plan.labels), aim)
        return best

    def _plan(
        self, octave: int, dead: float = LEAST_DEAD, labels: NDArray[np.int64] | None = None
    ) -> Symbols:
        """The symbols at a step and a dead zone; classes as given, or those that suit it."""
        step = math.ldexp(1.0, octave)
        least = self._found.threshold if self._found else math.inf
        if self._found is None or not least <= dead * step < self._most * least:
            self._found = None  # before the new ones take its place
            self._found = collect(self._delta, self._bounds, dead * step, self._peak)
            self._most = 2.0 if self._found.counts.sum() > _MANY else math.inf
        return symbols(self._found, step, dead, labels)

    def _bytes(self, plan: Symbols) -> float:
        """About the bytes of a payload, from its token counts."""
        return self._around(plan) + plan.fixed + plan.bits / 8 if plan.count else 1.0

    def _fitting(self, plan: Symbols, budget: float) -> Symbols:
        """The plan of the same step with the narrowest dead zone found at which about `budget` bytes do.

        Log bytes is nearly straight in log dead zone: between an end that is too long and one that fits the
        next is interpolated, with the end that stays halved in weight (the Illinois rule).
        """
        fits, found = None, plan.found
        low = high = at = math.log2(plan.dead)
        over, under, jump = 0.0, 0.0, 0.01
        for _ in range(_TURNS):
            size = self._bytes(plan)
            if size <= budget:
                fits, high, under, over = plan, at, math.log2(size / budget), over / 2
                if at == low or size >= 0.998 * budget:
                    break
            else:
                low, over, under = at, math.log2(size / budget), under / 2
                if _FEWER * plan.count < found.counts.sum():  # no dead zone from here on is narrower
                    found = narrowed(found, plan.dead * plan.step)
            if fits is None:
                jump = min(max(2 * jump, 0.5 * over), 4.0)
                at = low + jump
            else:
                at = low + min(max(over / (over - under), 0.03), 0.97) * (high - low)
            plan = symbols(found, plan.step, 2.0**at, plan.labels)
        return fits or symbols(plan.found, plan.step, math.inf)


def _octave(step: float) -> int:
    """The exponent of the largest power of two that is no larger, as far as float32 has it."""
    return min(max(math.frexp(step)[1] - 1, OCTAVES[0]), OCTAVES[-1])


def _guess(delta: NDArray[np.float32], bits: float) -> float:
    """A first step for so many bits per element: that of which a share fits if gaps, signs and sizes cost
    what they do for a Laplace distribution.
    """
    magnitudes = np.abs(delta[:: max(len(delta) // _LOOKED_AT, 1)])
    low, high = 1e-9, 0.75
    for _ in range(24):
        share = (low * high) ** 0.5
        cost = -share * math.log2(share) - (1 - share) * math.log2(1 - share) + 2.3 * share
        low, high = (share, high) if cost < bits else (low, share)
    rank = len(magnitudes) - 1 - min(int(low * len(magnitudes)), len(magnitudes) - 1)
    return max(float(np.partition(magnitudes, rank)[rank]) / 0.63, SMALLEST_STEP)
