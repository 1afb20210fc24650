"""`scenes`: the embedded default data, generated, deterministic and unlimited.

A picture is 96 x 96 pixels with three to five coloured shapes, each in a cell of a 3 x 3 grid; six kinds of
question ask about one of them (what, colour, where, yes/no, compare) or about all (count). With a vision
tower of 8 x 8 patches an object covers four to nine of 64 tokens, so which tokens are sent matters. Three
things can drift: the shapes (column `concept`), the kind of question (`qtype`) and the rendering (`domain`).
Nothing is downloaded and nothing is stored but the arguments.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from cdc_flower.data.packs import Pack

SIDE = 96  # pixels
CELLS = ("northwest", "north", "northeast", "west", "centre", "east", "southwest", "south", "southeast")
OLD_SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
NEW_SHAPES = ("heart", "moon", "diamond", "arrow")
SHAPES = OLD_SHAPES + NEW_SHAPES
COLOURS = {
    "red": (216, 52, 52),
    "green": (46, 150, 70),
    "blue": (42, 92, 205),
    "yellow": (236, 190, 30),
    "purple": (136, 62, 180),
    "orange": (240, 126, 34),
    "pink": (240, 130, 180),
    "brown": (128, 84, 48),
}
STYLES = ("flat", "outline", "night")
BACKGROUNDS = {"flat": (246, 244, 238), "outline": (226, 232, 240), "night": (28, 32, 48)}
APART = 8  # pixels: things closer than this are not compared
COUNT_EVERY = 5  # one picture in so many is asked for a count, the hardest kind for models this small
_SUPER = 8  # sprites are drawn this much larger and averaged down
Item = TypeVar("Item")


class Thing(NamedTuple):
    """One object of a picture; `x`, `y` and `radius` in pixels, `cell` an index into `CELLS`."""

    shape: str
    colour: str
    cell: int
    x: int
    y: int
    radius: int


@dataclass(frozen=True)
class Scene:
    """What a question can be about: the things, the shapes that may occur, and those to ask about."""

    things: list[Thing]
    shapes: tuple[str, ...]
    must: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The shapes of all things, in order, with repeats."""
        return [thing.shape for thing in self.things]

    @property
    def colours(self) -> list[str]:
        """The colours of all things, in order, with repeats."""
        return [thing.colour for thing in self.things]

    @property
    def subjects(self) -> list[Thing]:
        """The things to ask about."""
        return [thing for thing in self.things if thing.shape in self.must]

    @property
    def single(self) -> list[Thing]:
        """The subjects whose shape occurs once, so that "the star" names one thing."""
        return [thing for thing in self.subjects if self.names.count(thing.shape) == 1]


