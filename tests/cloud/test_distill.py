"""AKD on a real pair: what is learned, what is refused, and that it depends on nothing it should not."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch

from cdc_flower.cloud import distill
from cdc_flower.cloud.distill import Cloud, teach
from cdc_flower.cloud.passes import passes
from cdc_flower.cloud.replay import CloudSample, PseudoLabelled
from cdc_flower.config import Config, parse
from cdc_flower.models import adapters, room, several, vlm
from cdc_flower.models.placement import Place
from cdc_flower.models.student import twin_model
from tests.conftest import full


def with_settings(settings: dict[str, object], **more: object) -> Config:
    """A config in which every teacher's answer counts."""
    return parse({**settings, "cloud.confidence": 0.0, "cloud.steps": 4, "cloud.batch": 8, **full(more)})


def cloud_of(shared, teacher, config: Config, source: list[CloudSample] | None = None) -> Cloud:
    lessons, _ = teach(shared, teacher, source or [])
    return Cloud(config, shared, teacher, twin_model(shared, config.pair), lessons)


@torch.no_grad()
def loss_on(shared, teacher, cloud: Cloud, samples: list[CloudSample]) -> float:
    """Mean cross entropy of the teacher's answers under the twin, one sample at a time."""
    found = []
    for lesson in teach(shared, teacher, samples)[0]:
        s = lesson.sample
        inputs = vlm.collate(shared.text, [s.tokens], [s.question_ids], [lesson.answer_ids], [s.positions])
        logp = vlm.forward(cloud.twin, inputs).logits[0].log_softmax(-1)
        wanted = torch.tensor([*lesson.answer_ids, shared.text.eos])
        found.append(-logp.gather(-1, wanted[:, None]).mean().item())
    return float(np.mean(found))


def test_learning_brings_the_twin_closer_to_the_teachers_answers(shared, teacher, settings, samples):
    cloud = cloud_of(shared, teacher, with_settings(settings, cloud_steps=15, cloud_ema_decay=0.0))
    before = loss_on(shared, teacher, cloud, samples)
    learned = cloud.learn(samples, 1)
    assert loss_on(shared, teacher, cloud, samples) < 0.8 * before
    assert (learned.taught, learned.dropped) == (len(samples), 0)
    assert set(learned.losses) == {"ce", "kl"}
    np.testing.assert_array_equal(learned.adapter, adapters.read(cloud.twin))


@pytest.mark.parametrize("level", ["ce", "kl"])
def test_long_answers_are_learned_as_words_and_as_logits(level, shared, teacher, settings, samples):
    """A teacher that was never trained does not end its captions: all are cut, and no end is taught."""
    long = dataclasses.replace(shared, max_answer_tokens=12)
    lessons, _ = teach(long, teacher, samples[:4])
    assert {len(q.answer_ids) for q in lessons} == {12}
    assert not any(q.ended for q in lessons)
    cloud = cloud_of(long, teacher, with_settings(settings, losses=level, cloud_steps=6, cloud_batch=4))
    first, *_, last = (cloud.learn(samples[:4], round).losses[level] for round in (1, 2, 3))
    assert last < 0.8 * first


def test_every_weight_of_the_adapter_learns(shared, teacher, settings, samples):
    cloud = cloud_of(shared, teacher, with_settings(settings, cloud_steps=2, cloud_ema_decay=0.0))
    before = [p.detach().clone() for p in cloud.params]
    cloud.learn(samples, 1)
    moved = [not torch.equal(p, q) for p, q in zip(cloud.params, before, strict=True)]
    assert all(moved)


def test_what_is_shipped_is_the_running_mean_of_the_steps(shared, teacher, settings, samples):
    steps, decay, shipped = 3, 0.5, None
    cloud = cloud_of(shared, teacher, with_settings(settings, cloud_steps=1, cloud_ema_decay=decay))
    mean = adapters.read(cloud.twin)
    for round in range(1, steps + 1):
        shipped = cloud.learn(samples, round).adapter
        mean = decay * mean + (1 - decay) * adapters.read(cloud.twin)
    np.testing.assert_allclose(shipped, mean, atol=1e-6)


