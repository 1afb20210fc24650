"""What a real device reads in a round: samples of its own spool.

It is the `Source` that device work knows from the simulator, so that the same work runs on both. A device has
no labels. Of other rounds it has nothing: their samples were taken, or wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cdc_flower.data.features import Grid
from clients.device.spool import Spooled


@dataclass(frozen=True, eq=False)
class OwnSource:
    """The samples of one round.

    Attributes:
        round: of now.
        samples: of it, in their order; an item is the number of a sample.
        longest: length of the longest prompt, to which batches are padded.
        compression: of the student on this device; "" = what the run config says.
    """

    round: int
    samples: Sequence[Spooled]
    longest: int
    compression: str = ""
    _by_number: dict[int, Spooled] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_number", {s.id: s for s in self.samples})

    def items(self, round: int) -> np.ndarray:
        """See `Source`."""
        return np.array([s.id for s in self.samples] if round == self.round else [], np.int64)

    def tokens(self, item: int) -> np.ndarray:
        """See `Source`."""
        return self._by_number[int(item)].tokens

    def grid(self, item: int) -> Grid:
        """See `Source`."""
        return Grid(*self._by_number[int(item)].grid)

    def question(self, item: int) -> str:
        """See `Source`."""
        return self._by_number[int(item)].question

    def picture(self, item: int) -> bytes:
        """See `Source`."""
        return self._by_number[int(item)].picture

    def label(self, item: int) -> str:
        """A device knows no true answer.

        Raises:
            PermissionError: always.
        """
        raise PermissionError("there are no labels on a device")
