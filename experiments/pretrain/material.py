"""What a pair is trained on, checked on and scored on: the parts A, A-validation, B and C of its data.

Of a pack in a folder they are those of `cdc_flower.data.splits`. Of generated data A is what seed 0 makes,
its test split for validation; B and C are what seed 1 makes, where devices live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import CLIPVisionModel

from cdc_flower.config import Config, ConfigError
from cdc_flower.data import packs, splits
from cdc_flower.data.domains import SOURCE, domains
from cdc_flower.data.pictures import Picture
from cdc_flower.data.splits import Split
from cdc_flower.models import placement
from experiments.pretrain.recipes import Recipe
from experiments.pretrain.tower import pixels_of, tokens_of

FRAMES = 8  # that models read of a clip, where no setting says so
SCORED = 2000  # rows of a part, at most, that a model is scored on


@dataclass(frozen=True, eq=False)
class Part:
    """Rows and their pictures.

    Attributes:
        frame: with `drift_domain`, and `image_row`, a position in `ids`.
        images: name -> encoded picture, or the frames of a clip, of these and perhaps others.
        frames: that are read of a clip; 0 = they are pictures.
    """

    frame: pd.DataFrame
    images: Mapping[str, Picture]
    frames: int = 0

    @cached_property
    def ids(self) -> list[str]:
        """Names of its pictures, as they come."""
        return self.frame["image_id"].unique().tolist()

    @property
    def source(self) -> pd.DataFrame:
        """Its rows of the source domain."""
        return self.frame[self.frame["drift_domain"] == SOURCE]

    def some(self) -> Part:
        """Up to `SCORED` of its rows, the same every time."""
        if len(self.frame) <= SCORED:
            return self
        rows = np.random.default_rng(0).permutation(len(self.frame))[:SCORED]
        return _part(self.frame.iloc[rows], self.images, self.frames)

    @torch.no_grad()
    def tokens(self, tower: CLIPVisionModel, side: int) -> np.ndarray:
        """The tower's outputs (pictures, N, D) float16; of a clip those of its frames in turn."""
        device = placement.device_of(tower)
        states = [
            tokens_of(tower, x.to(device).float() / 127.5 - 1).half().cpu()
            for x in pixels_of(self.images, self.ids, side, self.frames).split(128)
        ]
        return torch.cat(states).numpy()


@dataclass(frozen=True, eq=False)
class Material:
    """What a pair is made of.

    Attributes:
        name, digest: of the data.
        parts: by their names in `splits.PARTS`; but for A up to `SCORED` rows of each.
        split: what the pair's card says of all of them.
        frames: that models read of a clip; 0 = the data are pictures.
    """

    name: str
    digest: str
    parts: dict[str, Part]
    split: dict[str, Any]
    frames: int = 0


def material(config: Config, recipe: Recipe) -> Material:
    """The parts of the data of a configuration; of generated data as many pictures as the recipe says.

    Raises:
        ConfigError: data that cannot be split so that each part has a row, and A rows of the source.
    """
    data = config.data
    pack = packs.load(replace(data, scenes_train=recipe.pictures))
    frames = (data.frames or FRAMES) if pack.clips else 0
    if data.pack in packs.GENERATED:
        lived = packs.load(data, seed=1)
        rows = (pack.train, pack.train_images), (pack.test, pack.test_images)
        rows += (lived.train, lived.train_images), (lived.test, lived.test_images)
        split = Split("seed of the generator", 1.0, 0.0)
    else:
        split = splits.wished(data, pack)
        found = splits.twins(pack, splits.divide(pack.train, pack.test, split))
        split = replace(split, twins=found)
        parts = splits.divide(pack.train, pack.test, split)
        rows = tuple(
            (frame, splits.images_of(pack, parts, name))
            for name, frame in splits.rows_of(pack, parts).items()
        )
    parts = {
        name: _part(frame.assign(drift_domain=domains(frame, data, pack.train)), images, frames)
        for name, (frame, images) in zip(splits.PARTS, rows, strict=True)
    }
    for name, what in ((splits.A, "training"), (splits.CHECKED, "validation")):
        if parts[name].source.empty:
            raise ConfigError(
                f"no {what} sample is of the source domain; check known-styles, known-objects, "
                "known-questions"
            )
    said = splits.record(split, {name: part.frame for name, part in parts.items()})
    parts = {name: part if name == splits.A else part.some() for name, part in parts.items()}
    return Material(pack.name, pack.digest, parts, said, frames)


def _part(frame: pd.DataFrame, images: Mapping[str, Picture], frames: int) -> Part:
    row_of = {name: row for row, name in enumerate(frame["image_id"].unique())}
    return Part(frame.assign(image_row=frame["image_id"].map(row_of)), images, frames)
