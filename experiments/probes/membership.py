"""Whether an update tells who was in the training: a device that holds two versions tests a picture.

Every registered device gets every update, so any of them can compare. The attacker knows a picture, a
question about it and its answer, and asks by how much the new adapter gives that answer a higher probability
than the one before (a loss attack: Yeom and others 2018, arXiv 1709.01604, with the earlier version as its
reference). Members are samples that devices were asked in the rounds between; the others are of B, in the
same domains, with pictures that nobody was asked about. One AUC a domain: to be new at all is no membership.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from cdc_flower.config import Config, flat, parse
from cdc_flower.data.features import Progress
from cdc_flower.data.world import World
from cdc_flower.draws import generator
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from experiments.probes.downlink import lineage
from experiments.probes.matching import auc
from experiments.report.tables import Fitted

MOST, BATCH = 300, 64  # samples of a domain on each side; of a pass


def measure(config: Config, shared: Shared, world: World, tell: Progress) -> Iterator[dict[str, Any]]:
    """AUC by round and domain, of the update of that round and of all until then."""
    whole = parse({**flat(config), "uplink.budget": 0})  # every sample that is asked goes up
    versions = lineage(whole, shared, world)
    twin = twin_model(shared, config.pair)
    versions = [adapters.read(twin), *versions]
    asked = [np.unique(np.concatenate([own[r] for own in world.streams])) for r in range(config.run.rounds)]
    free = _nobody_was_asked(world, np.concatenate(asked))
    rows = np.unique(np.concatenate([*asked, free]))
    likely = []
    for at, flat_adapter in enumerate(versions):
        with adapters.wearing(twin, flat_adapter) as model:
            likely.append(_log_probabilities(model, shared, world, rows))
        tell("probe of membership", at + 1, len(versions))
    for round, met in enumerate(asked, 1):
        before = np.unique(np.concatenate([rows[:0], *asked[: round - 1]]))
        fresh = np.setdiff1d(met, before)
        for arm, start in (("the last update", round - 1), ("all updates", 0)):
            inside = fresh if start else np.unique(np.concatenate(asked[:round]))
            rise = pd.Series(likely[round] - likely[start], rows)
            for domain in sorted(set(world.domains[inside])):
                members = _some(inside[world.domains[inside] == domain], config.run.seed, "members")
                others = _some(free[world.domains[free] == domain], config.run.seed, "others")
                if len(members) and len(others):
                    found = auc(rise[members].to_numpy(), rise[others].to_numpy())
                    yield {
                        "arm": arm,
                        "round": round,
                        "domain": domain,
                        "members": len(members),
                        "auc": found,
                    }


def _nobody_was_asked(world: World, asked: np.ndarray) -> np.ndarray:
    pictures = world.train["image_row"].to_numpy()
    return np.flatnonzero(~np.isin(pictures, pictures[asked]))


def _some(rows: np.ndarray, seed: int, draw: str) -> np.ndarray:
    return generator(seed, f"probe/membership/{draw}").permutation(rows)[:MOST]


def _log_probabilities(model: Any, shared: Shared, world: World, rows: np.ndarray) -> np.ndarray:
    """(rows,) of the true answer, its end included, by a model; nats."""
    found = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH].tolist()
        frame = world.train.iloc[some]
        inputs = vlm.collate(
            shared.text,
            [world.train_tokens[i] for i in frame["image_row"]],
            [shared.text.question_ids(str(q)) for q in frame["question"]],
            [shared.text.answer_ids(str(a)) for a in frame["answer"]],
        )
        assert inputs.answer_ids is not None
        with torch.no_grad():
            logits = vlm.forward(model, inputs).logits.cpu()
        loss = F.cross_entropy(
            logits.transpose(1, 2), inputs.answer_ids.cpu(), ignore_index=-100, reduction="none"
        )
        found.append(-loss.sum(1).numpy())
    return np.concatenate(found)


def table(found: pd.DataFrame) -> Fitted:
    """Means over seeds, for the terminal."""
    cells = []
    for key, rows in found.groupby(["arm", "round", "domain"], sort=False):
        arm, round, domain = key
        figures = f"{rows['members'].mean():.0f}", f"{rows['auc'].mean():.3f}"
        cells.append((str(arm), str(round), str(domain), *figures))
    heads = ("what is compared", "round", "domain", "members", "AUC (chance 0.5)")
    return Fitted(heads, cells, wraps=heads[:1], left=("domain",))


def write(found: pd.DataFrame, out: Path) -> Path:
    """Write `probe.csv` into the folder; returns it."""
    out.mkdir(parents=True, exist_ok=True)
    found.to_csv(out / "probe.csv", index=False)
    return out / "probe.csv"
