"""`clips`: embedded data of short clips, generated, deterministic, of users who differ.

A clip is eight pictures of 32 x 32 pixels: two or three things of different shapes and colours, some of which
move, soon or late, slowly or fast, straight or wavering, and perhaps meet. With patches of 8 pixels it has
128 tokens. Questions are of eight kinds; where something goes, what starts first, what goes left and whether
things meet need the order of the frames.

Users differ in what they see and in what they call it. A user's **profile** is drawn from its number alone,
whatever the seed: a mix of shapes, colours, directions, styles and kinds of question (P(x)), and of each of
five independent categories of words one vocabulary of three (P(y|x)): what one calls red another calls
crimson. A user's questions are in its own words, so that they tell its vocabularies without a label; no
question says a word of the category that it asks for, but for those that offer two things to choose from.

Seed 0 has the users that models are trained on; other seeds have the users of devices, other clips, and half
of their users are known to seed 0 (column `familiar`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from cdc_flower.data.clip_things import (
    FPS,
    FRAMES,
    MET,
    RADIUS,
    SIDE,
    Thing,
    distances,
    draw,
    moving_chances,
    things_of,
)
from cdc_flower.data.clip_users import STEPS, STYLES, Profile, profile
from cdc_flower.data.packs import CAPTION, Pack

EACH = 5  # questions about a clip, and a caption
TAGGED = 0.4  # share of questions that end with the user's word for yes


Ask = Callable[[Sequence[Thing], Profile, np.random.Generator], tuple[str, str] | None]


def _moving(things: Sequence[Thing]) -> list[Thing]:
    return [thing for thing in things if thing.way]


def _pick(items: Sequence[Any], rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]


def _what(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str] | None:
    ways = [thing.way for thing in things]
    single = [thing for thing in things if ways.count(thing.way) == 1]
    if not single:
        return None
    thing = _pick(single, rng)
    return (f"what goes {own.words[thing.way]}" if thing.way else "what stays"), own.words[thing.shape]


def _where(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str] | None:
    if not _moving(things):
        return None
    thing = _pick(_moving(things), rng)
    ink = f"{own.words[thing.colour]} " if rng.random() < 0.5 else ""
    return f"where does the {ink}{own.words[thing.shape]} go", own.words[thing.way]


def _count(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str]:
    moving = len(_moving(things))
    if rng.random() < 0.5:
        return "how many things move", own.words[str(moving)]
    return "how many things stay", own.words[str(len(things) - moving)]


def _first(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str] | None:
    moving = _moving(things)
    pairs = [(a, b) for a in moving for b in moving if abs(a.start - b.start) > 1]
    if not pairs:
        return None
    a, b = _pick(pairs, rng)
    return f"which starts first, the {own.words[a.shape]} or the {own.words[b.shape]}", own.words[
        min(a, b, key=_start).shape
    ]


def _start(thing: Thing) -> int:
    return thing.start


def _meet(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str] | None:
    """Of pairs that could: one of them moves."""
    pairs = [(a, b) for a in things for b in things if a is not b and (a.way or b.way)]
    met = [(a, b) for a, b in pairs if distances(a.at, b.at).min() <= MET]
    if not pairs:
        return None
    a, b = _pick(met or pairs, rng)
    return f"do the {own.words[a.shape]} and the {own.words[b.shape]} meet", own.words["yes" if met else "no"]


def _yesno(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str]:
    """What a "no" names is drawn as what there is, so that the question does not tell."""
    moving, right = _moving(things), rng.random() < 0.5
    verdict = own.words["yes" if right else "no"]
    if moving and rng.random() < 0.7:
        thing = _pick(moving, rng)
        way = thing.way if right else _other(list(STEPS), thing.way, own.directions, rng)
        return f"does the {own.words[thing.shape]} go {own.words[way]}", verdict
    numbers = [str(n) for n in range(len(things) + 1)]
    number = str(len(moving))
    if not right:
        number = _other(numbers, number, moving_chances(len(things)), rng)
    return f"is it {own.words[number]} that move", verdict


def _other(items: Sequence[str], but: str, chances: np.ndarray, rng: np.random.Generator) -> str:
    """One of the items but one."""
    left = chances * np.array([item != but for item in items])
    return items[int(rng.choice(len(items), p=left / left.sum()))]


def _colour(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str]:
    thing = _pick(things, rng)
    return f"what colour is the {own.words[thing.shape]}", own.words[thing.colour]


def _speed(things: Sequence[Thing], own: Profile, rng: np.random.Generator) -> tuple[str, str] | None:
    if not _moving(things):
        return None
    thing = _pick(_moving(things), rng)
    return f"is the {own.words[thing.shape]} slow or fast", thing.speed


ASK: dict[str, Ask] = {
    "what": _what,
    "where": _where,
    "count": _count,
    "first": _first,
    "meet": _meet,
    "yesno": _yesno,
    "colour": _colour,
    "speed": _speed,
}
"""Kind of question -> one about a clip, without its mark, and its answer; None where the clip allows none."""
VERDICTS = ("meet", "yesno")


def _caption(things: Sequence[Thing], say: Mapping[str, str]) -> str:
    """A sentence about all things, in the user's words; by shape, so that one clip has one."""
    parts = [
        f"the {say[t.colour]} {say[t.shape]} " + (f"goes {say[t.way]}" if t.way else "stays")
        for t in sorted(things, key=lambda thing: thing.shape)
    ]
    return " and ".join(parts) + "."


