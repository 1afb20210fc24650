"""Which score of a sample finds what the teacher would answer otherwise: `python -m experiments.bench.worth`.

The method runs once and the adapter of every round is kept. Then the questions of a round are answered by the
student of the round before, and every score ranks them. A sample is news where the teacher, who sees all of
its picture, says something else. Printed is the chance that a score puts a sample that is news before one
that is not (AUC; 0.5 is chance). Scores that were not adopted are here and nowhere else: whether the answer
has changed since version 0 and since the version before, disagreement of eight passes that each drop half of
the tokens, and doubt times rarity (of the question in the device's round, of the picture among its pictures).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from cdc_flower.cloud.gate import Gate
from cdc_flower.cloud.lessons import teach
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.config import Config, parse
from cdc_flower.models import adapters, vlm
from cdc_flower.models.student import twin_model
from cdc_flower.models.teacher import load_teacher
from cdc_flower.wire import gate
from clients.inference import answer
from experiments.probes.downlink import lineage
from strategies.run import prepare

SETTINGS = {
    "run.devices": 4,
    "run.rounds": 6,
    "run.eval-every": 6,
    "cloud.steps": 25,
    "cloud.batch": 48,
    "cloud.source-replay": 300,
    "uplink.tokens-kept": 28,
    "uplink.budget": 0,
    "data.items": "tuning",
}
"""Every sample goes up, so that the run has no opinion of its own."""
PASSES = 8  # of the committee


def auc(score: np.ndarray, news: np.ndarray) -> float:
    """The chance that a sample that is news has the higher score; NaN where all or none are."""
    yes, no = int(news.sum()), int((~news).sum())
    if not yes or not no:
        return float("nan")
    return float((pd.Series(score).rank().to_numpy()[news].sum() - yes * (yes + 1) / 2) / (yes * no))


def rarity(means: np.ndarray, questions: Sequence[Sequence[int]]) -> np.ndarray:
    """(B,) distance of a picture's mean token (B, D) to its three nearest, over how often it is so asked."""
    z = (means - means.mean(0)) / (means.std(0) + 1e-6)
    apart = np.sort(np.square(z[:, None] - z[None]).mean(-1), 1)[:, 1:4].mean(1)
    kinds = [tuple(q) for q in questions]
    return apart / [kinds.count(kind) for kind in kinds]


@torch.no_grad()
def committee(model: torch.nn.Module, inputs: vlm.Inputs, rng: np.random.Generator) -> np.ndarray:
    """(B,) mutual information of the first word and the passes, each of which drops half of the tokens."""
    found = []
    for _ in range(PASSES):
        keep = torch.from_numpy(rng.random(tuple(inputs.positions.shape)) < 0.5) & (inputs.positions >= 0)
        some = replace(inputs, positions=torch.where(keep, inputs.positions, -1))
        found.append(vlm.forward(model, some).logits[:, -1].softmax(-1))
    each = torch.stack(found)
    return (torch.special.entr(each.mean(0)).sum(-1) - torch.special.entr(each).sum(-1).mean(0)).numpy()


def measure(config: Config) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Round, share of news, and each score's AUC, for every round after the first."""
    torch.set_num_threads(1)
    setup = prepare(config)
    shared, world = setup.shared, setup.world
    twin, versions = twin_model(shared, config.pair), lineage(config, shared, world)
    versions.insert(0, adapters.read(twin))
    teacher, learned = load_teacher(config.pair, shared, config.data.name), Gate()
    for round in range(1, config.run.rounds + 1):
        scores: dict[str, list[float]] = {}
        news, samples = list[bool](), list[list[int]]()
        for device in range(config.run.devices):
            rows = world.train.iloc[world.streams[device][round - 1]]
            tokens = [world.train_tokens[i] for i in rows["image_row"]]
            questions = [shared.text.question_ids(str(q)) for q in rows["question"]]
            length = max(map(len, questions)) + shared.n_tokens + 8
            whole = [
                CloudSample(t, np.arange(len(t)), q, shared.grid)
                for t, q in zip(tokens, questions, strict=True)
            ]
            _, says = teach(shared, teacher, whole)
            old = []
            for version in (0, max(0, round - 2), round - 1):
                adapters.write(twin, versions[version])
                old.append(answer(twin, shared, length, tokens, questions))
            first, before, now = old
            read = [
                gate.features(q, a, float(h)) for q, a, h in zip(questions, now.ids, now.entropy, strict=True)
            ]
            inputs = vlm.collate(shared.text, tokens, questions, length=length)
            tie = now.entropy / 1e3
            found = {
                "the gate": gate.log_odds(learned.weights, read),
                "entropy": now.entropy,
                "margin": 1 - now.margin,
                "changed since version 0": tie + [a != b for a, b in zip(first.ids, now.ids, strict=True)],
                "changed since the last": tie + [a != b for a, b in zip(before.ids, now.ids, strict=True)],
                "committee": committee(twin, inputs, np.random.default_rng([round, device])),
                "doubt times rarity": (now.entropy + 0.05)
                * rarity(np.stack([t.astype(np.float32).mean(0) for t in tokens]), questions),
            }
            for name, values in found.items():
                scores.setdefault(name, []).extend(np.asarray(values).tolist())
            news += [a.strip() != b.strip() for a, b in zip(now.texts, says, strict=True)]
            samples += read
        if round > 1:
            told = np.array(news)
            yield round, float(told.mean()), {n: auc(np.array(v), told) for n, v in scores.items()}
        learned.learn(samples, news)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a seed."""
    parser = argparse.ArgumentParser(description="Scores of samples: which finds what is news?")
    parser.add_argument("--seed", type=int, default=100)
    seed = parser.parse_args(arguments).seed
    rows = list(measure(parse({**SETTINGS, "run.seed": seed})))
    sys.stdout.write("| round | " + " | ".join(str(r) for r, _, _ in rows) + " |\n")
    sys.stdout.write("|---" * (len(rows) + 1) + "|\n")
    sys.stdout.write("| share of news | " + " | ".join(f"{share:.2f}" for _, share, _ in rows) + " |\n")
    for name in rows[0][2]:
        sys.stdout.write(f"| {name} | " + " | ".join(f"{found[name]:.2f}" for _, _, found in rows) + " |\n")


if __name__ == "__main__":
    main()
