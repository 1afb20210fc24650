"""A device profile measured on the machine this runs on, and how near the roofline then comes to it.

Arithmetic is the best rate of a product of matrices, bandwidth the best of a copy and a triad (McCalpin's
STREAM) on arrays far beyond the cache, RAM what is free. A network and a wattmeter are not on the machine:
those figures come from the command line, else from another profile, and their source says so. `check` answers
questions with real models and sets the seconds against those that the new profile predicts.
"""

from __future__ import annotations

import datetime
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost import cost_models, roofline
from cdc_flower.fleet.cost.profiles import UNITS, Profile
from cdc_flower.fleet.cost.roofline import Pass
from cdc_flower.stages import PairConfig

Sides = tuple[tuple[int, int, int], ...]
SIDES: Sides = ((80, 64, 192), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (626, 2048, 5632))
"""(M, K, N) of the products: the scenes student's, squares, and what a 1.1B model prefills with."""
QUICK: Sides = ((80, 64, 192), (256, 256, 256))
REPEATS = 7
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
ARRAY, SMALL_ARRAY = 2**28, 2**24  # bytes of one array
CHECKED = "tiny-llava-1.4b"  # `check` runs `LAYERS` layers of it, with random weights
LAYERS = 4


@dataclass(frozen=True)
class Measured:
    """What can be measured offline; FLOP/s, B/s and B. A rate that cannot be measured here is None."""

    fp32: float
    fp16: float | None
    int8: float | None
    memory_bw: float
    ram: float
    where: str
    repeats: int


def measure(threads: int = 0, accelerator: bool = False, quick: bool = False) -> Measured:
    """Measure this machine.

    Args:
        threads: of torch; 0 = as it has them.
        accelerator: the CUDA device instead of the CPU.
        quick: small sizes, for a try; the figures are then those of a cache.

    Raises:
        ConfigError: an accelerator where there is none, or more threads than cores, or fewer than 0.
    """
    cores = os.cpu_count() or 1
    if not 0 <= threads <= cores:
        raise ConfigError(f"--threads {threads}; allowed: 1 to {cores}, or 0 for those that torch takes")
    if accelerator and not torch.cuda.is_available():
        raise ConfigError("--accelerator: torch finds no CUDA device; allowed: without it, for the CPU")
    device = torch.device("cuda" if accelerator else "cpu")
    repeats, sides = (2, QUICK) if quick else (REPEATS, SIDES)
    with _threads(threads) as used:
        rates = {kind: _rate(kind, sides, repeats, device) for kind in ("fp32", "fp16", "int8")}
        bandwidth = memory_bandwidth(SMALL_ARRAY if quick else _array_bytes(), repeats, device)
    assert rates["fp32"] is not None
    if accelerator:
        ram, where = float(torch.cuda.mem_get_info()[0]), torch.cuda.get_device_name()
    else:
        ram, where = float(psutil.virtual_memory().available), f"CPU, {used} thread{'s' if used > 1 else ''}"
    return Measured(rates["fp32"], rates["fp16"], rates["int8"], bandwidth, ram, where, repeats)


