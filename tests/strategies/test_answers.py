"""One answer: good, or a status and one line of reason, whatever came."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from cdc_flower.fleet.engines.local_grid import identify
from cdc_flower.wire.counts import MOST, Counts
from cdc_flower.wire.fields import Number, ReplyError
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import REFUSED, message_bytes
from cdc_flower.wire.reply import Form
from strategies.answers import MISSING, Taken, answer, counted, evaluated, train_form


def metrics(seconds=0.0, counts=None, **more) -> MetricRecord:
    return MetricRecord({"counts": counts or [0] * 6, "host-seconds": seconds, **more})


def said(**more) -> RecordDict:
    return RecordDict({"metrics": metrics(**more)})


def reply(content: RecordDict | Error) -> Message:
    identify()
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))


def take(good) -> Taken[int]:
    if good.metrics["n"] == 3:
        raise FrameError("three\x1b[31m" + "!" * 1000)
    return Taken(good.metrics["n"], samples=1, tokens=2)


FORM = train_form(Form({"n": Number(int, 0, 9)}))


def test_a_good_answer_is_what_the_method_makes_of_it():
    message = reply(said(n=2, seconds=1.5, counts=[1, 2, 3, 4, 5, 6]))
    found = answer(message, FORM, take)
    assert (found.status, found.reason, found.taken) == ("ok", "", Taken(2, 1, 2))
    assert (found.computed, found.seconds) == (Counts(1, 2, 3, 4, 5, 6), 1.5)
    assert found.reply.bytes == message_bytes(message.content)


@pytest.mark.parametrize(
    "lies",
    [
        {},
        {"n": 10},
        {"n": 2, "counts": [MOST + 1, 0, 0, 0, 0, 0]},
        {"n": 2, "counts": [-1, 0, 0, 0, 0, 0]},
        {"n": 2, "counts": [0] * 7},
        {"n": 2, "counts": [0.0] * 6},
        {"n": 2, "seconds": float("nan")},
        {"n": 2, "seconds": 1.7e308},
        {"n": 2, "seconds": -1.0},
        {"n": 2, "more": 1},
    ],
)
def test_what_breaks_the_form_is_refused_and_weighs_nothing(lies):
    found = answer(reply(said(**lies)), FORM, take)
    assert (found.status, found.reply, found.taken) == ("refused", None, None)
    assert "allowed" in found.reason or "lacks" in found.reason
    assert (found.computed, found.seconds) == (Counts(), 0.0)


def test_a_method_that_knows_its_devices_work_bounds_what_they_say_of_it():
    tight = train_form(Form({"n": Number(int, 0, 9), **counted(5)}))
    assert answer(reply(said(n=2, counts=[5] * 6)), tight, take).status == "ok"
    assert answer(reply(said(n=2, counts=[0, 6, 0, 0, 0, 0])), tight, take).status == "refused"


def test_what_the_method_refuses_is_weighed_and_its_reason_is_one_line():
    found = answer(reply(said(n=3, seconds=1.0)), FORM, take)
    assert (found.status, found.taken, found.seconds) == ("refused", None, 1.0)
    assert found.reply.bytes > 0
    assert found.reason.startswith("three [31m!!!")
    assert len(found.reason) == 200


@pytest.mark.parametrize(
    ("code", "status"), [(5, "missing"), (REFUSED, "refused"), (0, "failed"), (2, "failed"), (-1, "failed")]
)
def test_an_error_is_a_status_and_one_printable_line(code, status):
    found = answer(reply(Error(code, "a\r\n\x1b[2J" + "b" * 10**6)), FORM, take)
    assert found.status == status
    assert found.reason.startswith("a   [2Jbb")
    assert len(found.reason) == 200
    assert answer(reply(Error(code)), FORM, take).reason == "no reason given"


def test_no_answer_is_missing_without_a_reason():
    assert answer(None, FORM, take) is MISSING
    assert (MISSING.status, MISSING.reason) == ("missing", "")


def test_texts_of_the_round_that_was_asked_for():
    records = {"metrics": MetricRecord({"server-round": 4}), "config": ConfigRecord({"answers": ["a", ""]})}
    message = reply(RecordDict(records))
    assert evaluated(message, 4, 2, 1).config["answers"] == ["a", ""]
    for asked_in, samples, longest in ((5, 2, 1), (4, 1, 1), (4, 2, 0)):
        with pytest.raises(ReplyError):
            evaluated(message, asked_in, samples, longest)


def test_what_a_device_keeps_is_read_only_where_it_was_asked_for_and_may_be_absent():
    def message(*flat):
        records = {"metrics": MetricRecord({"server-round": 4}), "config": ConfigRecord({"answers": []})}
        arrays = {"arrays": ArrayRecord({"p": Array(flat[0])})} if flat else {}
        return reply(RecordDict({**records, **arrays}))

    kept = np.ones(3, np.float32)
    assert evaluated(message(), 4, 2, 1, held=3).array is None
    assert np.array_equal(evaluated(message(kept), 4, 2, 1, held=3).array, kept)
    for flat, held in ((kept, 0), (kept, 2), (kept.astype(np.float64), 3), (kept * np.inf, 3)):
        with pytest.raises(ReplyError):
            evaluated(message(flat), 4, 2, 1, held)
