"""No sample is lost and none counts twice, whenever power goes; what is bounded stays so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.device.database import FILE, Database, DatabaseError
from clients.device.mailbox import Mailbox, Order, Reply
from clients.device.spool import TRIES, New, Spool

MANY = 10**6


def new(value=1.0, question="what is it?", key="", picture=b"", n=2) -> New:
    return New(question, np.full((n, 3), value, np.float16), (n, 1, n), "a cat", value, picture, key)


@pytest.fixture
def spool(tmp_path):
    return Spool(Database(tmp_path / FILE), 10, MANY)


def waiting(spool, most=100, key=None):
    return [s.value for s in spool.waiting(most, key)]


def whole(spool):
    facts = spool.facts()
    assert facts.came == facts.waiting + facts.out + facts.taken + facts.dropped
    return facts


def test_what_is_spooled_comes_back_as_it_was(spool):
    sample = New("würde?", np.arange(6, dtype=np.float16).reshape(2, 3), (2, 1, 2), "ja", 0.25, b"\x00p", "k")
    (number,) = spool.add([sample], "k")
    (found,) = spool.waiting(5)
    assert (found.question, found.answer, found.value, found.picture, found.key, found.grid, found.id) == (
        *("würde?", "ja", 0.25, b"\x00p", "k", (2, 1, 2)),
        number,
    )
    np.testing.assert_array_equal(found.tokens, sample.tokens)
    assert spool.fed == "k"
    assert spool.facts().bytes == sample.size


def test_the_most_valuable_are_given_in_the_order_of_their_coming(spool):
    spool.add([new(v) for v in (1, 5, 3, 4)])
    assert waiting(spool, 2) == [5, 4]
    assert waiting(spool, 3) == [5, 3, 4]
    spool.add([new(9, key="a"), new(8, key="b")])
    assert waiting(spool, 5, "b") == [8]


@pytest.mark.parametrize("bound", ["samples", "bytes"])
def test_the_least_valuable_are_dropped_beyond_the_bounds_old_or_new(tmp_path, bound):
    size = new().size
    spool = Spool(Database(tmp_path / FILE), *((3, MANY) if bound == "samples" else (100, 3 * size)))
    spool.add([new(5), new(1), new(4)])
    spool.add([new(3)])
    spool.add([new(0.5)])
    assert waiting(spool) == [5, 4, 3]
    assert whole(spool).dropped == 2
    assert spool.facts().bytes <= 3 * size


def test_what_is_out_is_not_dropped_for_a_new_one(tmp_path):
    spool = Spool(Database(tmp_path / FILE), 2, MANY)
    spool.take(1, spool.add([new(0.1), new(0.2)]))
    spool.add([new(7)])
    assert whole(spool).out == 2
    assert waiting(spool) == []


def test_what_the_cloud_took_is_deleted_and_what_it_did_not_take_waits_again(spool):
    a, b, c = spool.add([new(1), new(2), new(3)])
    spool.take(4, [a, b])
    assert waiting(spool) == [3]
    assert spool.settle(5, 3) == 0
    assert waiting(spool) == [1, 2, 3]
    spool.take(5, [b, c])
    assert spool.settle(6, 5) == 2
    assert waiting(spool) == [1]
    assert spool.settle(6, 5) == 0
    assert whole(spool).taken == 2


def test_without_receipts_a_reply_to_an_earlier_order_counts_as_taken(spool):
    a, b = spool.add([new(1), new(2)])
    spool.take(4, [a])
    assert spool.settle(4, None) == 0  # the same round again: that reply never arrived
    spool.take(4, [a])
    assert spool.settle(5, None) == 1
    assert waiting(spool) == [2]
    assert b


def test_a_refused_sample_is_offered_again_and_is_dropped_when_it_was_refused_too_often(spool):
    spool.add([new(9), new(8)])
    for round in range(1, TRIES + 1):
        (first,) = spool.waiting(1)
        assert first.tries == round - 1
        spool.take(round, [s.id for s in spool.waiting(2)])
        spool.settle(round + 1, 0, round)
        spool.settle(round + 1, 0, round)  # the order comes again: it was one refusal
    assert waiting(spool) == []
    assert (whole(spool).dropped, whole(spool).refused) == (2, 2)


def test_a_refused_sample_comes_up_with_others_and_one_that_was_lost_on_the_way_is_not_refused(spool):
    bad, good = spool.add([new(9), new(8)])
    spool.take(1, [bad, good])
    spool.settle(2, 0, 0)  # that reply never came
    assert [s.tries for s in spool.waiting(5)] == [0, 0]
    spool.take(2, [bad, good])
    spool.settle(3, 0, 2)
    spool.add([new(1), new(2)])
    assert waiting(spool, 2) == [1, 2]
    assert [s.id for s in spool.waiting(3)] == [bad, good + 1, good + 2]
    spool.take(3, [good])
    assert spool.settle(4, 3, 2) == 1
    assert (whole(spool).taken, whole(spool).refused) == (1, 0)


def test_samples_of_another_model_are_dropped(spool):
    spool.add([new(1), new(2)])
    assert spool.fit(3) == 0
    assert spool.fit(4) == 2
    assert whole(spool).dropped == 2


def test_a_value_that_is_no_number_is_worth_nothing(spool):
    spool.add([new(float("nan")), new(float("inf")), new(1)])
    assert sorted(waiting(spool)) == [0, 0, 1]


def test_nothing_is_kept_and_nothing_was_read_where_the_disk_is_full(tmp_path):
    database = Database(tmp_path / FILE)
    spool = Spool(database, 10**4, 10**9)
    spool.add([new(1, key="1")], "1")
    database.rows(f"PRAGMA max_page_count = {database.rows('PRAGMA page_count')[0][0] + 2}")
    with pytest.raises(DatabaseError, match="full"):
        spool.add([new(2, n=20_000)], "2")
    assert waiting(spool) == [1]
    assert spool.fed == "1"
    assert whole(spool).came == 1
    database.rows("PRAGMA max_page_count = 1000000")
    spool.add([new(2, n=20_000)], "2")
    assert spool.fed == "2"


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), max_size=4)),
            st.tuples(st.just("take"), st.integers(0, 3)),
            st.tuples(st.just("settle"), st.sampled_from(["taken", "lost", "refused", "says nothing"])),
        ),
        max_size=12,
    )
)
def test_every_sample_is_somewhere_once(tmp_path_factory, steps):
    spool = Spool(Database(tmp_path_factory.mktemp("spool") / FILE), 5, MANY)
    spool.database.rows("PRAGMA synchronous = OFF")
    round = 1
    for what, value in steps:
        if what == "add":
            spool.add([new(v) for v in value])
        elif what == "take":
            spool.take(round, [s.id for s in spool.waiting(value)])
        else:
            round += 1
            last = {"taken": round - 1, "lost": 0, "refused": 0, "says nothing": None}[value]
            spool.settle(round, last, round - 1 if value == "refused" else 0)
        facts = whole(spool)
        assert facts.waiting + facts.out <= 5
    spool.database.close()


def rounds(folder, count=10**9, tell=lambda *_: None):
    """What a device does: items are fed in order, two a step; each second step is a round. Half of the
    replies are not taken.
    """
    spool = Spool(Database(folder / FILE), 40, MANY)
    box = Mailbox(spool.database)
    for _ in range(count):
        at = int(spool.fed or 0)
        spool.add([new(at + 1, str(at + 1)), new(at + 2, str(at + 2))], str(at + 2))
        if at % 4 == 0:
            round = at // 4 + 1
            box.put(Order(round, b"order"))
            spool.settle(round, round - 1 if round % 2 else 0)
            with spool.database.transaction():
                box.answer(round, Reply(b"reply"))
                spool.take(round, [s.id for s in spool.waiting(5)])
                spool.database.know("state", str(round))
        tell(at)


def consistent(folder):
    """Every item that was fed is somewhere once; the reply, the state and what is out are of one round."""
    spool = Spool(Database(folder / FILE), 40, MANY)
    spool.database.whole()
    facts = whole(spool)
    assert facts.came == int(spool.fed or 0)
    questions = [q for (q,) in spool.database.rows("SELECT question FROM samples")]
    assert len(set(questions)) == len(questions)
    out = {r for (r,) in spool.database.rows("SELECT DISTINCT round FROM samples WHERE round IS NOT NULL")}
    replies = {r for (r,) in spool.database.rows("SELECT round FROM replies")}
    state = spool.database.fact("state")
    assert out <= replies == ({int(state)} if state else set())
    spool.database.close()
    return facts.came


def test_power_that_goes_at_any_statement_loses_nothing(tmp_path):
    """The files as they lie on the disk when each statement begins, as a machine would find them again."""
    home, copies = tmp_path / "device", []
    home.mkdir()
    database = Database(home / FILE)

    def copy(_):
        copies.append(tmp_path / f"copy {len(copies)}")
        shutil.copytree(home, copies[-1])

    original = Database.__init__

    def traced(self, *args):
        original(self, *args)
        self._open.set_trace_callback(copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "__init__", traced)
        rounds(home, 4)
    database.close()
    assert len(copies) > 60
    came = [consistent(folder) for folder in copies]
    assert came == sorted(came)
    assert set(came) == {0, 2, 4, 6}


CHILD = """
import sys, pathlib
sys.path.insert(0, {here!r})
from test_spool import rounds
rounds(pathlib.Path(sys.argv[1]), tell=lambda at: print(at, flush=True))
"""


def test_a_process_that_is_killed_in_the_middle_loses_nothing(tmp_path):
    rng, reached = np.random.default_rng(0), 0
    for _ in range(3):
        code = CHILD.format(here=os.path.dirname(__file__))
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        late = threading.Timer(
            120, child.kill
        )  # one that says nothing more is an error, and no wait for ever
        late.start()
        try:
            for _ in range(int(rng.integers(3, 12))):
                assert child.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.01)))
        finally:
            late.cancel()
            child.send_signal(signal.SIGKILL)
            child.wait(60)
            child.stdout.close()
        came = consistent(tmp_path)
        assert came > reached
        reached = came
