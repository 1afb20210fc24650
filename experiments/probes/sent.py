"""What the cloud gets of pictures: tokens with their places, through the uplink's own code, byte for byte.

Each picture is asked about once. The student as shipped chooses its tokens by the configured score; they are
clipped, noised, encoded into frames and decoded again. What looks at uploads from outside starts here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cdc_flower.data.features import open_picture
from cdc_flower.draws import generator
from cdc_flower.models import pixels, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import device_model
from cdc_flower.stages import PairConfig, UplinkConfig
from cdc_flower.uplink import select, token_batch
from cdc_flower.uplink.noise import noised
from cdc_flower.uplink.sample import MAX_BYTES, Batch, Sample
from cdc_flower.uplink.scores import token_score

BATCH = 32  # samples of a frame


@dataclass(frozen=True, eq=False)
class Pictures:
    """B pictures, what a device makes of each, and the question it was asked.

    Attributes:
        rows: a row of the pack for each; `image_id` names the picture.
        pixels: (B, H, W, 3) uint8, as the tower reads them.
        tokens: (B, N, D) float32, all of them.
        asked: ids of each question.
        scores: (B, N), what decides which tokens go up.
    """

    rows: pd.DataFrame
    pixels: np.ndarray
    tokens: np.ndarray
    asked: list[list[int]]
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Received:
    """What a cloud, or who reads its memory, has of B pictures.

    Attributes:
        tokens: (B, N, D) float32; zero where none came.
        there: (B, N) bool: which came.
        bytes: of a sample, on average.
    """

    tokens: np.ndarray
    there: np.ndarray
    bytes: float


def one_row_a_picture(rows: pd.DataFrame, count: int, seed: int, draw: str) -> pd.DataFrame:
    """Up to `count` rows of different pictures, drawn by the seed."""
    mixed = rows.iloc[generator(seed, draw).permutation(len(rows))]
    return mixed.drop_duplicates("image_id").head(count).reset_index(drop=True)


def seen(
    rows: pd.DataFrame, images: object, shared: Shared, up: UplinkConfig, pair: PairConfig, seed: int
) -> Pictures:
    """The pictures of rows, as a device sees and scores them.

    Args:
        rows: one a picture.
        images: name -> encoded picture.
        shared: of the pair; every picture has as many tokens.
        up: says the score.
        pair: of the student.
        seed: of a score that draws.
    """
    opened = [open_picture(images[name]) for name in rows["image_id"]]  # type: ignore[index]
    tokens = np.stack([found for found, _ in shared.encode(opened)]).astype(np.float32)
    asked = [shared.text.question_ids(str(q)) for q in rows["question"]]
    model, rng, scores = device_model(shared, pair), generator(seed, "probe/sent"), []
    for start in range(0, len(asked), BATCH):
        inputs = vlm.collate(shared.text, tokens[start : start + BATCH], asked[start : start + BATCH])
        scores.append(token_score(up.token_score)(model, shared.text, inputs, rng))
    return Pictures(rows, pixels.as_read(shared.processor, opened), tokens, asked, np.concatenate(scores))


def received(of: Pictures, shared: Shared, up: UplinkConfig, seed: int, draw: str) -> Received:
    """What arrives of pictures under the settings `up`.

    Args:
        of: the pictures.
        shared: of the pair.
        up: how many tokens are kept, in how many bits, clipped and noised how.
        seed: of the noise, with `draw`.
        draw: who sends.
    """
    n = of.tokens.shape[1]
    kept = select.top(of.scores, up.tokens_kept or n)
    turn = shared.transform_for(up)
    mean = None if shared.transform is None else shared.transform.mean
    tokens, there, size = np.zeros_like(of.tokens), np.zeros((len(of), n), bool), 0
    for start in range(0, len(of), BATCH):
        samples = tuple(
            Sample(
                i - start,
                shared.grid,
                kept[i].astype(np.uint16),
                of.asked[i],
                [],
                0.0,
                tokens=noised(
                    of.tokens[i][kept[i]], up.clip, up.noise, generator(seed, f"{draw}/noise", i), mean
                ),
            )
            for i in range(start, min(start + BATCH, len(of)))
        )
        frame = token_batch.encode(Batch(0, 1, 0, samples), shared.width, up.token_bits, turn)
        size += len(frame)
        for sample in token_batch.decode(
            frame, shared.fits, shared.width, shared.vocab, MAX_BYTES, transform=turn
        ).samples:
            tokens[start + sample.index][sample.positions] = sample.tokens
            there[start + sample.index][sample.positions] = True
    return Received(tokens, there, size / len(of))


def usual_distance(of: Pictures, shared: Shared) -> float:
    """The median distance of tokens from the tower's mean: a clip that leaves half of them as they are."""
    mean = np.float32(0) if shared.transform is None else shared.transform.mean
    return float(np.median(np.linalg.norm(of.tokens - mean, axis=-1)))


def protected(up: UplinkConfig, kept: int, bits: int, clip: float, noise: float) -> UplinkConfig:
    """The settings of an arm."""
    return replace(up, tokens_kept=kept, token_bits=bits, clip=clip, noise=noise)  # type: ignore[arg-type]
