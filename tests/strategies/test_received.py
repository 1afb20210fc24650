"""Pictures become tokens in the cloud: those of the tower, at the places that were sent."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.models import vlm
from cdc_flower.models.teacher import Teacher
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures import mosaic, picture_batch
from cdc_flower.uplink.sample import Batch, Limits, Sample
from cdc_flower.wire.frame import FrameError
from strategies import received
from tests import memory


@pytest.fixture
def seen(shared) -> np.ndarray:
    """Three smooth pictures (3, side, side, 3) uint8 that a codec hardly changes."""
    ramp = np.linspace(40, 200, shared.side)
    planes = [ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], (ramp[:, None] + ramp) / 2]
    turned = [np.stack([planes[k], planes[k - 1], planes[k - 2]], -1) for k in range(3)]
    return np.stack(turned).astype(np.uint8)


def frame(shared, seen, form, kept, quality=95) -> bytes:
    samples = tuple(
        Sample(
            i,
            shared.grid,
            where,
            [7, i],
            [8],
            0.5,
            picture=picture_batch.coded(pixels, where, form, shared.patch, quality),
        )
        for i, (pixels, where) in enumerate(zip(seen, kept, strict=True))
    )
    return picture_batch.encode(Batch(1, 2, 3, samples), form, shared.patch)


def read(data, shared, form, limits=None, **more):
    seconds, config = defaultdict(float), parse({"uplink.unit": form, **more})
    limits = limits or Limits(config.run.samples_per_round, 64, 8, config.uplink.tokens_kept)
    batch = received.received(data, shared, Teacher(None, ""), config, limits, seconds).batch
    assert seconds["codec"] > 0
    return batch, seconds


def test_a_whole_picture_gives_all_tokens_of_its_tower(shared, seen):
    batch, seconds = read(frame(shared, seen, "jpeg", [np.zeros(0, np.uint16)] * 3), shared, "jpeg")
    true = [tokens.astype(np.float32) for tokens, _ in shared.encode(_images(seen))]
    assert (batch.device, batch.round, batch.version) == (1, 2, 3)
    for i, sample in enumerate(batch.samples):
        assert sample.positions.tolist() == list(range(shared.n_tokens))
        assert sample.tokens.dtype == np.float32
        assert _apart(sample.tokens, true[i]) < 0.1
        assert _apart(sample.tokens, true[(i + 1) % 3]) > 0.2  # another picture's
        assert (sample.question_ids, sample.answer_ids, sample.uncertainty) == ([7, i], [8], 0.5)
    assert seconds["cloud"] > 0


def test_patches_give_the_tokens_of_a_grey_canvas_at_their_places_alone(shared, seen):
    kept = [np.array(w, np.uint16) for w in ([3], [0, 9, 63], [8, 9, 10, 60, 61])]
    batch, _ = read(frame(shared, seen, "patches", kept), shared, "patches")
    grey = vlm.grey(shared.processor)
    canvases = [
        mosaic.place(mosaic.cut(p, w, shared.patch), w, *shared.grid[1:], shared.patch, grey)
        for p, w in zip(seen, kept, strict=True)
    ]
    true = [tokens.astype(np.float32) for tokens, _ in shared.encode(_images(canvases))]
    for sample, where, tokens in zip(batch.samples, kept, true, strict=True):
        assert sample.positions.tolist() == where.tolist()
        assert sample.tokens.shape == (len(where), shared.width)
        others = [i for i in range(shared.n_tokens) if i not in where]
        right = _apart(sample.tokens, tokens[where])
        wrong = _apart(sample.tokens, tokens[others[: len(where)]])
        assert right < 0.1
        assert right < 0.5 * wrong


def _images(pixels):
    return [Image.fromarray(p) for p in pixels]


def _apart(a, b) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_a_batch_in_parts_of_the_tower_is_the_same(shared, seen, monkeypatch):
    data = frame(shared, seen, "jpeg", [np.zeros(0, np.uint16)] * 3)
    whole, _ = read(data, shared, "jpeg")
    monkeypatch.setattr(received, "BATCH", 2)
    parts, _ = read(data, shared, "jpeg")
    for a, b in zip(whole.samples, parts.samples, strict=True):
        np.testing.assert_allclose(a.tokens, b.tokens, atol=2e-2)


def test_a_frame_of_another_unit_is_refused(shared, seen):
    data = frame(shared, seen, "jpeg", [np.zeros(0, np.uint16)] * 3)
    with pytest.raises(FrameError, match=r"of form 1; expected 2 \(patches\)"):
        read(data, shared, "patches")
    with pytest.raises(FrameError, match="kind 3"):
        read(data, shared, "tokens")


def test_the_settings_caps_hold(shared, seen):
    data = frame(shared, seen, "jpeg", [np.zeros(0, np.uint16)] * 3)
    with pytest.raises(FrameError, match="3 samples; allowed: 2"):
        read(data, shared, "jpeg", **{"run.samples-per-round": 2})


def test_tokens_that_are_not_finite_are_refused(shared, seen, monkeypatch):
    data = frame(shared, seen, "jpeg", [np.zeros(0, np.uint16)] * 3)
    infinite = np.full((shared.n_tokens, shared.width), np.inf)
    monkeypatch.setattr(type(shared), "encode", lambda *_: [(infinite, shared.text.grid)] * 3)
    with pytest.raises(FrameError, match="no finite tokens for picture 0"):
        read(data, shared, "jpeg")


def test_five_kilobytes_of_long_questions_are_refused_before_they_take_memory(shared, config):
    """Questions of 1,024 ids made the cloud's batch of 96 as long as the longest of them."""
    limits = received.limits_of(config, shared, load_world(config, shared))
    ids = np.random.default_rng(0).integers(0, shared.vocab, 1024).tolist()
    where, tokens = np.arange(4, dtype=np.uint16), np.ones((4, shared.width), np.float32)

    def data(question):
        rows = (
            Sample(i, shared.grid, where, question, [1], 0.5, tokens=tokens) for i in range(limits.samples)
        )
        return token_batch.encode(Batch(0, 1, 0, tuple(rows)), shared.width, 3, shared.transform)

    honest = data(ids[: limits.question])
    assert len(read(honest, shared, "tokens", limits)[0].samples) == limits.samples
    attack = data(ids)
    assert len(attack) < 5300
    with pytest.raises(FrameError, match=f"question lengths up to 1024; allowed: 0..{limits.question}"):
        read(attack, shared, "tokens", limits)
    assert memory.peak(lambda: read(attack, shared, "tokens", limits), FrameError) < 192 * 1024


