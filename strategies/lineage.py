"""Who holds which adapter, and what brings each device to the newest.

Which adapter a device has is known from its last reply alone, by version and digest, so a device that was
away gets what it missed when it is asked again. A device whose adapter the server does not recognise (the
server was restored from an older checkpoint) gets an update that applies to any device: a snapshot, or a
cumulative update from version 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cdc_flower.cloud.guard import Guard
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Jumps, Mirror


class Lineage:
    """The versions of one adapter, and which of them each device has.

    Args:
        mirror: the versions, as devices hold them.

    Attributes:
        known: device -> version and digest of the adapter it said it has.
        ordered: device -> digest it was brought to, until it answers.
        refused: devices that did not come to the adapter they were brought.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.known: dict[int, tuple[int, bytes]] = {}
        self.ordered: dict[int, bytes] = {}
        self.refused: set[int] = set()

    def frame_for(self, device: int) -> bytes | None:
        """The UPDATE frame that brings a device to the newest version; None when it has that."""
        frame = self.mirror.frame_for(*self.known.get(device, (0, None)), self._cumulative(device))
        self.ordered[device] = self.mirror.digest
        return frame

    def _cumulative(self, device: int) -> Jumps:
        """Which cumulative updates fit: a device that did not answer may be further along than it said."""
        if device in self.refused:
            return "none"
        return "start" if device in self.ordered else "all"

    def heard(self, device: int, version: int, digest: bytes) -> None:
        """A device said which adapter it has."""
        self.known[device] = version, digest
        if self.ordered.pop(device, digest) == digest:
            self.refused.discard(device)
        else:
            self.refused.add(device)

    def is_stale(self, device: int) -> bool:
        """Whether a device that answered lacks the newest adapter."""
        return self.known[device] != (self.mirror.newest, self.mirror.digest)

    def advance(self, target: np.ndarray, guard: Guard | None = None) -> float:
        """Make the next version, as near to `target` (P,) as codec, budget and guard allow.

        Returns:
            the share of the way to the target that the guard let pass; with 0 there is no new version.
        """
        if guard is None:
            self.mirror.advance(target)
            return 1.0
        found = guard.furthest(self.newest(), target, self.mirror.step)
        if found.version is not None:
            self.mirror.take(found.version)
        return found.share

    def newest(self) -> np.ndarray:
        """The newest adapter (P,) float32, exactly as devices of that version hold it."""
        return self.mirror.adapter(self.mirror.newest)

    def restored(self, lost: Mapping[int, bytes]) -> dict[bytes, np.ndarray]:
        """Digest -> adapter (P,) of the versions in the mirror's window. A device that holds an older one is
        sent an update that stands alone when it is asked next, which needs no adapter of its own.
        """
        versions = {digest: self.mirror.version_of(digest) for digest in set(lost.values())}
        return {d: self.mirror.adapter(version) for d, version in versions.items() if version is not None}

    def state(self) -> dict[str, Any]:
        """Who has which version; the mirror is a part of a checkpoint of its own."""
        return {
            "devices": np.array(list(self.known), np.int64),
            "versions": np.array([version for version, _ in self.known.values()], np.int64),
            "digests": b"".join(digest for _, digest in self.known.values()),
            "ordered": np.array(list(self.ordered), np.int64),
            "ordered_digests": b"".join(self.ordered.values()),
            "refused": np.array(sorted(self.refused), np.int64),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        versions = zip(state["versions"].tolist(), _digests(state["digests"]), strict=True)
        self.known = dict(zip(state["devices"].tolist(), versions, strict=True))
        ordered = zip(state["ordered"].tolist(), _digests(state["ordered_digests"]), strict=True)
        self.ordered, self.refused = dict(ordered), set(state["refused"].tolist())


def _digests(row: bytes) -> list[bytes]:
    return [row[i : i + update.DIGEST_BYTES] for i in range(0, len(row), update.DIGEST_BYTES)]
