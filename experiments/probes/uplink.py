"""Which tokens tell the teacher most: what it still answers from those that a score keeps.

That is the right answers that a byte of uplink buys, before anything is learned from them. All scores are
compared, or, where `uplink.token-score` names one with a number of passes (`mc_dropout=32`), it and chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cdc_flower.config import Config, ConfigError
from cdc_flower.data.features import Progress
from cdc_flower.data.world import World
from cdc_flower.draws import generator
from cdc_flower.models import vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import device_model
from cdc_flower.models.teacher import load_teacher
from cdc_flower.uplink import select, token_batch
from cdc_flower.uplink.sample import MAX_BYTES, Batch, Sample
from cdc_flower.uplink.scores import TOKEN_SCORES, token_score

MASKED = (0.3, 0.56, 0.8, 0.9)  # share of the tokens that stays on the device, besides none
ITEMS, BATCH = 200, 32  # questions per domain and seed; samples of a frame


def measure(config: Config, shared: Shared, world: World, tell: Progress) -> Iterator[dict[str, Any]]:
    """What the teacher answers, from the tokens a score keeps, to questions of the devices' stream."""
    kept = [max(1, round(shared.n_tokens * (1 - masked))) for masked in MASKED]
    arms = [("all", "", shared.n_tokens)]
    asked_for = config.uplink.token_score.removeprefix("-")
    names = (asked_for, "random") if "=" in asked_for else tuple(TOKEN_SCORES)
    arms += [(name, way, k) for name in names for way in ("high", "low") for k in kept]
    arms = [a for a in arms if a[:2] != ("random", "low")]
    rows = _drawn(world, config.run.seed)
    tokens = np.stack([world.train_tokens[i] for i in rows["image_row"]]).astype(np.float32)
    asked = [shared.text.question_ids(str(q)) for q in rows["question"]]
    scores = {name: _scores(name, config, shared, tokens, asked) for name in names}
    for at, (name, way, k) in enumerate(arms):
        chosen = (
            [np.arange(shared.n_tokens)] * len(rows)
            if name == "all"
            else select.top(scores[name] if way == "high" else -scores[name], k)
        )
        found, size = _read_by_teacher(config, shared, rows, tokens, asked, chosen)
        arm = {"all": "all tokens", "random": "random"}.get(name, f"{name} {way}")
        for domain, right in found.items():
            yield {"arm": arm, "kept": k, "bytes": size, "domain": domain, "accuracy": right}
        tell("probe of the uplink", at + 1, len(arms))


def _drawn(world: World, seed: int) -> pd.DataFrame:
    """`ITEMS` train questions of each domain."""
    domain = world.train["drift_domain"].to_numpy(dtype=str)
    rows = [
        generator(seed, f"probe/{name}").permutation(np.flatnonzero(domain == name))[:ITEMS]
        for name in sorted(set(domain))
    ]
    return world.train.iloc[np.concatenate(rows)].reset_index(drop=True)


def _scores(
    name: str, config: Config, shared: Shared, tokens: np.ndarray, asked: Sequence[list[int]]
) -> np.ndarray:
    """(B, N), by the student as shipped."""
    model, rng = device_model(shared, config.pair), generator(config.run.seed, f"probe/{name}")
    found = []
    for start in range(0, len(asked), BATCH):
        inputs = vlm.collate(shared.text, tokens[start : start + BATCH], asked[start : start + BATCH])
        found.append(token_score(name)(model, shared.text, inputs, rng))
    return np.concatenate(found)


def _read_by_teacher(
    config: Config,
    shared: Shared,
    rows: pd.DataFrame,
    tokens: np.ndarray,
    asked: list[list[int]],
    chosen: Sequence[np.ndarray],
) -> tuple[dict[str, float], float]:
    """Accuracy by domain of the teacher on what the frames decode to; bytes of a sample in them."""
    teacher = load_teacher(config.pair, shared, config.data.name)
    if teacher.own is not None:
        raise ConfigError("probe uplink: allowed: a teacher with the student's vision tower and tokenizer")
    transform, size, right = shared.transform_for(config.uplink), 0, []
    for start in range(0, len(rows), BATCH):
        some = range(start, min(start + BATCH, len(rows)))
        samples = tuple(
            Sample(
                i - start,
                shared.grid,
                chosen[i].astype(np.uint16),
                asked[i],
                [],
                0.0,
                tokens=tokens[i][chosen[i]],
            )
            for i in some
        )
        frame = token_batch.encode(Batch(0, 1, 0, samples), shared.width, config.uplink.token_bits, transform)
        size += len(frame)
        arrived = token_batch.decode(
            frame, shared.fits, shared.width, shared.vocab, MAX_BYTES, transform=transform
        ).samples
        inputs = vlm.collate(
            shared.text,
            [s.tokens for s in arrived],
            [list(s.question_ids) for s in arrived],
            [shared.text.answer_ids(str(rows["answer"].iloc[i])) for i in some],
            [s.positions for s in arrived],
        )
        right.append(vlm.correct(teacher.model, inputs))
    found = pd.Series(np.concatenate(right)).groupby(rows["drift_domain"].to_numpy(dtype=str)).mean()
    return {str(k): float(v) for k, v in found.items()}, size / len(rows)
