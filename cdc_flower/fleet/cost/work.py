"""What a device computed, in FLOPs: of the counts that its reply says, by the shapes of the model it ran.

The one formula for FLOPs: 2 for every weight and position, and the two products of attention, at the mean
length of the samples that were read. Norms, activations and softmax, a few per cent in small models, are not
counted. A pass back costs what the pass there did, for frozen weights once, for trained ones twice (Kaplan et
al., arXiv 2001.08361), which is how devices count the positions.
"""

from __future__ import annotations

from cdc_flower.fleet.cost.roofline import Shapes, forward_flops
from cdc_flower.wire.counts import Counts

MOST = 2**62  # FLOPs: what a ledger can hold, whatever a device says


def flops(shapes: Shapes, counts: Counts) -> tuple[int, int]:
    """FLOPs of the passes forward and back.

    Args:
        shapes: of the student that ran.
        counts: what it did.
    """
    length = counts.positions / counts.passes if counts.passes else 0.0
    forward = forward_flops(shapes, counts.positions, length, counts.vision, counts.predicted)
    back = forward * counts.trained / counts.positions if counts.positions else 0.0
    return min(round(forward), MOST), min(round(back), MOST)
