"""Claims about the users of the generated clips: profiles, and the words that they use."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from cdc_flower.data import clips
from cdc_flower.data.clip_users import VOCABULARIES, profile


def test_vocabularies_share_no_word_and_are_few():
    every = [word for kind in VOCABULARIES.values() for words in kind for word in words.split()]
    assert len(set(every)) == len(every) < 80
    assert {len(kind) for kind in VOCABULARIES.values()} == {3}


def test_categories_are_independent_and_every_vocabulary_is_common():
    chosen = [
        tuple(profile(user).words[words[0].split()[0]] for words in VOCABULARIES.values())
        for user in range(600)
    ]
    assert len(set(chosen)) > 200, "of 243"
    for of_category in zip(*chosen, strict=True):
        assert min(Counter(of_category).values()) > 150


def test_mixes_add_up_and_differ():
    one, other = profile(1), profile(2)
    for mix in ("shapes", "colours", "directions", "styles", "kinds"):
        assert np.isclose(getattr(one, mix).sum(), 1)
        assert not np.allclose(getattr(one, mix), getattr(other, mix))


def test_a_user_speaks_its_own_words_alone():
    every = {word for kind in VOCABULARIES.values() for words in kind for word in words.split()}
    train = clips.generate(4, 3).train
    for user, rows in train.groupby("user"):
        said = set(re.findall(r"\w+", " ".join([*rows.question, *rows.answer])))
        assert said & every <= set(profile(int(user[4:])).words.values())
    assert len(set(re.findall(r"\w+", " ".join([*train.question, *train.answer])))) < 150
