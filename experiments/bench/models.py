"""What models of real sizes take, step by step, beside what arithmetic, bandwidth and the plan allow:
`make bench-models`, or `python -m experiments.bench.models --out FOLDER`.

A LLaVA pair with random weights is written to disk: a student of 0.5 billion weights under a teacher of 1.5,
152 thousand words, 576 tokens a picture. A process of one thread does every step of a round once. Its seconds
stand beside the roofline of this machine, measured in the same run, and what its memory grew by beside what
has to be there. Then `compare` makes one round of two devices: its peak, processes added up, stands beside
14 GiB and beside the plan. Seconds are of the CPU, so that a busy machine shows about the same."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from cdc_flower.config import Config, parse
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.profiles import Profile, read_profiles
from cdc_flower.fleet.cost.roofline import Shapes
from cdc_flower.models.room import FLOAT
from cdc_flower.plan import facts, memory
from cdc_flower.plan.live import Work
from experiments.bench import calibrate, pairs
from experiments.bench.figures import Figure, figure, host, table, write
from experiments.bench.plan import measured
from experiments.run import plan as planning
from experiments.run.settings import resolve

MOST = 14 * 2**30  # bytes of a comparison
SPEAKS = 10.0  # seconds within which a command says something
ENCODED = 2.0, 10e6  # seconds of encoding an update, of so many weights
TIMES = 3.0  # times an update's float32 bytes, what coding it may take
GIB = 2**30
SETTINGS = (
    "run.rounds=1",
    "run.devices=2",
    "run.samples-per-round=2",
    "run.eval-every=1",
    "drift.axes=object",
    "data.known-questions=",
    "data.scenes-train=6",
    "data.scenes-test=4",
    "data.items-per-domain=1",
    "cloud.steps=1",
    "cloud.batch=2",
    "cloud.confidence=0",
    "cloud.source-replay=2",
    "uplink.transform=none",
)


@dataclass(frozen=True)
class Step:
    """What a step took: CPU seconds; bytes that the process had before, has after it, and had at most."""

    name: str
    seconds: float
    before: float
    after: float
    peak: float

    @property
    def more(self) -> float:
        """Bytes that it took at its peak, beyond what was there."""
        return max(0.0, self.peak - self.before)


def settings(pair: Path, home: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Of the run that is measured."""
    found, _ = resolve(None, None, {s.partition("=")[0]: s for s in (*SETTINGS, *more)}.values())
    folders = {"pair.teacher": f"{pair}/teacher", "pair.student": f"{pair}/student"}
    return found | folders | {"pair.token-cache": str(home / "cache"), "run.method": "cdc"}


