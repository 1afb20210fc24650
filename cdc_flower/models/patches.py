"""A patch of the adapter: a frozen basis, equal everywhere, times a small vector of a device's own.

The metapatch of DCCL (arXiv 2104.06624): theta_m = theta + Theta z_m, where only z_m is personal. There the
basis Theta is learned in the cloud; here it is drawn once and sparse, as in count sketches: every weight that
is patched follows one number of z, with a sign. So nobody ships it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.draws import generator
from cdc_flower.models.adapters import Layout, outer


@dataclass(frozen=True, eq=False)
class Basis:
    """Theta (P, k), by its nonzero values.

    Attributes:
        size: k.
        places: (S,) of the patched weights in the flat adapter (P,), rising.
        follows: (S,) which number of z each follows.
        sign: (S,) float32, 1 or -1.
    """

    size: int
    places: NDArray[np.int64]
    follows: NDArray[np.int64]
    sign: NDArray[np.float32]

    @classmethod
    def of(cls, layout: Layout, size: int) -> Basis:
        """The basis of an adapter: of the outer factors of LoRA and of all vectors."""
        places, rng = layout.places(outer), generator(0, "metapatch")
        follows = rng.permutation(np.arange(len(places)) % size)
        return cls(size, places, follows, rng.choice(np.array([-1, 1], np.float32), len(places)))

    def patched(self, flat: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.float32]:
        """theta + Theta z: (P,) of an adapter (P,) and a vector (k,)."""
        found = flat.copy()
        found[self.places] += self.sign * z[self.follows]
        return found

    def gradient(self, of_flat: NDArray[np.float32]) -> NDArray[np.float32]:
        """Theta^T g: (k,) of a gradient (P,)."""
        along = self.sign * of_flat[self.places]
        return np.bincount(self.follows, along, self.size).astype(np.float32)
