"""No version is shipped that is worse at the old things than the one before, or than the student as shipped.

What is measured is the worth of the greedy answers to A's validation part, which the cloud has with labels
and which nothing was trained on. Where a version falls behind by more than a tolerance, the furthest point on
the way to it that does not is shipped instead, and where there is none, nothing. It is found by bisection, on
versions as devices would hold them, after the codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import nn

from cdc_flower.cloud.lessons import teach
from cdc_flower.cloud.source import SourceItem
from cdc_flower.config import Config
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher
from cdc_flower.tasks import Worth

BISECTIONS = 3  # after the whole way has failed
ITEMS = 200  # that are asked at most, for each version that is measured
_log = getLogger(__name__)


class Version(Protocol):
    """A version that is not shipped yet."""

    @property
    def flat(self) -> np.ndarray:
        """The adapter (P,) float32, as devices would hold it."""
        ...


V = TypeVar("V", bound=Version)


class Found(NamedTuple, Generic[V]):
    """What may be shipped.

    Attributes:
        version: the furthest that passes; None where none does.
        share: of the way to the target; 1 = all of it.
    """

    version: V | None
    share: float


class Guard:
    """Measures versions of an adapter on A's validation part.

    Args:
        shared: reads.
        model: into which adapters are written; it has its own back after each.
        items: A's validation part, at least one.
        worth: of an answer.
        tolerance: how much less the mean worth may be.
        longest: ids of the longest sequence, as in `cdc_flower.cloud.distill.Cloud`.

    Attributes:
        first: mean worth of version 0.
        last: mean worth of the newest version.
    """

    def __init__(
        self,
        shared: Shared,
        model: nn.Module,
        items: Sequence[SourceItem],
        worth: Worth,
        tolerance: float,
        longest: int = 0,
    ) -> None:
        self.shared, self.model, self.worth = shared, model, worth
        self.samples = [replace(item.sample, teacher=None) for item in items]
        self.truths = [item.truth for item in items]
        self.tolerance, self.longest = tolerance, longest
        self.first = self.last = self.measure(adapters.read(model))

    @classmethod
    def of(
        cls,
        config: Config,
        shared: Shared,
        model: nn.Module,
        items: Sequence[SourceItem],
        worth: Worth,
        longest: int = 0,
    ) -> Guard | None:
        """The guard of a run; None where it is off, or where A has no validation part, which a line says."""
        if not config.cloud.guard:
            return None
        if not items:
            _log.warning("cloud.guard: no source samples are held out of training; nothing is guarded")
            return None
        return cls(shared, model, items[:ITEMS], worth, config.cloud.guard, longest)

    @property
    def most(self) -> int:
        """Answers that a round takes at most."""
        return (1 + BISECTIONS) * len(self.samples)

    def measure(self, flat: np.ndarray) -> float:
        """Mean worth of the answers with an adapter (P,)."""
        with adapters.wearing(self.model, flat) as model:
            _, texts = teach(self.shared, Teacher(model, ""), self.samples, self.longest)
        return float(np.mean([self.worth(t, truth) for t, truth in zip(texts, self.truths, strict=True)]))

    def furthest(self, last: np.ndarray, target: np.ndarray, made: Callable[[np.ndarray], V]) -> Found[V]:
        """The furthest version on the way from the last one to a target that passes; `last` is now its worth.

        Args:
            last: the adapter (P,) that is shipped.
            target: what the cloud learned.
            made: a target -> the version of it.
        """
        least = max(self.first, self.last) - self.tolerance
        best, low, high = None, 0.0, 1.0
        for step in range(1 + BISECTIONS):
            share = (low + high) / 2 if step else 1.0
            version = made(target if share == 1 else last + np.float32(share) * (target - last))
            worth = self.measure(version.flat)
            if worth < least:
                high = share
                continue
            best, low, self.last = version, share, worth
            if share == 1:
                break
        return Found(best, low)

    def metrics(self, share: float) -> dict[str, float]:
        """Of a round in which so much of the way was shipped."""
        return {"guard_accuracy": self.last, "guard_held": float(share < 1), "guard_share": share}

    def state(self) -> dict[str, Any]:
        """What the newest version is worth."""
        return {"last": self.last}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.last = float(state["last"])
