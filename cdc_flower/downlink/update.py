"""The UPDATE frame: what turns the adapter of one version into that of another, and the proof that it did.

A frame carries a *chain* (the codec payloads of every version between, added in order, hence the same
float32 bits as everyone else's), a *jump* (one payload, the exact difference of two versions) or a *snapshot*
(the adapter itself, lossless). It names the layout and the result by digest: an update for other tensors,
from another version, or with another outcome than the cloud's mirror is refused whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
import zstandard
from numpy.typing import NDArray

from cdc_flower.downlink.codecs import BY_ID
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError, Kind, envelope, pack, unpack

CHAIN, SNAPSHOT, JUMP = 0, 1, 2
MAX_CHAIN = 4096
MAX_BYTES = 256 * 2**20  # a device never reads a longer frame
DIGEST_BYTES = 8
_HEAD = struct.Struct(f"<BII{DIGEST_BYTES}s{DIGEST_BYTES}s")  # mode, base, target, layout, result
ENVELOPE = envelope(2) + _HEAD.size + 1  # bytes around one codec payload


class StaleVersion(FrameError):
    """The update starts from another version than the device has; ask for one from yours."""


def budget_bytes(budget: float, size: int) -> int:
    """Bytes of an update by the setting `downlink.budget`: below 1 it is a share of an adapter of `size`
    elements in float16.
    """
    return int(budget) if budget >= 1 else max(int(budget * 2 * size), ENVELOPE + 1)


def longest(size: int) -> int:
    """Bytes of the longest frame that a cloud sends for an adapter of `size` elements: a snapshot as it is.
    It sends nothing else that is longer, so a device need not read more."""
    return min(ENVELOPE + 4 * size, MAX_BYTES)


def digest(flat: NDArray[np.float32]) -> bytes:
    """Eight bytes of blake2b over the little-endian float32 bytes of an adapter."""
    return hashlib.blake2b(np.ascontiguousarray(flat, "<f4").data, digest_size=DIGEST_BYTES).digest()


def chain_frame(payloads: Sequence[bytes], base: int, layout: bytes, result: bytes) -> bytes:
    """A frame from version `base` over one payload (codec id byte first) per version.

    Args:
        payloads: in the order of the versions, 1..4096 of them.
        base: the version the device has.
        layout: digest of the layout, 8 bytes.
        result: `digest` of the adapter after the last payload.
    """
    if not 1 <= len(payloads) <= MAX_CHAIN:
        raise ValueError(f"a chain has 1..{MAX_CHAIN} payloads, not {len(payloads)}")
    return pack(Kind.UPDATE, _HEAD.pack(CHAIN, base, base + len(payloads), layout, result), *payloads)


def jump_frame(payload: bytes, base: int, target: int, layout: bytes, result: bytes) -> bytes:
    """A frame from version `base` to `target` by one payload; arguments as of `chain_frame`."""
    return pack(Kind.UPDATE, _HEAD.pack(JUMP, base, target, layout, result), payload)


def snapshot_frame(flat: NDArray[np.float32], version: int, layout: bytes) -> bytes:
    """A frame that sets the adapter to `flat`, whatever the device has: byte planes by zstd, or as they
    are."""
    raw = np.ascontiguousarray(flat, "<f4").view(np.uint8).reshape(-1, 4).T.tobytes()
    small = zstandard.ZstdCompressor(level=3).compress(raw)
    flag, body = (b"\x01", small) if 0 < len(small) < len(raw) else (b"\x00", raw)
    del raw, small
    body = flag + body
    return pack(Kind.UPDATE, _HEAD.pack(SNAPSHOT, version, version, layout, digest(flat)), body)


def stands_alone(frame: bytes, max_bytes: int) -> bool:
    """Whether a frame needs nothing but version 0, which every device has: a snapshot, or a jump from there.

    Raises:
        FrameError: no UPDATE frame of at most `max_bytes`.
    """
    mode, base, *_ = _read_head(unpack(frame, Kind.UPDATE, max_bytes))
    return mode == SNAPSHOT or (mode == JUMP and base == 0)


def _read_head(sections: list[bytes]) -> tuple[int, int, int, bytes, bytes]:
    head = sections[0] if sections else b""
    if len(head) != _HEAD.size:
        raise FrameError(f"update: head of {len(head)} bytes, expected {_HEAD.size}")
    return _HEAD.unpack(head)


def apply(
    frame: bytes,
    flat: NDArray[np.float32],
    version: int,
    layout_digest: bytes,
    sizes: Sequence[int],
    max_bytes: int,
    max_chain: int = MAX_CHAIN,
) -> tuple[NDArray[np.float32], int]:
    """The adapter and version after an update. `flat` is never changed; on any error nothing was applied.
    An update whose version and result the device already has, as when a frame arrives twice, changes nothing.
    Of a chain that begins before the device's version (its last answer was lost, or late) the rest is added.

    Args:
        frame: the UPDATE frame.
        flat: the adapter (P,) float32 the device has.
        version: its version.
        layout_digest: 8 bytes naming tensors, shapes and order.
        sizes: elements of each tensor, summing to P.
        max_bytes: a longer frame is refused unread.
        max_chain: payloads that a chain may have. Each takes an addition of P elements, whatever its bytes.

    Raises:
        StaleVersion: a chain that does not go through the device's version, or a jump from another one.
        FrameError: any other reason not to apply it.
    """
    sections = unpack(frame, Kind.UPDATE, max_bytes)
    mode, base, target, layout, result = _read_head(sections)
    payloads = sections[1:]
    if layout != layout_digest:
        raise FrameError(f"update: made for layout {layout.hex()}, this adapter has {layout_digest.hex()}")
    if version == target and digest(flat) == result:
        return flat, version
    if mode == CHAIN:
        new = _apply_chain(payloads, flat, version, base, target, sizes, max_chain)
    elif mode == JUMP:
        if len(payloads) != 1 or base >= target:
            raise FrameError(f"update: {len(payloads)} payloads to jump from version {base} to {target}")
        if version != base:
            raise StaleVersion(f"update: jumps from version {base}, this adapter has version {version}")
        new = add(flat, payloads[0], sizes)
    elif mode == SNAPSHOT:
        if len(payloads) != 1 or base != target:
            raise FrameError("update: a snapshot has one payload and one version")
        new = _read_snapshot(payloads[0], sum(sizes))
    else:
        modes = f"{CHAIN} chain, {SNAPSHOT} snapshot, {JUMP} jump"
        raise FrameError(f"update: unknown mode {mode}; allowed: {modes}")
    if not np.isfinite(new).all():
        raise FrameError("update: the result has elements that are not finite")
    if digest(new) != result:
        raise FrameError(f"update: the result has digest {digest(new).hex()}, the cloud's has {result.hex()}")
    return new, target


def add(flat: NDArray[np.float32], payload: bytes, sizes: Sequence[int]) -> NDArray[np.float32]:
    """`flat` + what one payload (codec id byte first) decodes to: the one float32 addition both ends do.

    Raises:
        FrameError: unknown codec, or a payload it refuses.
    """
    if not payload or payload[0] not in BY_ID:
        known = ", ".join(f"{i} {c.name}" for i, c in BY_ID.items())
        raise FrameError(f"update: unknown codec {payload[0] if payload else 'none'}; allowed: {known}")
    change = BY_ID[payload[0]].decode(payload[1:], sizes)
    with np.errstate(over="ignore"):
        return np.add(flat, change, out=change)


def _apply_chain(payloads, flat, version, base, target, sizes, max_chain):
    if len(payloads) > max_chain:
        raise FrameError(f"update: a chain of {len(payloads)} payloads; allowed: up to {max_chain}")
    if not payloads or target - base != len(payloads):
        raise FrameError(f"update: {len(payloads)} payloads from version {base} to {target}")
    if not base <= version < target:
        raise StaleVersion(f"update: starts from version {base}, this adapter has version {version}")
    for payload in payloads[version - base :]:
        flat = add(flat, payload, sizes)
    return flat


def _read_snapshot(body, size):
    if not body or body[0] > 1:
        raise FrameError("update: unknown snapshot form")
    raw = columns.inflate(body[1:], 4 * size, "update snapshot") if body[0] else body[1:]
    if len(raw) != 4 * size:
        raise FrameError(f"update: snapshot of {len(raw)} bytes for {size} elements")
    return np.frombuffer(raw, np.uint8).reshape(4, size).T.copy().view("<f4").reshape(size).astype(np.float32)