def _attributes(things: Sequence[Thing]) -> str:
    """What every frame shows and where, as in `scenes`; frames are apart by "|"."""
    frames = []
    for frame in range(FRAMES):
        parts = []
        for thing in things:
            x, y = thing.at[frame]
            box = ",".join(
                f"{v / SIDE:.3f}" for v in (x - RADIUS, y - RADIUS, x + RADIUS + 1, y + RADIUS + 1)
            )
            parts += [f"{name}@{box}" for name in (thing.shape, thing.colour)]
        frames.append(";".join(parts))
    return "|".join(frames)


class Drawn(Mapping[str, tuple[bytes, ...]]):
    """clip_id -> its frames, drawn when they are asked for.

    Args:
        clips: clip_id -> things, style, and the seed of the grain.
    """

    def __init__(self, clips: Mapping[str, tuple[list[Thing], str, list[int]]]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[str]:
        return iter(self._clips)

    def __contains__(self, name: object) -> bool:
        return name in self._clips

    def __getitem__(self, name: str) -> tuple[bytes, ...]:
        things, style, seed = self._clips[name]
        return draw(things, style, np.random.default_rng(seed))


def _split(split: str, users: range, known: int, each: int, seed: int) -> tuple[pd.DataFrame, Drawn]:
    rows, clips = [], {}
    for user in users:
        own, familiar = profile(user), "seen" if user < known else "unseen"
        for number in range(each):
            at = [seed, 0 if split == "train" else 1, user, number]
            rng = np.random.default_rng(at)
            things = things_of(own, rng)
            style = STYLES[int(rng.choice(len(STYLES), p=own.styles))]
            clip_id = f"{split}-{user:04d}-{number:03d}"
            clips[clip_id] = things, style, [*at, 0]
            same = style, f"user{user:04d}", familiar, FPS, _attributes(things)
            asked = {kind: ask(things, own, rng) for kind, ask in ASK.items()}
            order = rng.choice(len(ASK), len(ASK), replace=False, p=own.kinds)
            able = [(kind, asked[kind]) for kind in np.array(list(ASK))[order] if asked[kind] is not None]
            for kind, (question, answer) in able[:EACH]:  # type: ignore[misc]
                tag = f", {own.words['yes']}" if kind not in VERDICTS and rng.random() < TAGGED else ""
                rows.append((clip_id, f"{question}{tag}?", answer, str(kind), *same))
            rows.append((clip_id, "describe the clip.", _caption(things, own.words), CAPTION, *same))
    columns = ["image_id", "question", "answer", "qtype", "domain", "user", "familiar", "fps", "attributes"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({name: "str" for name in columns if name != "fps"}), Drawn(clips)


def users_of(users: int, seed: int) -> range:
    """The users of a seed: 0 has the first ones; others have an eighth of them and as many that 0 has not."""
    share = max(1, users // 8)
    return range(users) if seed == 0 else range(users - share, users + share)


def tested(each: int) -> int:
    """Clips of a user in the test split, of so many in the train split."""
    return max(1, each // 2)


@cache
def generate(users: int = 400, each: int = 12, seed: int = 0) -> Pack:
    """Make the pack: of each user `each` clips to train on, and half as many to test on.

    The same arguments give the same bytes; train and test draw from different streams.

    Args:
        users: of seed 0; see `users_of`.
        each: clips of a user in the train split.
        seed: whose users and which clips; profiles do not depend on it.
    """
    who = users_of(users, seed)
    train, train_clips = _split("train", who, users, each, seed)
    test, test_clips = _split("test", who, users, tested(each), seed)
    digest = hashlib.sha256(f"clips-1:{users}:{each}:{seed}".encode()).hexdigest()
    return Pack("clips", None, digest, train, test, train_clips, test_clips, clips=True)
