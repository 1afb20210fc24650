"""What anchor frames cost: reconstruction and the student's answers against bytes, on clips of C.

Some clips of C go over the wire as TOKEN_BATCH frames, each rule of anchor frames and each number of them an
upload of its own. The cloud makes all frames again in every way it has, and the student as shipped answers
the clips' questions from what was made. Nothing is learned but the reasoner, beforehand and on A. Errors are
squared ones, as shares of those of the mean of A at each place: 0 is perfect, 1 knows nothing. Controls are
all frames, the mean of the anchors in every frame, and the anchors alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from cdc_flower.cloud import adr, adr_training, fda
from cdc_flower.config import Config, ConfigError
from cdc_flower.data.features import Progress
from cdc_flower.data.packs import CAPTION
from cdc_flower.data.world import World
from cdc_flower.draws import generator
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.anchors import ANCHORS, choose, positions
from cdc_flower.uplink.sample import MAX_BYTES, Batch, Sample
from experiments.report.summary import interval
from experiments.report.tables import Fitted
from experiments.report.terminal import share
from strategies.reasoned import clips_of_a, reasoner_of

KEPT = (1, 2, 3, 4)
WAYS, CONTROLS = ("hold", "linear", adr.LEARNED), ("mean", "none")
ALL = "all frames"
PLAIN = "uniform"  # whose controls are shown
BATCH, DEVICE = 32, 16  # clips of a frame on the wire, or questions of a pass; clips of a device
TARGET_SHARE, TARGET_POINTS = 0.10, 0.02


@dataclass(frozen=True)
class Size:
    """Clips of C of a seed, questions about each, and repeats of what is timed."""

    clips: int = 80
    questions: int = 2
    repeats: int = 20


FULL, QUICK = Size(), Size(6, 2, 2)


@dataclass(frozen=True, eq=False)
class _Clips:
    """What is asked about some clips of C.

    Attributes:
        whole: (B, F, n, D) float16.
        asked: ids of the questions.
        answers: ids of what is true.
        of: which clip each question is about.
    """

    whole: NDArray[np.float16]
    asked: list[list[int]]
    answers: list[list[int]]
    of: list[int]


def measure(
    config: Config, shared: Shared, world: World, tell: Progress, size: Size = FULL
) -> Iterator[dict[str, Any]]:
    """A row for every rule, number of anchors and way of reconstruction, and one for all frames.

    Raises:
        ConfigError: a pack of pictures, or clips whose frames have different grids.
    """
    if not shared.frames:
        raise ConfigError(f"probe anchors: pack '{config.data.name}' has pictures; allowed: a pack of clips")
    usual = clips_of_a(config, shared, world).mean((0, 1), np.float64)
    reasoner = reasoner_of(config, shared, world, tell)
    student = twin_model(shared, config.pair)
    clips = _drawn(shared, world, config.run.seed, size)
    unknown, frames = float(np.square(clips.whole - usual).sum()), shared.frames
    every = np.tile(np.arange(frames), (len(clips.whole), 1))
    came, most = _sent(config, shared, clips, every)
    right = _right(shared, student, clips, came.numpy(), every)
    yield {"rule": ALL, "k": frames, "how": "", "bytes": most, "share": 1.0, "accuracy": right}
    arms = [(rule, k) for rule in ANCHORS for k in KEPT if k < frames]
    for done, (rule, k) in enumerate(arms):
        rng = generator(config.run.seed, f"probe/anchors/{rule}/{k}")
        at = np.stack([choose(rule, clip, k, rng) for clip in clips.whole])
        came, sent = _sent(config, shared, clips, at)
        for how in (*WAYS, *(CONTROLS if rule == PLAIN else ())):
            made = adr.reconstruct(how, came, torch.from_numpy(at), frames, reasoner).numpy()
            row = {"rule": rule, "k": k, "how": how, "bytes": sent, "share": sent / most}
            if how != "none":
                row["error"] = float(np.square(made - clips.whole, dtype=np.float64).sum()) / unknown
            if how == adr.LEARNED:
                asked = came, torch.from_numpy(at), torch.from_numpy(clips.whole).float()
                found = adr_training.coverage(reasoner, asked)
                row |= {f"covers {100 * level:.0f}": value for level, value in found.items()}
            if rule == PLAIN or how == adr.LEARNED:  # the student is slow, and is asked of these alone
                row["accuracy"] = _right(shared, student, clips, made, at if how == "none" else every)
            yield row
        tell("probe anchors", done + 1, len(arms))
    yield from _timed(shared, student, came, at, clips.asked, reasoner, size.repeats)


def _drawn(shared: Shared, world: World, seed: int, size: Size) -> _Clips:
    """Clips of C that are asked about, and questions about them; captions are none."""
    rows = world.test[world.test["qtype"].astype(str) != CAPTION]
    rows = rows.iloc[generator(seed, "probe/clips").permutation(len(rows))]
    few = rows.groupby("image_row", sort=False).head(size.questions)
    names = list(dict.fromkeys(few["image_row"].tolist()))[: size.clips]
    few = few[few["image_row"].isin(names)]
    grids = {world.test_tokens.grid(i) for i in names}
    if len(grids) != 1:
        raise ConfigError(f"probe anchors: clips of {len(grids)} grids; allowed: one for all")
    whole = np.stack([world.test_tokens[i].reshape(shared.frames, -1, shared.width) for i in names])
    place = {name: i for i, name in enumerate(names)}
    return _Clips(
        whole,
        [shared.text.question_ids(str(q)) for q in few["question"]],
        [shared.text.answer_ids(str(a)) for a in few["answer"]],
        [place[i] for i in few["image_row"]],
    )


def _sent(config: Config, shared: Shared, clips: _Clips, at: NDArray[np.int64]) -> tuple[torch.Tensor, float]:
    """Anchors (B, K, n, D) as they arrive, and bytes of a clip on the wire, with one question about each."""
    n, size, came = clips.whole.shape[2], 0, []
    first = dict(zip(reversed(clips.of), reversed(clips.asked), strict=True))
    turn = shared.transform_for(config.uplink)
    for start in range(0, len(at), BATCH):
        samples = tuple(
            Sample(
                i - start,
                shared.grid,
                positions(at[i], n),
                first[i],
                [],
                0.0,
                tokens=clips.whole[i, at[i]].reshape(-1, shared.width).astype(np.float32),
            )
            for i in range(start, min(start + BATCH, len(at)))
        )
        frame = token_batch.encode(Batch(0, 1, 0, samples), shared.width, config.uplink.token_bits, turn)
        size += len(frame)
        got = token_batch.decode(frame, shared.fits, shared.width, shared.vocab, MAX_BYTES, transform=turn)
        came += [s.tokens.reshape(len(adr.anchor_frames(s.positions, n)), n, -1) for s in got.samples]
    return torch.from_numpy(np.stack(came)), size / len(at)


def _right(
    shared: Shared, student: nn.Module, clips: _Clips, made: NDArray[np.floating], at: NDArray[np.int64]
) -> float:
    """Share of the questions that the student answers right from tokens (B, F, n, D) of frames `at`."""
    right, n = [], made.shape[2]
    for start in range(0, len(clips.of), BATCH):
        some = slice(start, start + BATCH)
        of = clips.of[some]
        inputs = vlm.collate(
            shared.text,
            [made[i].reshape(-1, shared.width) for i in of],
            clips.asked[some],
            clips.answers[some],
            [positions(at[i], n) for i in of],
        )
        right.append(vlm.correct(student, inputs))
    return float(np.concatenate(right).mean())


def _timed(
    shared: Shared,
    student: nn.Module,
    came: torch.Tensor,
    at: NDArray[np.int64],
    asked: list[list[int]],
    reasoner: adr.Reasoner,
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Milliseconds of an adaptation from a device's clips, by way: all frames, features, summary, adapter.

    The hypernetwork is as large as that of `mmpg` and was not trained, which costs as much.
    """
    few, where = came[:DEVICE], torch.from_numpy(at[:DEVICE])
    layout, initial = adapters.layout(student), adapters.read(student)
    made = fda.Adaptor(layout, initial, "head", shared.vocab, 3 * shared.width)
    for how in WAYS:
        spent = []
        for _ in range(repeats):
            began = time.perf_counter()
            whole = adr.reconstruct(how, few, where, shared.frames, reasoner).numpy()
            features = np.stack([fda.clip_features(clip) for clip in whole])
            made.adapter(fda.Seen(features, asked[: len(features)]))
            spent.append(1000 * (time.perf_counter() - began))
        yield {"rule": "time", "k": len(few), "how": how, "milliseconds": float(np.median(spent))}


