"""Claims about the bytes: frames written by the first release are read to the same values by every later one.

The files in `golden/` are never written again. What each holds is computed here from small integers, or
stands here as the digest of what was decoded on the day it was written.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import BY_ID
from cdc_flower.models.transform import Transform
from cdc_flower.uplink.pictures import picture_batch
from cdc_flower.uplink.token_batch import decode
from cdc_flower.wire.frame import Kind, unpack

GOLDEN = Path(__file__).parent / "golden"
N, D, VOCAB = 40, 8, 500
SIZES, LAYOUT = (600, 0, 400), b"goldenly"
DIGESTS = {
    "tokens 16": "eb88ec05d00a4d2d",
    "tokens 8": "55d842efca1c1145",
    "tokens 3": "667ea6bac424e326",
    "tokens 4": "7e611a80b336a761",
    "tokens transform": "9dc134b32164f7a1",
    "payload 0": "eee6f8c57988b73d",
    "payload 1": "203bfa053ba5b3a4",
    "payload 2": "bf6685fe834809a0",
    "payload 3": "af7c21819e59e44a",
    "payload 4": "d1530cae95958106",
    "payload 5": "826f041ad29fa6f8",
    "payload 6": "8b53ab8cf81d608c",
    "chain": "904641c396669c11",
}


def ramp(n):
    """(n,) float32, exact in float16 too: cubes modulo a prime, in steps of 1/256."""
    i = np.arange(n, dtype=np.int64)
    return ((i * i * i % 1009 - 504) / 256).astype(np.float32)


def peaked(n):
    """(n,) float32, exact, many small values and few large ones."""
    x = ramp(n)
    return x * x * x * x * x / np.float32(64)


def table(n):
    """(n,) float32, multiples of 1/32 and, beyond 600, of 1/4."""
    i = np.arange(n, dtype=np.int64)
    return ((i * i * i % 23 - 11) / np.where(i < 600, 32, 4)).astype(np.float32)


def grid_of(i):
    """Samples 0 and 2 have one grid, sample 1 another."""
    return (N, 5, 8) if i != 1 else (N, 8, 5)


def fits(grid):
    """What the pair of the golden frames allows."""
    return grid in (grid_of(0), grid_of(1))


def sample_columns(i):
    """What sample `i` of the golden batches holds."""
    positions = np.arange(i, N, 3 + i)
    tokens = ramp(400 * i + len(positions) * D)[400 * i :].reshape(-1, D)
    return positions, tokens, [(37 * i + 11 * k) % VOCAB for k in range(5 + i)], [i, i + 1], i / 4


def shaded(i):
    """(32, 32, 3) int: the picture of sample `i` of the golden picture batches, ramps of three colours."""
    y, x = np.mgrid[:32, :32]
    return np.stack([40 + 5 * y, 40 + 5 * x, 30 * i + 40 + 2 * (x + y)], -1)


def patches_of(i):
    """The kept tokens of sample `i`, of 16."""
    return np.array([i, 5 + i, 12 + i])


def _blake(values):
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize("bits", [16, 8, 4, 3])
def test_token_batches_of_format_2_are_read(bits):
    batch = decode((GOLDEN / f"token_batch_{bits}.bin").read_bytes(), fits, D, VOCAB, 10**5)
    assert (batch.device, batch.round, batch.version) == (3, 12, 7)
    assert [s.index for s in batch.samples] == [2, 0, 1]
    for sample in batch.samples:
        positions, tokens, question, answer, uncertainty = sample_columns(sample.index)
        assert sample.positions.tolist() == positions.tolist()
        assert sample.grid == grid_of(sample.index)
        assert sample.question_ids == question
        assert sample.answer_ids == answer
        assert sample.uncertainty == uncertainty
        if bits == 16:
            assert np.array_equal(sample.tokens, tokens)
    assert _blake(np.concatenate([s.tokens for s in batch.samples])) == DIGESTS[f"tokens {bits}"]


def block_hadamard():
    """A transform whose sums are exact: two blocks of the Hadamard matrix of order 4."""
    h = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32) / 2
    return Transform(ramp(D), np.kron(np.eye(2, dtype=np.float32), h), 2.0 ** -np.arange(D, dtype=np.float32))


def test_a_transformed_token_batch_of_format_2_is_read():
    data = (GOLDEN / "token_batch_transform.bin").read_bytes()
    batch = decode(data, fits, D, VOCAB, 10**5, transform=block_hadamard())
    for sample in batch.samples:
        positions, tokens, *_ = sample_columns(sample.index)
        assert sample.positions.tolist() == positions.tolist()
        assert np.abs(sample.tokens - tokens).max() < 0.45
    assert _blake(np.concatenate([s.tokens for s in batch.samples])) == DIGESTS["tokens transform"]


def test_an_empty_token_batch_of_format_2_is_read():
    assert decode((GOLDEN / "token_batch_empty.bin").read_bytes(), fits, D, VOCAB, 10**5).samples == ()


def test_whole_pictures_of_format_2_are_read():
    data = (GOLDEN / "picture_batch_jpeg.bin").read_bytes()
    batch, pixels = picture_batch.decode(data, "jpeg", 8, {(16, 4, 4)}.__contains__, VOCAB, 10**5)
    assert (batch.device, batch.round, batch.version) == (3, 12, 7)
    assert [s.index for s in batch.samples] == [2, 0, 1]
    for sample, seen in zip(batch.samples, pixels, strict=True):
        _, _, question, answer, uncertainty = sample_columns(sample.index)
        assert (len(sample.positions), sample.uncertainty) == (0, uncertainty)
        assert (sample.question_ids, sample.answer_ids) == (question, answer)
        assert np.abs(seen.astype(int) - shaded(sample.index)).mean() < 4


def test_pictures_in_patches_of_format_2_are_read():
    data = (GOLDEN / "picture_batch_patches.bin").read_bytes()
    batch, pixels = picture_batch.decode(data, "patches", 8, {(16, 4, 4)}.__contains__, VOCAB, 10**5)
    assert [s.index for s in batch.samples] == [2, 0, 1]
    for sample, seen in zip(batch.samples, pixels, strict=True):
        where = patches_of(sample.index)
        assert sample.positions.tolist() == where.tolist()
        assert seen.shape == (8, 24, 3)
        for k, (row, column) in enumerate(divmod(int(p), 4) for p in where):
            cell = shaded(sample.index)[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            assert np.abs(seen[:, 8 * k : 8 * k + 8].astype(int) - cell).mean() < 12


def test_a_chain_of_every_codec_of_format_2_is_applied():
    frame = (GOLDEN / "update_chain.bin").read_bytes()
    assert [p[0] for p in unpack(frame, Kind.UPDATE, 10**5)[1:]] == sorted(BY_ID)
    flat, version = update.apply(frame, ramp(1000), 4, LAYOUT, SIZES, 10**5)
    assert version == 4 + len(BY_ID)
    assert _blake(flat) == DIGESTS["chain"]


@pytest.mark.parametrize("place", range(len(BY_ID)))
def test_each_payload_of_format_2_decodes_to_its_values(place):
    payload = unpack((GOLDEN / "update_chain.bin").read_bytes(), Kind.UPDATE, 10**5)[1 + place]
    assert _blake(BY_ID[payload[0]].decode(payload[1:], SIZES)) == DIGESTS[f"payload {place}"]


def test_a_snapshot_of_format_2_is_applied():
    frame = (GOLDEN / "update_snapshot.bin").read_bytes()
    flat, version = update.apply(frame, np.zeros(1000, np.float32), 0, LAYOUT, SIZES, 10**5)
    assert version == 6
    assert np.array_equal(flat, peaked(1000))


def test_a_jump_is_applied_bit_for_bit():
    frame = (GOLDEN / "update_jump.bin").read_bytes()
    (payload,) = unpack(frame, Kind.UPDATE, 10**5)[1:]
    assert np.array_equal(BY_ID[payload[0]].decode(payload[1:], SIZES), table(1000))
    flat, version = update.apply(frame, ramp(1000), 0, LAYOUT, SIZES, 10**5)
    assert version == 7
    assert np.array_equal(flat, ramp(1000) + table(1000))


def test_every_golden_frame_is_read_by_some_test_here():
    names = {f"token_batch_{b}" for b in (16, 8, 4, 3, "empty", "transform")}
    names |= {"picture_batch_jpeg", "picture_batch_patches"}
    names |= {"update_chain", "update_snapshot", "update_jump"}
    assert {p.stem for p in GOLDEN.glob("*.bin")} == names
