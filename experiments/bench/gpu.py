"""Speed and memory of models of real size on a GPU: `make bench-gpu`, or `python -m experiments.bench.gpu`.

Three kinds of work: the teacher answers, the cloud's float student learns a batch of lessons, a student in
nf4 answers. Weights are random and made tensor by tensor on the GPU; nothing is fetched or written. A limit
is what the products of matrices allow that PyTorch makes on this GPU in bfloat16, plus, for words that are
written one after another, the time to read the weights. Without a GPU there is one line that says so.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.initialization import no_init_weights

from cdc_flower.cloud import losses
from cdc_flower.models import adapters, placement, room, vlm
from cdc_flower.models.compressions import COMPRESSIONS
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.placement import Place
from experiments.bench.calibrate import memory_bandwidth, quickest
from experiments.bench.figures import Figure, figure, host, table, write

IMAGE = 3  # id of a picture's token
TOP = 64  # teacher's logits of a position


@dataclass(frozen=True)
class Size:
    """Shapes of a language model and of the work."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    vocab: int = 32_064
    width: int = 1024  # of a token
    tokens: int = 576
    text: int = 40
    new: int = 8


LARGE = Size("13B", 5120, 13_824, 40, 40), Size("7B", 4096, 11_008, 32, 32)
TINY = Size("tiny", 64, 128, 2, 4, 200, 32, 8, 6, 3), Size("tiny", 32, 64, 2, 4, 200, 32, 8, 6, 3)


def made(size: Size, place: Place) -> Any:
    """A LLaVA of random weights without a tower, frozen."""
    text = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        vocab_size=size.vocab,
    )
    vision = CLIPVisionConfig(hidden_size=size.width, num_hidden_layers=1, num_attention_heads=1)
    config: Any = LlavaConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    config.image_token_index = config.image_token_id = IMAGE
    config._attn_implementation = placement.attention(text)
    with torch.device("meta"), no_init_weights():
        model = LlavaForConditionalGeneration(config)
        FAMILIES["llava"].take_tower(model)
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            values = torch.empty(p.shape, dtype=place.dtype, device=place.device).normal_(0, 0.02)
            module._parameters[name] = nn.Parameter(values, requires_grad=False)
    language = model.model.language_model
    language.rotary_emb = type(language.rotary_emb)(text).to(place.device)
    return model.eval()


def in_nf4(model: Any) -> Any:
    """Every linear layer of the language model in nf4, in place."""
    for layer in model.model.language_model.layers.modules():
        for name, plain in list(layer.named_children()):
            if type(plain) is nn.Linear:
                setattr(layer, name, COMPRESSIONS["nf4"].of(plain))
    return model


def batch(size: Size, rows: int, answer: int = 0) -> vlm.Inputs:
    """Random questions about random pictures, with answers of so many ids where there are any."""
    length = size.tokens + size.text + answer
    ids = torch.randint(IMAGE + 1, size.vocab, (rows, length))
    ids[:, : size.tokens] = IMAGE
    places = torch.arange(size.tokens)[None].expand(rows, -1)
    return vlm.Inputs(
        torch.randn(rows, size.tokens, size.width),
        places,
        places,
        ids,
        torch.arange(length)[None].expand(rows, -1),
        torch.ones(rows, length, dtype=torch.bool),
        torch.full((rows,), size.tokens),
        torch.full((rows,), size.tokens + size.text),
        ids[:, -answer:] if answer else None,
    )


def answering(model: Any, size: Size, rows: int) -> None:
    """Greedy answers, none of which ends early."""
    text: Any = SimpleNamespace(ends=(-1,), decode=lambda ids: "")
    vlm.answer(model, text, batch(size, rows), size.new, top_k=TOP)


def learning(twin: Any, size: Size, lessons: int, rows: int, optimizer: torch.optim.Optimizer) -> None:
    """One step of the cloud: cross entropy and KL, in micro-batches of so many rows."""
    optimizer.zero_grad()
    for at in range(0, lessons, rows):
        now = min(rows, lessons - at)
        inputs = batch(size, now, size.new).to(placement.device_of(twin))
        out, answer = vlm.forward(twin, inputs), inputs.answer_ids
        assert answer is not None
        sure = torch.ones(now, device=answer.device)
        top = out.logits.detach().topk(min(TOP, size.vocab), -1)
        loss = losses.weighted_ce(out.logits, answer, sure)
        loss = loss + losses.top_kl(out.logits, top.indices, top.values, answer >= 0, sure, 1.0)
        (loss * now / lessons).backward()
    optimizer.step()


