"""Claims about the frame: what was packed is what is read; anything else is a FrameError that says why."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.wire.frame import FORMAT, FrameError, Kind, envelope, pack, unpack

SECTIONS = st.lists(st.binary(max_size=200), max_size=12)


@given(SECTIONS, st.sampled_from(Kind))
def test_sections_come_back_as_they_were(sections, kind):
    data = pack(kind, *sections)
    assert unpack(data, kind, len(data)) == sections
    assert len(data) == envelope(len(sections)) + sum(map(len, sections))
    assert unpack(memoryview(data), kind, len(data)) == sections


def test_envelope_of_one_payload_is_a_few_tens_of_bytes():
    assert len(pack(Kind.UPDATE, b"", b"")) == 20


@given(SECTIONS, st.data())
def test_every_truncation_is_refused(sections, data):
    frame = pack(Kind.UPDATE, *sections)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(FrameError):
        unpack(frame[:cut], Kind.UPDATE, 10**6)


@given(SECTIONS, st.data())
def test_every_flipped_bit_is_refused(sections, data):
    frame = bytearray(pack(Kind.TOKEN_BATCH, *sections))
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        unpack(bytes(frame), Kind.TOKEN_BATCH, 10**6)


def _forge(version=FORMAT, kind=int(Kind.UPDATE), count=1, lengths=(3,), payload=b"abc", magic=b"CDCF"):
    head = struct.pack("<4sBBH", magic, version, kind, count)
    body = head + struct.pack(f"<{len(lengths)}I", *lengths) + payload
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (_forge(magic=b"NOPE"), "not a frame"),
        (_forge(version=1), "format version 1; this reader knows 2"),
        (_forge(kind=1), r"kind 1 \(TOKEN_BATCH\); expected 2 \(UPDATE\)"),
        (_forge(kind=77), r"kind 77 \(unknown\)"),
        (_forge(lengths=(4,)), "section lengths declare 20"),
        (_forge(lengths=(2,)), "section lengths declare 18"),
        (_forge(lengths=(2**32 - 1,)), "section lengths declare"),
        (_forge(count=60000), "do not hold 60000 section lengths"),
        (_forge()[:-1] + b"\x00", "checksum"),
        (b"", "cut short"),
        ("text", "not bytes"),
        (None, "NoneType"),
    ],
)
def test_a_forged_frame_is_named_for_what_is_wrong(frame, says):
    with pytest.raises(FrameError, match=says):
        unpack(frame, Kind.UPDATE, 100)


def test_a_frame_above_the_cap_is_refused_unread():
    with pytest.raises(FrameError, match="101 bytes is too long; allowed: 100"):
        unpack(b"x" * 101, Kind.UPDATE, 100)


def test_too_many_sections_cannot_be_packed():
    with pytest.raises(ValueError, match="at most 65535"):
        pack(Kind.UPDATE, *[b""] * 65536)