FIGURES = ("error", "accuracy", "lost")


def means(found: pd.DataFrame) -> pd.DataFrame:
    """One row an arm: mean bytes and share, and mean and 95 % interval over seeds of error, accuracy and what
    is lost of the accuracy from all frames, seed by seed."""
    arms = found[found["rule"] != "time"]
    whole = arms[arms["rule"] == ALL].set_index("seed")["accuracy"]
    arms = arms.assign(lost=whole.loc[arms["seed"]].to_numpy() - arms["accuracy"].to_numpy())
    rows = []
    for (rule, k, how), group in arms.groupby(["rule", "k", "how"], sort=False):
        row: dict[str, Any] = {"rule": rule, "k": int(k), "how": how, "seeds": len(group)}
        row |= {name: float(group[name].mean()) for name in ("bytes", "share")}
        for name in FIGURES:
            values = group[name].dropna().tolist() if name in group else []
            if values:
                low, high = interval(values) or (float("nan"),) * 2
                row |= {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}
        for name in (c for c in group if str(c).startswith("covers ") and group[c].notna().all()):
            row[str(name)] = float(group[name].mean())
        rows.append(row)
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> Fitted:
    """Means over seeds, for the terminal."""
    rows = []
    for row in means(found).to_dict("records"):
        ends = (share(*(row.get(f"{name}{end}") for end in ("", "_low", "_high"))) for name in FIGURES)
        of_all = f"{100 * row['share']:.1f}"
        rows.append((row["rule"], str(row["k"]), row["how"], f"{row['bytes']:,.0f}", of_all, *ends))
    heads = ("anchors", "K", "made", "bytes", "of all %", "error %", "right %", "points lost")
    return Fitted(heads, rows, left=("made",))


