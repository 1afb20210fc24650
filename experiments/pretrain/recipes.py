"""Sizes and training lengths of a pair: one recipe per known pack, found by trying; see docs/log.md."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from cdc_flower.config import ConfigError


@dataclass(frozen=True)
class LanguageModel:
    """A small Llama: widths are multiples of 64 so that NF4 blocks fill."""

    hidden: int
    layers: int
    intermediate: int
    heads: int = 4


@dataclass(frozen=True)
class Recipe:
    """All that `pretrain` needs beyond the pack; defaults for `scenes`. Steps are optimizer steps."""

    pictures: int = 6000  # generated data only: how many to train on
    image_side: int = 96  # pixels; pictures are resized to it
    patch: int = 12
    tower_width: int = 64
    tower_layers: int = 4
    tower_steps: int = 1000
    tower_batch: int = 64
    tower_lr: float = 2e-3
    augment: bool = False  # shifts, brightness, contrast: for packs with few real photos
    flip: bool = False
    teacher: LanguageModel = LanguageModel(128, 3, 320)
    teacher_steps: int = 4000
    student: LanguageModel = LanguageModel(64, 3, 192)
    student_steps: int = 2000
    student_words: bool = True  # its words start at what they name, also those of domains it is not taught
    batch: int = 32  # pictures
    turns: int = 6  # questions about each
    full_every: int = 2  # one batch in so many is of complete pictures, the others miss tokens
    lr: float = 2e-3
    muon_lr: float = 4e-3
    label_smoothing: float = 0.0
    seed: int = 0


RECIPES: dict[str, Recipe] = {
    "scenes": Recipe(),
    "clips": Recipe(
        image_side=32, patch=8, tower_steps=1200, tower_batch=256, teacher_steps=900, student_steps=2200
    ),
    "easyvqa": Recipe(
        image_side=64,
        patch=8,
        full_every=4,
        student_words=False,
        tower_steps=700,
        teacher_steps=1200,
        student_steps=800,
    ),
    "emoji": Recipe(
        image_side=48, patch=6, tower_steps=2500, teacher_steps=1600, student_steps=800, augment=True
    ),
    "penstrokes": Recipe(
        image_side=64, patch=16, student_words=False, tower_steps=500, teacher_steps=700, student_steps=500
    ),
    "robotbottle": Recipe(
        image_side=64,
        patch=16,
        student_words=False,
        tower_steps=400,
        teacher_steps=500,
        student_steps=400,
        augment=True,
    ),
    "signdigits": Recipe(
        image_side=64,
        patch=8,
        full_every=4,
        student_words=False,
        tower_steps=2200,
        teacher_steps=800,
        student_steps=500,
        augment=True,
    ),
}
"""By pack name; any other pack uses `Recipe()`."""


STAGES = {
    "tower": "the picture encoder that both models see through",
    "teacher": "the large model, on everything that may come",
    "student": "the small model, on what devices know",
}
"""Stage -> what is trained in it, in the order in which they are; a recipe has `<stage>_steps` of each."""


def shortened(recipe: Recipe, share: float) -> Recipe:
    """The recipe with `share` of the steps of every stage, at least one of each; for a quick try.

    Raises:
        ConfigError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ConfigError(f"steps-share = {share:g}; allowed: above 0, at most 1")
    steps = {f"{stage}_steps": getattr(recipe, f"{stage}_steps") for stage in STAGES}
    return dataclasses.replace(recipe, **{name: max(1, round(share * n)) for name, n in steps.items()})


def shares(name: str, recipe: Recipe) -> dict[str, float]:
    """Of the steps that the data's own recipe has, those that a recipe takes: stage -> share."""
    whole = RECIPES.get(name, Recipe())
    return {
        stage: round(getattr(recipe, f"{stage}_steps") / getattr(whole, f"{stage}_steps"), 4)
        for stage in STAGES
    }
