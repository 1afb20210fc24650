"""The plan beside measurements: `python -m experiments.bench.plan`.

Each case runs a command in processes of its own. Every twenty milliseconds or less often, the anonymous
memory of all its processes is added up, and the files that the widest of them has mapped; the most of that is
the measurement. A process that imports what a run imports and does nothing else is the baseline. Printed are
plan and measurement in all, and both above the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import typer

from cdc_flower.config import parse
from cdc_flower.models import folders
from experiments.run import plan as planning
from experiments.run.pool import ONE_THREAD, QUIET
from experiments.run.settings import resolve

EVERY = 0.02  # seconds between two looks
IDLE = (
    "import clients.client_app, clients.cdc, clients.fedavg, strategies.run, peft, bitsandbytes, time\n"
    "from strategies.method import methods\n"
    "from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration\n"
    "methods(); print('ready', flush=True); time.sleep(60)"
)
LESS = ("run.rounds=1", "run.devices=2", "cloud.steps=3", "data.items-per-domain=100")
LARGE = (
    "cloud.batch=24",
    "cloud.steps=2",
    "cloud.confidence=0",
    "cloud.source-replay=48",
    "data.scenes-train=200",
    "data.scenes-test=100",
    "data.items-per-domain=12",
    "run.samples-per-round=16",
)


@dataclass(frozen=True)
class Case:
    """A command to plan and to measure: methods on an engine, with settings; `large` takes the large pair."""

    name: str
    engine: str
    methods: tuple[str, ...]
    sets: tuple[str, ...] = ()
    workers: int = 1
    large: bool = False

    @property
    def every(self) -> tuple[str, ...]:
        """All settings; later ones win."""
        return tuple(
            {s.partition("=")[0]: s for s in (*LESS, *(LARGE if self.large else ()), *self.sets)}.values()
        )


CASES = (
    Case("scenes, cdc", "local", ("cdc",)),
    Case("scenes, fedavg_full", "local", ("fedavg_full",)),
    Case("scenes, 2 methods, 1 worker", "compare", ("cdc", "fedavg_full")),
    Case("scenes, 2 methods, 2 workers", "compare", ("cdc", "fedavg_full"), workers=2),
    Case("large, cdc, nf4", "local", ("cdc",), large=True),
    Case("large, cdc, int8", "local", ("cdc",), ("pair.compression=int8",), large=True),
    Case("large, cdc, none", "local", ("cdc",), ("pair.compression=none",), large=True),
    Case("large, fedavg_lora", "local", ("fedavg_lora",), large=True),
    Case("large, fedavg_full", "local", ("fedavg_full",), large=True),
    Case("large, 2 methods, 2 workers", "compare", ("static", "cdc"), workers=2, large=True),
)


@dataclass(frozen=True)
class Measured:
    """Bytes at the peak of both: anonymous of all processes, and of files in the one that mapped most; CPU
    seconds of all, and seconds until the first word.
    """

    anonymous: float
    mapped: float
    seconds: float = 0.0
    first: float = 0.0

    @property
    def total(self) -> float:
        """Both."""
        return self.anonymous + self.mapped


def write_pair(folder: Path, hidden: int = 512, layers: int = 8) -> Path:
    """A pair with the packaged pair's tower and tokenizer, and larger language models of random weights."""
    import torch
    from transformers import AutoConfig, LlavaForConditionalGeneration

    source = folders.WEIGHTS / "scenes"
    tower = LlavaForConditionalGeneration.from_pretrained(source / "student").model.vision_tower.state_dict()
    for role, width in (("student", hidden), ("teacher", hidden * 3 // 2)):
        config: Any = AutoConfig.from_pretrained(source / role)
        text = config.text_config
        text.hidden_size, text.intermediate_size, text.num_hidden_layers = width, 3 * width, layers
        text.num_attention_heads = text.num_key_value_heads = 8
        text.head_dim = width // 8
        torch.manual_seed(0)
        model: Any = LlavaForConditionalGeneration(config)
        model.model.vision_tower.load_state_dict(tower)
        shutil.copytree(
            source / role, folder / role, ignore=shutil.ignore_patterns("*.safetensors", "config.json")
        )
        model.to(torch.float16).save_pretrained(folder / role)
    return folder


def settings_of(case: Case, pair: Path | None) -> dict[str, Any]:
    """The settings of a case."""
    found, _ = resolve(None, None, case.every)
    if case.large:
        found |= {
            "pair.teacher": f"{pair}/teacher",
            "pair.student": f"{pair}/student",
            "uplink.transform": "none",
        }
    return found


def planned(case: Case, pair: Path | None) -> planning.Plan:
    """The plan of a case."""
    settings = settings_of(case, pair)
    configs = {m: parse({**settings, "run.method": m}) for m in case.methods}
    return planning.make(configs, planning.Engine(case.engine, case.workers), len(configs))


def measured(command: Sequence[str], log: Path, until: str = "") -> Measured:
    """The memory of a command and all its children, at its peak; `until` ends it when it prints that.

    Raises:
        RuntimeError: it ended with an error.
    """
    environment = {**os.environ, **QUIET, **dict.fromkeys(ONE_THREAD, "1")}
    most, mapped, first, began, before = 0.0, 0.0, 0.0, time.perf_counter(), _spent()
    with log.open("w+") as out:
        running = psutil.Popen(command, stdout=out, stderr=out, env=environment)
        while running.poll() is None:
            looked = time.perf_counter()
            found = list(_now([running, *_children(running)]))
            now = sum(a for a, _ in found), max((m for _, m in found), default=0.0)
            most, mapped = max((most, mapped), now, key=sum)
            first = first or (time.perf_counter() - began) * bool(log.stat().st_size)
            if until and until in log.read_text():
                running.kill()
            time.sleep(max(EVERY, 4 * (time.perf_counter() - looked)))  # to look costs, too
    if running.wait() and not until:
        raise RuntimeError(f"{' '.join(command)}: {log.read_text()[-400:]}")
    return Measured(most, mapped, _spent() - before, first)


def _spent() -> float:
    """CPU seconds of processes that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _children(of: psutil.Process) -> list[psutil.Process]:
    try:
        return of.children(recursive=True)
    except psutil.Error:
        return []


def _now(processes: Iterable[psutil.Process]) -> Iterable[tuple[float, float]]:
    """(anonymous, mapped) bytes of each."""
    for one in processes:
        try:
            lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        except OSError:
            continue
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        if "RssAnon" in status:  # not one that has just ended
            yield tuple(1024 * float(status[name][0]) for name in ("RssAnon", "RssFile"))  # type: ignore[misc]


def measure(case: Case, pair: Path | None, home: Path) -> Measured:
    """Run a case."""
    out = home / "".join(c if c.isalnum() else "-" for c in case.name)
    settings = {**settings_of(case, pair), "run.out-dir": str(out)}
    program = [sys.executable, "-m", "experiments.bench.plan", "--run"]
    given = {"engine": case.engine, "workers": case.workers, "methods": case.methods, "settings": settings}
    return measured([*program, json.dumps(given)], home / f"{out.name}.log")


def _run(given: dict[str, Any]) -> None:
    """What a measured process does."""
    from experiments.run import compare, simulate

    settings = given["settings"]
    if given["engine"] == "compare":
        out = settings.pop("run.out-dir")
        made = compare.run(settings, given["methods"], out=out, workers=given["workers"], progress=False)
        if made.status != "completed":
            raise SystemExit(f"{made.status}: {made.index['failed']}")
    else:
        simulate.local(parse({**settings, "run.method": given["methods"][0]}), lambda *_: None)


def main() -> None:
    """Print the table, in MB; cases may be chosen by parts of their names."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("cases", nargs="*")
    arguments.add_argument("--run", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.run:
        return _run(json.loads(given.run))
    home = Path(tempfile.mkdtemp(prefix="cdc-plan-"))
    try:
        pair = write_pair(home / "pair")
        base = measured([sys.executable, "-c", IDLE], home / "idle.log", until="ready")
        typer.echo(f"imports: {base.anonymous / 1e6:.0f} MB and {base.mapped / 1e6:.0f} MB of files")
        typer.echo(
            "| case | plan | measured | | above imports: plan | measured | |\n|---|---|---|---|---|---|---|"
        )
        for case in CASES:
            if given.cases and not any(part in case.name for part in given.cases):
                continue
            plan, found = planned(case, pair), measure(case, pair, home)
            count = sum(p.count for p in plan.processes)
            below = count * base.anonymous + base.mapped
            figures = []
            for one, other in ((plan.ram, found.total), (plan.ram - below, found.total - below)):
                figures += [f"{one / 1e6:.0f}", f"{other / 1e6:.0f}", f"{one / other - 1:+.0%}"]
            typer.echo(f"| {case.name} | {' | '.join(figures)} |")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
