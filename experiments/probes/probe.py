"""Probes: one part of the method alone, without training, so that many arms cost seconds.

`uplink` asks what the teacher still answers from the tokens that a score keeps: the right answers that a byte
of uplink buys, before anything is learned from them. `downlink` runs the method once per seed with dense
float16 updates, keeps the adapter of every round, and then sends that same line of adapters through every
other codec at every budget: what a device answers after the last round. Uploads are the same for all codecs,
which is what makes them comparable (and leaves out that a device with a worse adapter asks other questions).
`compressions` runs the method once per seed and compression, and lets devices of every compression wear every
adapter that came of it: whether a mixed fleet can share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from flwr.app import ArrayRecord, MetricRecord
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from rich import box
from rich.table import Table

from cdc_flower.config import Config, ConfigError, flat, parse
from cdc_flower.data.world import World
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.downlink.versions import Mirror
from cdc_flower.draws import generator
from cdc_flower.fleet.cost.roofline import COMPRESSIONS
from cdc_flower.fleet.engines.local_grid import LocalGrid
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import device_model, twin_model
from cdc_flower.models.teacher import load_teacher
from cdc_flower.uplink import select, token_batch
from cdc_flower.uplink.sample import MAX_BYTES, Batch, Sample
from cdc_flower.uplink.scores import TOKEN_SCORES
from cdc_flower.wire import keys
from clients import client_app
from experiments.report.summary import interval
from experiments.report.terminal import share
from strategies.accuracy import accuracy, wearing
from strategies.cdc import CDC
from strategies.run import prepare

Tell = Callable[[str, int, int], None]
MASKED = (0.3, 0.56, 0.8, 0.9)  # share of the tokens that stays on the device, besides none
FACTORS = (5, 10, 20, 50, 100)  # times below a dense float16 adapter
ITEMS, BATCH = 200, 32  # questions per domain and seed; samples of a frame
SIZES = ("kept", "budget", "student")  # columns that make arms of one name differ


def run(probe: str, config: Config, seeds: int, tell: Tell) -> pd.DataFrame:
    """One row per arm, seed and domain, with `accuracy` (0..1) and, but for `compressions`, `bytes` (mean of
    a sample or an update).

    Args:
        probe: one of `PROBES`.
        config: its seed is the first of `seeds`.
        tell: progress.

    Raises:
        ConfigError: another probe, no seed, or settings that cannot be run.
    """
    if probe not in PROBES:
        raise ConfigError(f"unknown probe '{probe}'; allowed: {', '.join(PROBES)}")
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}; allowed: at least 1")
    torch.set_num_threads(1)
    rows = []
    for i in range(seeds):
        now = parse({**flat(config), "run.seed": config.run.seed + i})
        setup = prepare(now, tell)
        shared, world = setup.shared, setup.world
        rows += [{"seed": now.run.seed, **row} for row in PROBES[probe](now, shared, world, tell)]
    return pd.DataFrame(rows)


# --- uplink -------------------------------------------------------------------------------------------------


def uplink(config: Config, shared: Shared, world: World, tell: Tell) -> Iterator[dict[str, Any]]:
    """What the teacher answers, from the tokens a score keeps, to questions of the devices' stream."""
    kept = [max(1, round(shared.n_tokens * (1 - masked))) for masked in MASKED]
    arms = [("all", "", shared.n_tokens)]
    arms += [(name, way, k) for name in TOKEN_SCORES for way in ("high", "low") for k in kept]
    arms = [a for a in arms if a[:2] != ("random", "low")]
    rows = _drawn(world, config.run.seed)
    tokens = np.stack([world.train_tokens[i] for i in rows["image_row"]]).astype(np.float32)
    asked = [shared.text.question_ids(str(q)) for q in rows["question"]]
    scores = {name: _scores(name, config, shared, tokens, asked) for name in TOKEN_SCORES}
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
        found.append(TOKEN_SCORES[name](model, shared.text, inputs, rng))
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
    transform = shared.transform_for(config.uplink)
    size, right = 0, []
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
        right.append(vlm.correct(load_teacher(config.pair, shared, config.data.name).model, inputs))
    found = pd.Series(np.concatenate(right)).groupby(rows["drift_domain"].to_numpy(dtype=str)).mean()
    return {str(k): float(v) for k, v in found.items()}, size / len(rows)


# --- downlink -----------------------------------------------------------------------------------------------


