"""The adapter: every trainable tensor of the student, as one flat float32 vector in a fixed order.

What it consists of is a kind, by name (`KINDS`); the wire, the codecs and the mirror see only the flat vector
and its `Layout`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from cdc_flower.models.families import family_of

HEAD = ".lm_head."  # in the names of the head's tensors
GRID = 2.0**-20  # float32 holds sums and differences of its multiples exactly up to 16


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the trainable tensors, sorted by name."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each tensor."""
        return tuple(prod(s) for s in self.shapes)

    @property
    def total(self) -> int:
        """P, the number of weights."""
        return sum(self.sizes)

    def places(self, takes: Callable[[str, tuple[int, ...]], bool]) -> NDArray[np.int64]:
        """Where weights stand in the flat vector (P,), rising: those of tensors chosen by name and shape."""
        pairs = zip(self.names, self.shapes, self.sizes, strict=True)
        chosen = [np.full(size, takes(name, shape)) for name, shape, size in pairs]
        return np.flatnonzero(np.concatenate([np.zeros(0, bool), *chosen]))

    @cached_property
    def digest(self) -> bytes:
        """8 bytes that two sides compare before they exchange updates."""
        return hashlib.blake2b(repr((self.names, self.shapes)).encode(), digest_size=8).digest()


def outer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is an outer factor of LoRA (B) or a vector."""
    return "_B." in name or len(shape) == 1


def _lora(model: nn.Module, rank: int) -> PeftModel:
    """LoRA on the language model, its embedding and head; projector and norms whole. B = 0 at first."""
    family = family_of(model)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        bias="none",
        target_modules=family.lora_targets,
        modules_to_save=family.saved_whole,
        task_type=None,
    )
    return get_peft_model(cast(PreTrainedModel, model), config)


def _norms(model: nn.Module, rank: int) -> PeftModel:
    """Vectors alone: the norms and biases that are there, and a scale, 1 at first, for each output of a map
    in the language model's layers (LLaMA-Adapter V2, arXiv 2304.15010, which also adds biases to classes that
    have none; a plain checkpoint could not hold those).
    """
    family = family_of(model)
    config = IA3Config(target_modules=family.layer_maps, feedforward_modules=[], task_type=None)
    wrapped = get_peft_model(cast(PreTrainedModel, model), config)
    for name, p in wrapped.named_parameters():
        if p.dim() == 1 and any(f".{part}." in name for part in (family.projector, family.language)):
            p.requires_grad_(True)
    return wrapped


KINDS: dict[str, Callable[[nn.Module, int], PeftModel]] = {"lora": _lora, "norms": _norms}
"""Kind of adapter -> what makes a student's parameters trainable; `rank` is that of LoRA."""


def attach(model: nn.Module, rank: int, kind: str = "lora", seed: int = 0) -> PeftModel:
    """Wrap a student with the adapter, version 0, with which its answers are the bare student's (its logits
    within 1e-4).

    A random LoRA A comes from `seed` alone, so that every device and the cloud start with equal bits. All
    weights are rounded to multiples of `GRID`, on which sums of updates of the codec `dyadic` are exact.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a renamed property
        # Where embedding and head are one weight, each has LoRA of its own; `export` unties before it merges.
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
        torch.manual_seed(seed)
        wrapped = KINDS[kind](model, rank)
    for p in trainable(wrapped):
        p.data = torch.round(p.data.float() / GRID) * GRID
    return wrapped


def train_merged(model: nn.Module) -> nn.Module:
    """Let small LoRA layers train, in place, as one product with W + scale B A.

    Per token, LoRA beside W takes 6 r (in + out) multiplications more than W alone, forward and backward; the
    gradient of the sum W + scale B A takes 2 in out. The sum is used where that is less (r = 16: up to a
    width of 96), and spares two passes over the activations. Only while `training`: answers keep their bits.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLinear) and type(layer.base_layer) is nn.Linear:  # not its quantised kinds
            wide, high = layer.base_layer.in_features, layer.base_layer.out_features
            if wide * high <= 3 * layer.r["default"] * (wide + high):
                layer.forward = partial(_merged, layer, layer.forward)
    return model


def _merged(layer: LoraLinear, apart: Any, x: torch.Tensor) -> torch.Tensor:
    if not layer.training:
        return apart(x)
    base = cast(nn.Linear, layer.base_layer)
    return F.linear(x, base.weight + layer.get_delta_weight("default"), base.bias)


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return sorted((n, p) for n, p in model.named_parameters() if p.requires_grad)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters in layout order."""
    return [p for _, p in _named(model)]


def layout(model: nn.Module) -> Layout:
    """What the flat vector of `model` consists of."""
    named = _named(model)
    return Layout(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))


def norms(model: nn.Module) -> np.ndarray:
    """Which values of the flat vector are scales and shifts of norms: (P,) bool."""
    owners = [m for m in model.modules() if "norm" in type(m).__name__.lower()]
    own = {id(p) for owner in owners for p in owner.parameters(recurse=False)}
    return np.concatenate([np.full(p.numel(), id(p) in own) for p in trainable(model)])


@torch.no_grad()
def read(model: nn.Module) -> np.ndarray:
    """The adapter as a new float32 vector (P,)."""
    return torch.cat([p.detach().flatten().float().cpu() for p in trainable(model)]).numpy()


@torch.no_grad()
def write(model: nn.Module, flat: np.ndarray) -> None:
    """Put a float32 vector (P,) into the model.

    Raises:
        ValueError: the vector has another length than the adapter.
    """
    params = trainable(model)
    total = sum(p.numel() for p in params)
    if flat.shape != (total,):
        raise ValueError(f"adapter vector has shape {flat.shape}; this model's adapter has ({total},)")
    values = torch.from_numpy(np.array(flat, np.float32))
    for p, part in zip(params, values.split([p.numel() for p in params]), strict=True):
        p.copy_(part.view_as(p))


@contextmanager
def wearing(model: nn.Module, flat: np.ndarray) -> Iterator[nn.Module]:
    """The model with another adapter (P,) float32 for a while; its own comes back bit for bit."""
    own = read(model)
    write(model, flat)
    try:
        yield model
    finally:
        write(model, own)


def save(model: PeftModel, folder: Path) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` for `PeftModel.from_pretrained`."""
    model.save_pretrained(str(folder), save_embedding_layers=False)
