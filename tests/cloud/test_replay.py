"""The cloud's memory: bounded, fair to old and new, and the source stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.cloud.replay import CloudSample, PseudoLabelled, Replay


def lesson(name: int, tokens: int = 2) -> PseudoLabelled:
    """A lesson that `name` identifies; `tokens` makes it larger."""
    sample = CloudSample(np.zeros((tokens, 8), np.float32), np.arange(tokens), [name], (tokens, 1, tokens))
    return PseudoLabelled(sample, [1], np.zeros((2, 4), np.int64), np.zeros((2, 4), np.float32), 0.9)


def names(lessons: list[PseudoLabelled]) -> list[int]:
    return [q.sample.question_ids[0] for q in lessons]


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 4000), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_the_past_never_holds_more_bytes_than_allowed_and_counts_them_truly(sizes, allowed, seed):
    replay, rng = Replay([], allowed), np.random.default_rng(seed)
    for i, size in enumerate(sizes):
        replay.add([lesson(i, size)], rng)
        assert replay.held == sum(q.nbytes for q in replay.past) <= allowed
    assert replay.seen == len(sizes)
    assert len(set(names(replay.past))) == len(replay.past)


def test_a_labelled_bytes_are_those_of_its_arrays_and_ids():
    assert lesson(0, 3).nbytes == 3 * 8 * 4 + 3 * 8 + 8 * (1 + 1) + 2 * 4 * 8 + 2 * 4 * 4


def test_nothing_is_forgotten_while_there_is_room():
    replay = Replay([], 10 * lesson(0).nbytes)
    replay.add([lesson(i) for i in range(10)], np.random.default_rng(0))
    assert names(replay.past) == list(range(10))


def test_every_lesson_ever_offered_is_kept_with_equal_probability():
    offered, room, trials = 40, 8, 1500
    kept = np.zeros(offered)
    for seed in range(trials):
        replay, rng = Replay([], room * lesson(0).nbytes), np.random.default_rng(seed)
        for i in range(0, offered, 4):
            replay.add([lesson(j) for j in range(i, i + 4)], rng)
        assert len(replay.past) == room
        kept[names(replay.past)] += 1
    expected = trials * room / offered
    spread = np.sqrt(expected * (1 - room / offered))
    assert np.abs(kept - expected).max() < 4 * spread


def test_the_source_stays_whatever_comes():
    source = [lesson(-1), lesson(-2)]
    replay, rng = Replay(list(source), 3 * lesson(0).nbytes), np.random.default_rng(0)
    for i in range(50):
        replay.add([lesson(i)], rng)
    assert replay.source == source
    assert len(replay.past) == 3
    assert not {-1, -2} & set(names(replay.past))


def test_source_and_past_are_drawn_in_equal_parts():
    replay, rng = Replay([lesson(-1)], 10**6), np.random.default_rng(0)
    replay.add([lesson(i) for i in range(30)], rng)
    drawn = names(replay.draw(40, rng))
    assert sum(n == -1 for n in drawn) == 20
    assert len(set(drawn)) > 10


def test_one_part_alone_fills_the_draw_and_none_gives_nothing():
    rng = np.random.default_rng(0)
    assert names(Replay([lesson(-1)], 10**6).draw(3, rng)) == [-1] * 3
    late = Replay([], 10**6)
    assert late.draw(5, rng) == []
    late.add([lesson(7)], rng)
    assert names(late.draw(5, rng)) == [7] * 5


def test_without_bytes_there_is_no_past():
    replay = Replay([], 0)
    replay.add([lesson(0), lesson(1)], np.random.default_rng(0))
    assert replay.past == []


def test_the_same_seed_draws_the_same_labelled():
    def run() -> list[int]:
        replay, rng = Replay([lesson(-1)], 5 * lesson(0).nbytes), np.random.default_rng(3)
        replay.add([lesson(i) for i in range(20)], rng)
        return names(replay.draw(30, rng))

    assert run() == run()


SIZES = st.lists(st.integers(0, 12), max_size=20)


@given(SIZES, st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_buffer_that_comes_back_holds_the_same_and_goes_on_the_same(sizes, seed):
    rng = np.random.default_rng(seed)

    def some(names: range, count: int) -> list[PseudoLabelled]:
        return [
            PseudoLabelled(
                CloudSample(
                    rng.normal(size=(count, 8)).astype(np.float32),
                    np.sort(rng.permutation(40)[:count]).astype(np.uint16),
                    rng.integers(99, size=name % 4).tolist(),
                    (40, 5, 8),
                ),
                rng.integers(99, size=name % 3).tolist(),
                rng.integers(99, size=(1 + name % 3, 4)),
                rng.normal(size=(1 + name % 3, 4)).astype(np.float32),
                float(rng.random()),
                float(rng.random()),
            )
            for name in names
        ]

    one = Replay([], 2000)
    for i, size in enumerate(sizes):
        one.add(some(range(i, i + 1), size), np.random.default_rng(i))
    two = Replay([], 2000)
    two.load(one.state())
    more = some(range(30, 36), 5)
    for replay in (one, two):
        replay.add(more, np.random.default_rng(1))
    assert (one.seen, one.held) == (two.seen, two.held)
    assert list(map(exactly, one.past)) == list(map(exactly, two.past))


def exactly(lesson: PseudoLabelled) -> list:
    s = lesson.sample
    arrays = (s.tokens, s.positions, lesson.top_ids, lesson.top_logits)
    told = [(a.dtype.str, a.shape, a.tobytes()) for a in arrays]
    return [*told, s.question_ids, lesson.answer_ids, lesson.confidence, lesson.weight, lesson.nbytes]


def test_rows_of_different_types_are_not_made_alike():
    wide = lesson(1)
    replay = Replay([], 10**6, [lesson(0)])
    positions = wide.sample.positions.astype(np.uint16)
    replay.past.append(
        PseudoLabelled(
            CloudSample(wide.sample.tokens, positions, [1], (2, 1, 2)),
            [1],
            wide.top_ids,
            wide.top_logits,
            0.9,
        )
    )
    with pytest.raises(ValueError, match="different types of positions"):
        replay.state()


def test_further_questions_count_as_bytes_and_come_back_about_the_same_picture():
    rng = np.random.default_rng(0)
    one = lesson(0, 3)
    more = tuple(replace(lesson(i, 3), sample=replace(one.sample, question_ids=[i])) for i in (1, 2))
    asked = replace(one, more=more)
    assert asked.nbytes == one.nbytes + 2 * (8 * 2 + 2 * 4 * 8 + 2 * 4 * 4)
    replay, again = (Replay([lesson(-1), lesson(-2)], 10**6) for _ in range(2))
    replay.source[1] = replace(replay.source[1], more=more[:1])
    replay.add([lesson(5), asked, lesson(6)], rng)
    again.load(replay.state())
    np.testing.assert_equal(again.state(), replay.state())
    assert [names([q, *q.more]) for q in again.past] == [[5], [0, 1, 2], [6]]
    assert [names([q, *q.more]) for q in again.source] == [[-1], [-2, 1]]
    for q in (again.past[1], again.source[1]):
        assert all(other.sample.tokens is q.sample.tokens for other in q.more)
    assert len(asked.some(2, rng)) == 2
    assert names(asked.some(3, rng)) == [0, 1, 2]