def write(found: pd.DataFrame, out: Path) -> Path:
    """Write `probe.csv`, `probe.json` (means, what is covered, milliseconds, the target), `probe.png` and
    `probe.svg` into the folder; returns the first."""
    from experiments.probes.anchor_figure import plot

    out.mkdir(parents=True, exist_ok=True)
    found.to_csv(out / "probe.csv", index=False)
    shown = means(found)
    spent = found[found["rule"] == "time"].groupby("how")["milliseconds"].median()
    said = {
        "arms": [{k: v for k, v in row.items() if v == v} for row in shown.to_dict("records")],
        "milliseconds": {str(k): float(v) for k, v in spent.items()},
        "target": target(shown),
    }
    (out / "probe.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    for end in ("png", "svg"):
        plot(shown, out / f"probe.{end}")
    return out / "probe.csv"


def target(shown: pd.DataFrame) -> dict[str, Any]:
    """What arms keep to at most a tenth of all frames' bytes at 2 points: each clip by itself, whose anchors
    all go up. A device that sends anchors of a part of its clips has that part of their share."""
    arms = shown[shown["rule"] != ALL]
    cheap = arms[arms["share"] <= TARGET_SHARE]
    good = arms[arms["lost"] <= TARGET_POINTS].sort_values("share")
    least = {} if good.empty else {k: good.iloc[0][k] for k in ("rule", "k", "how", "share", "lost")}
    return {
        "share": TARGET_SHARE,
        "points": TARGET_POINTS,
        "reached": int((cheap["lost"] <= TARGET_POINTS).sum()),
        "least": {k: v.item() if isinstance(v, np.generic) else v for k, v in least.items()},
    }
