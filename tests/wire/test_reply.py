"""The one reader of replies against whatever may come: it returns what was declared, or it refuses."""

from __future__ import annotations

import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.wire import keys
from cdc_flower.wire.fields import Bytes, Flat, Frame, Number, Numbers, ReplyError, Texts
from cdc_flower.wire.messages import message_bytes, payload
from cdc_flower.wire.reply import Form, Reply, read
from tests import memory

NUMBERS = {"n": Number(int, 0, 9), "loss": Number(float), "counts": Numbers(Number(int, 0, 2**53), 2)}
FRAMED = Form(NUMBERS, {"digest": Bytes(8), "answers": Texts(2, 5)}, Frame(16))
AVERAGED = Form({"n": Number(int, 0, 9)}, array=Flat(3, "float16"))
QUERY = Form({"partition-id": Number(int, 0, 3)})
FORMS = (FRAMED, AVERAGED, QUERY, Form())


def framed(**more) -> RecordDict:
    records = {
        "metrics": MetricRecord({"n": 1, "loss": 0.5, "counts": [1, 2]}),
        "config": ConfigRecord({"digest": bytes(8), "answers": ["a"]}),
        "arrays": payload(b"frame"),
    } | more
    return RecordDict({name: record for name, record in records.items() if record is not None})


def averaged(**more) -> RecordDict:
    array = ArrayRecord({"p": Array(np.ones(3, np.float16))})
    return RecordDict({"metrics": MetricRecord({"n": 1}), "arrays": array} | more)


def test_a_reply_of_its_form_is_read_whole():
    found = read(framed(), FRAMED)
    assert found.metrics == {"n": 1, "loss": 0.5, "counts": [1, 2]}
    assert found.config == {"digest": bytes(8), "answers": ["a"]}
    assert (found.frame, found.array, found.bytes) == (b"frame", None, message_bytes(framed()))
    assert read(framed(arrays=None), FRAMED).frame == b""
    assert read(averaged(), AVERAGED).array.tolist() == [1, 1, 1]
    assert read(RecordDict(), Form()) is not None


@pytest.mark.parametrize(
    ("content", "form", "why"),
    [
        (RecordDict(), QUERY, "lacks its record 'metrics' with partition-id"),
        (framed(metrics=MetricRecord()), FRAMED, "'metrics' lacks n"),
        (framed(config=None), FRAMED, "lacks its record 'config'"),
        (framed(more=ConfigRecord()), FRAMED, "4 entries; allowed: metrics, config, arrays"),
        (framed(), QUERY, "3 entries; allowed: metrics"),
        (RecordDict({"config": ConfigRecord()}), QUERY, "an entry 'config'; allowed: metrics"),
        (RecordDict({"metrics": MetricRecord()}), Form(), "allowed: nothing"),
        (framed(arrays=ConfigRecord({"p": b"frame"})), FRAMED, "'arrays' is of another kind"),
        (framed(config=MetricRecord({"digest": 1})), FRAMED, "'config' is of another kind"),
        (RecordDict({"metrics": ConfigRecord({"partition-id": 1})}), QUERY, "'metrics' is of another kind"),
        (framed(arrays=ArrayRecord()), FRAMED, "'arrays' lacks p"),
        (framed(arrays=ArrayRecord({"q": Array(np.ones(1))})), FRAMED, "an entry 'q'; allowed: p"),
        (RecordDict({"metrics": MetricRecord({"n": 1})}), AVERAGED, "lacks its record 'arrays'"),
        (averaged(metrics=MetricRecord({"n": 10})), AVERAGED, "n is 10; allowed: int from 0 to 9"),
        (averaged(metrics=MetricRecord({"n": [1]})), AVERAGED, "n is list; allowed: int"),
        (averaged(metrics=MetricRecord({"n\n" * 10**5: 1})), AVERAGED, "an entry 'n n n"),
        (framed(), Form(NUMBERS, FRAMED.config, Frame(16), max_bytes=99), "bytes; allowed: up to 99"),
    ],
)
def test_another_reply_is_refused_in_one_line(content, form, why):
    with pytest.raises(ReplyError) as refused:
        read(content, form)
    assert why in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_whatever_has_a_form_is_smaller_than_the_form_says():
    most = framed(
        metrics=MetricRecord({"n": 9, "loss": 1e30, "counts": [2**53] * 2}),
        config=ConfigRecord({"digest": b"\xff" * 8, "answers": ["\U0001f600" * 5] * 2}),
        arrays=payload(b"\xff" * 16),
    )
    assert read(most, FRAMED).bytes <= FRAMED.most
    assert read(averaged(), AVERAGED).bytes <= AVERAGED.most