def downlink(config: Config, shared: Shared, world: World, tell: Tell) -> Iterator[dict[str, Any]]:
    """What a device answers when the same line of adapters has come through each codec at each budget."""
    line = _line(config, shared, world)
    twin = twin_model(shared, config.pair)
    start = adapters.read(twin)
    layout: Any = adapters.layout(twin)  # its cached properties are properties, which no checker believes
    dense = 2 * len(start)
    arms = [(n, f) for n, codec in CODECS.items() for f in (FACTORS if codec.budgeted else (1,))]
    for at, (codec, factor) in enumerate(arms):
        mirror, sizes = Mirror(start, layout, codec, dense // factor, len(line)), []
        for target in line:
            held = mirror.newest
            mirror.advance(target)
            sizes.append(len(mirror.frame_for(held) or b""))
        arrived = mirror.adapter(mirror.newest)
        apart = float(np.linalg.norm(arrived - line[-1]) / np.linalg.norm(line[-1] - start))
        with wearing(twin, arrived) as model:
            found = accuracy(model, shared, world)
        for domain, right in found.items():
            yield {
                "arm": codec,
                "budget": dense // factor,
                "bytes": float(np.mean(sizes)),
                "domain": domain,
                "accuracy": right,
                "error": apart,
            }
        tell("probe of the downlink", at + 1, len(arms))


def _line(config: Config, shared: Shared, world: World) -> list[np.ndarray]:
    """What codecs have to carry: the adapter (P,) after every round of a run with dense float16 updates."""
    dense = parse({**flat(config), "run.method": "cdc", "downlink.codec": "fp16"})
    strategy = CDC.build(prepare(dense))
    line: list[np.ndarray] = []

    def finished(round: int, arrays: ArrayRecord) -> MetricRecord:
        if round:
            line.append(arrays[keys.PAYLOAD].numpy().copy())
        return MetricRecord({})

    run = dense.run
    grid = LocalGrid(client_app.app, run.devices, flat(dense))
    start = strategy.initial_arrays()
    strategy.start(grid, start, num_rounds=run.rounds, timeout=run.round_timeout, evaluate_fn=finished)
    return line


# --- compressions -------------------------------------------------------------------------------------------


def compressions(config: Config, shared: Shared, world: World, tell: Tell) -> Iterator[dict[str, Any]]:
    """What devices of each compression answer, as deployed, with the adapter that was distilled for each (the
    devices of that run and the cloud's twin had its compression), and with none.
    """
    of = {name: parse({**flat(config), "pair.compression": name}) for name in reversed(COMPRESSIONS)}
    total, at = len(of) * (2 + len(of)), 0
    worn = {"none, as shipped": adapters.read(twin_model(shared, config.pair))}
    for name, one in of.items():
        worn[f"for {name}"] = _line(one, shared, world)[-1]
        at += 1
        tell("probe of the compressions", at, total)
    for student, one in of.items():
        model = device_model(shared, one.pair)
        for arm, adapter in worn.items():
            with wearing(model, adapter):
                found = accuracy(model, shared, world)
            for domain, right in found.items():
                yield {"arm": arm, "student": student, "domain": domain, "accuracy": right}
            at += 1
            tell("probe of the compressions", at, total)


PROBES = {"uplink": uplink, "downlink": downlink, "compressions": compressions}
"""Name -> what measures one seed."""


# --- what is shown ------------------------------------------------------------------------------------------


def means(found: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and size (or student): mean bytes where there are any, and mean and 95 % interval over
    seeds of source and drift.
    """
    sizes = [c for c in SIZES if c in found]
    source = found[found["domain"] == "source"].assign(domain="source")
    drift = found[found["domain"] != "source"].assign(domain="drift")
    by = ["arm", *sizes, "seed", "domain"]
    values = pd.concat([source, drift]).groupby(by, sort=False)["accuracy"].mean().reset_index()
    sent = found.groupby(["arm", *sizes])["bytes"].mean() if "bytes" in found else {}
    rows = []
    for key, group in values.groupby(["arm", *sizes], sort=False):
        row: dict[str, Any] = dict(zip(["arm", *sizes], key, strict=True))
        row |= {"bytes": float(sent[key])} if len(sent) else {}
        for domain, part in group.groupby("domain"):
            shares = part["accuracy"].tolist()
            ends = interval(shares) or (float("nan"),) * 2
            row |= {domain: float(np.mean(shares)), f"{domain}_low": ends[0], f"{domain}_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> Table:
    """The means, for the terminal."""
    shown, made = means(found), Table(box=box.SIMPLE)
    numbers = [c for c in (*SIZES, "bytes") if c in shown]
    for name in ("arm", *numbers, "drift %", "source %"):
        made.add_column(name, justify="left" if name in ("arm", "student") else "right")
    for row in shown.to_dict("records"):
        made.add_row(
            str(row["arm"]),
            *(row[c] if c == "student" else f"{row[c]:,.0f}" for c in numbers),
            *(share(*(row.get(f"{d}{end}") for end in ("", "_low", "_high"))) for d in ("drift", "source")),
        )
    return made


def write(found: pd.DataFrame, out: Path) -> Path:
    """Write `probe.csv` and, where bytes were counted, `probe.png` into the folder; returns the first."""
    out.mkdir(parents=True, exist_ok=True)
    found.to_csv(out / "probe.csv", index=False)
    if "bytes" in found:
        plot(means(found), out / "probe.png")
    return out / "probe.csv"


def plot(shown: pd.DataFrame, path: Path) -> None:
    """Accuracy on drifted domains against bytes, an arm a line, with its intervals; PNG."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    for i, (arm, rows) in enumerate(shown.groupby("arm", sort=False)):
        rows = rows.sort_values("bytes")
        x, y = rows["bytes"], 100 * rows["drift"]
        around = 100 * np.stack([rows["drift"] - rows["drift_low"], rows["drift_high"] - rows["drift"]])
        axes.errorbar(
            x,
            y,
            None if np.isnan(around).any() else around,
            color=f"C{i % 10}",
            marker="osD^vPX"[i % 7],
            linestyle=("-", "--", ":")[i // 10 % 3],
            label=str(arm),
            capsize=2,
            linewidth=1.4,
            markersize=4,
        )
    axes.set_xscale("log")
    ticks = sorted(10**e * m for e in range(7) for m in (1, 2, 5))
    axes.set_xticks([t for t in ticks if shown["bytes"].min() / 1.5 <= t <= shown["bytes"].max() * 1.5])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bytes of a sample" if "kept" in shown else "bytes of an update")
    axes.set_ylabel("right on drifted domains, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Software": None})
