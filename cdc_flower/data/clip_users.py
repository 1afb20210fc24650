"""Users of the generated clips: a profile each, drawn from the user's number alone.

What a user sees is its own mix of shapes, colours, directions, styles and kinds of question (P(x)); what it
calls things is of each of five independent categories of words one vocabulary of three (P(y|x)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

SHAPES = {
    "ball": "circle",
    "box": "square",
    "wedge": "triangle",
    "plus": "cross",
    "ring": "ring",
    "star": "star",
}
"""What a thing is called here -> the sprite of `scenes`."""
INKS = ("red", "green", "blue", "yellow", "purple", "orange")
STYLES = ("day", "night", "outline")
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
KINDS = ("what", "where", "count", "first", "meet", "yesno", "colour", "speed")
VOCABULARIES = {
    "colour": (
        "red green blue yellow purple orange",
        "crimson emerald azure gold violet amber",
        "cherry leaf sea sun plum rust",
    ),
    "shape": (
        "ball box wedge plus ring star",
        "disc square tent cross hoop spark",
        "dot block roof mark loop flare",
    ),
    "direction": ("left right up down", "west east north south", "port starboard fore aft"),
    "number": ("0 1 2 3", "zero one two three", "none single pair trio"),
    "verdict": ("yes no", "yep nope", "true false"),
}
"""Category -> its three vocabularies; the first has the words that this module uses."""
_PROFILES = 1406  # seed of the profiles


@dataclass(frozen=True)
class Profile:
    """What a user is like.

    Attributes:
        words: word of this module -> the user's.
        shapes, colours, directions, styles, kinds: how likely each is, in the order of its list.
    """

    words: Mapping[str, str]
    shapes: np.ndarray
    colours: np.ndarray
    directions: np.ndarray
    styles: np.ndarray
    kinds: np.ndarray


@cache
def profile(user: int) -> Profile:
    """Of a user, by its number alone."""
    rng = np.random.default_rng([_PROFILES, user])
    words: dict[str, str] = {}
    for vocabularies in VOCABULARIES.values():
        mine = vocabularies[int(rng.integers(len(vocabularies)))]
        words.update(zip(vocabularies[0].split(), mine.split(), strict=True))

    def mix(count: int, even: float) -> np.ndarray:
        return 0.9 * rng.dirichlet([even] * count) + 0.1 / count

    return Profile(
        words,
        mix(len(SHAPES), 1),
        mix(len(INKS), 1),
        mix(len(STEPS), 4),
        mix(len(STYLES), 1),
        mix(len(KINDS), 2),
    )
