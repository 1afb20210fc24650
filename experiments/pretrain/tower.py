"""Stage 1 of a pair: a small CLIP vision model learns what is where in a pack's pictures.

Where the pack has an `attributes` column ("name@x0,y0,x1,y1;...", fractions of the picture), the tokens
inside each box are pooled and must tell its names. Elsewhere the mean over all tokens must tell the answers
of the pack's frequent questions and its class columns. The boxes matter: see docs/log.md.

The tower sees the frames of a clip one by one, and a clip's tokens are theirs, one frame after another; its
attributes are those of each frame, apart by "|".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from cdc_flower.config import ConfigError
from cdc_flower.data.features import open_picture, spread
from cdc_flower.data.pictures import Picture
from cdc_flower.data.rows import COLUMNS, LISTS
from cdc_flower.models import placement
from experiments.pretrain.optimise import Progress, optimise
from experiments.pretrain.recipes import Recipe

if TYPE_CHECKING:
    from experiments.pretrain.material import Part

ADDED = ("drift_domain", "image_row")  # columns that are not the pack's
CHECKED = 1000  # pictures for validation, at most
MOST = 5000  # answers to a question, or values of a column, that are told apart


@dataclass(frozen=True)
class Targets:
    """What the tower learns: regions (a picture, weights over its N tokens) and the names of each."""

    names: list[str]
    image: np.ndarray  # (R,) picture row
    pool: np.ndarray  # (R, N) float32, rows sum to 1
    label: np.ndarray  # (R, A) float32 in 0..1
    known: np.ndarray  # (R, A) bool: names that are judged for this region


def _box_pool(box: tuple[float, ...], grid: int) -> np.ndarray:
    """Share of each token's patch inside a box of fractions x0, y0, x1, y1: (grid * grid,), sums to 1."""
    edge = np.arange(grid)
    x0, y0, x1, y1 = (v * grid for v in box)
    wx = np.clip(np.minimum(edge + 1, x1) - np.maximum(edge, x0), 0, 1)
    wy = np.clip(np.minimum(edge + 1, y1) - np.maximum(edge, y0), 0, 1)
    weights = np.outer(wy, wx).ravel()
    return weights / max(weights.sum(), 1e-9)


def targets(
    frame: pd.DataFrame, image_ids: list[str], grid: int, min_count: int = 30, frames: int = 0
) -> Targets:
    """Tower targets of a pack's training frame; see the module text.

    Args:
        grid: tokens of a side of a picture, or of a frame.
        min_count: of a question that is asked often enough to be learnt from.
        frames: of a clip; 0 = samples are pictures.
    """
    each = max(1, frames)
    row_of = {image_id: i for i, image_id in enumerate(image_ids)}
    regions: dict[tuple[int, int, str], dict[str, float]] = {}
    if "attributes" in frame.columns:
        firsts = frame.drop_duplicates("image_id")
        for image_id, listed in zip(firsts["image_id"], firsts["attributes"], strict=True):
            shown = str(listed).split("|") if frames else [str(listed)]
            for number, at in enumerate(spread(len(shown), each)):
                for entry in filter(None, shown[at].split(";")):
                    name, _, box = entry.partition("@")
                    regions.setdefault((row_of[image_id], number, box), {})[name] = 1.0
        closed = True
    else:
        closed = False
        counts = frame["question"].value_counts()
        frequent = set(counts[counts >= min_count].index)
        answers = frame[frame["question"].isin(frequent)].groupby("question")["answer"].unique()
        frequent = {q for q in frequent if len(answers[q]) <= MOST}  # captions are no classes
        extra = [
            c
            for c in frame.columns
            if c not in (*COLUMNS, *LISTS, *ADDED)
            and not _measure(frame[c], len(image_ids) / min_count)
            and 1 < frame[c].astype(str).nunique() <= MOST
            and frame.groupby("image_id")[c].nunique().max() == 1
        ]
        frame = frame.assign(**{c: frame[c].astype(str) for c in extra})
        for row in frame.itertuples():
            entry = regions.setdefault((row_of[row.image_id], 0, ""), {})
            if row.question in frequent:
                for a in answers[row.question]:
                    entry[f"{row.question}={a}"] = float(a == row.answer)
            for c in extra:
                entry[f"{c}={getattr(row, c)}"] = 1.0
        classes = {c: sorted({f"{c}={v}" for v in frame[c]}) for c in extra}
    names = sorted({n for entry in regions.values() for n in entry})
    index = {n: i for i, n in enumerate(names)}
    label = np.zeros((len(regions), len(names)), np.float32)
    known = np.full((len(regions), len(names)), closed)
    pool = np.zeros((len(regions), each, grid * grid), np.float32)
    for r, ((_, number, box), entry) in enumerate(regions.items()):
        where = [index[n] for n in entry]
        label[r, where] = list(entry.values())
        known[r, where] = True
        if box:
            pool[r, number] = _box_pool(tuple(map(float, box.split(","))), grid)
        else:
            pool[r] = 1 / (each * grid**2)
    if not closed:
        for group in classes.values():
            known[:, [index[n] for n in group]] = True
    whose = np.array([i for i, _, _ in regions], np.int64)
    return Targets(names, whose, pool.reshape(len(regions), -1), label, known)