def test_only_the_adapter_is_changed(shared, teacher, settings, samples):
    cloud = cloud_of(shared, teacher, with_settings(settings))
    frozen = {n: p.clone() for n, p in cloud.twin.named_parameters() if not p.requires_grad}
    before = {n: p.clone() for n, p in teacher.model.named_parameters()}
    start = adapters.read(cloud.twin)
    cloud.learn(samples, 1)
    assert not np.array_equal(adapters.read(cloud.twin), start)
    assert all(torch.equal(p, frozen[n]) for n, p in cloud.twin.named_parameters() if n in frozen)
    assert all(torch.equal(p, before[n]) for n, p in teacher.model.named_parameters())


def test_samples_the_teacher_is_unsure_about_are_dropped_counted_and_still_answered(
    shared, teacher, settings, samples
):
    sure = sorted(q.confidence for q in teach(shared, teacher, samples)[0])
    threshold = (sure[4] + sure[5]) / 2
    cloud = cloud_of(shared, teacher, with_settings(settings, cloud_confidence=threshold))
    learned = cloud.learn(samples, 1)
    assert (learned.taught, learned.dropped) == (7, 5)
    assert len(learned.teacher_answers) == len(samples)
    assert all(q.confidence >= threshold for q in cloud.replay.past)
    assert len(cloud.replay.past) == 7


def test_without_weights_an_unsure_lesson_counts_like_a_sure_one(shared, teacher, settings, samples):
    first = {}
    for weighted in (True, False):
        cloud = cloud_of(shared, teacher, with_settings(settings, confidence_weighted=weighted))
        lessons, _ = teach(shared, teacher, samples)
        first[weighted] = cloud._terms(lessons)["ce"].item()
        ones = [dataclasses.replace(q, confidence=1.0) for q in lessons]
        assert (cloud._terms(ones)["ce"].item() == first[weighted]) is not weighted
    assert first[True] < first[False]


def test_a_weight_scales_what_a_sample_teaches_and_stays_with_it_in_replay(
    shared, teacher, settings, samples
):
    once = {"cloud_steps": 1, "replay_share": 0.0}
    full, half = (cloud_of(shared, teacher, with_settings(settings, **once)) for _ in range(2))
    alone = full.learn(samples, 1).losses
    weighted = half.learn(samples, 1, np.full(len(samples), 0.5)).losses
    assert weighted == pytest.approx({name: value / 2 for name, value in alone.items()})
    assert {q.weight for q in half.replay.past} == {0.5}


def test_with_no_confident_sample_or_none_at_all_nothing_is_learned(shared, teacher, settings, samples):
    cloud = cloud_of(shared, teacher, with_settings(settings, cloud_confidence=1.0))
    start = adapters.read(cloud.twin)
    for given, dropped in ((samples, len(samples)), ([], 0)):
        learned = cloud.learn(given, 1)
        assert (learned.taught, learned.dropped, learned.losses) == (0, dropped, {})
        np.testing.assert_array_equal(learned.adapter, start)
    assert cloud.replay.past == []


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(shared, teacher, settings, samples):
    def adapter(seed: int) -> np.ndarray:
        cloud = cloud_of(shared, teacher, with_settings(settings, seed=seed, cloud_steps=3), samples[:3])
        cloud.learn(samples[3:8], 1)
        return cloud.learn(samples[8:], 2).adapter

    first = adapter(0)
    np.testing.assert_array_equal(first, adapter(0))
    assert not np.array_equal(first, adapter(1))


def test_the_worlds_random_state_is_neither_read_nor_moved(shared, teacher, settings, samples):
    def adapter(noise: int) -> np.ndarray:
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        learned = cloud_of(shared, teacher, with_settings(settings, cloud_steps=2)).learn(samples[:4], 1)
        assert torch.equal(torch.random.get_rng_state(), before)
        return learned.adapter

    np.testing.assert_array_equal(adapter(1), adapter(2))


@pytest.mark.parametrize(("share", "old"), [(0.0, 0), (0.25, 2), (0.5, 4), (0.8, 6)])
def test_each_batch_holds_the_replay_share_of_the_past(
    shared, teacher, settings, samples, monkeypatch, share, old
):
    cloud = cloud_of(shared, teacher, with_settings(settings, replay_share=share, questions=1), samples[:4])
    source = {id(q) for q in cloud.replay.source}
    seen: list[list[PseudoLabelled]] = []
    monkeypatch.setattr(cloud, "_step", lambda batch: seen.append(batch) or {"ce": 0.0})
    cloud.learn(samples[4:], 1)
    assert [len(batch) for batch in seen] == [8] * 4
    assert [sum(id(q) in source for q in batch) for batch in seen] == [old] * 4


