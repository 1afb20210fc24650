"""Claims about the UPDATE frame: it lands exactly or not at all."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.downlink.update import (
    StaleVersion,
    apply,
    chain_frame,
    digest,
    jump_frame,
    snapshot_frame,
    stands_alone,
)
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack

LAYOUT, SIZES, CAP = b"layout01", (3, 2), 10**5
BASE = np.array([1, -2, 0.5, 0, 3], np.float32)
STEP = np.array([0.25, 0, -1, 2, 0], np.float32)


@pytest.mark.parametrize(
    ("budget", "read"), [(10_000, 10_000), (47.9, 47), (0.05, 100), (1e-9, update.ENVELOPE + 1), (1, 1)]
)
def test_a_budget_below_one_is_a_share_of_the_adapter_in_float16(budget, read):
    assert update.budget_bytes(budget, 1000) == read


def _payload(delta, name="fp16"):
    return bytes((CODECS[name].id,)) + CODECS[name].encode(np.asarray(delta, np.float32), SIZES, 1000)


def _chain(n=1, base=0):
    flat = BASE
    for _ in range(n):
        flat = flat + STEP
    return chain_frame([_payload(STEP)] * n, base, LAYOUT, digest(flat)), flat


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_chain_is_the_additions_in_order(n):
    frame, result = _chain(n, base=7)
    before = BASE.copy()
    flat, version = apply(frame, BASE, 7, LAYOUT, SIZES, CAP)
    assert version == 7 + n
    assert flat.tobytes() == result.tobytes()
    assert BASE.tobytes() == before.tobytes()


def test_a_jump_is_one_addition_from_its_own_version_alone():
    frame = jump_frame(_payload(STEP), 3, 9, LAYOUT, digest(BASE + STEP))
    flat, version = apply(frame, BASE, 3, LAYOUT, SIZES, CAP)
    assert (version, flat.tobytes()) == (9, (BASE + STEP).tobytes())
    with pytest.raises(StaleVersion, match="jumps from version 3, this adapter has version 4"):
        apply(frame, BASE, 4, LAYOUT, SIZES, CAP)
    again, version = apply(frame, flat, 9, LAYOUT, SIZES, CAP)
    assert again is flat


def test_what_needs_no_version_but_the_first():
    payload, result = _payload(STEP), digest(BASE + STEP)
    assert stands_alone(snapshot_frame(BASE, 9, LAYOUT), CAP)
    assert stands_alone(jump_frame(payload, 0, 9, LAYOUT, result), CAP)
    assert not stands_alone(jump_frame(payload, 1, 9, LAYOUT, result), CAP)
    assert not stands_alone(chain_frame([payload], 0, LAYOUT, result), CAP)
    with pytest.raises(FrameError, match="head of 0 bytes"):
        stands_alone(pack(Kind.UPDATE), CAP)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=5, max_size=5))
def test_a_snapshot_is_lossless_from_any_version(values):
    target = np.array(values, np.float32)
    flat, version = apply(snapshot_frame(target, 9, LAYOUT), BASE, 1234, LAYOUT, SIZES, CAP)
    assert version == 9
    assert flat.tobytes() == target.tobytes()


def test_a_snapshot_of_nothing_is_legal():
    nothing = np.zeros(0, np.float32)
    flat, version = apply(snapshot_frame(nothing, 1, LAYOUT), nothing, 0, LAYOUT, (), CAP)
    assert (flat.shape, version) == ((0,), 1)


def test_the_envelope_of_one_payload_is_at_most_64_bytes():
    payload = _payload(STEP)
    assert len(chain_frame([payload], 0, LAYOUT, b"12345678")) - len(payload[1:]) == update.ENVELOPE <= 64


def test_an_update_that_is_there_already_changes_nothing_and_any_other_of_that_version_is_stale():
    frame, result = _chain(base=2)
    again, version = apply(frame, result, 3, LAYOUT, SIZES, CAP)
    assert version == 3
    assert again.tobytes() == result.tobytes()
    with pytest.raises(StaleVersion):
        apply(frame, result + STEP, 3, LAYOUT, SIZES, CAP)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_chain_from_another_version_is_stale(version):
    frame, _ = _chain(base=2)
    with pytest.raises(StaleVersion, match=f"starts from version 2, this adapter has version {version}"):
        apply(frame, BASE, version, LAYOUT, SIZES, CAP)


@pytest.mark.parametrize("has", [0, 1, 2, 3])
def test_a_chain_that_began_earlier_brings_what_is_missing(has):
    """The device's last answer never came: the cloud thinks it is at 4, it is `has` versions further."""
    frame, result = _chain(3, base=4)
    mine = BASE
    for _ in range(has):
        mine = mine + STEP
    flat, version = apply(frame, mine, 4 + has, LAYOUT, SIZES, CAP)
    assert (version, flat.tobytes()) == (7, result.tobytes())


