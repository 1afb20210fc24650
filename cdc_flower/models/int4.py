"""Layers in 4 bits, affine by groups, for PyTorch's own kernel on a CPU.

A weight is `(q - 8) * scale + zero` with q in 0..15; `scale` and `zero` are bfloat16, one pair for each group
of inputs of an output. The kernel makes these values of packed weights, in float32, and multiplies them by
rows in bfloat16, with a result in bfloat16 whose bits do not depend on other rows. For one row no way through
a layer is faster, for hundreds none is slower. So a step of one token is the kernel's, and a pass over a
sequence multiplies the same values in float32, dequantised a block at a time. Which of the two it is depends
on the length of the sequences alone, never on how many there are.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name, should_convert_module
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "cdc_int4"  # in transformers
GROUPS = 64, 32  # inputs that share a scale: the first that divides a layer's
TILE = 64  # outputs that processors pack together, at most; a layer's are filled up
BLOCK = 5 * 2**17  # weights that are dequantised at a time: they should stay in the cache

log = logging.getLogger(__name__)


def group_of(inputs: int) -> int:
    """Inputs that share a scale in a layer of so many; 0 where the kernel cannot take it."""
    return next((g for g in GROUPS if inputs % g == 0), 0)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of float weights (N, K): packed ones uint8 (N', K / 2), and scale and zero bfloat16 (groups, N', 2);
    N' are whole tiles.
    """
    n, k = weight.shape
    by_group = F.pad(weight.float(), (0, 0, 0, -n % TILE)).view(-1, k // group_of(k), group_of(k))
    low, high = by_group.amin(-1, keepdim=True), by_group.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp_min(1e-30).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    symbols = ((by_group - zero.float()) / scale.float()).round_().clamp_(-8, 7).add_(8).to(torch.int32)
    return _pack(symbols.view(-1, k)), torch.cat([scale, zero], -1).transpose(0, 1).contiguous()


def _pack(symbols: Tensor) -> Tensor:
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(symbols.contiguous(), 1)


def _nibbles(packed: Tensor) -> Tensor:
    return torch.cat([packed & 15, packed >> 4], -1)


@cache
def _layout() -> tuple[int, Tensor | None]:
    """How this processor packs: outputs in a tile, of which every input has half as many bytes, and where in
    them each output is; None = in order.

    Raises:
        RuntimeError: it does so in another way.
    """
    rows = torch.arange(TILE, dtype=torch.int32)[:, None].expand(TILE, GROUPS[-1])
    digits = _pack(rows % 16), _pack(rows // 16)
    for tile in (64, 32, 16):
        ones, sixteens = (_nibbles(d.view(TILE // tile, GROUPS[-1], tile // 2)).int() for d in digits)
        own = ones + 16 * sixteens - tile * torch.arange(TILE // tile)[:, None, None]
        if bool((own == own[0, 0]).all()):
            order = own[0, 0].argsort()
            return tile, None if bool((order == torch.arange(tile)).all()) else order
    raise RuntimeError("packs weights in an order that is not known")


class Int4Linear(nn.Linear):
    """A linear layer in 4 bits; `weight` is packed and not trained."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        """Without values, which a checkpoint or `of` brings."""
        super().__init__(inputs, outputs, bias, device="meta")
        self.group, filled = group_of(inputs), outputs + -outputs % TILE
        packed = torch.empty(filled, inputs // 2, dtype=torch.uint8)
        scales = torch.empty(inputs // self.group, filled, 2, dtype=torch.bfloat16)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        if bias:
            self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False)

    @classmethod
    def of(cls, plain: nn.Linear) -> Int4Linear:
        """A float layer in 4 bits."""
        made = cls(plain.in_features, plain.out_features, plain.bias is not None)
        made.weight.data, made.scales.data = quantised(plain.weight.data)
        if plain.bias is not None:
            made.bias.data = plain.bias.data.float().clone()
        return made

    def values(self, first: int = 0, last: int | None = None) -> Tensor:
        """The float32 values (N, K) that the kernel multiplies with; of some tiles."""
        (tile, order), k = _layout(), self.in_features
        nibbles = _nibbles(self.weight.view(-1, k, tile // 2)[first:last])
        if order is not None:
            nibbles = nibbles[..., order.to(nibbles.device)]
        pairs = self.scales.float().view(k // self.group, -1, tile, 2)[:, first:last].transpose(0, 1)
        by_group = nibbles.float().view(-1, k // self.group, self.group, tile)
        made = (
            by_group.sub_(8).mul_(pairs[:, :, None, :, 0]).add_(pairs[:, :, None, :, 1])
        )  # exact, but the sum
        rows = made.view(-1, k, tile).transpose(1, 2).contiguous().view(-1, k)
        return rows[: self.out_features - first * tile]

    def forward(self, x: Tensor) -> Tensor:
        """(..., N) of x (..., K), in the type of x."""
        if x.dim() == 3 and x.shape[1] == 1 and x.device.type == "cpu":
            return self._step(x)
        tile, _ = _layout()
        step = max(1, BLOCK // (self.in_features * tile))
        found = x.new_empty(*x.shape[:-1], self.out_features)
        for first in range(0, self.weight.shape[0] // tile, step):
            some = slice(first * tile, min((first + step) * tile, self.out_features))
            bias = None if self.bias is None else self.bias[some].to(x.dtype)
            found[..., some] = F.linear(x, self.values(first, first + step).to(x.dtype), bias)
        return found

    def _step(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).bfloat16()
        found = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight, self.group, self.scales)
        found = found[:, : self.out_features].to(x.dtype).view(*x.shape[:-1], -1)
        return found if self.bias is None else found + self.bias


# --- loading by transformers --------------------------------------------------------------------------------


class Int4Config(QuantizationConfigMixin):
    """`quantization_config` for transformers, once this module is imported.

    Attributes:
        float_parts: patterns of modules that stay in float.
    """

    def __init__(self, float_parts: list[str], **_: Any) -> None:
        """As in `Attributes`."""
        self.quant_method: Any = METHOD
        self.float_parts = float_parts


class Int4Quantizer(HfQuantizer):
    """Makes the layers of a model `Int4Linear` while its checkpoint is read."""

    quantization_config: Int4Config

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        left = []
        for name, layer in list(model.named_modules()):
            if type(layer) is nn.Linear and should_convert_module(name, self.quantization_config.float_parts):
                if group_of(layer.in_features):
                    with torch.device("meta"):
                        made = Int4Linear(layer.in_features, layer.out_features, layer.bias is not None)
                    model.set_submodule(name, made)
                else:
                    left.append(f"{name} ({layer.in_features} inputs)")
        if left:
            log.warning("int4: %d layers stay in float, inputs no multiple of 32: %s", len(left), left[0])

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        """Whether a tensor of a checkpoint becomes two."""
        module, name = get_module_from_name(model, param_name)
        return isinstance(module, Int4Linear) and name == "weight"

    def get_quantize_ops(self) -> ConversionOps:
        """What makes them."""
        return _Quantise()

    def is_serializable(self) -> bool:
        """No: its packed order is a processor's own."""
        return False

    @property
    def is_trainable(self) -> bool:
        """An adapter on it is."""
        return True


class _Quantise(ConversionOps):
    def convert(self, input_dict: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """The two tensors of each one."""
        found = {}
        for name, value in input_dict.items():
            scales = f"{name.removesuffix('weight')}scales"
            found[name], found[scales] = quantised(value[0] if isinstance(value, list) else value)
        return found


# Not by transformers' own functions: they refuse a module that is loaded again.
AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = Int4Config
AUTO_QUANTIZER_MAPPING[METHOD] = Int4Quantizer