def _measure(column: pd.Series, most: float) -> bool:
    """Whether a column is a length or a rate, which is no class: fractions of more than so many values."""
    return bool(pd.api.types.is_float_dtype(column) and column.nunique() > most)


def pixels_of(images: Mapping[str, Picture], ids: list[str], side: int, frames: int = 0) -> torch.Tensor:
    """(M, F, 3, side, side) uint8: of pictures one frame, of clips `frames`."""
    each = max(1, frames)
    out = np.empty((len(ids), each, side, side, 3), np.uint8)
    for i, image_id in enumerate(ids):
        found = images[image_id]
        shown = [found] if isinstance(found, bytes) else [found[j] for j in spread(len(found), each)]
        for j, data in enumerate(shown):
            out[i, j] = np.asarray(open_picture(data).resize((side, side), Image.Resampling.BICUBIC))
    return torch.from_numpy(out).permute(0, 1, 4, 2, 3)


def tokens_of(tower: CLIPVisionModel, x: torch.Tensor) -> torch.Tensor:
    """Tokens (B, F n, D) of pictures, or clips, (B, F, 3, side, side) in -1..1."""
    states = tower(x.flatten(0, 1), output_hidden_states=True).hidden_states[-1][:, 1:]
    return states.unflatten(0, x.shape[:2]).flatten(1, 2)


def _augment(x: torch.Tensor, rng: np.random.Generator, flip: bool) -> torch.Tensor:
    """Random shift by up to an eighth, brightness, contrast, optional mirror; x (B, 3, S, S) in -1..1."""
    b, _, side, _ = x.shape
    reach = side // 8
    padded = nn.functional.pad(x, (reach,) * 4, mode="replicate")
    dy, dx = rng.integers(0, 2 * reach + 1, (2, b))
    x = torch.stack([padded[i, :, dy[i] : dy[i] + side, dx[i] : dx[i] + side] for i in range(b)])
    gain, bias = (
        torch.from_numpy(rng.normal(m, 0.15, (b, 1, 1, 1))).float().to(x.device) for m in (1.0, 0.0)
    )
    x = x * gain + bias
    if flip:
        mirror = torch.from_numpy(rng.random(b) < 0.5).to(x.device)
        x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
    return x


def _vision_config(recipe: Recipe) -> CLIPVisionConfig:
    d = recipe.tower_width
    return CLIPVisionConfig(
        hidden_size=d,
        intermediate_size=3 * d,
        num_hidden_layers=recipe.tower_layers,
        num_attention_heads=4,
        image_size=recipe.image_side,
        patch_size=recipe.patch,
        projection_dim=d,
    )


def wide_init(model: nn.Module, std: float = 0.05) -> None:
    """Hugging Face's 0.02 is for wide models; at width 64 it starts too close to zero."""
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=std)


