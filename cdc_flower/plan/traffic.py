"""Bytes and seconds of a device in a round, as bounds: from budgets, shapes and profiles."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.fleet.cost import cost_models, roofline
from cdc_flower.fleet.cost.mixes import parse_mix
from cdc_flower.fleet.time.network import down_seconds, up_seconds
from cdc_flower.models.room import HALF
from cdc_flower.plan.memory import Run
from cdc_flower.setting import MESSAGE_BYTES
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS
from cdc_flower.uplink.scores import token_score

__all__ = ["Bytes", "Seconds", "bytes_of_a_round", "seconds_of_a_round"]


@dataclass(frozen=True)
class Bytes:
    """Of a device in a round, at most; what Flower adds is not counted."""

    up: int
    down: int


@dataclass(frozen=True)
class Seconds:
    """Of a device of a profile in a round, by roofline and network; `compression` is "" where none fits."""

    profile: str
    compression: str
    work: float
    up: float
    down: float

    @property
    def total(self) -> float:
        """One after the other."""
        return self.work + self.up + self.down


def bytes_of_a_round(run: Run) -> Bytes:
    """The most that goes up and down: budgets where there are some, else what a frame can hold.

    A device that missed versions may be sent more, up to the whole adapter.
    """
    parts, up, down = run.student.parts, run.config.uplink, run.config.downlink
    if not run.holds.shares:
        return Bytes(MESSAGE_BYTES, MESSAGE_BYTES)
    if run.holds.trains:
        weights = parts.language if run.holds.full else parts.adapter
        size = HALF * weights + MESSAGE_BYTES
        if not run.holds.coded:
            return Bytes(size, size)
        size = update.longest(weights)
        aimed = min(size, update.budget_bytes(down.budget, weights))
        return Bytes(min(size, up.budget or size), aimed + MESSAGE_BYTES)
    if not run.holds.distils:
        return Bytes(0, 0)
    width = run.student.family.width(run.student.config)
    tokens = min(up.tokens_kept or run.lengths.picture, run.lengths.picture)
    text = run.lengths.text + run.lengths.answer
    one = token_batch.sample_bytes(tokens, width, up.token_bits, text, up.transform != "none")
    if up.unit != "tokens":  # the most that a picture's code may have
        patches = run.lengths.picture if FORMS[up.unit].whole else tokens
        one = 3 * run.student.family.pixels(run.student.config) ** 2 * patches + text
    most = run.config.run.samples_per_round * one + MESSAGE_BYTES
    whole = update.longest(parts.adapter)
    aimed = update.budget_bytes(down.budget, parts.adapter) if CODECS[down.codec].budgeted else whole
    aimed = min(whole, aimed)
    return Bytes(min(most, up.budget or most), aimed + MESSAGE_BYTES)


LEAST_SHARE = 0.003  # of the adapter in float16: a fifth of the energy of an update (docs/method.md)
RATE, WIDTH = 5e-3, 64  # of the student that comes with the package, chosen by runs, and its width


def advice(run: Run) -> list[str]:
    """What the sizes of a student say of settings that were chosen for a small one."""
    if not run.holds.distils:
        return []
    cloud, down, size = run.config.cloud, run.config.downlink, run.student.parts.adapter
    share = update.budget_bytes(down.budget, size) / max(2 * size, 1)
    rate = RATE * WIDTH / run.student.config.get_text_config().hidden_size
    said = []
    if CODECS[down.codec].budgeted and share < LEAST_SHARE:
        said.append(
            f"downlink.budget is {share:.2%} of the adapter in float16: an update will carry less than 20 % "
            "of the energy of what was learned; about half takes 3 % (--set downlink.budget=0.03)"
        )
    if cloud.lr > 3 * rate:
        said.append(
            f"cloud.lr = {cloud.lr:g} suits a student of width {WIDTH}; rates go with one over the width: "
            f"--set cloud.lr={rate:.1g} (docs/guide.md)"
        )
    return said


def seconds_of_a_round(run: Run) -> list[Seconds]:
    """Seconds of each profile of the mix, whether or not the run has virtual time.

    Raises:
        ConfigError: a mix or cost model that cannot be used.
    """
    config, lengths = run.config, run.lengths
    own = json.loads(json.dumps(run.student.family.cost_config(run.student.config), default=str))
    rank = 0 if run.holds.full else config.pair.rank
    shapes = roofline.shapes(cost_models.load(config.fleet.cost_model, own), rank)
    moved, found = bytes_of_a_round(run), []
    shares, profiles = parse_mix(config.fleet.mix)
    prompt = lengths.text + shapes.patches
    for name in shares:
        profile, fixed = profiles[name], config.pair.compression
        fitting = [
            c
            for c in (roofline.COMPRESSIONS if fixed == "auto" else [fixed])
            if roofline.fits(profile, roofline.needed_bytes(shapes, c, prompt + lengths.answer))
        ]
        if not fitting:
            found.append(Seconds(name, "", float("inf"), 0.0, 0.0))
            continue
        passes = roofline.answering(shapes, fitting[0], prompt, shapes.patches, lengths.answer)
        read = roofline.prefill(shapes, fitting[0], prompt, shapes.patches)
        again = token_score(config.uplink.token_score).passes if run.holds.distils else 0
        one = roofline.work_seconds(profile, [*passes, *[read] * again])
        work = config.run.samples_per_round * one
        if run.holds.trains:
            lessons = run.holds.lessons
            back = (2 if run.holds.full else 1) * read.flops
            flops = lessons * (read.flops + back)
            work += roofline.seconds(profile, flops, 2 * lessons / run.holds.batch * read.bytes_moved)
        up, down = up_seconds(profile, moved.up), down_seconds(profile, moved.down)
        found.append(Seconds(name, fitting[0], float(work), float(up), float(down)))
    return found
