"""How fast a device answers in each compression: `make bench-speed`, or `python -m experiments.bench.speed`.

A student of the shapes of Qwen2-0.5B (random weights, written to disk as a checkpoint) answers one question
about a picture of 576 tokens, in every compression, and so does the bare model as transformers has it. They
take turns, one at a time in memory (about 3 GiB), and the quickest step of each counts: on a machine with
other work read the ratios. A word cannot take less time than reading its weights and keys, at the best
rate of reading, copying and triad that was seen meanwhile. With one thread seconds are CPU seconds, which
other work on the machine disturbs less. As in `experiments.bench.wire` a missed target is printed as missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn
from transformers import DynamicCache, LlavaForConditionalGeneration

from cdc_flower.fleet.cost import roofline
from cdc_flower.models import student, vlm
from cdc_flower.models.family import bare
from cdc_flower.models.shared import Shared, load_shared, load_tower
from cdc_flower.session import session
from cdc_flower.stages import PairConfig
from clients.inference import LEAST
from experiments.bench import pairs
from experiments.bench.figures import Figure, figure, host, table, write

COMPRESSIONS = "int4", "nf4", "int8", "none"
PLAIN = {"transformers, bfloat16": torch.bfloat16, "transformers, float32": torch.float32}
STEPS = 6  # words that are timed of an answer
PROMPT = 700, 28  # ids of a prompt, and those before its picture, which all questions share


def shapes(quick: bool, layers: int) -> pairs.Shapes:
    """Of the student: Qwen2-0.5B, or a tiny one, behind a small tower of as many tokens as a real one's."""
    real = pairs.QUICK if quick else pairs.REAL
    language = replace(real.student, layers=layers or real.student.layers)
    return pairs.Shapes(language, language, pairs.Tower(64, 2, 2, 128, 28 if quick else 336, 14), real.vocab)


def opened(folder: Path, config: Any) -> Shared:
    """What is shared of that checkpoint; no word ends an answer."""
    like = load_shared(PairConfig(), "scenes")
    return replace(
        like,
        path=str(folder),
        config=config,
        tower=load_tower(str(folder)),
        width=config.vision_config.hidden_size,
        text=replace(like.text, config=config, ends=(-1,)),
    )


@dataclass
class Taken:
    """The least seconds that were seen: of the pass over picture and question, and of a word."""

    first: float = math.inf
    word: float = math.inf
    together: float = math.inf  # a step of `LEAST` rows


