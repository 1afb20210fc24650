"""The student as deployed, and the cloud's exact twin of it.

`device_model` is the checkpoint with compressed layers in the language model (`compressions`) plus the
adapter. `twin_model` holds, in float, exactly the values that the device's compressed weights stand for, so
what is trained in the cloud is what runs on the device. Projector, norms, lm_head and the vision tower are
float on both.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import nn

from cdc_flower.models import adapters, placement
from cdc_flower.models.compressions import preflight, prepared, quantization, values
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import opened
from cdc_flower.models.shared import Shared
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig


def _load(shared: Shared, compression: str) -> Any:
    """The student checkpoint, compressed on the way in; nothing trainable."""
    preflight(compression)
    family, plain = FAMILIES[shared.family], compression in ("none", "int4")
    model = opened(
        family.model_class,
        shared.path,
        "student",
        dtype=torch.float32,
        attn_implementation=placement.attention(shared.config.text_config),
        quantization_config=quantization(compression, family.float_parts),
        **({} if plain else placement.stored()),
    )
    family.take_tower(model)  # passes begin behind it
    if plain:
        model.to(placement.here().device)  # bitsandbytes has put the others there
    for module in model.modules():
        if isinstance(module, Linear4bit):
            prepared(module)
    return model


def _as_float(module: nn.Module) -> nn.Linear | None:
    """The float layer that computes with exactly a compressed layer's values; None for other layers."""
    known = values(module)
    if known is None:
        return None
    layer: Any = module
    plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(known.float().contiguous(), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().float().clone(), requires_grad=False)
    return plain


def dequantised(model: nn.Module) -> nn.Module:
    """Replace, in place, every compressed layer by the float layer of equal values."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            plain = _as_float(child)
            if plain is not None:
                setattr(parent, name, plain)
    return model


def _attached(model: nn.Module, config: PairConfig) -> nn.Module:
    return adapters.attach(model, config.lora_rank, config.adapter)


@kept(4)
def device_model(shared: Shared, config: PairConfig) -> nn.Module:
    """The compressed student with its adapter at version 0; one resident copy per process and setting."""
    if config.compression == "none":
        return twin_model(shared, config)  # of equal weights, which both share
    return placement.settled(_attached(_load(shared, config.compression), config).eval())


@kept(4)
def _twin(shared: Shared, config: PairConfig) -> nn.Module:
    model: Any = dequantised(_load(shared, config.compression))
    model.config.quantization_config = None
    model.is_quantized = model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    return placement.settled(_attached(model, config).eval())


def twin_model(shared: Shared, config: PairConfig) -> nn.Module:
    """The deployed student in float with an adapter of its own, at version 0.

    Twins share all that is frozen: nobody may change that in place.
    """
    first = _twin(shared, config)
    frozen = [p for p in first.parameters() if not p.requires_grad]
    return copy.deepcopy(first, {id(p): p for p in frozen})


def full_model(shared: Shared, config: PairConfig) -> nn.Module:
    """The deployed student in float, all projector and language-model weights trainable (for full FedAvg)."""
    model = dequantised(_load(shared, config.compression))
    return placement.settled(model.requires_grad_(True))
