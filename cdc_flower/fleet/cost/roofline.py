"""What a pass of the model costs a device: seconds by roofline, joules by power, and whether it fits.

A step takes as long as its arithmetic or its memory traffic, whichever is longer (Williams et al.,
"Roofline", CACM 2009). Prefill reads the weights once for many positions and is bound by arithmetic;
decoding reads all of them for every token and is bound by bandwidth. Both come from the model's own shapes,
read from its config. Counted as traffic: weights as stored, read once a pass, and the key-value cache. Not
counted: activations, and the copy that a kernel which cannot multiply nf4 directly makes of the weights.
Arithmetic is counted as in `cdc_flower.fleet.cost.work`, and the vision tower besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost.profiles import Devices, Profile

FLOAT = 4  # bytes of an uncompressed weight: the student is loaded in float32
SIZES = {
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "image_size",
    "patch_size",
    "num_channels",
    "num_key_value_heads",
    "head_dim",
}
"""Keys of a model's config that count something; the last two may be null."""
TOWER_MATH = {4: "fp32", 2: "fp16"}  # bytes of a tower's weight -> the arithmetic it runs in


@dataclass(frozen=True)
class Storage:
    """How compression stores the language model: `weight` bytes each, `row` bytes for each output row, and
    the arithmetic ("fp32", "fp16", "int8") that multiplies it.
    """

    weight: float
    row: float
    math: str


COMPRESSIONS = {
    "none": Storage(FLOAT, 0, "fp32"),
    "int8": Storage(1, FLOAT, "int8"),  # a float scale for each row
    "nf4": Storage(0.5 + FLOAT / 64, 0, "fp32"),  # a float scale for each 64 weights; computes in float32
    "int4": Storage(0.5 + FLOAT / 64, 0, "fp32"),  # scale and zero in bfloat16 for each 64 weights; as nf4
}
"""Compression -> storage, from the largest to the smallest; as their libraries store them."""


