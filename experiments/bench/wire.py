"""How near the wire is to its limits: `make bench`, or `python -m experiments.bench.wire --out FOLDER`.

Each figure stands beside its limit and its target. It is a measurement: a missed target is printed as missed
(`ok` false in `bench.json`) and the exit code is 0 all the same. Updates are drawn from seeded distributions
(Gaussian, Laplace, Student-t with 3 degrees of freedom, and *layers*: Laplace whose scale differs from tensor
to tensor by a factor of up to 30); the token batch is made by the pair that comes with the package. Speeds
are weights per second of CPU time of one thread, the best of several turns, beside one pass of `numpy` that
takes magnitudes and compares them; memory is the peak that `tracemalloc` sees in encoding or decoding, input
not counted.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.downlink.versions import Mirror
from cdc_flower.stages import DownlinkConfig
from experiments.bench.figures import Figure, figure, host, peak, seconds, table, write
from experiments.bench.updates import DISTRIBUTIONS, TENSORS, Sizes, Tensors, draw, even, take_apart

BITS = (0.16, 0.32, 0.8, 2.0)  # of an update, per weight: 100, 50, 20 and 8 times below float16
GRID = (10**4, 10**5, 10**6)
SPEEDS = (10**4, 10**5, 10**6, 10**7)
CODEC = DownlinkConfig().codec
FACTORS = (10, 20, 50, 100, 200)  # times below dense float16: the five budgets of the table of arms
JPEG_QUALITY = 75


def _limits() -> Iterator[Figure]:
    """(a), (b), (c): the bytes of updates of 10,000 weights and more."""
    every: list[Sizes] = []
    for n in GRID:
        sizes, some = even(n), []
        for kind in DISTRIBUTIONS:
            x = draw(kind, sizes)
            some += [take_apart(CODECS[CODEC].encode(x, sizes, round(n * bits / 8)), sizes) for bits in BITS]
        yield from _means(f"{n:.0e} weights", some, gated=False)
        every += some
    yield from _means("all updates", every, gated=True)
    worst = max(every, key=lambda s: s.envelope)
    allowed = 64 + 16 * TENSORS
    yield figure("largest envelope, bytes", worst.envelope, allowed, "<= 1")


def _means(what: str, some: list[Sizes], gated: bool) -> Iterator[Figure]:
    def row(name, values, limits, target):
        ratio = float(np.mean(np.array(values) / np.array(limits)))
        return figure(f"{name}, {what}", sum(values), sum(limits), target if gated else "", ratio)

    yield row(
        "positions / log2 C(N,K)", [s.positions for s in some], [s.positions_limit for s in some], "<= 1.01"
    )
    yield row("values / entropy", [s.values for s in some], [s.values_limit for s in some], "<= 1.01")
    limits = [s.positions_limit + s.values_limit for s in some]
    yield row("update without envelope / both", [s.frame - s.envelope for s in some], limits, "<= 1.03")
    yield row("frame / both", [s.frame for s in some], limits, "")


def _speed(largest: int) -> Iterator[Figure]:
    """(d): M weights/s of one core, `limit` = those of one pass of numpy over the same weights.

    Small updates are all different, as they are in a run: a repeated one finds its models in a cache.
    """
    for n in (*SPEEDS, 10**8):
        if n > largest:
            return
        sizes = even(n)
        updates = [draw("laplace", sizes, seed) for seed in range(max(1, min(200, 3 * 10**6 // n)))]
        scan = n / seconds(lambda x=updates[0]: np.count_nonzero(np.abs(x) > 1e-3)) / 1e6
        for bits in (0.32, 0.8):
            budget = round(n * bits / 8)
            payloads = [CODECS[CODEC].encode(x, sizes, budget) for x in updates]
            for what, work, inputs in (
                (
                    "encode",
                    lambda x, s=sizes, b=budget: CODECS[CODEC].encode(x, s, b),
                    itertools.cycle(updates),
                ),
                ("decode", lambda p, s=sizes: CODECS[CODEC].decode(p, s), itertools.cycle(payloads)),
            ):
                rate = n / seconds(lambda work=work, inputs=inputs: work(next(inputs))) / 1e6
                name = f"{what} {n:.0e} weights at {bits} bit, M/s (limit: one numpy pass)"
                yield Figure(name, rate, scan, rate / scan, "value >= 50", rate >= 50)


def _memory() -> Iterator[Figure]:
    """(e): peak bytes of encoding and of decoding over the bytes of the adapter in float32."""
    n = 10**6
    sizes = even(n)
    x = draw("laplace", sizes)
    for bits in (0.8, 4.0):
        payload = CODECS[CODEC].encode(x, sizes, round(n * bits / 8))
        for what, call in (
            ("encode", lambda b=bits: CODECS[CODEC].encode(x, sizes, round(n * b / 8))),
            ("decode", lambda p=payload: CODECS[CODEC].decode(p, sizes)),
        ):
            yield figure(f"memory of {what}, {n:.0e} weights at {bits} bit, bytes", peak(call), 4 * n, "<= 3")


def _path(largest: int) -> Iterator[Figure]:
    """(e'): a version and a cumulative update over 3 of them as the cloud makes them, 1/20 of float16 each:
    CPU seconds, and peak bytes beside what the mirror holds."""
    for n in (n for n in SPEEDS if 10**6 <= n <= largest):
        sizes = tuple(even(n))
        mirror = Mirror(np.zeros(n, np.float32), Tensors(sizes), CODEC, n // 10, 16)
        target = draw("laplace", sizes)
        for _ in range(4):
            mirror.advance(target)
        for what, call in (
            ("a version", lambda m=mirror, t=target: m.advance(t)),
            ("a cumulative update", lambda m=mirror: m.frame_for(m.newest - 3)),
        ):
            mirror.load(mirror.state())  # without the frames that it has made
            name = f"{what}, {n:.0e} weights"
            yield figure(f"{name}, s", seconds(call, turns=1), 2 * n / 10**7, "<= 1")
            mirror.load(mirror.state())
            yield figure(f"memory of {name}, bytes", peak(call), 4 * n, "<= 3")


def _uplink() -> Iterator[Figure]:
    """(f): the frame of 32 questions with the default settings against what else could be sent."""
    import torch
    from PIL import Image

    from cdc_flower.config import parse
    from cdc_flower.data import scenes
    from cdc_flower.models import vlm
    from cdc_flower.models.shared import load_shared
    from cdc_flower.models.student import twin_model
    from cdc_flower.uplink import select, token_batch
    from cdc_flower.uplink.pictures import picture_batch
    from cdc_flower.uplink.sample import NO_POSITIONS, Batch, Sample
    from cdc_flower.uplink.scores import token_score

    torch.set_num_threads(1)
    config = parse({})
    shared = load_shared(config.pair, "scenes")
    pack = scenes.generate(60, 20, seed=1)
    rows = pack.train.iloc[:: max(len(pack.train) // 32, 1)][:32]
    images = [Image.open(io.BytesIO(pack.train_images[i])).convert("RGB") for i in rows["image_id"]]
    tokens = [of_one for of_one, _ in shared.encode(images)]
    asked = [shared.text.question_ids(str(q)) for q in rows["question"]]
    student = twin_model(shared, config.pair)
    inputs = vlm.collate(shared.text, tokens, asked)
    answers = vlm.answer(student, shared.text, inputs, shared.max_answer_tokens)
    rng = np.random.default_rng(0)
    scores = token_score(config.uplink.token_score)(student, shared.text, inputs, rng)
    places = select.top(scores, config.uplink.tokens_kept)

    def sample(i: int, positions, **content) -> Sample:
        words = asked[i], answers.ids[i], float(answers.entropy[i])
        return Sample(i, shared.grid, np.asarray(positions, np.uint16), *words, **content)

    kept = [sample(i, p, tokens=np.asarray(tokens[i][p], np.float32)) for i, p in enumerate(places)]
    bits, n = config.uplink.token_bits, len(asked)
    batch = Batch(0, 1, 0, tuple(kept))
    sent = len(token_batch.encode(batch, shared.width, bits, shared.transform)) / n
    features = 2 * shared.n_tokens * shared.width
    what = f"{config.uplink.tokens_kept} of {shared.n_tokens} tokens, {bits} bit"
    what += ", transformed" if shared.transform else ""
    yield figure(f"float16 features of all tokens / uplink ({what}), bytes a sample", features, sent, ">= 20")
    pixels = vlm.as_read(shared.processor, images)
    for quality in (30, JPEG_QUALITY, 90):
        coded = [picture_batch.coded(p, NO_POSITIONS, "jpeg", shared.patch, quality) for p in pixels]
        whole = Batch(0, 1, 0, tuple(sample(i, NO_POSITIONS, picture=data) for i, data in enumerate(coded)))
        yield figure(
            f"uplink / (JPEG quality {quality} + question), bytes a sample",
            sent,
            len(picture_batch.encode(whole, "jpeg", shared.patch)) / n,
            "<= 0.5" if quality == JPEG_QUALITY else "",
        )


def layout_sizes() -> tuple[int, ...]:
    """Sizes of the tensors of the packaged student's adapter."""
    from cdc_flower.config import parse
    from cdc_flower.models import adapters
    from cdc_flower.models.shared import load_shared
    from cdc_flower.models.student import twin_model

    config = parse({})
    return adapters.layout(twin_model(load_shared(config.pair, "scenes"), config.pair)).sizes


def _downlink(sizes: Sequence[int]) -> Iterator[Figure]:
    """(g): a frame at the default budget against the dense adapter in float16."""
    dense, budget = 2 * sum(sizes), update.budget_bytes(DownlinkConfig().budget, sum(sizes))
    for kind in ("layers", "student3"):
        x = draw(kind, sizes)
        sent = len(CODECS[CODEC].encode(x, sizes, budget - update.ENVELOPE)) + update.ENVELOPE
        yield figure(f"dense float16 / downlink at its default budget, {kind}, bytes", dense, sent, ">= 20")


def relative_error(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """||x - y|| / ||x||."""
    x64 = x.astype(np.float64)
    return float(np.linalg.norm(x64 - y) / np.linalg.norm(x64))


def arms(sizes: Sequence[int]) -> list[tuple[str, str, int, int, float]]:
    """(distribution, codec, budget, bytes, relative error) of every arm at five budgets, whole frames."""
    rows = []
    for kind in DISTRIBUTIONS:
        x = draw(kind, sizes)
        for name, codec in CODECS.items():
            for factor in FACTORS if codec.budgeted else (1,):
                budget = 2 * sum(sizes) // factor
                payload = codec.encode(x, sizes, budget - update.ENVELOPE)
                error = relative_error(x, codec.decode(payload, sizes))
                rows.append(
                    (kind, name, budget if codec.budgeted else 0, len(payload) + update.ENVELOPE, error)
                )
    return rows


def arms_markdown(rows: list[tuple[str, str, int, int, float]], total: int) -> str:
    """The table of `arms` as Markdown: an update's relative error, a line per distribution and codec."""
    budgets = [2 * total // f for f in FACTORS]
    head = [f"{b:,} B (1/{f})" for b, f in zip(budgets, FACTORS, strict=True)]
    lines = [f"| update | codec | {' | '.join(head)} |", "|---" * (len(head) + 2) + "|"]
    for kind in DISTRIBUTIONS:
        for name, codec in CODECS.items():
            mine = [r for r in rows if r[:2] == (kind, name)]
            if codec.budgeted:
                cells = [f"{error:.3f}" for *_, error in mine]
            else:
                (_, _, _, size, error), *_ = mine
                cells = [f"{error:.4f} at {size:,} B", *[""] * (len(FACTORS) - 1)]
            lines.append(f"| {kind} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(quick: bool, largest: int) -> Iterator[Figure]:
    """All figures, as they are measured; `quick` leaves out updates above 1e6 weights."""
    yield from _limits()
    yield from _speed(10**6 if quick else largest)
    yield from _memory()
    yield from _path(10**6 if quick else largest)
    yield from _uplink()
    yield from _downlink(layout_sizes())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write `bench.json` and `arms.md` where `--out` is given."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.wire", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="folder for bench.json and arms.md")
    parser.add_argument("--quick", action="store_true", help="speeds up to 1e6 weights only")
    parser.add_argument("--largest", type=float, default=1e7, help="weights of the largest update, to 1e8")
    asked = parser.parse_args(argv)
    console = Console(file=sys.stdout, width=150, highlight=False)
    console.print(f"host: {host()}", markup=False)
    figures = list(measure(asked.quick, int(asked.largest)))
    console.print(table(figures))
    sizes = layout_sizes()
    text = arms_markdown(arms(sizes), sum(sizes))
    console.print(f"relative error, {sum(sizes):,} weights in {len(sizes)} tensors:", markup=False)
    console.print(text, markup=False, soft_wrap=True)
    write(figures, asked.out, "bench.json")
    if asked.out:
        (asked.out / "arms.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
