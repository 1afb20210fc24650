"""No frame makes its reader hold or compute much more than an honest frame of the same settings does.

A device may send as many samples, tokens and ids as the settings say, and a cloud as many updates as devices
may lag behind. What the fewest bytes that claim all of this take is compared with what the largest honest
frame takes. Memory is what Python and numpy held at most. CPU seconds are compared loosely, with a factor of
twenty.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.models.transform import Transform
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures import picture_batch
from cdc_flower.uplink.sample import Batch, Limits, Sample
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack
from tests import memory

LIMITS = Limits(samples=32, question=24, answer=8, kept=40)
GRID, D, VOCAB, CAP, PATCH = (64, 8, 8), 64, 300, 2**20, 12
SIZES, LAYOUT, HISTORY = (20_000, 0, 1000, 9000), b"layout01", 16
P = sum(SIZES)
SLACK = 256 * 1024  # bytes that a refusal may hold


def cost(read: Callable[[bytes], Any], frame: bytes) -> tuple[int, float]:
    """Bytes held at most, and CPU seconds, the least of three, whether the frame is read or refused."""

    seconds = []
    for _ in range(3):
        began = time.process_time()
        with contextlib.suppress(FrameError):
            read(frame)
        seconds.append(time.process_time() - began)
    return memory.peak(lambda: read(frame), FrameError), min(seconds)


RNG = np.random.default_rng(0)
AXES = np.linalg.qr(RNG.standard_normal((D, D)))[0].astype(np.float32)
TURN = Transform(np.ones(D, np.float32), AXES, 2.0 ** -np.arange(D, dtype=np.float32))


def samples(limits: Limits, full: bool, picture: Callable[[np.ndarray], bytes] | None = None):
    """As many as are allowed: of chance, or of nothing and therefore of few bytes."""
    rng = np.random.default_rng(1)
    for i in range(limits.samples):
        where = np.sort(rng.choice(GRID[0], limits.kept, replace=False)).astype(np.uint16)
        ids = [rng.integers(0, VOCAB, n).tolist() for n in (limits.question, limits.answer)]
        tokens = rng.standard_normal((limits.kept, D)).astype(np.float32)
        if not full:
            where, tokens = np.arange(limits.kept, dtype=np.uint16), np.ones_like(tokens)  # the mean of TURN
            ids = [[0] * len(some) for some in ids]
        of = {"tokens": tokens} if picture is None else {"picture": picture(where)}
        yield Sample(
            i, GRID, where[:0] if of.get("picture", b"")[:2] == b"\xff\xd8" else where, *ids, 0.5, **of
        )


def tokens(bits: int, transform: Transform | None, limits: Limits, full: bool) -> bytes:
    return token_batch.encode(Batch(0, 1, 0, tuple(samples(limits, full))), D, bits, transform)


def pictures(form: str, limits: Limits, full: bool) -> bytes:
    side = GRID[1] * PATCH
    noise = np.random.default_rng(2).integers(0, 256, (side, side, 3), np.uint8)
    pixels = noise if full else np.zeros_like(noise)

    def picture(where):
        return picture_batch.coded(pixels, where, form, PATCH, 75 if full else 1)

    return picture_batch.encode(Batch(0, 1, 0, tuple(samples(limits, full, picture))), form, PATCH)


def read_tokens(data: bytes):
    return token_batch.decode(data, (GRID,).__contains__, D, VOCAB, CAP, limits=LIMITS, transform=TURN)


UPLINK: dict[str, tuple[Callable[..., bytes], Callable[[bytes], Any]]] = {
    **{
        f"tokens-{bits}{'-transform' * (turn is not None)}": (
            lambda limits, full, bits=bits, turn=turn: tokens(bits, turn, limits, full),
            read_tokens,
        )
        for bits, turn in ((3, None), (4, None), (8, None), (16, None), (3, TURN), (8, TURN))
    },
    **{
        form: (
            lambda limits, full, form=form: pictures(form, limits, full),
            lambda data, form=form: picture_batch.decode(
                data, form, PATCH, (GRID,).__contains__, VOCAB, CAP, limits=LIMITS
            ),
        )
        for form in ("jpeg", "patches")
    },
}
BEYOND = {
    "samples": Limits(1000, 24, 8, 40),
    "questions": Limits(32, 2000, 8, 40),
    "answers": Limits(32, 24, 2000, 40),
    "tokens": Limits(32, 24, 8, 64),
}


@pytest.mark.parametrize("kind", list(UPLINK))
def test_the_fewest_bytes_that_claim_all_take_no_more_than_an_honest_frame(kind):
    make, read = UPLINK[kind]
    honest, small = make(LIMITS, True), make(LIMITS, False)
    assert len(small) < len(honest) / 5
    peak, seconds = cost(read, honest)
    most, cpu = cost(read, small)
    assert most <= 1.1 * peak + SLACK
    assert cpu <= 20 * seconds + 0.2


@pytest.mark.parametrize("what", list(BEYOND))
@pytest.mark.parametrize("kind", ["tokens-3", "tokens-3-transform", "jpeg"])
def test_more_than_an_honest_device_sends_is_refused_for_little(kind, what):
    if kind == "jpeg" and what == "tokens":
        return  # a whole picture has all of them
    make, read = UPLINK[kind]
    frame = make(BEYOND[what], False)
    with pytest.raises(FrameError, match="allowed: "):
        read(frame)
    most, cpu = cost(read, frame)
    assert most < SLACK + 8 * len(frame)
    assert cpu < 0.5


def _mutants(frame: bytes, kind: Kind, count: int):
    """Sections cut, doubled, exchanged, or with bytes that claim much; the checksum is right."""
    rng, sections = np.random.default_rng(3), unpack(frame, kind, CAP)
    for _ in range(count):
        some = list(sections)
        k = int(rng.integers(len(some)))
        data = bytearray(some[k])
        at = int(rng.integers(len(data) + 1))
        match int(rng.integers(5)):
            case 0:
                data[at : at + 4] = b"\xff\xff\xff\xff"
            case 1:
                data = bytearray(some[int(rng.integers(len(some)))])
            case 2:
                del data[at:]
            case 3:
                data = bytearray((columns.CODED, 0, 1)) + bytes(4)  # any number of zeros in seven bytes
            case 4:
                data[at:at] = rng.bytes(8)
        some[k] = bytes(data)
        yield pack(kind, *some)


@pytest.mark.parametrize("kind", list(UPLINK))
def test_no_mutant_takes_more_than_an_honest_frame(kind):
    make, read = UPLINK[kind]
    peak, _ = cost(read, make(LIMITS, True))
    frame = make(LIMITS, False)
    kinds = Kind.PICTURE_BATCH if kind in ("jpeg", "patches") else Kind.TOKEN_BATCH
    worst = max(memory.peak(lambda m=m: read(m), FrameError) for m in _mutants(frame, kinds, 60))
    assert worst <= 1.1 * peak + SLACK


def chain(payloads: list[bytes]) -> bytes:
    flat = np.zeros(P, np.float32)
    for payload in payloads:
        flat = update.add(flat, payload, SIZES)
    return update.chain_frame(payloads, 0, LAYOUT, update.digest(flat))


def payload(name: str, delta: np.ndarray, budget: int = 10**6) -> bytes:
    return bytes((CODECS[name].id,)) + CODECS[name].encode(delta.astype(np.float32), SIZES, budget)


def apply(data: bytes):
    return update.apply(data, np.zeros(P, np.float32), 0, LAYOUT, SIZES, update.longest(P), max_chain=HISTORY)


def most_of(one: bytes) -> bytes:
    """The longest chain of a payload that a device reads."""
    return chain([one] * min(HISTORY, update.longest(P) // (len(one) + 4)))


def test_no_update_takes_a_device_more_than_an_honest_one():
    delta, one = RNG.laplace(scale=0.01, size=P), np.full(P, 2.0**-10)
    honest = [
        most_of(payload("dyadic", delta, 3000)),
        most_of(payload("dyadic", delta + 0.05)),
        most_of(payload("int8", delta)),
        most_of(payload("fp16", delta)),
    ]
    peak, seconds = (max(both) for both in zip(*(cost(apply, frame) for frame in honest), strict=True))
    attacks = {
        "nothing": most_of(b"\x01\x00"),
        "all alike": most_of(payload("dyadic", one)),
        "signs": most_of(payload("stc", one)),
        "large": most_of(payload("dyadic", one * 2**120)),
        "a snapshot of zeros": update.snapshot_frame(np.zeros(P, np.float32), 1, LAYOUT),
        "one jump": update.jump_frame(payload("dyadic", one), 0, 9, LAYOUT, bytes(8)),
    }
    for name, frame in attacks.items():
        most, cpu = cost(apply, frame)
        assert len(frame) <= update.longest(P), name
        assert most <= 1.1 * peak + SLACK, name
        assert cpu <= 20 * seconds + 0.2, name


def test_a_chain_of_4096_payloads_of_two_bytes_is_refused_for_nothing():
    """At a million weights it took 2.3 s."""
    frame = update.chain_frame([b"\x01\x00"] * 4096, 0, LAYOUT, bytes(8))
    with pytest.raises(FrameError, match="a chain of 4096 payloads; allowed: up to 16"):
        apply(frame)
    most, cpu = cost(apply, frame)
    assert most < 4 * P + SLACK + 100 * 4096  # the list of sections, and the adapter that the device has
    assert cpu < 0.5