def clock() -> float:
    """Seconds: of this process on a CPU where torch has one thread, else by the clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def turn(model: nn.Module, shared: Shared, inputs: vlm.Inputs, few: vlm.Inputs, taken: Taken) -> None:
    """Answer alone, and as a device does (there about a few tokens), and keep what was quickest."""
    began: list[float] = []
    hook = bare(model).model.register_forward_pre_hook(lambda *_: began.append(clock()))
    vlm.answer(model, shared.text, inputs, STEPS + 1)
    first, *words = (b - a for a, b in pairwise(began))
    taken.first, taken.word = min(taken.first, first), min(taken.word, *words)
    began.clear()
    vlm.answer(model, shared.text, few, STEPS + 1, least=LEAST[1])
    taken.together = min(taken.together, *[b - a for a, b in pairwise(began)][1:])
    hook.remove()


@torch.no_grad()
def passes(model: Any, ids: int, kept: int) -> tuple[float, float]:
    """Seconds of a pass over so many ids, and of one that finds keys and values of the first of them."""
    row = torch.arange(10, 10 + ids)[None]
    found = []
    for there in (0, kept):
        past = DynamicCache()
        if there:
            model(input_ids=row[:, :there], past_key_values=past, use_cache=True)
        began = clock()
        model(input_ids=row[:, there:], past_key_values=past, use_cache=True)
        found.append(clock() - began)
    return found[0], found[1]


def fastest(size: int) -> float:
    """Best B/s of reading, copying and triad on arrays of `size` bytes."""
    a, b, out = (torch.ones(size // 4) for _ in range(3))
    ways = {1: a.sum, 2: lambda: out.copy_(a), 3: lambda: torch.add(a, b, alpha=3.0, out=out)}
    best = 0.0
    for arrays, way in ways.items():
        for _ in range(4):
            began = clock()
            way()
            best = max(best, arrays * size / max(clock() - began, 1e-9))
    return best


def loaded(name: str, shared: Shared) -> nn.Module:
    """A student in a compression, or the bare model."""
    if name in COMPRESSIONS:
        return student.device_model(shared, PairConfig(compression=name))
    return LlavaForConditionalGeneration.from_pretrained(shared.path, dtype=PLAIN[name]).eval()


def forget() -> None:
    """Let go of the students that this process keeps."""
    for kept in (student.device_model, student._twin):
        session().forget(kept)


def measure(folder: Path, quick: bool, rounds: int, layers: int = 0) -> Iterator[Figure]:
    """All figures."""
    of = shapes(quick, layers)
    model = pairs.built(of, of.student)
    config = model.config
    model.save_pretrained(folder, max_shard_size="500MB")
    del model
    shared, rank = opened(folder, config), PairConfig().lora_rank
    tokens = torch.randn(1, shared.n_tokens, shared.width, generator=torch.Generator().manual_seed(0))
    asked = [shared.text.question_ids("what is there?")]
    inputs = vlm.collate(shared.text, tokens.numpy(), asked)
    few = vlm.collate(shared.text, tokens[:, :4].numpy(), asked, None, [np.arange(4)])
    taken, rate = {name: Taken() for name in (*COMPRESSIONS, *PLAIN)}, 0.0
    whole = rest = math.inf
    for _ in range(rounds):
        rate = max(rate, fastest(2**20 if quick else 2**28))
        for name, so_far in taken.items():
            forget()
            model = loaded(name, shared)
            turn(model, shared, inputs, few, so_far)
            if name == "none":
                spent = passes(bare(model).model, *(PROMPT if not quick else (70, 3)))
                whole, rest = min(whole, spent[0]), min(rest, spent[1])
            del model
    forget()
    length = inputs.ids.shape[1] + STEPS // 2
    yield Figure(f"bytes read in a second, of {torch.get_num_threads()} threads", rate, rate, 1.0, "", True)
    for name, found in taken.items():
        own = roofline.shapes(config.to_dict(), rank if name in COMPRESSIONS else 0)
        moved = roofline.decode(own, name if name in COMPRESSIONS else "none", length, 1).bytes_moved
        bound = moved / rate * (0.5 if name.endswith("bfloat16") else 1)
        target = "<= 3" if name == "int4" else ""
        yield figure(f"{name}: ms a word (limit: its bytes)", 1e3 * found.word, 1e3 * bound, target)
        yield figure(f"{name}: words a second", 1 / found.word, 1 / bound)
        together = f"{name}: words a second, {LEAST[1]} answers at a time"
        yield figure(together, LEAST[1] / found.together, LEAST[1] / bound)
    dense = taken["none"]
    for name in COMPRESSIONS:
        target = "<= 2" if name == "nf4" else ""
        yield figure(f"{name}: ms a word (limit: float32)", 1e3 * taken[name].word, 1e3 * dense.word, target)
        what = f"{name}: ms of {inputs.ids.shape[1]} ids (limit: float32)"
        yield figure(what, 1e3 * taken[name].first, 1e3 * dense.first, target)
    yield figure("none: ms of a prompt whose first ids are kept (limit: not)", 1e3 * rest, 1e3 * whole)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write `bench-speed.json` where `--out` is given."""
    summary = "How fast a device answers in each compression."
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.speed", description=summary)
    parser.add_argument("--out", type=Path, help="folder for bench-speed.json")
    parser.add_argument("--quick", action="store_true", help="a tiny student")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each model; default 3")
    parser.add_argument("--layers", type=int, default=0, help="of the student; default: as many as it has")
    parser.add_argument("--threads", type=int, default=0, help="of torch; default: as torch has it")
    asked = parser.parse_args(argv)
    before = torch.get_num_threads()
    torch.set_num_threads(asked.threads or before)
    console = Console(file=sys.stdout, width=150, highlight=False)
    console.print(f"host: {host()}", markup=False)
    try:
        with tempfile.TemporaryDirectory() as name:
            rounds = 1 if asked.quick else asked.rounds
            figures = list(measure(Path(name), asked.quick, rounds, asked.layers))
    finally:
        torch.set_num_threads(before)
    console.print(table(figures))
    write(figures, asked.out, "bench-speed.json")


if __name__ == "__main__":
    main()
