"""Claims about hostile bytes: of mutated frames of every kind, each is read or refused with FrameError;
memory stays.

Most mutants carry a correct checksum, so that the mutation reaches the decoders behind it.
"""

import resource
from functools import cache, partial

import numpy as np
import pytest

from cdc_flower.downlink import dyadic, update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.models.transform import Transform
from cdc_flower.uplink.pictures import picture_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS
from cdc_flower.uplink.sample import Batch, Limits, Sample
from cdc_flower.uplink.token_batch import BITS, decode, encode
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack
from tests import memory

N, D, VOCAB = 64, 24, 300
SIZES = (400, 0, 7, 600)
LAYOUT = b"layout01"
CAP = 2**16
LIMITS = Limits(samples=16, question=64, answer=64)
WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\xc0\x7f", b"\xff\xff\xff\x7f")  # ones, zero, NaN, 2**31 - 1
GROWTH = 128 * 2**20  # bytes of resident memory all mutants of one kind may add


GRIDS = (N, 1, N), (N, N, 1)


def _turn():
    axes, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((D, D)))
    return Transform(np.ones(D, np.float32), axes.astype(np.float32), 2.0 ** -np.arange(D, dtype=np.float32))


def _tokens(bits, transform=None):
    rng = np.random.default_rng(0)
    samples = tuple(
        Sample(
            i,
            GRIDS[i % 2],
            np.sort(rng.choice(N, 9, replace=False)),
            rng.integers(0, VOCAB, 7).tolist(),
            rng.integers(0, VOCAB, 2).tolist(),
            0.5,
            tokens=rng.standard_normal((9, D)).astype(np.float32),
        )
        for i in range(3)
    )
    return encode(Batch(1, 2, 3, samples), D, bits, transform)


PATCH, PICTURE = 8, (16, 4, 4)


