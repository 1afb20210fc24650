"""UTS on the device: the most uncertain first, within the budget, and nothing from an adapter that is not the
newest.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from flwr.app import RecordDict

from cdc_flower.models import adapters
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures import mosaic, picture_batch
from cdc_flower.uplink.scores import MC_PASSES, TOKEN_SCORES
from cdc_flower.wire import gate
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import frame_of, message_bytes
from clients import cdc
from clients.inference import alone, answer
from clients.store import Store
from clients.task import resident


def done(task) -> RecordDict:
    return alone(cdc.work(task))


def memory() -> Store:
    return Store(RecordDict())


def decoded(task, content):
    shared = task.shared
    return token_batch.decode(
        frame_of(content), shared.fits, shared.width, shared.vocab, 2**20, transform=shared.transform
    )


def test_noise_is_on_what_goes_up_alone_and_nobody_without_the_secret_draws_it_again(make_task):
    plain, loud = make_task(), make_task(uplink_clip=1.0, uplink_noise=0.5)
    secret = dataclasses.replace(loud, secret=b"of the device")
    first, again, hidden, true = (done(task) for task in (loud, loud, secret, plain))
    assert frame_of(first) == frame_of(again) != frame_of(hidden)
    sent, own = decoded(loud, first).samples[0], decoded(plain, true).samples[0]
    assert (sent.index, sent.answer_ids, sent.uncertainty) == (own.index, own.answer_ids, own.uncertainty)
    apart = (sent.tokens - own.tokens).std()
    assert 0.3 < apart < 2


def test_a_token_of_a_picture_has_one_noise_whatever_is_asked_and_whenever(make_task):
    task = dataclasses.replace(make_task(uplink_clip=1.0, uplink_noise=0.5), secret=b"of the device")
    rng, absent = np.random.default_rng(0), (None, None)
    first, second = (rng.normal(size=(9, task.shared.width)).astype(np.float16) for _ in range(2))
    asked = cdc.Round(task, *absent, [first, second], [], [], *absent)
    again = cdc.Round(dataclasses.replace(task, round=task.round + 1), *absent, [second], [], [], *absent)
    sent = asked.sent(1, np.array([2, 5, 7]))
    np.testing.assert_array_equal(sent[1:], again.sent(0, np.array([5, 7])))

    def noise(now, sample, tokens):
        every = np.arange(len(tokens))
        plain = dataclasses.replace(now, task=make_task(uplink_clip=1.0))
        return now.sent(sample, every) - plain.sent(sample, every)

    own = [noise(asked, 0, first), noise(asked, 1, second)]
    assert abs(np.corrcoef(*(one.ravel() for one in own))[0, 1]) < 0.2


def test_what_goes_up_is_the_most_uncertain_first_with_its_true_tokens(make_task):
    task = make_task(uplink_transform="none")
    content = done(task)
    batch = decoded(task, content)
    doubts = [s.uncertainty for s in batch.samples]
    assert (batch.device, batch.round, batch.version) == (0, 1, 0)
    assert doubts == sorted(doubts, reverse=True)
    for sample in batch.samples:
        item = task.items[sample.index]
        true = task.source.tokens(item)[sample.positions].astype(np.float32)
        assert len(sample.positions) == task.config.uplink.tokens_kept
        np.testing.assert_allclose(sample.tokens, true, atol=np.abs(true).max() / 5.9)  # half a 3-bit step
        assert sample.question_ids == task.questions([item])[0]


def test_the_budget_holds_for_the_whole_message_and_is_used(make_task):
    whole = message_bytes(done(make_task(uplink_budget=10**6)))
    sent = []
    for budget in (whole * 7 // 10, whole, whole + 60):
        task = make_task(uplink_budget=budget)
        content = done(task)
        assert message_bytes(content) <= budget
        assert content["metrics"]["uploaded"] == len(decoded(task, content).samples) >= 1
        sent.append(content["metrics"]["uploaded"])
    assert sent[0] < sent[2] == len(task.items)


def test_with_a_transform_the_budget_holds_and_only_its_owner_reads_the_frame(make_task):
    turned = make_task(uplink_transform="pca", token_bits=4, uplink_budget=1500)
    task = dataclasses.replace(turned, shared=dataclasses.replace(turned.shared, transform=None))
    content = done(turned)
    assert message_bytes(content) <= 1500
    assert content["metrics"]["uploaded"] >= 1
    with pytest.raises(FrameError, match="this pair has none"):
        decoded(task, content)
    for sample in decoded(turned, content).samples:
        item = task.items[sample.index]
        true = task.source.tokens(item)[sample.positions].astype(np.float32)
        assert np.linalg.norm(sample.tokens - true) < 0.2 * np.linalg.norm(true)


@pytest.mark.parametrize("score", list(TOKEN_SCORES))
def test_every_token_score_gives_a_legal_frame_and_counts_its_passes(make_task, score):
    task = make_task(token_score=score)
    content = done(task)["metrics"]
    assert content["tokens"] == 4 * content["uploaded"] > 0
    plain = done(make_task(token_score="random"))["metrics"]
    counts, least = Counts.of(content), Counts.of(plain)
    more = counts + least * -1
    seen = 6 * task.shared.n_tokens
    if score == "entropy":  # the head at every vision token, not only where the answer is
        assert more == Counts(predicted=seen)
    elif score == "mc_dropout":
        assert (more.passes, more.vision, more.decoded) == (4 * 6, 4 * seen, 0)
        assert more.positions > 4 * seen
    else:  # attention is read off the pass that answers
        assert more == Counts()


def pictures_of(task, content):
    """The batch of a PICTURE_BATCH frame and its pictures."""
    shared, up = task.shared, task.config.uplink
    frame = frame_of(content)
    return picture_batch.decode(frame, up.unit, shared.patch, shared.fits, shared.vocab, up.budget)


@pytest.mark.parametrize("unit", ["jpeg", "patches"])
def test_pictures_go_up_as_tokens_do(make_task, unit):
    settings = {"uplink_budget": 10**6}
    plain = make_task(**settings)
    tokens = {s.index: s for s in decoded(plain, done(plain)).samples}
    task = make_task(**settings, uplink_unit=unit)
    content = done(task)
    batch, seen = pictures_of(task, content)
    assert (batch.device, batch.round, batch.version) == (0, 1, 0)
    assert [s.index for s in batch.samples] == list(tokens)
    assert len(tokens) == 6
    for sample, got in zip(batch.samples, seen, strict=True):
        same = tokens[sample.index]
        assert (sample.question_ids, sample.answer_ids) == (same.question_ids, same.answer_ids)
        assert sample.uncertainty == same.uncertainty
        true = task.picture(task.items[sample.index])
        if unit == "patches":
            assert sample.positions.tolist() == same.positions.tolist()
            true = mosaic.cut(true, sample.positions, task.shared.patch)
        else:
            assert len(sample.positions) == 0
        assert got.shape == true.shape
        assert np.abs(got.astype(int) - true).mean() < 14
    kept = {"jpeg": task.shared.n_tokens, "patches": 4}[unit]
    assert content["metrics"]["tokens"] == 6 * kept


@pytest.mark.parametrize("unit", ["jpeg", "patches"])
def test_the_budget_holds_for_pictures_and_is_used(make_task, unit):
    sent = []
    for budget in (1900, 2600, 10**6):
        task = make_task(uplink_budget=budget, uplink_unit=unit, picture_quality=60)
        content = done(task)
        assert message_bytes(content) <= budget
        sent.append(len(pictures_of(task, content)[0].samples))
        assert content["metrics"]["uploaded"] == sent[-1]
    assert 1 <= sent[0] <= sent[1] <= sent[2] == 6


def test_a_better_quality_costs_more(make_task):
    settings = {"uplink_budget": 10**6, "uplink_unit": "jpeg"}
    frames = [frame_of(done(make_task(**settings, picture_quality=q))) for q in (30, 75, 95)]
    assert len(frames[0]) < len(frames[1]) < len(frames[2])


def test_a_whole_picture_needs_no_token_score(make_task):
    def spent(unit):
        task = make_task(uplink_unit=unit, token_score="mc_dropout")
        return Counts.of(done(task)["metrics"]).positions

    assert spent("tokens") == spent("patches") == pytest.approx((1 + MC_PASSES) * spent("jpeg"), rel=0.15)


def test_decoded_tokens_are_counted_with_end_tokens(make_task):
    task = make_task()
    content = done(task)
    student = resident(task.shared, task.config.pair)
    adapters.write(student.model, student.initial.flat)
    tokens, asked, limit = task.tokens(task.items), task.questions(task.items), task.shared.max_answer_tokens
    ids = answer(student.model, task.shared, task.source.longest, tokens, asked).ids
    assert Counts.of(content["metrics"]).decoded == sum(
        len(i) if len(i) == limit else len(i) + 1 for i in ids
    )


def test_all_samples_go_up_with_every_token_exactly_where_the_settings_say_so(make_task):
    task = make_task(tokens_kept=0, token_bits=16, uplink_budget=0)
    batch = decoded(task, done(task))
    assert sorted(s.index for s in batch.samples) == list(range(6))
    for sample in batch.samples:
        true = task.tokens(task.items[[sample.index]])[0]
        np.testing.assert_array_equal(sample.tokens, true.astype(np.float32))


def test_by_the_gate_a_device_sends_what_is_news_and_says_how_sure_it_was(make_task):
    weights = np.zeros(gate.WEIGHTS)
    order = {"gate": gate.pack(weights - 16)}  # nothing is news
    everything = {"sample_score": "worth", "uplink_budget": 0}
    whole, none = make_task(**everything), make_task(order=order, uplink_least_worth=1.0, **everything)
    assert done(whole)["metrics"]["uploaded"] == len(whole.items)
    sent = [
        done(make_task(round=r, order=order, uplink_least_worth=1.0, **everything))["metrics"]["uploaded"]
        for r in (1, 2)
    ]
    assert sum(sent) < len(none.items)  # a twentieth of them, by chance
    batch = decoded(whole, done(whole))
    student = resident(whole.shared, whole.config.pair)
    answers = answer(
        student.model,
        whole.shared,
        whole.source.longest,
        whole.tokens(whole.items),
        whole.questions(whole.items),
    )
    for sample in batch.samples:
        assert sample.uncertainty == np.float16(answers.entropy[sample.index])


@pytest.mark.parametrize("bad", [b"", b"x" * gate.BYTES, 7, "gate"])
def test_a_gate_that_cannot_be_read_is_as_none(make_task, bad):
    choosing = {"sample_score": "worth", "uplink_least_worth": 1.0}
    with_bad, without = done(make_task(order={"gate": bad}, **choosing)), done(make_task(**choosing))
    assert frame_of(with_bad) == frame_of(without)