def test_without_a_past_the_whole_batch_is_new(shared, teacher, settings, samples, monkeypatch):
    cloud = cloud_of(shared, teacher, with_settings(settings, replay_share=0.5, questions=1))
    seen: list[int] = []
    monkeypatch.setattr(cloud, "_step", lambda batch: seen.append(len(batch)) or {})
    cloud.learn(samples, 1)
    assert seen == [8] * 4


def test_feature_and_wavelet_terms_are_finite_and_named(shared, teacher, settings, samples):
    config = with_settings(settings, losses="ce,kl,feature=0.5,wavelet=0.5", cloud_steps=2)
    learned = cloud_of(shared, teacher, config).learn(samples, 1)
    assert set(learned.losses) == {"ce", "kl", "feature", "wavelet"}
    assert np.isfinite(list(learned.losses.values())).all()


def test_there_is_no_place_for_a_label():
    """But for the one that only method `labelled` fills, what learning reads has no field for one."""
    assert [f.name for f in dataclasses.fields(CloudSample)] == [
        "tokens",
        "positions",
        "question_ids",
        "grid",
        "teacher",
        "label",
    ]
    assert CloudSample(np.zeros((1, 2)), np.arange(1), [], (1, 1, 1)).label is None
    assert "answer" not in inspect.signature(Cloud.learn).parameters
    assert list(inspect.signature(Cloud.learn).parameters)[:3] == ["self", "samples", "round"]


@pytest.mark.parametrize(("x", "half"), [(16.5, 17), (2.5, 3), (2.4, 2), (0.0, 0)])
def test_halves_are_rounded_up(x, half):
    assert distill.round_half(x) == half


@pytest.mark.parametrize("more", [{}, {"losses": "ce,kl,feature=0.1", "replay_bytes": 20_000}])
def test_a_cloud_that_comes_back_goes_on_bit_for_bit(shared, teacher, settings, samples, more):
    config = with_settings(settings, **more)
    one = cloud_of(shared, teacher, config, samples[:3])
    one.learn(samples[:6], 1)
    saved = {name: value.copy() if hasattr(value, "copy") else value for name, value in one.state().items()}
    two = cloud_of(shared, teacher, config, samples[:3])
    two.load(saved)
    for round in (2, 3):
        first, second = (cloud.learn(samples[4 * round - 5 :], round) for cloud in (one, two))
        assert first.adapter.tobytes() == second.adapter.tobytes()
        assert first.losses == second.losses
    assert adapters.read(one.twin).tobytes() == adapters.read(two.twin).tobytes()
    np.testing.assert_equal(one.state(), two.state())


def test_a_cloud_that_has_learned_nothing_comes_back_with_nothing(shared, teacher, settings, samples):
    config = with_settings(settings)
    one, two = cloud_of(shared, teacher, config), cloud_of(shared, teacher, config)
    two.learn(samples, 1)
    two.load(one.state())
    assert adapters.read(two.twin).tobytes() == adapters.read(one.twin).tobytes()
    np.testing.assert_equal(one.state(), two.state())


def test_the_state_of_another_model_is_refused(shared, teacher, settings):
    state = cloud_of(shared, teacher, with_settings(settings)).state()
    other = cloud_of(shared, teacher, with_settings(settings, lora_rank=2))
    with pytest.raises(ValueError, match=r"saved tensors have .* values, this model's have"):
        other.load(state)


def test_parts_that_pass_alone_make_the_step_of_the_whole_batch(shared, teacher, settings, samples):
    """All four losses, complete and partial pictures, sequences of unequal length."""
    config = with_settings(settings, losses="ce,kl=0.5,feature,wavelet=0.1", cloud_steps=1, replay_share=0.0)
    rng = np.random.default_rng(1)
    n, width = shared.n_tokens, shared.width
    whole = [
        dataclasses.replace(s, tokens=rng.normal(size=(n, width)).astype(np.float32), positions=np.arange(n))
        for s in samples[:3]
    ]
    lessons, _ = teach(shared, teacher, [*samples[:6], *whole])
    steps, gradients, at_once = [], [], []
    for longest in (0, 10**6, 6):
        cloud = Cloud(config, shared, teacher, twin_model(shared, config.pair), [], longest)
        at_once.append(len(passes(shared, lessons, len(lessons) * longest)))
        cloud.twin.train()
        steps.append(cloud._step(lessons))
        gradients.append(torch.cat([p.grad.flatten() for p in cloud._trained()]))
    assert at_once[:2] == [1, 1]
    assert at_once[2] > 4
    assert steps[0] == steps[1]
    assert torch.equal(gradients[0], gradients[1])  # bit for bit, where nothing is cut
    assert set(steps[0]) == {"ce", "kl", "feature", "wavelet"}
    assert steps[2] == pytest.approx(steps[0], rel=1e-5)
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-3, atol=1e-6)