def _pictures(form):
    """Pictures as they are, not by zstd, so that mutations reach the picture decoders."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(3):
        where = np.sort(rng.choice(16, 0 if FORMS[form].whole else 6, replace=False))
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        data = picture_batch.coded(pixels, where, form, PATCH, 60)
        words = rng.integers(0, VOCAB, 7).tolist(), [1, 2], 0.5
        samples.append(Sample(i, PICTURE, where, *words, picture=data))
    sections = unpack(
        picture_batch.encode(Batch(1, 2, 3, tuple(samples)), form, PATCH), Kind.PICTURE_BATCH, CAP
    )
    sections[-1] = bytes((columns.RAW,)) + b"".join(s.picture for s in samples)
    return pack(Kind.PICTURE_BATCH, *sections)


def _read_pictures(form, data):
    return picture_batch.decode(data, form, PATCH, (PICTURE,).__contains__, VOCAB, CAP, limits=LIMITS)


def _base():
    return np.random.default_rng(1).standard_normal(sum(SIZES)).astype(np.float32)


def _update(name):
    delta = np.random.default_rng(2).laplace(scale=0.01, size=sum(SIZES)).astype(np.float32)
    payload = bytes((CODECS[name].id,)) + CODECS[name].encode(delta, SIZES, 500)
    flat = update.add(update.add(_base(), payload, SIZES), payload, SIZES)
    return update.chain_frame([payload, payload], 0, LAYOUT, update.digest(flat))


def _jump():
    delta = np.round(np.random.default_rng(3).laplace(scale=2, size=sum(SIZES))) / 32
    payload = bytes((CODECS["dyadic"].id,)) + dyadic.encode_exact(delta, SIZES)
    return update.jump_frame(payload, 0, 9, LAYOUT, update.digest(update.add(_base(), payload, SIZES)))


def _read_tokens(data):
    return decode(data, GRIDS.__contains__, D, VOCAB, CAP, limits=LIMITS, transform=_turn_cached())


def _read_update(data):
    update.stands_alone(data, CAP)
    return update.apply(data, _base_cached(), 0, LAYOUT, SIZES, CAP)


_base_cached, _turn_cached = cache(_base), cache(_turn)
FRAMES = {
    **{f"tokens-{bits}": (Kind.TOKEN_BATCH, lambda bits=bits: _tokens(bits), _read_tokens) for bits in BITS},
    "tokens-transform": (Kind.TOKEN_BATCH, lambda: _tokens(4, _turn()), _read_tokens),
    **{
        f"pictures-{form}": (Kind.PICTURE_BATCH, partial(_pictures, form), partial(_read_pictures, form))
        for form in FORMS
    },
    **{f"update-{name}": (Kind.UPDATE, lambda name=name: _update(name), _read_update) for name in CODECS},
    "update-jump": (Kind.UPDATE, _jump, _read_update),
    "update-snapshot": (Kind.UPDATE, lambda: update.snapshot_frame(_base(), 5, LAYOUT), _read_update),
}


def _mutate(rng, sections):
    """One mutant of a list of sections: bytes flipped, set, cut, doubled, moved, or sections exchanged."""
    sections = list(sections)
    for _ in range(rng.integers(1, 4)):
        k = int(rng.integers(len(sections)))
        data = bytearray(sections[k])
        size = len(data)
        at = int(rng.integers(size + 1))
        match int(rng.integers(9)):
            case 0 if size:
                data[at % size] ^= 1 << int(rng.integers(8))
            case 1 if size:
                data[at % size] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                del data[at:]
            case 3:
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 4:
                data[at : at + 4] = WORDS[int(rng.integers(len(WORDS)))]
            case 5:
                data[at:at] = data[: int(rng.integers(1, 20))]
            case 6:
                data = bytearray(sections[int(rng.integers(len(sections)))])
            case 7 if size:
                data[: min(size, 16)] = rng.bytes(min(size, 16))
            case 8 if len(sections) > 1 and rng.integers(4) == 0:
                sections.pop(k)
                continue
        sections[k] = bytes(data)
    return sections


def _fuzz(name, mutants, seed):
    kind, make, read = FRAMES[name]
    frame = make()
    read(frame)
    sections, rng = unpack(frame, kind, CAP), np.random.default_rng(seed)
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for i in range(mutants):
        if i % 10:
            data = pack(kind, *_mutate(rng, sections))
        else:
            data = b"".join(_mutate(rng, [frame[:20], frame[20:]]))
        try:
            read(data)
        except FrameError:
            refused += 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GROWTH
    assert refused > 0.3 * mutants


def test_a_few_bytes_that_claim_the_most_take_no_more_memory_than_declared():
    samples, n, d = 32, 64, 96
    where = np.arange(n)
    ones, zero = [1] * 64, np.zeros((n, d), np.float32)
    full = tuple(Sample(i, (n, 1, n), where, ones, ones, 0.0, tokens=zero) for i in range(samples))
    data = encode(Batch(0, 1, 0, full), d, 8)
    assert len(data) < 1000
    assert memory.peak(
        lambda: decode(data, lambda _: True, d, 2, CAP, limits=Limits(samples, 64, 64))
    ) < samples * (n * d * 32 + 64 * 100)
    flat = picture_batch.coded(np.zeros((256, 256, 3), np.uint8), where, "jpeg", 8, 30)
    full = tuple(Sample(i, (1024, 32, 32), where[:0], ones, ones, 0.0, picture=flat) for i in range(samples))
    data = picture_batch.encode(Batch(0, 1, 0, full), "jpeg", 8)
    assert len(data) < 2500
    peak = memory.peak(
        lambda: picture_batch.decode(data, "jpeg", 8, lambda _: True, 2, CAP, limits=Limits(samples, 64, 64))
    )
    assert peak < samples * (256**2 * 12 + 64 * 100)
    size = 200_000
    payload = CODECS["dyadic"].encode(np.ones(size, np.float32), [size], 10**6)
    assert memory.peak(lambda: CODECS["dyadic"].decode(payload, [size])) < 96 * size


@pytest.mark.parametrize("name", list(FRAMES))
def test_twenty_thousand_mutants_are_read_or_refused(name):
    _fuzz(name, 20_000 // len(FRAMES) + 1, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(FRAMES))
def test_a_million_mutants_are_read_or_refused(name):
    _fuzz(name, 1_000_000 // len(FRAMES) + 1, seed=1)