@contextmanager
def _threads(wanted: int) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def quickest(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Seconds of the quickest of `repeats` calls, after one that is not counted."""
    best = math.inf
    for count in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if count:
            best = min(best, time.perf_counter() - began)
    return best


def _rate(kind: str, sides: Sides, repeats: int, device: torch.device) -> float | None:
    """Best FLOP/s over the sizes; None where torch has no such product on this device."""
    best = 0.0
    for m, k, n in sides:
        try:
            best = max(best, 2 * m * k * n / quickest(_product(kind, m, k, n, device), repeats, device))
        except RuntimeError:  # NotImplementedError is one
            return None
    return best


def _product(kind: str, m: int, k: int, n: int, device: torch.device) -> Callable[[], Any]:
    if kind == "int8":
        a, b = (torch.randint(-127, 128, size, dtype=torch.int8, device=device) for size in ((m, k), (k, n)))
        return lambda: torch.ops.aten._int_mm(a, b)
    dtype = torch.float32 if kind == "fp32" else torch.float16
    x, y = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
    out = torch.empty(m, n, dtype=dtype, device=device)
    return lambda: torch.mm(x, y, out=out)


def _array_bytes() -> int:
    """Four times the last cache, at least 256 MiB, at most an eighth of what is free."""
    cache = int(CACHE.read_text().strip().removesuffix("K")) * 1024 if CACHE.is_file() else 0
    return min(max(ARRAY, 4 * cache), psutil.virtual_memory().available // 8)


def memory_bandwidth(size: int, repeats: int, device: torch.device) -> float:
    """Best B/s of copy and triad; bytes read and bytes written count."""
    a, b = (torch.ones(size // 4, device=device) for _ in range(2))
    out = torch.zeros(size // 4, device=device)
    copy = quickest(lambda: out.copy_(a), repeats, device)
    triad = quickest(lambda: torch.add(a, b, alpha=3.0, out=out), repeats, device)
    moved = a.nbytes
    return max(2 * moved / copy, 3 * moved / triad)


# --- the profile --------------------------------------------------------------------------------------------


def profile(name: str, measured: Measured, like: Profile, given: Mapping[str, float]) -> Profile:
    """The profile of the machine, every figure with its source.

    Args:
        like: where figures that nobody measured come from, and the class.
        given: figure -> value from the command line, in the units of `profiles.UNITS`.

    Raises:
        ConfigError: a figure out of its range.
    """
    said = (
        f"measured by cdc-flower calibrate, {datetime.date.today().isoformat()}, "
        f"best of {measured.repeats}, {measured.where}"
    )
    values: dict[str, Any] = {figure: getattr(like, figure) for figure in UNITS}
    sources = {figure: f"as profile {like.name}, not measured: {like.sources[figure]}" for figure in UNITS}
    values |= {"flops_fp32": measured.fp32, "memory_bw": measured.memory_bw, "ram": measured.ram}
    sources |= {
        "flops_fp32": f"{said}: torch.mm",
        "memory_bw": f"{said}: copy and triad, read + written",
        "ram": f"free memory, {said}",
    }
    below = measured.fp32
    for kind, what in (("fp16", "torch.mm"), ("int8", "torch._int_mm")):
        rate, figure = getattr(measured, kind), f"flops_{kind}"
        if rate is not None and rate >= below:
            values[figure], sources[figure] = rate, f"{said}: {what}"
            below = rate
        else:
            values[figure] = below
            why = "has no such product" if rate is None else f"does {rate:.3g} op/s, slower"
            sources[figure] = f"as with more bits: here torch {why} ({said})"
    for figure, value in given.items():
        values[figure], sources[figure] = value, "given to cdc-flower calibrate"
    return Profile(name, like.device_class, **values, sources=sources)


# --- the roofline against reality ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """Seconds of answering `questions` together: measured, and as the profile predicts them."""

    model: str
    compression: str
    questions: int
    measured: float
    predicted: float

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted


def check(on: Profile, threads: int = 0, quick: bool = False) -> Iterator[Check]:
    """Answer questions and compare.

    The scenes student, deployed in nf4 and uncompressed, one question and 32 together; then a few layers of
    the shapes of a model of the table (`CHECKED`), random weights, one question, because the student is so
    small that its time is that of calling functions. Pictures go through the tower, too.
    """
    from cdc_flower.models import placement
    from cdc_flower.models.shared import load_shared, load_tower

    placement.choose("cpu")  # where the answers are timed, whatever `measure` was asked for
    shared, repeats = load_shared(PairConfig(), "scenes"), 1 if quick else 3
    with _threads(threads):
        for compression in ("nf4", "none"):
            for questions in (1, 32):
                yield _checked(
                    "scenes student", shared, PairConfig(compression=compression), questions, on, repeats
                )
        if quick:
            return
        with tempfile.TemporaryDirectory() as folder:
            config = _layers_of(CHECKED, folder)
            large = replace(
                shared,
                path=folder,
                config=config,
                tower=load_tower(folder),
                width=config.vision_config.hidden_size,
                text=replace(shared.text, config=config),
            )
            for compression in ("nf4", "int8", "none"):
                yield _checked(
                    f"{LAYERS} layers of {CHECKED}",
                    large,
                    PairConfig(compression=compression),
                    1,
                    on,
                    repeats,
                )


def _layers_of(name: str, folder: str) -> Any:
    """Write a checkpoint of `LAYERS` layers of the shapes, in language model and tower; its config."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    of = cost_models.table()[name]
    config: Any = LlavaConfig(
        text_config=LlamaConfig(**of["text_config"] | {"num_hidden_layers": LAYERS}),
        vision_config=CLIPVisionConfig(**of["vision_config"] | {"num_hidden_layers": LAYERS}),
        vision_feature_layer=of["vision_feature_layer"],
        tie_word_embeddings=False,
        image_token_index=4,  # of the tokenizer of scenes
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return config


def _checked(name: str, shared: Any, config: PairConfig, questions: int, on: Profile, repeats: int) -> Check:
    from cdc_flower.models import vlm
    from cdc_flower.models.student import device_model

    model: Any = device_model(shared, config)
    base, text = model.get_base_model(), shared.text
    side = base.config.vision_config.image_size
    pixels, tokens = (
        torch.randn(questions, 3, side, side),
        torch.randn(questions, shared.n_tokens, shared.width),
    )
    asked = [text.question_ids("what is there?")] * questions
    inputs = vlm.collate(text, tokens.numpy(), asked)
    found: list[Any] = []

    def answer() -> None:
        with torch.no_grad():
            shared.tower(pixels, output_hidden_states=True)
        found.append(vlm.answer(model, text, inputs, cost_models.ANSWER))

    took = quickest(answer, repeats, torch.device("cpu"))
    steps = max(min(len(ids) + 1, cost_models.ANSWER) for ids in found[-1].ids)
    shapes = roofline.shapes(base.config.to_dict(), config.rank)
    length = len(text.prefix_ids()) + len(asked[0])
    work = _together(shapes, config.compression, length, steps, questions)
    return Check(name, config.compression, questions, took, float(roofline.work_seconds(on, work)))


def _together(
    shapes: roofline.Shapes, compression: str, length: int, answer: int, samples: int
) -> list[Pass]:
    """The passes of `samples` questions side by side: weights are read once, all else as often as there are
    samples.
    """
    weights = (
        roofline.tower(shapes).bytes_moved,
        roofline.prefill(shapes, compression, 0, 0).bytes_moved,
        (answer - 1) * roofline.decode(shapes, compression, 0, 1).bytes_moved,
    )
    alone = roofline.answering(shapes, compression, length, shapes.patches, answer)
    return [
        replace(one, flops=samples * one.flops, bytes_moved=read + samples * max(0.0, one.bytes_moved - read))
        for one, read in zip(alone, weights, strict=True)
    ]