def test_a_chain_is_refused_by_who_came_to_its_middle_on_another_line():
    frame, _ = _chain(3, base=4)
    with pytest.raises(FrameError, match="the result has digest"):
        apply(frame, BASE, 5, LAYOUT, SIZES, CAP)


def test_another_layout_is_refused():
    with pytest.raises(FrameError, match="made for layout"):
        apply(_chain()[0], BASE, 0, b"layout02", SIZES, CAP)


def test_a_device_whose_bits_have_drifted_learns_it():
    drifted = BASE.copy()
    drifted[0] = np.nextafter(drifted[0], np.float32(2))
    with pytest.raises(FrameError, match="the result has digest"):
        apply(_chain()[0], drifted, 0, LAYOUT, SIZES, CAP)


def test_a_sum_that_overflows_is_refused():
    huge = np.full(5, 3e38, np.float32)
    frame = chain_frame([_payload(np.full(5, 3e38), "int8")], 0, LAYOUT, b"12345678")
    with pytest.raises(FrameError, match="not finite"):
        apply(frame, huge, 0, LAYOUT, SIZES, CAP)


def _head(mode=0, base=0, target=1, layout=LAYOUT, result=b"12345678"):
    return struct.pack("<BII8s8s", mode, base, target, layout, result)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ([], "head of 0 bytes"),
        ([b"short"], "head of 5 bytes"),
        ([_head(mode=3), b""], "unknown mode 3; allowed: 0 chain, 1 snapshot, 2 jump"),
        ([_head(mode=2)], "0 payloads to jump from version 0 to 1"),
        ([_head(mode=2), b"\x08\x00", b"\x08\x00"], "2 payloads to jump"),
        ([_head(mode=2, target=0), b"\x08\x00"], "1 payloads to jump from version 0 to 0"),
        ([_head(mode=2), b""], "unknown codec none"),
        ([_head()], "0 payloads from version 0 to 1"),
        ([_head(target=3), b"x"], "1 payloads from version 0 to 3"),
        ([_head(base=1, target=0), b"x"], "1 payloads from version 1 to 0"),
        ([_head(), b""], "unknown codec none"),
        ([_head(), b"\xee"], "unknown codec 238; allowed: 1 dyadic, 2 fp16, 3 int8, 4 topk"),
        ([_head(), b"\x02\x00"], "1 bytes for 5 elements"),
        ([_head(mode=1, base=1), b"\x00", b"\x00"], "one payload and one version"),
        ([_head(mode=1), b"\x00"], "one payload and one version"),
        ([_head(mode=1, base=1), b""], "unknown snapshot form"),
        ([_head(mode=1, base=1), b"\x02"], "unknown snapshot form"),
        ([_head(mode=1, base=1), b"\x00abc"], "snapshot of 3 bytes for 5 elements"),
        ([_head(mode=1, base=1), b"\x01abc"], "update snapshot"),
        ([_head(mode=1, base=1), b"\x00" + b"\xff" * 20], "not finite"),
    ],
)
def test_a_well_formed_frame_with_bad_content_is_refused(sections, says):
    with pytest.raises(FrameError, match=says):
        apply(pack(Kind.UPDATE, *sections), BASE, 0, LAYOUT, SIZES, CAP)


def test_a_chain_has_an_end():
    with pytest.raises(ValueError, match=r"1\.\.4096 payloads, not 4097"):
        chain_frame([b""] * 4097, 0, LAYOUT, b"12345678")


def test_a_chain_longer_than_the_reader_allows_is_refused_before_anything_is_decoded(monkeypatch):
    """4,096 payloads of two bytes took 2.3 s at a million weights."""
    frame, result = _chain(5)
    assert apply(frame, BASE, 0, LAYOUT, SIZES, CAP, 5)[0].tobytes() == result.tobytes()
    monkeypatch.setattr(update, "add", lambda *_: pytest.fail("decoded"))
    with pytest.raises(FrameError, match="a chain of 5 payloads; allowed: up to 4"):
        apply(frame, BASE, 0, LAYOUT, SIZES, CAP, 4)


def test_a_snapshot_that_does_not_compress_is_the_longest_frame():
    noise = np.frombuffer(np.random.default_rng(0).bytes(4000), "<f4")
    assert len(snapshot_frame(noise, 1, LAYOUT)) == update.longest(1000)
    assert update.longest(10**9) == update.MAX_BYTES


def test_the_digest_tells_minus_zero_from_zero():
    assert len(digest(BASE)) == 8
    assert digest(np.array([0.0], np.float32)) != digest(np.array([-0.0], np.float32))


def test_smooth_adapters_are_packed_smaller_than_they_are():
    flat = np.full(5000, 0.125, np.float32)
    assert len(unpack(snapshot_frame(flat, 0, LAYOUT), Kind.UPDATE, CAP)[1]) < 100
