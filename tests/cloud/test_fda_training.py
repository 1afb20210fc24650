"""Training by episodes, on the small pair: what it learns, what it keeps apart, that it is the same again."""

from __future__ import annotations

import numpy as np
import torch

from cdc_flower.cloud.episodes import MOST, drawn
from cdc_flower.cloud.fda_training import digest, look, parted, train
from cdc_flower.cloud.trained import kept
from cdc_flower.draws import generator
from cdc_flower.models import adapters


def test_users_are_held_out_by_their_names_whatever_their_order(users):
    taught, held = parted(users)
    again = parted(users[::-1])
    assert {u.name for u in held} == {u.name for u in again[1]}
    assert not {u.name for u in taught} & {u.name for u in held}
    assert len(taught) + len(held) == len(users)


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
        if constant:
            held = [drawn(u, generator(0, "held out/" + u.name), MOST) for u in parted(users)[1]]
            assert look(adaptor, student, held).accuracy == max(one.accuracy for one in looks)
        assert (found.accuracy > 0.9) is not constant
        np.testing.assert_array_equal(adapters.read(student.model), before)
    assert losses[False] < 0.5 * losses[True]


def test_the_same_again_has_the_same_bits_and_comes_from_the_cache(users, parts, tmp_path):
    path, made = tmp_path / "deep" / "state.safetensors", []

    def trained(adaptor, student):
        made.append(1)
        train(adaptor, student, users, 2)
        return adaptor

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
    kept(path, parts()[0], lambda: made.append("anew") or first[0])
    assert made[-1] == "anew"


def test_the_digest_knows_every_setting():
    assert digest({"a": 1}) != digest({"a": 2})
