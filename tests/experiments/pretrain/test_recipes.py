"""A quick try is the same recipe with fewer steps."""

import dataclasses

from experiments.pretrain.recipes import RECIPES, Recipe, shares, shortened

TINY = Recipe(tower_steps=3, teacher_steps=4, student_steps=3)


def test_a_share_of_the_steps_is_at_least_one_of_each_stage():
    short = shortened(TINY, 0.5)
    assert (short.tower_steps, short.teacher_steps, short.student_steps) == (2, 2, 2)
    assert shortened(TINY, 1e-6) == dataclasses.replace(TINY, tower_steps=1, teacher_steps=1, student_steps=1)
    assert shortened(TINY, 1.0) == TINY


def test_a_recipe_says_what_share_of_its_datas_own_steps_it_takes():
    assert set(shares("emoji", RECIPES["emoji"]).values()) == {1.0}
    assert set(shares("photos", shortened(Recipe(), 0.02)).values()) == {0.02}
