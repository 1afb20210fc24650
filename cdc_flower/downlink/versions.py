"""Who has which version: the cloud's mirror of the devices' adapter, and the way from any version to the
newest.

The mirror holds exactly what a device of the newest version holds. `advance` codes `target - mirror`, and the
mirror becomes itself plus what the payload decodes to; what a codec did not send is in the next difference by
itself, so the mirror is the error feedback. Of old adapters two are kept, version 0 and the oldest of the
window; the payloads since give the others back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cdc_flower.config import ConfigError
from cdc_flower.downlink import update
from cdc_flower.downlink.candidates import blocks
from cdc_flower.downlink.codecs import CODECS

Jumps = Literal["all", "start", "none"]
_LOOKED_AT = 2**17  # weights of which the bytes of half of the energy are reckoned
_ANY = -1  # stands for a version that is not known


class HasLayout(Protocol):
    """What the mirror asks of `models.adapters.Layout`."""

    @property
    def digest(self) -> bytes:
        """Eight bytes naming tensors, shapes and order."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """Elements of each tensor, summing to P."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """A version that could be the next.

    Attributes:
        payload: that leads to it.
        flat: the adapter (P,), as devices would hold it.
        sent, needed: `Mirror.sent_energy` and `Mirror.half_energy_bytes` of it.
    """

    payload: bytes
    flat: NDArray[np.float32]
    sent: float
    needed: int


class Mirror:
    """The adapter line of the cloud.

    Args:
        initial: (P,) float32, version 0, the adapter shipped with the model.
        layout: names the tensors.
        codec: key of `CODECS`.
        budget: bytes of a one-version UPDATE frame, for the codecs that aim at one.
        history: versions a device may lag behind and still get what changed since its own.

    Attributes:
        sent_energy: share of the last difference's sum of squares that its update took away, at most 1.
        half_energy_bytes: about the budget that would have taken half of it.

    Raises:
        ConfigError: unknown codec, or a budget below the envelope.
        ValueError: `initial` does not fit the layout or is not finite.
    """

    def __init__(
        self, initial: NDArray[np.float32], layout: HasLayout, codec: str, budget: int, history: int
    ):
        if codec not in CODECS:
            raise ConfigError(f"setting 'downlink.codec' = {codec!r}; allowed: {', '.join(CODECS)}")
        if CODECS[codec].budgeted and budget <= update.ENVELOPE:
            raise ConfigError(
                f"setting 'downlink.budget' = {budget}: an update needs at least {update.ENVELOPE + 1} bytes"
            )
        if history < 1:
            raise ConfigError(f"setting 'downlink.history' = {history}; allowed: at least 1")
        self._sizes = tuple(int(s) for s in layout.sizes)
        self._layout = bytes(layout.digest)
        self._codec, self._budget, self._history = CODECS[codec], budget, min(history, update.MAX_CHAIN)
        self._initial = self._base = self._newest_flat = _checked(initial, sum(self._sizes)).copy()
        self._start = update.digest(self._initial)
        self._oldest = 0
        self.sent_energy, self.half_energy_bytes = 1.0, 0
        self._payloads: list[bytes] = []
        self._digests = [update.digest(self._base)]
        self._frames: dict[tuple[int, Jumps], bytes] = {}

    @property
    def newest(self) -> int:
        """The newest version."""
        return self._oldest + len(self._payloads)

    @property
    def oldest(self) -> int:
        """The oldest version that can still be reached by a chain."""
        return self._oldest

    @property
    def digest(self) -> bytes:
        """`update.digest` of the newest adapter, 8 bytes."""
        return self._digests[-1]

    def adapter(self, version: int) -> NDArray[np.float32]:
        """The exact adapter (P,) of a version in the window; a copy.

        Raises:
            KeyError: a version outside `oldest..newest`.
        """
        if not self._oldest <= version <= self.newest:
            raise KeyError(f"version {version} is not kept; kept: {self._oldest}..{self.newest}")
        if version == self.newest:
            return self._newest_flat.copy()
        flat = self._base.copy()
        for payload in self._payloads[: version - self._oldest]:
            flat = update.add(flat, payload, self._sizes)
        return flat

    def advance(self, target: NDArray[np.float32]) -> int:
        """Make the next version of a target, as `step` does, and take it; the new newest version."""
        return self.take(self.step(target))

    def step(self, target: NDArray[np.float32]) -> Step:
        """What the next version would be: as near to `target` (P,) as the codec and its budget allow.

        Args:
            target: what training arrived at.

        Raises:
            ValueError: `target` is not finite, of another size, or so far away that the difference overflows.
        """
        target = _checked(target, len(self._newest_flat))
        with np.errstate(over="ignore"):
            delta = target - self._newest_flat
        payload = self._codec.encode(delta, self._sizes, max(1, self._budget - update.ENVELOPE))
        needed = _half_of_the_energy(delta)
        del delta
        payload = bytes((self._codec.id,)) + payload
        flat = update.add(self._newest_flat, payload, self._sizes)
        energy = _distance(target, self._newest_flat)
        sent = 1 - _distance(target, flat) / energy if energy else 1.0
        return Step(payload, _checked(flat, len(flat)), sent, needed)

    def take(self, step: Step) -> int:
        """Make a step from the newest version the next one; its number."""
        self._newest_flat, self.sent_energy, self.half_energy_bytes = step.flat, step.sent, step.needed
        self._payloads.append(step.payload)
        self._digests.append(update.digest(step.flat))
        self._frames.clear()
        self._forget()
        return self.newest

    def _forget(self) -> None:
        """Keep no more payloads than a chain may have."""
        while len(self._payloads) > self._history:
            self._base = update.add(self._base, self._payloads.pop(0), self._sizes)
            self._digests.pop(0)
            self._oldest += 1

    def version_of(self, digest: bytes) -> int | None:
        """The version in the window whose adapter has this digest; None where there is none."""
        return self._oldest + self._digests.index(digest) if digest in self._digests else None

    def frame_for(self, version: int, digest: bytes | None = None, jumps: Jumps = "all") -> bytes | None:
        """The UPDATE frame that brings a device of `version` to the newest, or None if it has it.

        The smallest of: the chain of the updates it missed; a jump over them, their exact sum; a jump from
        version 0, which every device has; a snapshot. The last two alone for a version that is unknown, too
        old, or (given the device's `digest`) of another line, as after a restart from an older checkpoint.
        There are jumps where the codec's updates add up exactly. Encoded once for each distinct version.

        Args:
            version: what the device said last.
            digest: of its adapter.
            jumps: "start", only from version 0, for a device that was sent something since and did not
                answer: it may be further along, where a chain still fits and a jump from its old version
                does not. "none" for one that could not use what it was sent.
        """
        known = self._oldest <= version <= self.newest
        if known and digest is not None and digest != self._digests[version - self._oldest]:
            known = False
        if known and version == self.newest:
            return None
        if version == 0 and digest not in (None, self._start):
            jumps = "none"  # its version 0 is another
        key = version if known else _ANY, jumps
        if key not in self._frames:
            self._frames[key] = self._shortest(version, jumps) if known else self._for_any(jumps)
        return self._frames[key]

    def _for_any(self, jumps: Jumps) -> bytes:
        """What needs no version but 0."""
        key = _ANY, "none" if jumps == "none" else "start"
        if key not in self._frames:
            jump = None if jumps == "none" else self._jump(self._initial, 0)
            if jump is None or len(jump) >= sum(self._sizes):  # a byte a weight: nothing else is smaller
                snapshot = update.snapshot_frame(self._newest_flat, self.newest, self._layout)
                jump = min(snapshot, jump or snapshot, key=len)
            self._frames[key] = jump
        return self._frames[key]

    def _shortest(self, version: int, jumps: Jumps) -> bytes:
        missed = self._payloads[version - self._oldest :]
        chain = update.chain_frame(missed, version, self._layout, self._digests[-1])
        if len(missed) == 1 and len(chain) < sum(self._sizes):  # a byte a weight: nothing else is smaller
            return chain
        jump = self._jump(self.adapter(version), version) if jumps == "all" and version else None
        return min(chain, jump or chain, self._for_any(jumps), key=len)

    def _jump(self, flat: NDArray[np.float32], version: int) -> bytes | None:
        """The exact difference to the newest, if float32 addition brings it back."""
        if self._codec.encode_exact is None or version == self.newest:
            return None
        delta = _difference(self._newest_flat, flat)
        del flat  # an update of 10 million weights takes 40 MB for each array that is still there
        if delta is None:
            return None
        payload = self._codec.encode_exact(delta, self._sizes)
        if payload is None or not np.array_equal(self._codec.decode(payload, self._sizes), delta):
            return None
        payload = bytes((self._codec.id,)) + payload
        return update.jump_frame(payload, version, self.newest, self._layout, self.digest)

    def state(self) -> dict[str, Any]:
        """Everything but version 0 that is needed to go on bit-identically: a flat dict of arrays, bytes and
        ints.
        """
        return {
            "oldest": self._oldest,
            "layout": self._layout,
            "base": self._base.copy(),
            "newest": self._newest_flat.copy(),
            "payloads": b"".join(self._payloads),
            "payload_sizes": np.array([len(p) for p in self._payloads], np.int64),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken, by a mirror of the same version 0; codec, budget and history may
        be others from here on.

        Raises:
            ValueError: another layout, or a state whose payloads do not lead from its base to its newest
                adapter; nothing has changed.
        """
        if bytes(state["layout"]) != self._layout:
            raise ValueError(
                f"saved adapters have layout {bytes(state['layout']).hex()}, "
                f"this model has {self._layout.hex()}"
            )
        base = flat = _checked(state["base"], sum(self._sizes)).copy()
        if int(state["oldest"]) == 0 and update.digest(base) != self._start:
            raise ValueError("saved adapters begin with another version 0 than this model has")
        payloads, digests, at = [], [update.digest(base)], 0
        for size in np.asarray(state["payload_sizes"], np.int64).tolist():
            payloads.append(bytes(state["payloads"][at : at + size]))
            flat, at = update.add(flat, payloads[-1], self._sizes), at + size
            digests.append(update.digest(flat))
        if update.digest(np.asarray(state["newest"], np.float32)) != digests[-1]:
            raise ValueError("saved payloads do not lead to the saved newest adapter: damaged checkpoint")
        self._base, self._newest_flat, self._oldest = base, flat, int(state["oldest"])
        self._payloads, self._digests = payloads, digests
        self._frames.clear()
        self._forget()


def _difference(new: NDArray[np.float32], old: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """`new - old` (P,), if adding it to `old` gives the bits of `new`."""
    delta = np.empty_like(new)
    with np.errstate(over="ignore"):
        for part in blocks(len(new)):
            np.subtract(new[part], old[part], out=delta[part])
            if (old[part] + delta[part]).tobytes() != new[part].tobytes():
                return None
    return delta


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The sum of the squared differences."""
    found = 0.0
    for part in blocks(len(a)):
        apart = a[part].astype(np.float64) - b[part]
        found += float(np.dot(apart, apart))
    return found


def _half_of_the_energy(delta: NDArray[np.float32]) -> int:
    """About the bytes in which the largest elements go that have half of the sum of squares: of each its
    place, its sign and 1.3 bits of its size.
    """
    some = delta[:: max(len(delta) // _LOOKED_AT, 1)].astype(np.float64)
    squares = np.cumsum(np.sort(some**2)[::-1])
    if not len(some) or not squares[-1]:
        return 0
    share = (np.searchsorted(squares, squares[-1] / 2) + 1) / len(some)
    place = -share * np.log2(share) - (1 - share) * np.log2(max(1 - share, 1e-9))
    return update.ENVELOPE + int(len(delta) * (place + 2.3 * share) / 8)


def _checked(flat: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    flat = np.asarray(flat, np.float32)
    if flat.shape != (size,):
        raise ValueError(f"adapter has shape {flat.shape}, the layout ({size},)")
    if not np.isfinite(flat).all():
        raise ValueError(f"adapter has {int((~np.isfinite(flat)).sum())} elements that are NaN or infinite")
    return flat
