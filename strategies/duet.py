"""DUET (WWW 2023) on clips: all frames go up, and the layer of the head is generated.

The ancestor of `mmpg`, by the same hands: the cloud sees the device's data as they are, reconstructs nothing,
and generates the layer of a small head. What anchor frames save and cost is `mmpg` beside it. Departure: what
a device sent is a set here, where DUET has a sequence and a GRU, because what is asked next does not depend
on what was asked before.
"""

from __future__ import annotations

from dataclasses import replace

from cdc_flower.config import Config
from cdc_flower.models.shared import Shared
from strategies.generated import MmpgSettings, frame_count
from strategies.mmpg import Mmpg


class Duet(Mmpg):
    """`mmpg` with all frames and the head alone, whatever its settings say of that."""

    name = "duet"
    about = "all frames come up, the head's layer is generated for this device (after DUET)"

    @classmethod
    def chosen(cls, config: Config, shared: Shared) -> MmpgSettings:
        """All frames, nothing reconstructed, the head."""
        own = super().chosen(config, shared)
        return replace(
            own, generate="head", frames=frame_count(shared), anchors="uniform", reconstruct="none"
        )
