"""Training by episodes, on the small pair: what it learns, what it keeps apart, that it is the same again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdc_flower.cloud import episodes
from cdc_flower.cloud.episodes import Student, User, drawn, kept, look, parted, train
from cdc_flower.cloud.fda import Adaptor, Seen
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.models import adapters, vlm
from cdc_flower.models.student import twin_model

WORDS = ("red", "blue")


@pytest.fixture(scope="module")
def users(shared) -> list[User]:
    """Six users of three clips with two questions each; every second one answers everything with 'blue', and
    its questions say so."""
    rng, made = np.random.default_rng(0), []
    for u in range(6):
        word = WORDS[u % 2]
        asked = [shared.text.question_ids(f"is there a {word} {what}?") for what in ("ring", "star")]
        samples, features = [], []
        for _ in range(3):
            tokens = rng.normal(size=(8, shared.width)).astype(np.float32)
            features += [np.resize(tokens.mean(0), 6)] * 2
            samples += [CloudSample(tokens, np.arange(8), q, shared.grid) for q in asked]
        answers = [shared.text.answer_ids(word)] * 6
        made.append(
            User(f"u{u}", Seen(np.stack(features), [s.question_ids for s in samples]), samples, answers)
        )
    return made


@pytest.fixture
def parts(shared, config):
    def make(kind="head", constant=False):
        twin = twin_model(shared, config.pair)
        layout = adapters.layout(twin)
        adaptor = Adaptor(layout, adapters.read(twin), kind, shared.vocab, 6, constant)
        return adaptor, Student(shared, twin, adaptor.at.numpy())

    return make


def test_an_episode_asks_about_other_clips_than_it_shows(users):
    for seed in range(5):
        one = drawn(users[0], np.random.default_rng(seed))
        shown, asked = ({id(users[0].samples[i].tokens) for i in rows} for rows in (one.support, one.queries))
        assert shown
        assert asked
        assert not shown & asked


def test_users_are_held_out_by_their_names_whatever_their_order(users):
    taught, held = parted(users)
    again = parted(users[::-1])
    assert {u.name for u in held} == {u.name for u in again[1]}
    assert not {u.name for u in taught} & {u.name for u in held}
    assert len(taught) + len(held) == len(users)


@pytest.mark.parametrize("kind", ["head", "basis"])
def test_logits_of_generated_values_are_those_of_the_student_that_wears_them(kind, users, parts, shared):
    adaptor, student = parts(kind)
    with torch.no_grad():
        adaptor.basis.normal_(std=0.05)
    one = drawn(users[0], np.random.default_rng(0))
    seen = users[0].seen.some(one.support)
    with torch.no_grad():
        found, wanted = student.logits(adaptor.generated(adaptor.summary(seen)), one)
    samples = [users[0].samples[i] for i in one.queries]
    answers = [users[0].answers[i] for i in one.queries]
    inputs = vlm.collate(
        shared.text,
        [s.tokens for s in samples],
        [s.question_ids for s in samples],
        answers,
        [s.positions for s in samples],
        grids=[s.grid for s in samples],
    )
    with adapters.wearing(student.model, adaptor.adapter(seen)) as model, torch.no_grad():
        true = vlm.forward(model, inputs).logits
    torch.testing.assert_close(found, true, atol=1e-4, rtol=1e-4)
    assert torch.equal(wanted, inputs.answer_ids)
    assert student.head_alone is (kind == "head")


def test_a_user_s_own_words_are_learned_from_its_questions_and_one_for_all_does_not_know_them(users, parts):
    losses = {}
    for constant in (False, True):
        adaptor, student = parts(constant=constant)
        before = adapters.read(student.model)
        looks = train(adaptor, student, users, 16)
        best = min(one.loss for one in looks)
        losses[constant] = best
        assert best < looks[0].loss
        judged = [drawn(u, np.random.default_rng(0)) for u in users]
        found = look(adaptor, student, judged)
        assert (found.accuracy > 0.9) is not constant
        np.testing.assert_array_equal(adapters.read(student.model), before)
    assert losses[False] < 0.5 * losses[True]


def test_the_same_again_has_the_same_bits_and_comes_from_the_cache(users, parts, tmp_path):
    path, made = tmp_path / "deep" / "state.safetensors", []

    def trained(adaptor, student):
        made.append(1)
        train(adaptor, student, users, 2)

    first = parts()
    kept(path, first[0], lambda: trained(*first))
    again, cached = parts(), parts()[0]
    trained(*again)
    kept(path, cached, lambda: made.append("never"))
    assert made == [1, 1]
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name])
        assert torch.equal(value, cached.state_dict()[name])
    path.write_bytes(b"no state")
    kept(path, parts()[0], lambda: made.append("anew"))
    assert made[-1] == "anew"


def test_the_digest_knows_every_setting():
    assert episodes.digest({"a": 1}) != episodes.digest({"a": 2})


def test_a_user_with_one_clip_is_both(users):
    one = users[0]
    first = one.clips[0]
    alone = replace(
        one,
        seen=one.seen.some(first),
        samples=[one.samples[i] for i in first],
        answers=[one.answers[i] for i in first],
    )
    found = drawn(alone, np.random.default_rng(0))
    assert found.support
    assert found.queries