@dataclass(frozen=True)
class Shapes:
    """What of a model costs time and memory; counts of weights where no unit is said.

    Attributes:
        layers, hidden, intermediate, heads, vocab: of the language model.
        cache_width: keys (or values) of one position in one layer.
        compressed: weights of the layers' linear maps, which compression stores in fewer bits.
        rows: their output rows, in all.
        norms: weights of the norms.
        adapter: LoRA weights that multiply every position.
        adapter_head: LoRA weights on `lm_head`.
        adapter_embedding: LoRA weights on the embedding.
        projector, head, embedding: in float; a tied embedding counts once, as `head`.
        tower: of the vision tower.
        tower_bytes: of one of them, a key of `TOWER_MATH`.
        tower_flops: of one sample through it, a picture or all frames of a clip.
        patches: vision tokens of one sample.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocab: int
    cache_width: int
    compressed: int
    rows: int
    norms: int
    adapter: int
    adapter_head: int
    adapter_embedding: int
    projector: int
    head: int
    embedding: int
    tower: int
    tower_bytes: int
    tower_flops: int
    patches: int


def shapes(config: Mapping[str, Any], rank: int) -> Shapes:
    """The shapes of a LLaVA student with a LoRA adapter.

    Args:
        config: a checkpoint's `config.json` (`LlavaConfig.to_dict()`): Llama language model, CLIP tower. Its
            key `tower_bytes` says how the tower is stored; without it in float32, as here. Its key `frames`
            says how many pictures a sample has; without it one.
        rank: of the adapter; 0 = none.

    Raises:
        ConfigError: a key that is needed is absent.
    """
    try:
        text, vision = config["text_config"], config["vision_config"]
        h, m, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
        heads, vocab = text["num_attention_heads"], text["vocab_size"]
        v, vm, vision_layers = vision["hidden_size"], vision["intermediate_size"], vision["num_hidden_layers"]
        side, patch = vision["image_size"], vision["patch_size"]
    except KeyError as err:
        raise ConfigError(
            f"model config without {err}; allowed: a LLaVA config.json with text_config and vision_config"
        ) from None
    for part in (text, vision):
        for key in SIZES & set(part):
            given = part[key] is not None or key not in ("num_key_value_heads", "head_dim")
            if given and (type(part[key]) is not int or part[key] < 1):
                raise ConfigError(f"model config: '{key}' = {part[key]!r}; allowed: a whole number above 0")
    width = text.get("head_dim") or h // heads
    query, key = heads * width, (text.get("num_key_value_heads") or heads) * width
    maps = [(h, query), (h, key), (h, key), (query, h), (h, m), (h, m), (m, h)]  # (in, out) of one layer
    chosen = config.get("vision_feature_layer", -2)
    seen = v * (1 if isinstance(chosen, int) else len(chosen))
    tied = bool(config.get("tie_word_embeddings", False))
    patches, colours = (side // patch) ** 2, vision.get("num_channels", 3)
    frames = config.get("frames", 1)
    positions = patches + 1  # the class token
    tower_layer = 4 * v * v + 2 * v * vm
    stem = patch * patch * colours * v
    return Shapes(
        layers=layers,
        hidden=h,
        intermediate=m,
        heads=heads,
        vocab=vocab,
        cache_width=key,
        compressed=layers * sum(i * o for i, o in maps),
        rows=layers * sum(o for _, o in maps),
        norms=(2 * layers + 1) * h,
        adapter=layers * rank * sum(i + o for i, o in maps),
        adapter_head=rank * (h + vocab),
        adapter_embedding=rank * (h + vocab),
        projector=seen * h + h * h,
        head=h * vocab,
        embedding=0 if tied else h * vocab,
        tower=vision_layers * tower_layer + stem + positions * v,
        tower_bytes=config.get("tower_bytes", FLOAT),
        tower_flops=frames
        * (
            2 * patches * stem + vision_layers * (2 * positions * tower_layer + 4 * positions * positions * v)
        ),
        patches=frames * patches,
    )


# --- passes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """One step of work: arithmetic in FLOP, traffic in bytes, and the arithmetic it runs in."""

    flops: float
    bytes_moved: float
    math: str = "fp32"


def tower(shapes: Shapes) -> Pass:
    """One sample through the vision tower: its pictures together."""
    moved = shapes.tower_bytes * shapes.tower
    return Pass(shapes.tower_flops, moved, TOWER_MATH[shapes.tower_bytes])


def forward_flops(shapes: Shapes, positions: int, length: float, vision_tokens: int, predicted: int) -> float:
    """FLOPs of passes over `positions` in sequences of mean `length`; the rest as of `prefill`."""
    layers = 2 * (shapes.compressed + shapes.adapter) + 4 * shapes.layers * shapes.hidden * length
    head = 2 * predicted * (shapes.head + shapes.adapter_head)
    return positions * layers + 2 * vision_tokens * shapes.projector + head


def prefill(shapes: Shapes, compression: str, length: int, vision_tokens: int, predicted: int = 1) -> Pass:
    """One sample's first pass.

    Args:
        compression: a key of `COMPRESSIONS`.
        length: positions of the sequence, vision tokens among them.
        vision_tokens: those that go through the projector.
        predicted: positions that `lm_head` reads.
    """
    flops = forward_flops(shapes, length, length, vision_tokens, predicted)
    moved = _streamed(shapes, compression) + FLOAT * shapes.projector + _cache(shapes) * length
    return Pass(flops, moved, COMPRESSIONS[compression].math)


def decode(shapes: Shapes, compression: str, length: int, steps: int) -> Pass:
    """`steps` further tokens of one sample, one pass each, after a prefill of `length` positions."""
    context = steps * length + steps * (steps + 1) // 2  # positions attended to, summed over the steps
    flops = (
        2 * steps * (shapes.compressed + shapes.adapter + shapes.head + shapes.adapter_head)
        + 4 * shapes.layers * shapes.hidden * context
    )
    moved = steps * _streamed(shapes, compression) + _cache(shapes) * context
    return Pass(flops, moved, COMPRESSIONS[compression].math)


def answering(shapes: Shapes, compression: str, length: int, vision_tokens: int, answer: int) -> list[Pass]:
    """All passes of one question: tower, prefill (its first token), `answer - 1` further tokens."""
    return [
        tower(shapes),
        prefill(shapes, compression, length, vision_tokens),
        decode(shapes, compression, length, max(0, answer - 1)),
    ]


def _streamed(shapes: Shapes, compression: str) -> float:
    """Bytes of weights that every pass reads: the layers as stored, the float parts around them."""
    stored = COMPRESSIONS[compression]
    floats = shapes.norms + shapes.adapter + shapes.head + shapes.adapter_head
    return stored.weight * shapes.compressed + stored.row * shapes.rows + FLOAT * floats


def _cache(shapes: Shapes) -> int:
    """Bytes of keys and values of one position."""
    return 2 * FLOAT * shapes.layers * shapes.cache_width


# --- time, energy, memory -----------------------------------------------------------------------------------


def seconds(on: Profile | Devices, flops: float, bytes_moved: float, math: str = "fp32") -> Any:
    """Roofline: max(flops / FLOP/s, bytes / B/s), in s.

    Args:
        on: a profile, or n devices.
        math: which arithmetic: "fp32", "fp16" or "int8".

    Returns:
        A float, or (n,) float64.
    """
    return np.maximum(flops / getattr(on, f"flops_{math}"), bytes_moved / on.memory_bw)


def work_seconds(on: Profile | Devices, passes: Iterable[Pass]) -> Any:
    """Passes one after another, in s: float, or (n,) float64."""
    return sum(seconds(on, p.flops, p.bytes_moved, p.math) for p in passes)


def joules(on: Profile | Devices, computing: Any = 0.0, transferring: Any = 0.0, idle: Any = 0.0) -> Any:
    """Energy of so many seconds in each state, in J: float, or (n,) float64."""
    return on.compute_power * computing + on.radio_power * transferring + on.idle_power * idle


def needed_bytes(shapes: Shapes, compression: str, length: int) -> float:
    """Memory that answering takes: tower, weights as stored, adapter, cache, activations of one layer.

    Args:
        length: positions of the longest sequence, its answer included.
    """
    floats = shapes.projector + shapes.embedding + shapes.adapter_embedding
    layer = 4 * shapes.hidden + 3 * shapes.intermediate + shapes.heads * length  # of one position
    activations = length * layer + shapes.vocab
    return (
        _streamed(shapes, compression)
        + shapes.tower_bytes * shapes.tower
        + FLOAT * (floats + activations)
        + _cache(shapes) * length
    )


def fits(on: Profile | Devices, needed: float) -> Any:
    """Whether `needed` bytes fit into the device's RAM: bool, or (n,) bool."""
    return needed <= on.ram


def compression_for(profile: Profile, shapes: Shapes, length: int) -> str:
    """The least compression that fits the device's RAM: "none", else "int8", else "nf4".

    Raises:
        ConfigError: none fits; the message has the figures.
    """
    needed = {name: needed_bytes(shapes, name, length) for name in COMPRESSIONS}
    for name, amount in needed.items():
        if fits(profile, amount):
            return name
    figures = ", ".join(f"{name} {amount / 1e6:,.0f} MB" for name, amount in needed.items())
    raise ConfigError(
        f"profile '{profile.name}': field 'ram' = {profile.ram / 1e6:,.0f} MB holds the "
        f"model in no compression; it needs {figures}; allowed: a smaller model, another mix"
    )