KEYS = st.sampled_from(["n", "loss", "counts", "digest", "answers", "p", "partition-id"]) | st.text(
    max_size=6
)
SCALARS = st.integers() | st.floats() | st.integers(0, 9)
LISTS = st.lists(st.integers(), max_size=3) | st.lists(st.floats(), max_size=3) | st.just([1, 2])
METRICS = st.dictionaries(KEYS, SCALARS | LISTS, max_size=5).map(MetricRecord)
TEXTS = (
    st.text(max_size=6) | st.binary(max_size=9) | st.booleans() | st.lists(st.text(max_size=6), max_size=3)
)
CONFIGS = st.dictionaries(KEYS, SCALARS | LISTS | TEXTS, max_size=5).map(ConfigRecord)
DATA = st.binary(max_size=200) | st.just(Array(np.ones(3, np.float16)).data)
SHAPES = st.lists(st.integers(-1, 2**63), max_size=3).map(tuple) | st.sampled_from([(3,), (5,)])
DTYPES, STYPES = (
    st.sampled_from(["float16", "uint8", "object"]) | st.text(max_size=5),
    st.sampled_from(["numpy.ndarray", keys.STYPE]) | st.text(max_size=5),
)
ARRAYS = st.builds(lambda *a: Array(*a), DTYPES, SHAPES, STYPES, DATA) | st.binary(max_size=20).map(
    lambda b: Array("uint8", (len(b),), keys.STYPE, b)
)
RECORDS = METRICS | CONFIGS | st.dictionaries(KEYS, ARRAYS, max_size=2).map(ArrayRecord)
NAMES = st.sampled_from(["metrics", "config", "arrays"]) | st.text(max_size=6)
ANY = st.dictionaries(NAMES, RECORDS, max_size=4).map(RecordDict)


def mutated(content: RecordDict, name: str, record) -> RecordDict:
    """A good reply with one record replaced or merged."""
    old = content.get(name)
    if type(old) is type(record):
        record = type(record)({**old, **record})
    return RecordDict({**content, name: record})


NEAR = st.builds(mutated, st.builds(framed) | st.builds(averaged), NAMES, RECORDS)


def read_or_why(content: RecordDict, form: Form) -> Reply | str:
    try:
        return read(content, form)
    except ReplyError as err:
        return str(err)


@settings(max_examples=400, deadline=None)
@given(ANY | NEAR, st.sampled_from(FORMS))
def test_a_reply_is_read_or_refused_and_nothing_else(content, form):
    found = read_or_why(content, form)
    if isinstance(found, str):
        assert found.isprintable()
        assert len(found) < 600
        return
    assert isinstance(found, Reply)
    assert set(found.metrics) == set(form.metrics)
    assert set(found.config) == set(form.config)
    assert found.bytes == message_bytes(content) <= form.most
    for kind, values in ((form.metrics, found.metrics), (form.config, found.config)):
        for name, value in values.items():
            assert kind[name].read(value) == value


def _keys() -> RecordDict:
    return RecordDict({"metrics": MetricRecord({str(i): i for i in range(10**5)})})


def _records() -> RecordDict:
    return RecordDict({str(i): ConfigRecord() for i in range(10**5)})


def _array() -> RecordDict:
    return framed(arrays=payload(bytes(2**27)))


def _tensor() -> RecordDict:
    return averaged(arrays=ArrayRecord({"p": Array("float16", (3,), "numpy.ndarray", bytes(2**27))}))


def _list() -> RecordDict:
    return framed(metrics=MetricRecord({"n": 1, "loss": 0.5, "counts": [1] * 10**6}))


def _text() -> RecordDict:
    return framed(config=ConfigRecord({"digest": bytes(8), "answers": ["x" * 2**26]}))


def _bytes() -> RecordDict:
    return framed(config=ConfigRecord({"digest": bytes(2**27), "answers": []}))


@pytest.mark.parametrize("make", [_keys, _records, _array, _tensor, _list, _text, _bytes])
def test_what_is_too_large_costs_nothing(make):
    content = make()
    for form in (FRAMED, AVERAGED):
        began = time.process_time()
        with pytest.raises(ReplyError):
            read(content, form)
        assert time.process_time() - began < 5.0
        assert memory.peak(lambda form=form: read(content, form), ReplyError) < 2**19
