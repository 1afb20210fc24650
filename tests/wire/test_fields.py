"""Kinds of what a reply may hold: what each takes, what it refuses, and that its error is one short line."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array

from cdc_flower.wire import keys
from cdc_flower.wire.fields import Bytes, Flat, Frame, Number, Numbers, ReplyError, Texts, clean


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("a\nb\r\x1b[31mc\x00\u202e", "a b  [31mc  "),
        ("x" * 10**6, "x" * 199 + "…"),
        ("", "no reason given"),
        (None, "no reason given"),
        (b"bytes", "no reason given"),
    ],
)
def test_a_text_becomes_one_printable_line(text, line):
    assert clean(text) == line


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Number(int, 0, 3), 0),
        (Number(int, 0, 3), 3),
        (Number(float, -1, 1), 0.5),
        (Numbers(Number(int, 0, 9), 2), [1, 2]),
        (Numbers(Number(int, 0, 9), 0), []),
        (Bytes(3), b"abc"),
        (Texts(2, 3), ["", "üöä"]),
        (Texts(0, 0), []),
    ],
)
def test_a_value_of_its_kind_is_read_as_it_is(kind, value):
    assert kind.read(value) == value
    assert type(kind.read(value)) is type(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Number(int, 0, 3), -1),
        (Number(int, 0, 3), 4),
        (Number(int, 0, 3), 1.0),
        (Number(int, 0, 3), True),
        (Number(int, 0, 3), [1]),
        (Number(int, 0, 3), "1" * 10**6),
        (Number(float), 1),
        (Number(float), float("nan")),
        (Number(float), float("inf")),
        (Number(float), 1e300),
        (Number(float, -1, 1), -float("inf")),
        (Numbers(Number(int, 0, 9), 2), [1]),
        (Numbers(Number(int, 0, 9), 2), [1] * 10**6),
        (Numbers(Number(int, 0, 9), 2), [1, 10]),
        (Numbers(Number(int, 0, 9), 2), [1, 2.0]),
        (Numbers(Number(int, 0, 9), 2), 1),
        (Bytes(3), b"ab"),
        (Bytes(3), bytes(10**6)),
        (Bytes(3), "abc"),
        (Bytes(3), [b"abc"]),
        (Texts(2, 3), ["a"] * 3),
        (Texts(2, 3), ["abcd"]),
        (Texts(2, 3), ["\ud800"]),
        (Texts(2, 3), [b"a"]),
        (Texts(2, 3), [1]),
        (Texts(2, 3), "ab"),
    ],
)
def test_another_value_is_refused_in_a_line_that_says_what_is_allowed(kind, value):
    with pytest.raises(ReplyError, match="; allowed: ") as refused:
        kind.read(value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200


def test_an_integer_that_python_will_not_print_is_refused_by_its_length():
    with pytest.raises(ReplyError, match="an integer of 33220 bits; allowed: int from 0 to 9"):
        Number(int, 0, 9).read(10**10_000)


FLAT = Flat(3, "float16")
GOOD = Array(np.array([1, 2, 3], np.float16))


def npy(header: str, values: bytes = bytes(6)) -> Array:
    text = header.encode() + b"\n"
    return Array(
        "float16",
        (3,),
        "numpy.ndarray",
        b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values,
    )


def test_an_array_is_read_as_numpy_wrote_it():
    FLAT.weigh(GOOD)
    np.testing.assert_array_equal(FLAT.read(GOOD.data), [1, 2, 3])
    plain = npy("{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }")  # without numpy's padding
    FLAT.weigh(plain)
    assert FLAT.read(plain.data).dtype == np.float16
    assert FLAT.read(GOOD.data).flags.writeable is False


@pytest.mark.parametrize(
    "array",
    [
        Array(np.zeros(3, np.float32)),
        Array(np.zeros(4, np.float16)),
        Array(np.zeros((1, 3), np.float16)),
        Array(np.array([1, np.nan, 3], np.float16)),
        Array(np.array([1, -np.inf, 3], np.float16)),
        Array("float16", (3,), "pickle", GOOD.data),
        Array("float16", (2**62,), "numpy.ndarray", GOOD.data),
        Array("float16", (3,) * 10**5, "numpy.ndarray", GOOD.data),
        Array("float16\n" * 10**5, (3,), "numpy.ndarray", GOOD.data),
        Array("float16", (3,), "numpy.ndarray", bytes(10**6)),
        Array("float16", (3,), "numpy.ndarray", b""),
        Array("float16", (3,), "numpy.ndarray", GOOD.data[:-1]),
        Array("float16", (3,), "numpy.ndarray", GOOD.data + b"\0"),
        Array("float16", (3,), "numpy.ndarray", GOOD.data[1:] + b"\0"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", b"\x80\x04N."),
        npy("{'descr': '<f2', 'fortran_order': True, 'shape': (3,), }"),
        npy("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000,), }"),
        npy("{'descr': '<f2', 'fortran_order': False, 'shape': (3,), } or 1"),
        npy("-" * 600 + "1"),
        npy("(" * 600),
    ],
)
def test_another_array_is_refused_in_one_line(array):
    def read():
        FLAT.weigh(array)
        FLAT.read(array.data)

    with pytest.raises(ReplyError) as refused:
        read()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_a_frame_is_bytes_up_to_its_cap():
    kind = Frame(3)
    frame = Array("uint8", (3,), keys.STYPE, b"abc")
    kind.weigh(frame)
    assert kind.read(frame.data) == b"abc"
    for other in (
        Array("uint8", (4,), keys.STYPE, b"abcd"),
        Array("uint8", (2,), keys.STYPE, b"abc"),
        Array("uint8", (3,), "numpy.ndarray", b"abc"),
        Array("int8", (3,), keys.STYPE, b"abc"),
        Array("uint8", (3, 1), keys.STYPE, b"abc"),
    ):
        with pytest.raises(ReplyError, match="allowed"):
            kind.weigh(other)
