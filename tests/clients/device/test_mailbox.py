"""An order is worked on once, whatever comes twice."""

import pytest

from clients.device import mailbox
from clients.device.database import FILE, Database
from clients.device.mailbox import Mailbox, Order, Reply


@pytest.fixture
def box(tmp_path):
    return Mailbox(Database(tmp_path / FILE))


def test_an_order_waits_until_it_has_a_reply(box):
    assert box.waits() is None
    box.put(Order(3, b"do"))
    assert box.waits() == Order(3, b"do")
    assert box.reply(3) is None
    box.answer(3, Reply(b"done"))
    assert box.waits() is None
    assert box.reply(3) == Reply(b"done")
    assert box.reply(2) is None


def test_an_order_that_comes_again_as_it_was_gets_the_reply_that_it_had(box):
    box.put(Order(3, b"do"))
    box.answer(3, Reply(b"done"))
    box.put(Order(3, b"do"))
    assert box.waits() is None
    assert box.reply(3) == Reply(b"done")


def test_an_order_that_says_something_else_is_worked_on_anew(box):
    box.put(Order(3, b"do"))
    box.answer(3, Reply(b"done"))
    box.put(Order(3, b"do otherwise"))
    assert box.waits() == Order(3, b"do otherwise")
    assert box.reply(3) is None


def test_an_error_is_no_reply_to_an_order_that_comes_again(box):
    box.put(Order(3, b"do"))
    box.answer(3, Reply(b"", "no"))
    assert box.reply(3) == Reply(b"", "no")
    box.put(Order(3, b"do"))
    assert box.waits() == Order(3, b"do")


def test_a_later_order_replaces_an_earlier_one_and_its_reply(box):
    box.put(Order(3, b"do"))
    box.answer(3, Reply(b"done"))
    box.put(Order(4, b"do"))
    assert box.waits() == Order(4, b"do")
    box.answer(4, Reply(b"done too"))
    assert box.reply(3) is None
    box.put(Order(2, b"a restored cloud"))
    assert box.waits() == Order(2, b"a restored cloud")


def test_what_is_too_long_is_refused_or_cut(box, monkeypatch):
    monkeypatch.setattr(mailbox, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="allowed: 10"):
        box.put(Order(1, bytes(11)))
    box.answer(1, Reply(b"", "x" * 10**6))
    assert len(box.reply(1).error) == mailbox.MOST_ERROR
