"""A batch whose rows wear different adapters: one pass over the shared weights, and each row's own parts.

What servers of many adapters do (Punica, arXiv 2310.18547; S-LoRA, arXiv 2311.03285), on PyTorch's batched
products: the low-rank part of a layer is a product for every row, a norm's weight a row of a table. The
projector, which works once an answer, goes adapter by adapter. On a CPU with one thread a row has the bits
that it has where all wear one adapter: products have at least the number of lines from which on their bits do
not depend on it (docs/fleet.md, Determinism).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from peft.tuners.lora.layer import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.func import functional_call

from cdc_flower.models import adapters
from cdc_flower.models.families import family_of
from cdc_flower.models.family import Family, bare

LINES = 16  # of a product, at least
NAME = "default"  # of peft's adapter


@dataclass(frozen=True, eq=False)
class Worn:
    """Adapters in use.

    Attributes:
        base: the transformers model that wears them.
        tables: of every trainable parameter, by its `id`, its values (n, *shape) in n adapters.
        which: (B,) int64: of each row of the batch its adapter.
        projector: its trainable parameters.
    """

    base: nn.Module
    tables: dict[int, Tensor]
    which: Tensor
    projector: list[nn.Parameter]
    _at: dict[int, Tensor] = field(default_factory=dict)

    def at(self, rows: int) -> Tensor:
        """`which`, for a batch that was filled up to so many rows with its last."""
        if rows not in self._at:
            self._at[rows] = self.which[torch.arange(rows).clamp_max(len(self.which) - 1)]
        return self._at[rows]


_WORN: ContextVar[Worn | None] = ContextVar("_WORN", default=None)


def project(family: Family, base: Any, tokens: Tensor, counts: Tensor) -> Tensor:
    """`family.project` of the tokens (M, D) of a batch, of each row with its own adapter where it wears one.

    Args:
        counts: (B,) tokens of each row.
    """
    worn = _WORN.get()
    if worn is None or worn.base is not base or not len(tokens):
        return family.project(base, tokens)
    return _projected(worn, family, base, tokens, counts)


@torch.no_grad()
def _projected(worn: Worn, family: Family, base: Any, tokens: Tensor, counts: Tensor) -> Tensor:
    which, places, found = worn.at(len(counts)).repeat_interleave(counts), [], []
    for i in which.unique().tolist():
        for parameter in worn.projector:
            parameter.copy_(worn.tables[id(parameter)][i])
        rows = torch.nonzero(which == i).flatten()
        enough = rows[torch.arange(max(LINES, len(rows))) % len(rows)]
        found.append(family.project(base, tokens[enough])[: len(rows)])
        places.append(rows)
    return torch.cat(found)[torch.cat(places).argsort()]


def possible(model: nn.Module) -> bool:
    """Whether rows of a batch can wear different adapters: this knows every trainable parameter's kind."""
    known = {id(p) for p in _projector(model)}
    for module in model.modules():
        if isinstance(module, LoraLayer):
            known |= {id(p) for p in _lora(module)}
        elif isinstance(module, ModulesToSaveWrapper) and _scales(module.modules_to_save[NAME]):
            known |= {id(p) for p in module.modules_to_save[NAME].parameters()}
    return all(id(p) in known for p in adapters.trainable(model))


@contextmanager
def wearing(model: nn.Module, flats: Sequence[np.ndarray], which: Sequence[int]) -> Iterator[None]:
    """In the `with` block row i of a batch wears adapter `flats[which[i]]` (P,).

    A batch may have more rows than `which`: those wear what the last does. Afterwards the model wears any of
    them.

    Raises:
        ValueError: adapters of another length than the model's.
    """
    stacked, parameters = torch.from_numpy(np.stack(flats)), adapters.trainable(model)
    sizes = [p.numel() for p in parameters]
    if sum(sizes) != stacked.shape[1]:
        raise ValueError(f"adapters of {stacked.shape[1]} weights; this model's adapter has {sum(sizes)}")
    tables = {
        id(p): values.reshape(len(flats), *p.shape).to(p.device, p.dtype)
        for p, values in zip(parameters, stacked.split(sizes, 1), strict=True)
    }
    worn = Worn(bare(model), tables, torch.tensor(which), _projector(model))
    patched = list(_forwards(model, worn))
    token = _WORN.set(worn)
    try:
        for module, forward in patched:
            module.forward = forward
        yield
    finally:
        _WORN.reset(token)
        for module, _ in patched:
            del module.forward


def _projector(model: nn.Module) -> list[nn.Parameter]:
    base = bare(model)
    part = base.model.get_submodule(family_of(base).projector)
    return [p for p in part.parameters() if p.requires_grad]


def _lora(module: LoraLayer) -> list[nn.Parameter]:
    """A and B of a layer; [] where it has none of this name."""
    if NAME in module.lora_A:
        return [module.lora_A[NAME].weight, module.lora_B[NAME].weight]  # type: ignore[list-item]
    if NAME in module.lora_embedding_A:
        return [module.lora_embedding_A[NAME], module.lora_embedding_B[NAME]]
    return []


def _scales(module: nn.Module) -> bool:
    """Whether a module multiplies what goes in by one vector, as the language models' norms do."""
    parameters = dict(module.named_parameters())
    return list(parameters) == ["weight"] and parameters["weight"].dim() == 1


def _forwards(model: nn.Module, worn: Worn) -> Iterator[tuple[Any, Callable[..., Tensor]]]:
    projector = {id(p) for p in worn.projector}
    for module in model.modules():
        if isinstance(module, LoraLayer) and (pair := _lora(module)):
            a, b = (worn.tables[id(p)] for p in pair)
            yield module, partial(_linear if NAME in module.lora_A else _embedding, module, worn, a, b)
        elif isinstance(module, ModulesToSaveWrapper):
            inner = module.modules_to_save[NAME]
            if _scales(inner) and not any(id(p) in projector for p in inner.parameters()):
                yield module, partial(_scaled, inner, worn, worn.tables[id(inner.weight)])


def _linear(layer: Any, worn: Worn, a: Tensor, b: Tensor, x: Tensor, *more: Any, **named: Any) -> Tensor:
    result = layer.base_layer(x, *more, **named)
    low = _product(x.to(a.dtype), a, worn)
    return (result + _product(low, b, worn) * layer.scaling[NAME]).to(result.dtype)


def _embedding(layer: Any, worn: Worn, a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    result, scale = layer.base_layer(ids), layer._get_embed_scale()
    low = a.transpose(1, 2)[worn.at(len(ids))[:, None], ids]
    added = _product(low, b, worn) * layer.scaling[NAME]
    if scale is not None:
        added = added * scale.to(added.dtype)
    return (result + added).to(result.dtype)


def _scaled(inner: nn.Module, worn: Worn, table: Tensor, x: Tensor) -> Tensor:
    weight = table[worn.at(len(x))].view(len(x), *[1] * (x.dim() - 2), -1)
    return functional_call(inner, {"weight": weight}, (x,))


def _product(x: Tensor, table: Tensor, worn: Worn) -> Tensor:
    """Rows x (B, S, in), each times its own matrix of a table (n, out, in): (B, S, out)."""
    lines = x.shape[1]
    if lines < LINES:
        x = x.repeat(1, -(-LINES // lines), 1)
    return torch.bmm(x, table[worn.at(len(x))].transpose(1, 2))[:, :lines]