def test_limits_are_those_of_the_settings_and_of_the_longest_question(shared, config):
    world = load_world(config, shared)
    longest = max((shared.text.question_ids(q) for q in world.train["question"]), key=len)
    limits = received.limits_of(config, shared, world)
    assert limits == Limits(config.run.samples_per_round, len(longest), 8, config.uplink.tokens_kept)


def test_more_tokens_than_the_setting_a_longer_frame_and_another_transform_are_refused(shared):
    where = np.arange(40, dtype=np.uint16)
    tokens = np.random.default_rng(0).standard_normal((40, shared.width)).astype(np.float32)
    sample = Sample(0, shared.grid, where, [7], [8], 0.5, tokens=tokens)
    data = token_batch.encode(Batch(0, 1, 0, (sample,)), shared.width, 3, shared.transform)
    assert len(read(data, shared, "tokens")[0].samples) == 1
    for more, says in (
        ({"uplink.tokens-kept": 2}, "tokens kept up to 40; allowed: 0..2"),
        ({"uplink.budget": len(data) - 1}, "is too long"),
        ({"uplink.transform": "none"}, "this pair has none"),
    ):
        with pytest.raises(FrameError, match=says):
            read(data, shared, "tokens", **more)


def test_a_picture_larger_than_any_of_the_data_is_refused_unopened(shared, seen):
    data = frame(shared, seen, "jpeg", [np.zeros(0, np.uint16)] * 3)
    most = shared.side**2
    assert read(data, shared, "jpeg", Limits(3, 64, 8, 0, most))
    with pytest.raises(FrameError, match=f"a picture of {most} pixels; allowed: {most - 1}"):
        read(data, shared, "jpeg", Limits(3, 64, 8, 0, most - 1))


@pytest.mark.parametrize("tokens", [True, False])
def test_a_teacher_with_its_own_gets_its_own_words_and_pictures(tokens, shared, seen):
    """Its words are the student's here; no more of them than twice the longest honest question."""
    asked = shared.text.question_ids("what colour is the ring?")
    where = np.zeros(0, np.uint16)
    picture = picture_batch.coded(seen[0], where, "jpeg", shared.patch, 95)
    row = Sample(0, shared.grid, where, asked, [8], 0.5, picture=picture)
    data = picture_batch.encode(Batch(1, 2, 3, (row,)), "jpeg", shared.patch)
    teacher, config = Teacher(None, "", shared, tokens, False), parse({"uplink.unit": "jpeg"})

    def samples(words):
        got = received.received(data, shared, teacher, config, Limits(3, 64, 8), defaultdict(float), words)
        return got.samples

    (sample,) = samples(len(asked))
    assert sample.teacher.question_ids == asked
    assert sample.teacher.teacher is None
    np.testing.assert_array_equal(sample.teacher.tokens, sample.tokens)
    with pytest.raises(FrameError, match=f"question of {len(asked)} ids in the teacher's words; allowed: 2"):
        samples(1)


def test_a_picture_that_a_processor_does_not_take_is_refused(shared, seen, monkeypatch):
    def refuse(*_):
        raise ValueError("aspect ratio")

    monkeypatch.setattr(type(shared), "encode", refuse)
    with pytest.raises(FrameError, match="the processor of 'scenes' takes not all of it: aspect ratio"):
        read(frame(shared, seen, "jpeg", [np.zeros(0, np.uint16)] * 3), shared, "jpeg")
