"""A device's answers are the same bits whoever else is asked with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdc_flower.models import adapters, placement, room
from clients import inference
from clients.inference import ENOUGH, ROWS, Ask, alone, answer, drive
from clients.store import Adapter
from clients.task import resident

FIELDS = ("entropy", "margin", "log_prob", "confidence", "read")


def same(a, b) -> bool:
    return (a.ids, a.texts) == (b.ids, b.texts) and all(
        np.array(getattr(a, f)).tobytes() == np.array(getattr(b, f)).tobytes() for f in FIELDS
    )


def asked_of(task):
    """`asking(rows)`: the answers of these rows of a pool of 40, with the attention score."""
    student = resident(task.shared, task.config.pair)
    moved = np.random.default_rng(0).normal(0, 0.1, len(student.initial.flat)).astype(np.float32)
    adapters.write(student.model, student.initial.flat + moved)
    rows = np.arange(40)
    tokens, asked = task.tokens(rows), task.questions(rows)
    length = task.source.longest

    def ask(some):
        pictures, words = [tokens[i] for i in some], [asked[i] for i in some]
        return answer(student.model, task.shared, length, pictures, words, score="attention")

    return ask


@pytest.mark.parametrize("rank", [2, 16])
@pytest.mark.parametrize("compression", ["nf4", "none", "int4"])
def test_bits_do_not_depend_on_the_size_of_the_batch_or_the_place_in_it(make_task, compression, rank):
    asking = asked_of(make_task(compression=compression, lora_rank=rank))
    whole = asking(np.arange(40))
    assert np.mean([len(i) for i in whole.ids]) > 1.5  # decoding has steps of its own
    for size in (1, 2, 3, 4, 7, 15, 16, 33):
        some = np.random.default_rng(size).permutation(40)[:size]
        part = asking(some)
        assert part.ids == [whole.ids[i] for i in some]
        for field in FIELDS:
            got, wanted = np.array(getattr(part, field)), np.array(getattr(whole, field))[some]
            assert got.tobytes() == wanted.tobytes(), (size, field)


def test_full_batches_are_cut_where_they_are_full(make_task):
    asking = asked_of(make_task())
    many = np.resize(np.arange(40), ROWS + 1)
    found, whole = asking(many), asking(np.arange(40))
    assert len(found.ids) == ROWS + 1
    assert found.read[ROWS].tobytes() == whole.read[many[ROWS]].tobytes()


def test_long_sequences_go_alone_with_the_bits_of_a_batch(make_task):
    task = make_task()
    student, rows = resident(task.shared, task.config.pair), range(6)
    tokens, asked = task.tokens(rows), task.questions(rows)

    def found(some):
        own = [tokens[i] for i in some], [asked[i] for i in some]
        return answer(student.model, task.shared, ENOUGH, *own, score="attention")

    whole, one = found(rows), found([4])
    for field in FIELDS:
        assert np.array(getattr(one, field)).tobytes() == np.array(getattr(whole, field))[4:5].tobytes(), (
            field
        )


def test_batches_are_cut_where_sequences_have_much_alive(make_task, monkeypatch):
    asking = asked_of(make_task())
    whole = asking(np.arange(6))
    monkeypatch.setattr(room, "here", lambda: replace(placement.CPU, budget=1))
    assert same(asking(np.arange(6)), whole)


def work(task, model, adapter, rows, times=1):
    found = []
    for _ in range(times):
        ask = Ask(task, model, adapter, task.tokens(rows), task.questions(rows), "attention")
        found.append((yield ask))
    return found


def shifted(student, by: float) -> Adapter:
    return Adapter.of(student.initial.flat + np.float32(by), 1)


@pytest.mark.parametrize("compression", ["nf4", "int4", "int8"])
def test_works_driven_together_end_as_each_alone(make_task, compression):
    task = make_task(compression=compression)
    student = resident(task.shared, task.config.pair)

    def works():
        for i in range(6):
            adapter = shifted(student, 0.01 * (i % 2))
            yield work(task, student.model, adapter, np.arange(i, 2 * i + 3), 1 + i % 3)

    together, apart = drive(works()), [alone(w) for w in works()]
    assert [len(f) for f in together] == [1, 2, 3, 1, 2, 3]
    assert all(same(a, b) for x, y in zip(together, apart, strict=True) for a, b in zip(x, y, strict=True))
    assert not same(together[0][0], together[1][0])


def test_what_one_device_raises_is_its_own(make_task):
    task = make_task()
    student = resident(task.shared, task.config.pair)

    def fails():
        yield Ask(task, student.model, student.initial, task.tokens(np.arange(2)), [[1]] * 2)
        raise RuntimeError("no battery")

    def spoils():  # its tokens do not fit the model's
        yield Ask(task, student.model, student.initial, np.zeros((1, 3, 5), np.float16), [[1]], "attention")

    def at_once():
        raise KeyError("x")
        yield

    good = work(task, student.model, student.initial, np.arange(3))
    found = drive([fails(), spoils(), at_once(), good])
    assert [type(f).__name__ for f in found[:3]] == ["RuntimeError", "ValueError", "KeyError"]
    assert same(found[3][0], alone(work(task, student.model, student.initial, np.arange(3)))[0])
    with pytest.raises(RuntimeError, match="no battery"):
        alone(fails())


def test_devices_with_adapters_of_their_own_share_batches_and_keep_their_bits(make_task, monkeypatch):
    task = make_task()
    student = resident(task.shared, task.config.pair)
    monkeypatch.setattr(inference, "OWN", 6)
    monkeypatch.setattr(inference, "ROWS", 8)
    rows = [2, 1, 3, 7, 2, 2, 1, 5, 2]
    mine = [0, 1, 2, 3, 4, 5, 0, 6, 7]  # the fourth device has many questions, the first adapter two devices

    def works():
        for i, adapter in zip(rows, mine, strict=True):
            yield work(task, student.model, shifted(student, 0.02 * adapter), np.arange(i, 2 * i))

    passes = []
    batched = inference.answer_batch
    monkeypatch.setattr(inference, "answer_batch", lambda *a: passes.append(a[2].ids.shape[0]) or batched(*a))
    together = drive(works())
    assert sorted(passes) == [4, 7, 7, 7]
    apart = [alone(w) for w in works()]
    assert all(same(a[0], b[0]) for a, b in zip(together, apart, strict=True))
    assert not same(together[0][0], together[4][0])