def train_tower(
    name: str,
    taught: Part,
    checked: Part,
    recipe: Recipe,
    folder: Path,
    fingerprint: str,
    progress: Progress | None,
) -> tuple[CLIPVisionModel, Targets, dict[str, float]]:
    """The tower, trained and frozen; what it was trained to tell; and what `optimise` says.

    Args:
        name: of the data.
        taught, checked: what it is trained on, and what its best state is chosen by.
        recipe, folder, fingerprint, progress: as in `optimise`.

    Raises:
        ConfigError: there is nothing that a tower could learn.
    """
    torch.manual_seed(recipe.seed)
    tower = CLIPVisionModel(_vision_config(recipe))
    wide_init(tower)
    device = placement.here().device
    ids, trained = [*taught.ids, *checked.ids], len(taught.ids)
    grid, frames = recipe.image_side // recipe.patch, taught.frames
    goal = targets(pd.concat([taught.frame, checked.frame]), ids, grid, frames=frames)
    if not goal.names:
        raise ConfigError(
            f"pack '{name}' gives a vision tower nothing to learn; allowed: a question "
            "asked 30 times, a class column, a column 'attributes', or your own models by "
            "settings 'pair.teacher' and 'student'"
        )
    head = nn.Sequential(nn.LayerNorm(recipe.tower_width), nn.Linear(recipe.tower_width, len(goal.names)))
    rows_of: list[list[int]] = [[] for _ in ids]
    for r, i in enumerate(goal.image):
        rows_of[i].append(r)
    pixels = torch.cat(
        [pixels_of(part.images, part.ids, recipe.image_side, frames) for part in (taught, checked)]
    )
    pixels = pixels.to(device)
    pool, label = torch.from_numpy(goal.pool).to(device), torch.from_numpy(goal.label).to(device)
    known = torch.from_numpy(_judged(goal, trained)).to(device)

    def loss_on(picked: np.ndarray, rng: np.random.Generator | None) -> torch.Tensor:
        x = pixels[picked].float() / 127.5 - 1
        if rng is not None:
            x = _augment(x.flatten(0, 1), rng, recipe.flip).unflatten(0, x.shape[:2])
        tokens = tokens_of(tower, x)
        rows = np.concatenate([rows_of[i] for i in picked]).astype(np.int64)
        owner = np.repeat(np.arange(len(picked)), [len(rows_of[i]) for i in picked])
        logits = head(torch.einsum("rn,rnd->rd", pool[rows], tokens[owner]))
        bce = nn.functional.binary_cross_entropy_with_logits(logits, label[rows], reduction="none")
        return (bce * known[rows]).sum() / len(rows)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, 1, step])
        some = rng.integers(0, trained, -(-recipe.tower_batch // max(1, frames)))
        return loss_on(some, rng if recipe.augment else None)

    @torch.no_grad()
    def validate() -> float:
        aside = np.arange(trained, len(ids))[:CHECKED]
        parts = [float(loss_on(some, None)) for some in np.array_split(aside, -(-len(aside) // 64))]
        return sum(parts) / len(parts)

    both = nn.ModuleDict({"tower": tower, "head": head}).to(device)
    steps, rate = recipe.tower_steps, recipe.tower_lr
    found = optimise("tower", both, loss_of, steps, rate, recipe, folder, fingerprint, progress, validate)
    own = goal.image < trained
    seen = Targets(goal.names, goal.image[own], goal.pool[own], goal.label[own], goal.known[own])
    return tower.requires_grad_(False).eval(), seen, found


def _judged(goal: Targets, trained: int) -> np.ndarray:
    """Names that are judged, (R, A) bool: for a picture that is not trained on, none of a group of which it
    has a name that no trained picture has, as where pictures are split by that column.
    """
    known, own = goal.known.copy(), goal.image < trained
    unseen = ~goal.label[own].any(0)
    groups = np.array([name.rpartition("=")[0] or name for name in goal.names])
    for row in np.flatnonzero(~own):
        for group in set(groups[(goal.label[row] > 0) & unseen]):
            known[row, groups == group] = False
    return known
