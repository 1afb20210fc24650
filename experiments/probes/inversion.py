"""What uploaded tokens show: an attacker with the tower and pictures of A draws the pictures of B.

Whoever runs the cloud has tokens with their places, and can train a decoder from tokens to pixels on any
pictures of his own, because the tower is in the student's checkpoint. Here he has A, and is judged on
pictures of B, of which no part of the attack has seen one. Every arm is an upload under other settings, made
by the uplink's own code; the decoder is trained once on complete tokens and then a while longer on each arm.
Figures: how like the picture the drawing is; how many questions about the picture the teacher, trained on
real ones, answers from the drawing alone (the tower reads it again); and, without any drawing, whether the
picture is found among others by the tokens that the attacker computes of them. Beside them stands what the
upload is for: how many of the devices' questions the teacher answers from it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cdc_flower.config import Config, ConfigError
from cdc_flower.data import packs
from cdc_flower.data.features import Features, Progress
from cdc_flower.data.world import PRETRAINED, World
from cdc_flower.models import vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher, load_teacher
from experiments.probes import decoder, sent
from experiments.probes.matching import distances, found_first, membership
from experiments.report.tables import Fitted
from strategies.accuracy import measure as answered


@dataclass(frozen=True)
class Size:
    """How much is spent: pictures of A and of B, candidates, steps on complete tokens and on each arm."""

    pictures: int = 1500
    victims: int = 200
    candidates: int = 1000
    steps: int = 1200
    more: int = 250


FULL, QUICK = Size(), Size(64, 12, 30, 4, 2)
ALL, REAL, MEAN = "all, float16", "the picture itself", "the mean picture"
SHOWN = 8  # pictures of a row
COLOURS = 64  # of the picture that is written


@dataclass(frozen=True)
class Arm:
    """What goes up: tokens kept (0 = all), bits of a value, whether tokens are clipped, and noise."""

    kept: int
    bits: int
    clipped: bool = False
    noise: float = 0.0


ARMS = {
    ALL: Arm(0, 16),
    "all, 3 bits": Arm(0, 3),
    "40, 8 bits": Arm(40, 8),
    "40, 4 bits": Arm(40, 4),
    "40, 3 bits (default)": Arm(40, 3),
    "13, 3 bits": Arm(13, 3),
    "6, 3 bits": Arm(6, 3),
    "40, clipped": Arm(40, 3, True),
    "40, noise 0.1": Arm(40, 3, True, 0.1),
    "40, noise 0.3": Arm(40, 3, True, 0.3),
    "40, noise 1": Arm(40, 3, True, 1.0),
    "40, noise 8": Arm(40, 3, True, 8.07),
}
"""The last has epsilon 8 for a picture (`cdc-flower privacy`)."""


def measure(
    config: Config, shared: Shared, world: World, tell: Progress, size: Size = FULL
) -> Iterator[dict[str, Any]]:
    """What each arm's upload shows. `shown` holds what was drawn of the first pictures."""
    if not shared.raster:
        raise ConfigError("probe inversion: allowed: a family whose tokens are patches of one square")
    teacher = load_teacher(config.pair, shared, config.data.name)
    if teacher.own is not None:
        raise ConfigError("probe inversion: allowed: a teacher with the student's vision tower and tokenizer")
    seed, n = config.run.seed, shared.grid[1]
    own, victims, others = _people(config, shared, world, size)
    clip = sent.usual_distance(own, shared)
    reads = _Reader(teacher, shared, world, victims)
    flat = np.broadcast_to(own.pixels.mean(0).round().astype(np.uint8), victims.pixels.shape)
    for name, made in ((REAL, victims.pixels), (MEAN, np.ascontiguousarray(flat))):
        yield {"arm": name, **_likeness(made, victims.pixels), **reads(made), "shown": made[:SHOWN]}
    network, begun = None, {}
    for at, (name, arm) in enumerate(ARMS.items()):
        up = sent.protected(config.uplink, arm.kept, arm.bits, clip if arm.clipped else 0.0, arm.noise)
        mine = sent.received(own, shared, up, seed, "attacker")
        theirs = sent.received(victims, shared, up, seed, "victim")
        if network is None:
            network = decoder.fresh(mine, n, shared.side // n, seed)
            begun = decoder.train(network, mine, own.pixels, size.steps, seed)
        else:
            network.load_state_dict(begun)
            decoder.train(network, mine, own.pixels, size.more, seed)
        made = decoder.drawn(network, theirs)
        apart = distances(theirs, np.concatenate([victims.tokens, others]), up, shared)
        yield {
            "arm": name,
            "kept": arm.kept or shared.n_tokens,
            "bits": arm.bits,
            "clip": up.clip,
            "noise": arm.noise,
            "bytes": theirs.bytes,
            "serves": reads.serves(theirs, victims),
            **_likeness(made, victims.pixels),
            **reads(made),
            "nearest": found_first(apart),
            "candidates": apart.shape[1],
            "member": membership(apart),
            "shown": made[:SHOWN],
        }
        tell("probe inversion", at + 1, len(ARMS))


def _people(
    config: Config, shared: Shared, world: World, size: Size
) -> tuple[sent.Pictures, sent.Pictures, np.ndarray]:
    """The attacker's pictures, the victims', and tokens (C, N, D) of other pictures of B."""
    seed, up, pair = config.run.seed, config.uplink, config.pair
    rows, images = world.aside, world.pack.train_images
    if config.data.pack in packs.GENERATED:
        drawn = packs.load(replace(config.data, scenes_train=size.pictures), seed=PRETRAINED)
        rows, images = drawn.train, drawn.train_images
    own = sent.one_row_a_picture(rows, size.pictures, seed, "probe/attacker")
    met = sent.one_row_a_picture(world.train, size.victims + size.candidates, seed, "probe/victims")
    victims, rest = met.head(size.victims), met.iloc[size.victims : size.candidates]
    overlap = set(own["image_id"]) & set(met["image_id"])
    if images is world.pack.train_images and overlap:
        raise ConfigError(f"{len(overlap)} pictures are in A and in B; allowed: none")
    others = np.stack([world.train_tokens[i] for i in rest["image_row"]]).astype(np.float32)
    return (
        sent.seen(own, images, shared, up, pair, seed),
        sent.seen(victims, world.pack.train_images, shared, up, pair, seed),
        others,
    )


def _likeness(made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    same = np.array_equal(made, real)
    return {
        "mse": float(decoder.errors(made, real).mean()),
        "psnr": float("inf") if same else decoder.psnr(made, real),
        "ssim": decoder.ssim(made, real),
    }


class _Reader:
    """What the teacher answers from drawings: all questions about the victims' pictures."""

    def __init__(self, teacher: Teacher, shared: Shared, world: World, victims: sent.Pictures) -> None:
        place = {name: i for i, name in enumerate(victims.rows["image_id"])}
        rows = world.train[world.train["image_id"].isin(set(place))]
        self.rows = rows.assign(image_row=rows["image_id"].map(place)).reset_index(drop=True)
        self.teacher, self.shared, self.world = teacher, shared, world

    def __call__(self, made: np.ndarray) -> dict[str, float]:
        """`reads`: worth of the answers, and the same by kind of question."""
        tokens, grids = zip(*self.shared.encode([Image.fromarray(one) for one in made]), strict=True)
        counts = np.array(grids, np.int64)
        index = np.column_stack([np.cumsum(counts[:, 0]) - counts[:, 0], counts])
        world = replace(self.world, test=self.rows, test_tokens=Features(np.concatenate(tokens), index))
        worth = answered(self.teacher.model, self.shared, world).worth
        kinds = pd.Series(worth).groupby(self.rows["qtype"].to_numpy(str)).mean()
        return {"reads": float(worth.mean()), **{f"reads {kind}": float(v) for kind, v in kinds.items()}}

    def serves(self, got: sent.Received, victims: sent.Pictures) -> float:
        """Share of the devices' own questions that the teacher answers right from what came."""
        right, answers = [], [self.shared.text.answer_ids(str(a)) for a in victims.rows["answer"]]
        for start in range(0, len(victims), sent.BATCH):
            some = range(start, min(start + sent.BATCH, len(victims)))
            inputs = vlm.collate(
                self.shared.text,
                [got.tokens[i][got.there[i]] for i in some],
                [victims.asked[i] for i in some],
                [answers[i] for i in some],
                [np.flatnonzero(got.there[i]) for i in some],
            )
            right.append(vlm.correct(self.teacher.model, inputs))
        return float(np.concatenate(right).mean())


def table(found: pd.DataFrame) -> Fitted:
    """Means over seeds, for the terminal."""
    heads = (
        *("what goes up", "bytes", "noise", "serves %", "PSNR dB", "SSIM"),
        *("teacher\nreads %", "found\nfirst %", "member,\nAUC"),
    )
    cells = []
    figures = "bytes", "noise", "serves", "psnr", "ssim", "reads", "nearest", "member"
    forms = "{:,.0f}", "{:g}", "{:.1%}", "{:.1f}", "{:.2f}", "{:.1%}", "{:.1%}", "{:.3f}"
    for arm, rows in found.groupby("arm", sort=False):
        means = rows[list(figures)].mean()
        cells.append(
            [str(arm), *(f.format(v) if np.isfinite(v) else "" for f, v in zip(forms, means, strict=True))]
        )
    return Fitted(heads, cells, wraps=("what goes up",))


def write(found: pd.DataFrame, out: Path) -> Path:
    """Write `probe.csv` and `probe.png`, originals above what was drawn of them; returns the first."""
    out.mkdir(parents=True, exist_ok=True)
    found.drop(columns="shown").to_csv(out / "probe.csv", index=False)
    (out / "probe.png").write_bytes(montage(found[found["seed"] == found["seed"].iloc[0]]))
    return out / "probe.csv"


def montage(found: pd.DataFrame) -> bytes:
    """A PNG with a row of pictures an arm, in the order of the table, with its name."""
    from matplotlib.figure import Figure

    rows = [(row["arm"], np.concatenate(list(row["shown"]), axis=1)) for row in found.to_dict("records")]
    figure = Figure(figsize=(8.6, 0.78 * len(rows)), layout="constrained", dpi=80)
    for (name, strip), axes in zip(rows, figure.subplots(len(rows), 1), strict=True):
        axes.imshow(strip, aspect="auto")
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    plain, small = io.BytesIO(), io.BytesIO()
    figure.savefig(plain, format="png")
    Image.open(plain).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()
