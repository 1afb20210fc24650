"""What an order makes of samples: which are taken, and which of them went up."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes
from clients.device import orders
from clients.device.database import FILE, Database
from clients.device.feed import round_key
from clients.device.mailbox import Order
from clients.device.orders import OrderError
from clients.device.spool import New, Spool


def new(value, key=""):
    return New("q", np.ones((1, 3), np.float16), (1, 1, 1), "a", value, b"", key)


def test_what_came_with_the_round_goes_first_then_what_is_worth_most(tmp_path):
    spool = Spool(Database(tmp_path / FILE), 100, 10**6)
    spool.add([new(5, "x"), new(9, "x"), new(1, round_key(2)), new(2, round_key(2)), new(7, "x"), new(8)])
    assert [s.value for s in orders.chosen(spool, 2, 5)] == [1, 2, 9, 7, 8]
    assert [s.value for s in orders.chosen(spool, 2, 1)] == [2]
    assert [s.value for s in orders.chosen(spool, 1, 2)] == [9, 8]
    assert orders.chosen(spool, 2, 0) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda o: Order(o.round, b"\xff\xff"),
        lambda o: Order(o.round, b""),
        lambda o: Order(o.round, o.content[: len(o.content) // 2]),
        lambda o: Order(o.round + 1, o.content),
    ],
)
def test_what_has_not_the_form_of_an_order_is_refused(order, change):
    with pytest.raises(OrderError):
        orders.read(change(order(3)))


@pytest.mark.parametrize("more", [{"taken": 1.5}, {"taken": "x"}, {"taken": True}, {"work": 3}])
def test_an_order_with_values_of_other_types_is_refused(order, more):
    with pytest.raises(OrderError):
        orders.read(order(3, **more))


def test_all_samples_went_up_where_the_reply_is_no_frame_and_none_where_it_has_no_array(student):
    samples = [1, 2, 3]

    class Numbered:
        def __init__(self, id):
            self.id = id

    reply = RecordDict({keys.ARRAYS: ArrayRecord([np.ones(5, np.float16)])})
    reply[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: next(iter(reply[keys.ARRAYS].values()))})
    assert orders.went_up(reply, student, [Numbered(i) for i in samples]) == samples
    assert orders.went_up(RecordDict(), student, [Numbered(i) for i in samples]) == []
    assert state_bytes(RecordDict()) == b""