Ask = Callable[[Scene, np.random.Generator], tuple[str, str] | None]


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corner points in the square [-1, 1]^2, y downwards."""
    if shape == "triangle":
        return [(0, -1), (0.95, 0.8), (-0.95, 0.8)]
    if shape == "square":
        return [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)]
    if shape == "diamond":
        return [(0, -1), (0.7, 0), (0, 1), (-0.7, 0)]
    if shape == "cross":
        a = 0.34
        return [
            (-a, -1),
            (a, -1),
            (a, -a),
            (1, -a),
            (1, a),
            (a, a),
            (a, 1),
            (-a, 1),
            (-a, a),
            (-1, a),
            (-1, -a),
            (-a, -a),
        ]
    if shape == "arrow":
        return [(-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)]
    if shape == "star":
        angles = [(math.pi * i / 5 - math.pi / 2, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
        return [(r * math.cos(a), r * math.sin(a)) for a, r in angles]
    if shape == "heart":
        ts = [2 * math.pi * i / 60 for i in range(60)]
        rise = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in ts]
        return [(math.sin(t) ** 3, -y / 16) for t, y in zip(ts, rise, strict=True)]
    raise KeyError(shape)


@cache
def sprite(shape: str, radius: int) -> np.ndarray:
    """Coverage of `shape` in a square of 2 * radius + 1 pixels: (S, S) float32 in 0..1."""
    side = (2 * radius + 1) * _SUPER
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    mid, r = side / 2, radius * _SUPER
    if shape in ("circle", "ring", "moon"):
        draw.ellipse((mid - r, mid - r, mid + r, mid + r), fill=255)
        if shape == "ring":
            q = 0.52 * r
            draw.ellipse((mid - q, mid - q, mid + q, mid + q), fill=0)
        if shape == "moon":
            draw.ellipse((mid - 0.35 * r, mid - 1.1 * r, mid + 1.5 * r, mid + 0.75 * r), fill=0)
    else:
        draw.polygon([(mid + x * r, mid + y * r) for x, y in _polygon(shape)], fill=255)
    small = mask.resize((2 * radius + 1, 2 * radius + 1), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def _draw(things: Sequence[Thing], style: str, rng: np.random.Generator) -> bytes:
    """Render things in a style; returns PNG bytes."""
    shade = np.linspace(-6, 6, SIDE, dtype=np.float32)[:, None, None]
    canvas = np.broadcast_to(np.asarray(BACKGROUNDS[style], np.float32), (SIDE, SIDE, 3)) + shade
    canvas = canvas + rng.normal(0, 1.0, (SIDE, SIDE, 1)).astype(np.float32)
    for shape, colour, _, x, y, radius in things:
        cover = sprite(shape, radius)
        if style == "outline":
            inner = sprite(shape, radius - 2)
            cover = cover.copy()
            cover[2:-2, 2:-2] -= 0.72 * inner
        window = canvas[y - radius : y + radius + 1, x - radius : x + radius + 1]
        ink = np.asarray(COLOURS[colour], np.float32) * (1.0 if style != "night" else 1.08)
        window += np.clip(cover, 0, 1)[..., None] * (ink - window)
    out = io.BytesIO()
    Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _place(rng: np.random.Generator, shapes: tuple[str, ...], must: tuple[str, ...]) -> list[Thing]:
    """Three to five things in distinct cells; repeats are likely enough to count.

    They are drawn from a palette of two to four shapes; at least one thing is of `must`.
    """
    n = int(rng.integers(3, 6))
    palette = [shapes[i] for i in rng.permutation(len(shapes))[: int(rng.integers(2, 5))]]
    if not set(palette) & set(must):
        palette[0] = must[int(rng.integers(len(must)))]
    palette.sort(key=lambda shape: shape not in must)  # three of a palette of four: one of `must` stays
    kinds = palette[:n] + [palette[int(i)] for i in rng.integers(0, len(palette), max(0, n - len(palette)))]
    colours = [list(COLOURS)[int(i)] for i in rng.integers(0, len(COLOURS), n)]
    things = []
    for cell, shape, colour in zip(rng.permutation(9)[:n], kinds, colours, strict=True):
        radius = int(rng.integers(8, 13))
        row, col = divmod(int(cell), 3)
        slack = 16 - radius - 1
        x = 32 * col + 16 + int(rng.integers(-slack, slack + 1))
        y = 32 * row + 16 + int(rng.integers(-slack, slack + 1))
        things.append(Thing(shape, colour, int(cell), x, y, radius))
    return things


def _pick(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]


def _what(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    if not scene.subjects:
        return None
    thing = _pick(scene.subjects, rng)
    if scene.colours.count(thing.colour) == 1 and rng.random() < 0.5:
        return f"what is {thing.colour}?", thing.shape
    return f"what is in the {CELLS[thing.cell]}?", thing.shape


def _colour(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    if not scene.single:
        return None
    thing = _pick(scene.single, rng)
    return f"what colour is the {thing.shape}?", thing.colour


def _where(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    if not scene.single:
        return None
    thing = _pick(scene.single, rng)
    return f"where is the {thing.shape}?", CELLS[thing.cell]


def _yesno(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """A "no" names something near: the right shape or the right colour."""
    if not scene.subjects:
        return None
    thing = _pick(scene.subjects, rng)
    if rng.random() < 0.5:
        return f"is there a {thing.colour} {thing.shape}?", "yes"
    present = set(zip(scene.names, scene.colours, strict=True))
    absent = [
        (s, c)
        for s in scene.shapes
        for c in COLOURS
        if (s, c) not in present and (s == thing.shape or c == thing.colour)
    ]
    shape, colour = _pick(absent, rng)
    return f"is there a {colour} {shape}?", "no"


def _count(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    of_interest = sorted(set(scene.names) & set(scene.must))
    if rng.random() < 0.5 or not of_interest:
        colour = _pick(list(COLOURS) if rng.random() < 0.2 else scene.colours, rng)
        return f"how many things are {colour}?", str(scene.colours.count(colour))
    shape = _pick(of_interest, rng)
    return f"how often is there a {shape}?", str(scene.names.count(shape))


def _compare(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    if not scene.single:
        return None
    a = _pick(scene.single, rng)
    others = [t for t in scene.things if scene.names.count(t.shape) == 1 and t.shape != a.shape]
    if not others:
        return None
    b = _pick(others, rng)
    if rng.random() < 0.5 and abs(a.x - b.x) >= APART:
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        return f"which is further west, the {a.shape} or the {b.shape}?", (a if a.x < b.x else b).shape
    if abs(a.y - b.y) >= APART:
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        return f"which is further north, the {a.shape} or the {b.shape}?", (a if a.y < b.y else b).shape
    return None


ASK: dict[str, Ask] = {
    "what": _what,
    "colour": _colour,
    "where": _where,
    "yesno": _yesno,
    "count": _count,
    "compare": _compare,
}
"""Kind of question -> one question about a scene and its answer; None if the picture allows none."""


def _attributes(things: Sequence[Thing]) -> str:
    """What a picture shows and where, for the tower: `name@x0,y0,x1,y1;...`, in fractions of a side."""
    out = []
    for shape, colour, cell, x, y, r in things:
        box = ",".join(f"{v / SIDE:.3f}" for v in (x - r, y - r, x + r + 1, y + r + 1))
        out += [f"{name}@{box}" for name in (shape, colour, CELLS[cell])]
    return ";".join(out)


def _split(split: str, count: int, seed: int) -> tuple[pd.DataFrame, dict[str, bytes]]:
    rows, images = [], {}
    for i in range(count):
        rng = np.random.default_rng([seed, 0 if split == "train" else 1, i])
        new = i % 2 == 1
        shapes, must = (SHAPES, NEW_SHAPES) if new else (OLD_SHAPES, OLD_SHAPES)
        style = STYLES[int(rng.integers(len(STYLES)))]
        things = _place(rng, shapes, must)
        image_id = f"{split}-{i:06d}"
        images[image_id] = _draw(things, style, rng)
        concept, attributes = "new shapes" if new else "old shapes", _attributes(things)
        for kind, ask in ASK.items():
            if kind == "count" and i // 2 % COUNT_EVERY:
                continue
            asked = ask(Scene(things, shapes, must), rng)
            if asked is not None:
                user = f"user{i % 64:02d}"
                rows.append((image_id, *asked, kind, style, user, concept, attributes))
    columns = ["image_id", "question", "answer", "qtype", "domain", "user", "concept", "attributes"]
    return pd.DataFrame(rows, columns=columns, dtype="str"), images


@cache
def generate(n_train: int = 6000, n_test: int = 800, seed: int = 0) -> Pack:
    """Make the pack: `n_train` and `n_test` pictures, up to six questions each, half of them with new shapes.

    The same arguments give the same bytes; train and test draw from different streams.
    """
    train, train_images = _split("train", n_train, seed)
    test, test_images = _split("test", n_test, seed)
    digest = hashlib.sha256(f"scenes-3:{n_train}:{n_test}:{seed}".encode()).hexdigest()
    return Pack("scenes", None, digest, train, test, train_images, test_images)