def peak_rate(place: Place, side: int) -> float:
    """FLOP/s of a product of matrices."""
    a, b = (torch.randn(side, side, device=place.device).to(place.dtype) for _ in range(2))
    return 2 * side**3 / quickest(lambda: a @ b, 3, place.device)


def held(device: torch.device) -> float:
    """GB at the peak since the last call: of the GPU, or, without one, of this process so far."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return most


def weights(model: nn.Module) -> int:
    """Weights that a product of every id takes, as dense layers."""
    return sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, nn.Linear))


def stored(model: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(p.nbytes for p in model.parameters())


def measured(sizes: Sequence[Size], place: Place, together: int, lessons: int, side: int) -> Iterator[Figure]:
    """The figures of one work after another; memory stands beside weights and what a pass has alive."""
    rate = peak_rate(place, side)
    bandwidth = memory_bandwidth(2**28 if side > 1000 else 2**22, 3, place.device)
    yield figure("products of matrices [TFLOP/s]", rate / 1e12, rate / 1e12)
    yield figure("memory [GB/s]", bandwidth / 1e9, bandwidth / 1e9)
    teacher, student = sizes
    target = ">= 0.3" if place.device.type == "cuda" else ""
    for name, size, packed in (("teacher", teacher, False), ("student in nf4", student, True)):
        model = made(size, place)
        flops = 2 * weights(model)
        model = in_nf4(model) if packed else model
        one = room.Pass(size.tokens + size.text + size.new)
        rows = min(together, room.rows(room.text_of(model), one))
        held(place.device)
        took = quickest(partial(answering, model, size, rows), 3, place.device)
        ids = rows * (size.tokens + size.text)
        best = flops * ids / rate + size.new * stored(model) / bandwidth
        about = f"{name} {size.name}, {rows} questions together"
        yield figure(f"{about}: tokens read [1/s]", ids / took, ids / best, target)
        alive = rows * room.alive(room.text_of(model), one, 2 if place.half else 4, eager=False)
        yield figure(f"{about}: memory [GB]", held(place.device), (stored(model) + alive) / 1e9)
        model = None
    yield from _learned(student, place, lessons, rate, target)


def _learned(size: Size, place: Place, lessons: int, rate: float, target: str) -> Iterator[Figure]:
    twin = adapters.train_merged(adapters.attach(made(size, place), 16)).train()
    one = room.Pass(size.tokens + size.text + size.new, size.new, train=True)
    one = room.frugal(twin, one)
    rows = min(lessons, room.rows(room.text_of(twin), one))
    optimizer = torch.optim.AdamW(adapters.trainable(twin), lr=1e-4)
    held(place.device)
    took = quickest(lambda: learning(twin, size, lessons, rows, optimizer), 1, place.device)
    passes = 3 if one.again else 2  # forward, for inputs back, and again where layers are computed twice
    best = passes * 2 * weights(twin) * lessons * one.length / rate
    about = f"a step of {lessons} lessons of a {size.name} student, {rows} at a time"
    yield figure(f"{about}: ids [1/s]", lessons * one.length / took, lessons * one.length / best, target)
    alive = rows * room.alive(room.text_of(twin), one, 2 if place.half else 4, eager=False)
    moments = 2 * sum(p.nbytes for p in adapters.trainable(twin))
    yield figure(f"{about}: memory [GB]", held(place.device), (stored(twin) + moments + alive) / 1e9)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; with --out also write bench-gpu.json there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given, console = parser.parse_args(arguments), Console()
    if given.device == "cuda" and not torch.cuda.is_available():
        console.print("bench-gpu: skipped, torch sees no GPU")
        return
    place = placement.here() if given.device == "cuda" else placement.CPU
    where = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    quick = TINY, place, 4, 6, 256
    figures = []
    for found in measured(*(quick if given.quick else (LARGE, place, 64, 96, 8192))):
        console.print(f"{found.name}: {found.value:,.5g} of {found.limit:,.5g}", highlight=False)
        figures.append(found)
    console.print(table(figures))
    console.print(f"{where}; seconds of a clock; {host().partition('; speeds')[0]}")
    write(figures, given.out, "bench-gpu.json")


if __name__ == "__main__":
    main()