# --- what the measured process does -------------------------------------------------------------------------


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * float(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _done(name: str, work: Callable[[], Any]) -> Any:
    """Do a step, print what it took, give what it gave."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    before, began = _status("VmRSS"), time.process_time()
    found = work()
    took = time.process_time() - began
    after = _status("VmRSS")
    peak = max(before, after, _status("VmHWM"))  # the kernel's mark lags behind by some pages a processor
    sys.stdout.write(json.dumps([name, took, before, after, peak]) + "\n")
    return found


def steps(own: dict[str, Any]) -> None:
    """Every step of a round, once; prints a line of JSON each."""
    import numpy as np
    import torch
    from PIL import Image

    from cdc_flower.cloud.distill import Cloud
    from cdc_flower.cloud.lessons import teach
    from cdc_flower.cloud.replay import CloudSample
    from cdc_flower.downlink import update
    from cdc_flower.downlink.versions import Mirror
    from cdc_flower.models import adapters, vlm
    from cdc_flower.models.shared import load_shared
    from cdc_flower.models.student import device_model, twin_model
    from cdc_flower.models.teacher import load_teacher
    from cdc_flower.uplink import select, token_batch
    from cdc_flower.uplink.sample import Batch, Sample
    from cdc_flower.uplink.scores import token_score
    from clients import inference

    torch.set_num_threads(1)
    config = parse(own)
    shared = _done("load tower", lambda: load_shared(config.pair, config.data.name, config.data.frames))
    device: Any = _done("load device", lambda: device_model(shared, config.pair))
    twin = _done("load twin", lambda: twin_model(shared, config.pair))
    teacher = _done("load teacher", lambda: load_teacher(config.pair, shared, config.data.name))

    pixels = np.random.default_rng(0).integers(0, 256, (*facts.PHOTO, 3), np.uint8)
    picture = Image.fromarray(pixels)
    ((tokens, grid),) = _done("encode a picture", lambda: shared.encode([picture]))
    asked = shared.text.question_ids("what is there?")
    length = len(asked)

    def answered(score: str) -> vlm.Answers:
        return inference.answer(device, shared, length, [tokens], [asked], score, [grid])

    _done("answer", lambda: answered(""))
    found = _done("answer with scores", lambda: answered("sampled"))
    rule, rng = token_score("sampled"), np.random.default_rng(0)
    kept = np.asarray(select.top(rule.of_read(np.stack(found.read), rng), config.uplink.tokens_kept)[0])
    sample = Sample(
        index=0,
        grid=grid,
        positions=kept.astype(np.uint16),
        tokens=np.asarray(tokens[kept], np.float32),
        question_ids=asked,
        answer_ids=found.ids[0],
        uncertainty=1.0,
    )
    batch = Batch(0, 1, 0, (sample,))
    _done("frame", lambda: token_batch.encode(batch, shared.width, config.uplink.token_bits, None))
    whole = CloudSample(np.asarray(tokens, np.float32), np.arange(grid.n), asked, grid)
    heard = [whole, *[CloudSample(sample.tokens, kept, asked, grid)] * (config.cloud.batch - 1)]
    cloud = Cloud(config, shared, teacher, twin)
    _done("teacher's answer", lambda: teach(shared, teacher, heard[:1]))
    learned = _done("teacher's answers and a step of AKD", lambda: cloud.learn(heard, 1))
    layout: Any = adapters.layout(twin)
    first = adapters.read(device)
    down = config.downlink
    budget = update.budget_bytes(down.budget, len(first))
    mirror = Mirror(first, layout, down.codec, budget, down.history)
    _done("update: encode", lambda: mirror.advance(learned.adapter))
    frame = mirror.frame_for(0)
    assert frame is not None
    arguments = layout.digest, layout.sizes, update.longest(layout.total)
    flat, _ = _done("update: apply", lambda: update.apply(frame, first, 0, *arguments))
    _done("adapter into the device", lambda: adapters.write(device, flat))


# --- beside its limits --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """What a step takes at least, or may take: seconds, and bytes on top of what is there."""

    seconds: float
    more: float


def limits(config: Config, on: Profile) -> dict[str, Limit]:
    """Of every step, from shapes, this machine and the plan."""
    run = planning.make({"cdc": config}, planning.Engine("local", 1), 1, gpu=False).runs["cdc"]
    student, teacher = run.student, run.teacher
    own, of = student.parts, student.config
    shapes = roofline.shapes(student.family.cost_config(of), config.pair.rank)
    taught = roofline.shapes(teacher.family.cost_config(teacher.config), 0)
    compression, words = config.pair.compression, config.pair.max_answer_tokens
    whole = run.lengths.prompt
    some = config.uplink.tokens_kept + run.lengths.text

    def load(file: float, memory: float) -> Limit:
        return Limit((file + memory) / on.memory_bw, memory)

    def passes(of: Shapes, how: str, length: int) -> float:
        seen = length - run.lengths.text
        return float(roofline.work_seconds(on, roofline.answering(of, how, length, seen, words + 1)[1:]))

    lessons = [whole, *[some] * (config.cloud.batch - 1)]
    there = sum(
        roofline.prefill(shapes, "none", n + words, n - run.lengths.text, words).flops for n in lessons
    )
    asked = [passes(taught, "none", n) for n in lessons]
    answer = passes(shapes, compression, whole)
    learned = sum(asked) + 2 * there / on.flops_fp32  # there, and back through frozen weights
    at_once = Work(1, whole)
    coded = Limit(ENCODED[0] * own.adapter / ENCODED[1], TIMES * FLOAT * own.adapter)
    return {
        "load tower": load(2 * own.tower, FLOAT * own.tower),
        "load device": load(2 * own.language, own.stored(compression) + FLOAT * own.added),
        "load twin": load(2 * own.language, FLOAT * (own.language + own.added)),
        "load teacher": load(teacher.files, FLOAT * teacher.parts.language),
        "encode a picture": Limit(
            float(roofline.work_seconds(on, [roofline.tower(shapes)])), memory.tower(run, 1)
        ),
        "answer": Limit(answer, run.widest(student, at_once)),
        "answer with scores": Limit(answer, run.widest(student, Work(1, whole, attention=True))),
        "frame": Limit(answer, run.widest(student, at_once)),
        "teacher's answer": Limit(asked[0], run.widest(teacher, at_once)),
        "teacher's answers and a step of AKD": Limit(
            learned, run.widest(student, Work(1, whole + words, words, train=True))
        ),
        "update: encode": coded,
        "update: apply": coded,
        "adapter into the device": coded,
    }


def figures(found: Sequence[Step], beside: dict[str, Limit]) -> Iterator[Figure]:
    """Seconds and memory of every step."""
    for step in found:
        limit = beside[step.name]
        encodes = step.name == "update: encode"
        yield figure(f"{step.name}, s", step.seconds, limit.seconds, "<= 1" if encodes else "")
        yield figure(f"{step.name}, GiB more", step.more / GIB, limit.more / GIB, "<= 1" if encodes else "")
    yield figure("all of these in one process, GiB", max(s.peak for s in found) / GIB, MOST / GIB, "<= 1")


def compared(own: dict[str, Any], home: Path, quick: bool) -> Iterator[Figure]:
    """A comparison of one round, its processes added up."""
    config = parse(own)
    plan = planning.make({"cdc": config}, planning.Engine("compare", 1), 1)
    program = [
        sys.executable,
        "-m",
        "experiments.cli.app",
        "compare",
        "--methods",
        "cdc",
        "--workers",
        "1",
        "--no-plan",
    ]
    program += [part for key, value in own.items() for part in ("--set", f"{key}={value}")]
    found = measured([*program, "--out", str(home / "compare")], home / "compare.log")
    most = MOST if not quick else plan.ram
    yield figure("compare, 1 round of 2 devices, GiB", found.total / GIB, most / GIB, "<= 1")
    yield figure("the same beside the plan, GiB", found.total / GIB, plan.ram / GIB)
    yield figure("compare, s until it says something", found.first, SPEAKS, "<= 1")
    yield figure("compare, CPU s", found.seconds, 600.0, "" if quick else "<= 1")


def stepped(own: dict[str, Any], home: Path) -> list[Step]:
    """The steps, in a process of their own.

    Raises:
        RuntimeError: it ended with an error.
    """
    log = home / "steps.log"
    measured([sys.executable, "-m", "experiments.bench.models", "--steps", json.dumps(own)], log)
    lines = [line for line in log.read_text().splitlines() if line.startswith("[")]
    return [Step(*json.loads(line)) for line in lines]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write `bench-models.json` where `--out` is given."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.models", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="folder for bench-models.json")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: whether all of it runs")
    parser.add_argument("--set", action="append", default=[], help="a further setting of the run")
    parser.add_argument("--steps", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.steps:
        return steps(json.loads(asked.steps))
    console = Console(file=sys.stdout, width=150, highlight=False)
    console.print(f"host: {host()}", markup=False)
    shapes = pairs.QUICK if asked.quick else pairs.REAL
    with tempfile.TemporaryDirectory(prefix="cdc-models-") as name:
        home, found = Path(name), list[Figure]()
        _apart(pairs.write, shapes, home / "pair", "100KB" if asked.quick else pairs.SHARD)
        own = settings(home / "pair", home, asked.set)
        on = calibrate.profile("here", calibrate.measure(1, quick=asked.quick), read_profiles()["minipc"], {})
        console.print(f"here: {on.flops_fp32 / 1e9:.1f} GFLOP/s, {on.memory_bw / 1e9:.1f} GB/s", markup=False)
        found += figures(stepped(own, home), limits(parse(own), on))
        console.print(table(found))
        last = list(compared(own, home, asked.quick))
        console.print(table(last))
    write(found + last, asked.out, "bench-models.json")


def _apart(work: Callable[..., Any], *arguments: Any) -> None:
    """Do something in a process of its own, whose memory ends with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(work, *arguments).result()


if __name__ == "__main__":
    main()