def test_micro_batches_that_fit_into_memory_make_the_step_of_the_whole_batch(
    shared, teacher, settings, samples, monkeypatch
):
    config = with_settings(settings, losses="ce,kl=0.5,feature", cloud_steps=1, replay_share=0.0)
    lessons, _ = teach(shared, teacher, samples)
    steps, gradients, seen, forward = [], [], [], vlm.forward
    for budget in (2 * 2**30, 2**10):  # all at once; one at a time, with layers computed again
        place, calls = Place(torch.device("cpu"), torch.float32, budget), []

        def spied(model, inputs, calls=calls):
            calls.append(len(inputs.ids))
            return forward(model, inputs)

        monkeypatch.setattr(room, "here", lambda place=place: place)
        monkeypatch.setattr(vlm, "forward", spied)
        cloud = cloud_of(shared, teacher, config)
        assert cloud.one.again == (budget == 2**10)
        cloud.twin.train()
        steps.append(cloud._step(lessons))
        gradients.append(torch.cat([p.grad.flatten() for p in cloud._trained()]))
        seen.append(calls)
    assert seen == [[len(lessons)] * 2, [1] * 2 * len(lessons)]  # student and teacher
    assert steps[1] == pytest.approx(steps[0], rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)


def test_no_pass_is_larger_than_expected_whatever_came(shared, teacher, settings, samples, monkeypatch):
    config, most, seen = with_settings(settings, cloud_steps=3), 60, []

    def spied(made):
        def pass_(model, inputs, *more, **named):
            seen.append(inputs.ids.numel())
            return made(model, inputs, *more, **named)

        return pass_

    monkeypatch.setattr(vlm, "forward", spied(vlm.forward))
    monkeypatch.setattr(several, "answered", spied(several.answered))
    cloud = Cloud(config, shared, teacher, twin_model(shared, config.pair), [], most)
    long = [dataclasses.replace(s, question_ids=s.question_ids * 20) for s in samples]
    cloud.learn(long, 1)
    assert len(seen) >= 3 * 2
    assert max(seen) <= config.cloud.batch * most


def test_a_step_without_a_finite_gradient_changes_nothing(shared, teacher, settings, samples, caplog):
    cloud = cloud_of(shared, teacher, with_settings(settings, replay_share=0.0))
    lessons, _ = teach(shared, teacher, samples)
    spoilt = dataclasses.replace(
        lessons[0], sample=dataclasses.replace(samples[0], tokens=np.full_like(samples[0].tokens, np.inf))
    )
    before = adapters.read(cloud.twin)
    assert cloud._step([*lessons[1:], spoilt]) == {}
    np.testing.assert_array_equal(adapters.read(cloud.twin), before)
    assert set(cloud._step(lessons)) == {"ce", "kl"}
    assert np.isfinite(adapters.read(cloud.twin)).all()
    assert not np.array_equal(adapters.read(cloud.twin), before)
    real = cloud._step
    turns = iter([{}, real(lessons), {}, real(lessons)])
    cloud._step = lambda batch: next(turns)  # type: ignore[method-assign]
    learned = cloud.learn(samples, 1)
    assert learned.skipped == 2
    assert all(np.isfinite(v) and v > 0 for v in learned.losses.values())
    assert "2 of 4 steps had no finite gradient" in caplog.text


def test_a_sample_of_which_the_teacher_says_nothing_finite_teaches_nothing(
    shared, teacher, settings, samples
):
    cloud = cloud_of(shared, teacher, with_settings(settings))
    huge = [dataclasses.replace(s, tokens=np.full_like(s.tokens, 3e38)) for s in samples[:2]]
    learned = cloud.learn([*samples[2:], *huge], 1)
    assert (learned.taught, learned.dropped) == (len(samples) - 2, 2)
    assert np.isfinite(learned.adapter).all()
