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
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from cdc_flower.data.packs import CAPTION, Pack
from cdc_flower.data.scenes import COLOURS, sprite

SIDE, FRAMES, FPS, RADIUS = 32, 8, 4.0, 4
APART, MET = 9.5, 4.0  # pixels between middles: never nearer is no meeting, once nearer is one
SPEEDS = {"slow": 1.3, "fast": 2.8}  # pixels a frame
STYLES = ("day", "night", "outline")
GROUND = {"day": (246, 244, 238), "night": (28, 32, 48), "outline": (205, 222, 235)}
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
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
EACH = 5  # questions about a clip, and a caption
STILL = 0.12  # share of clips in which nothing moves
TAGGED = 0.4  # share of questions that end with the user's word for yes
TRIES = 24  # places that are tried for a thing before a clip begins anew
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


class Thing(NamedTuple):
    """One thing of a clip; `way` is "" where it stays, `at` (FRAMES, 2) its middle x, y in pixels."""

    shape: str
    colour: str
    way: str
    start: int
    speed: str
    at: np.ndarray


Ask = Callable[[Sequence[Thing], Profile, np.random.Generator], tuple[str, str] | None]


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
        mix(len(ASK), 2),
    )


def _path(way: str, start: int, speed: str, wave: bool) -> np.ndarray:
    """Where a thing is, beside where it begins: (FRAMES, 2)."""
    if not way:
        return np.zeros((FRAMES, 2))
    gone = np.clip(np.arange(FRAMES) - start, 0, None)
    step = np.array(STEPS[way])
    swing = 1.6 * np.sin(gone * np.pi / 2)[:, None] * step[::-1] if wave else 0.0
    return gone[:, None] * SPEEDS[speed] * step + swing


def _gaps(at: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances of two things, of places (..., 2)."""
    return np.sqrt(np.square(at - other).sum(-1))


def _put(
    path: np.ndarray, others: Sequence[Thing], partner: int | None, rng: np.random.Generator
) -> np.ndarray | None:
    """A place for a thing with that path: in the picture, and meeting nobody but the partner."""
    low, high = RADIUS - path.min(0), SIDE - 1 - RADIUS - path.max(0)
    begin = low + rng.random((TRIES, 2)) * (high - low)
    if partner is not None:
        when = rng.integers(3, FRAMES, TRIES)
        begin = others[partner].at[when] + rng.uniform(-2, 2, (TRIES, 2)) - path[when]
    at = np.rint(begin[:, None] + path).astype(int)  # (TRIES, FRAMES, 2)
    good = (at.min((1, 2)) >= RADIUS) & (at.max((1, 2)) <= SIDE - 1 - RADIUS)
    for i, other in enumerate(others):
        gaps = _gaps(at, other.at)
        good &= gaps[:, 0] >= APART
        good &= gaps.min(1) <= MET if i == partner else gaps.min(1) >= APART
    return at[good.argmax()] if good.any() else None


def _things(own: Profile, rng: np.random.Generator) -> list[Thing]:
    """Two or three things that stay or move; in half of the clips two of them meet."""
    while True:
        count = int(rng.integers(2, 4))
        moving = int(rng.choice(count + 1, p=_moving_chances(count)))
        shapes = rng.choice(len(SHAPES), count, replace=False, p=own.shapes)
        colours = rng.choice(len(INKS), count, replace=False, p=own.colours)
        late = rng.permutation(count) % 2
        things: list[Thing] = []
        meet = moving > 0 and rng.random() < 0.6
        for i in range(count):
            way = list(STEPS)[int(rng.choice(4, p=own.directions))] if i < moving else ""
            start = int(late[i] * 3 + rng.integers(2))
            speed = "fast" if rng.random() < 0.5 else "slow"
            path = _path(way, start, speed, rng.random() < 0.4)
            at = _put(path, things, 0 if meet and i == 1 else None, rng)
            if at is None:
                break
            things.append(Thing(list(SHAPES)[shapes[i]], INKS[colours[i]], way, start, speed, at))
        else:
            return [things[i] for i in rng.permutation(count)]


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
    met = [(a, b) for a, b in pairs if _gaps(a.at, b.at).min() <= MET]
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
        number = _other(numbers, number, _moving_chances(len(things)), rng)
    return f"is it {own.words[number]} that move", verdict


def _other(items: Sequence[str], but: str, chances: np.ndarray, rng: np.random.Generator) -> str:
    """One of the items but one."""
    left = chances * np.array([item != but for item in items])
    return items[int(rng.choice(len(items), p=left / left.sum()))]


def _moving_chances(count: int) -> np.ndarray:
    """Of none, one, ... all of so many things moving."""
    return np.array([STILL, *[(1 - STILL) / count] * count])


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


def _cover(thing: Thing, style: str) -> np.ndarray:
    """Of a thing's sprite, in 0..1."""
    cover = sprite(SHAPES[thing.shape], RADIUS)
    if style == "outline":
        cover = cover.copy()
        cover[2:-2, 2:-2] -= 0.6 * sprite(SHAPES[thing.shape], RADIUS - 2)
    return np.clip(cover, 0, 1)[..., None]


def _draw(things: Sequence[Thing], style: str, rng: np.random.Generator) -> tuple[bytes, ...]:
    """The frames of a clip, each a PNG."""
    frames = np.asarray(GROUND[style], np.float32) + rng.normal(0, 1.5, (FRAMES, SIDE, SIDE, 1)).astype(
        np.float32
    )
    for thing in things:
        cover, ink = _cover(thing, style), np.asarray(COLOURS[thing.colour], np.float32)
        for canvas, (x, y) in zip(frames, thing.at.tolist(), strict=True):
            window = canvas[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1]
            window += cover * (ink - window)
    return tuple(_png(frame) for frame in np.clip(frames, 0, 255).astype(np.uint8))


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


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
        return _draw(things, style, np.random.default_rng(seed))


def _split(split: str, users: range, known: int, each: int, seed: int) -> tuple[pd.DataFrame, Drawn]:
    rows, clips = [], {}
    for user in users:
        own, familiar = profile(user), "seen" if user < known else "unseen"
        for number in range(each):
            at = [seed, 0 if split == "train" else 1, user, number]
            rng = np.random.default_rng(at)
            things = _things(own, rng)
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
    test, test_clips = _split("test", who, users, max(1, each // 2), seed)
    digest = hashlib.sha256(f"clips-1:{users}:{each}:{seed}".encode()).hexdigest()
    return Pack("clips", None, digest, train, test, train_clips, test_clips, clips=True)
