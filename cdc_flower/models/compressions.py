"""How the student's language model is stored on a device: the kinds of layers, and what each stands for.

A compression is a type of layer that multiplies, the float32 values that such a layer stands for, and how
transformers makes it of a checkpoint. Not every processor can multiply every kind, and some libraries say so
at their first product only: `preflight` tries one before anything is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BitsAndBytesConfig

from cdc_flower.config import ConfigError
from cdc_flower.models import placement
from cdc_flower.models.int4 import BLOCK, Int4Config, Int4Linear
from cdc_flower.processor import processor

MIXED = "nf4"  # the compression of the twin where devices have several ("auto")
NF4_BLOCK = 64  # weights that share a scale
LEAST_PIECE = 256  # outputs; for fewer than 192 MKL may take another kernel, with other last bits
HALF = 0.02  # share of the largest output by which rounding to bfloat16 may change a product
FAR = 0.25  # share of the largest weight by which none is off, in any of them

logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # a line a layer in int8


@dataclass(frozen=True)
class Compression:
    """A way to store linear layers.

    Attributes:
        layer: their type.
        of: makes one of a float layer.
        values: float32 (N, K), what one multiplies with.
        config: for transformers, from patterns of modules that stay in float.
        off: share of the largest output by which a product may differ from that of `values`.
    """

    layer: type[nn.Module]
    of: Callable[[nn.Linear], nn.Module]
    values: Callable[[Any], Tensor]
    config: Callable[[list[str]], Any]
    off: float


def _nf4(plain: nn.Linear) -> nn.Module:
    n, k = plain.weight.shape
    how: dict[str, Any] = {"compress_statistics": False, "quant_type": "nf4"}
    made = Linear4bit(k, n, plain.bias is not None, torch.float32, device="meta", **how)  # draws no weights
    weight: Any = Params4bit(plain.weight.data.clone(), requires_grad=False, **how)
    made.weight, made.bias = weight.to(plain.weight.device), plain.bias
    return prepared(made)


def _int8(plain: nn.Linear) -> nn.Module:
    n, k = plain.weight.shape
    made = Linear8bitLt(k, n, plain.bias is not None, has_fp16_weights=False, device="meta")
    weight: Any = Int8Params(plain.weight.data.clone(), requires_grad=False)
    made.weight, made.bias = weight.to("cpu"), plain.bias
    return made


def _int8_values(layer: Any) -> Tensor:
    packed = layer.weight
    scale = packed.SCB if packed.SCB is not None else layer.state.SCB
    return packed.data.float() * (scale.float()[:, None] / 127.0)


def _nf4_values(layer: Any) -> Tensor:
    packed, state = layer.weight.data, layer.weight.quant_state
    n, k = layer.out_features, layer.in_features
    if not k % NF4_BLOCK or packed.device.type != "cpu" or state.nested:
        return dequantize_4bit(packed, state)
    # There bitsandbytes 0.50 takes the scales of other blocks on a CPU: weights are off by 70 %.
    symbols = torch.stack([packed.view(-1) >> 4, packed.view(-1) & 15], -1).view(-1)[: n * k]
    return (state.code[symbols.int()] * state.absmax.repeat_interleave(NF4_BLOCK)[: n * k]).view(n, k)


def _nf4_config(float_parts: list[str]) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=float_parts,
    )


COMPRESSIONS = {
    "nf4": Compression(Linear4bit, _nf4, _nf4_values, _nf4_config, 1e-5),
    "int4": Compression(Int4Linear, Int4Linear.of, Int4Linear.values, Int4Config, 0.02),  # rows in bfloat16
    "int8": Compression(  # rows in int8
        Linear8bitLt,
        _int8,
        _int8_values,
        lambda parts: BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=parts),
        0.05,
    ),
}
"""Values of the setting `pair.compression` but "none" and "auto"."""


def quantization(compression: str, float_parts: list[str]) -> Any:
    """How transformers stores the student; None = as it is. "auto" is `MIXED`."""
    compression = MIXED if compression == "auto" else compression
    return None if compression == "none" else COMPRESSIONS[compression].config(float_parts)


def values(layer: nn.Module) -> Tensor | None:
    """The float32 values (N, K) that a compressed layer multiplies with; None for other layers."""
    for kind in COMPRESSIONS.values():
        if isinstance(layer, kind.layer):
            return kind.values(layer)
    return None


def prepared(layer: Any) -> Any:
    """A layer of bitsandbytes in nf4, so that it multiplies exactly and, on a CPU, fast."""
    # On CPUs with AVX512-BF16 bitsandbytes would round the block scales to bfloat16 at the first inference:
    # other weights than the twin's, and other answers from one machine to the next. Its exact path is used
    # instead: dequantise, then multiply. In blocks, because a whole layer does not stay in the cache.
    layer.support_avx512bf16_for_cpu = False
    layer.compute_dtype = placement.here().dtype
    layer.forward = partial(_in_blocks, layer, layer.forward)
    return layer


def _in_blocks(layer: Any, whole: Any, x: Tensor) -> Tensor:
    """The product of bitsandbytes with some outputs dequantised at a time: in even pieces of 192 or more.
    These have the bits of the whole on processors with AVX-512; on others MKL may round a last bit otherwise.
    """
    state, (n, k) = layer.weight.quant_state, (layer.out_features, layer.in_features)
    pieces = n // max(LEAST_PIECE, BLOCK // k)
    if x.device.type == "cpu" and k % NF4_BLOCK and not state.nested:
        return F.linear(x, _nf4_values(layer), layer.bias)
    if x.device.type != "cpu" or pieces < 2 or state.nested:
        return whole(x)
    packed, scales = layer.weight.data.view(n, k // 2), state.absmax
    found = x.new_empty(*x.shape[:-1], n)
    for i, last in pairwise([*(n // 64 * j // pieces * 64 for j in range(pieces)), n]):
        some = scales[i * k // NF4_BLOCK : last * k // NF4_BLOCK]
        part = torch.ops.bitsandbytes.dequantize_4bit(
            packed[i:last], some, NF4_BLOCK, "nf4", (last - i, k), torch.float32
        )
        found[..., i:last] = F.linear(x, part, None if layer.bias is None else layer.bias[i:last])
    return found


# --- before anything is loaded ------------------------------------------------------------------------------


def fault(compression: str) -> str:
    """What the processor that models lie on does wrong with a compression, in words; "" where it multiplies
    well.
    """
    return "" if compression == "none" else _fault(compression, placement.here())


@cache
def _fault(compression: str, place: placement.Place) -> str:
    kind = COMPRESSIONS[compression]
    draws = torch.Generator().manual_seed(0)
    plain = nn.Linear(256, 192, bias=False, device="meta")
    plain.weight = nn.Parameter(torch.randn(192, 256, generator=draws))
    plain, rows = plain.to(place.device), torch.randn(4, 16, 256, generator=draws).to(place.device)
    allowed = kind.off + (HALF if place.half else 0.0)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            layer = kind.of(plain).eval().to(place.device)
            known = kind.values(layer)
            wrong = max(_off(layer(x).float(), x @ known.T.float()) for x in (rows, rows[:, :1]))
            far = _off(known.float(), plain.weight)
    except Exception as err:  # whatever a library says of a processor that it does not know
        return f"{type(err).__name__}: {(str(err).strip() or '?').splitlines()[0]}"
    if wrong > allowed:
        return f"its product is off by {100 * wrong:.2g}%"
    return f"its weights are off by {far:.0%}" if far > FAR else ""


def _off(found: Tensor, known: Tensor) -> float:
    off = float((found - known).abs().max() / known.abs().max())
    return off if off == off else float("inf")


def where() -> str:
    """The processor that models lie on, for messages."""
    if placement.here().device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"


def preflight(compression: str) -> None:
    """Compress a layer, multiply, and compare with its dequantised product.

    Raises:
        ConfigError: this processor fails, or answers wrongly; names what it can do instead.
    """
    compression = MIXED if compression == "auto" else compression
    wrong = fault(compression)
    if wrong:
        able = [name for name in COMPRESSIONS if name != compression and not fault(name)]
        raise ConfigError(
            f"setting 'pair.compression' = '{compression}': this processor ({where()}) cannot multiply "
            f"it ({wrong}); allowed: {', '.join([*able, 'none'])}"
        )
