"""A model is made without the weights that its files replace.

transformers makes a model on PyTorch's `meta` device, where tensors have shapes and no values. PyTorch has
many operations there in Python alone, and the first of them loads its compiler, and with that sympy: 80 MB
and seconds, for numbers that are nowhere. Such are drawing, and arithmetic on what is not a layer's weights:
the ranges that positions are made of, a vector of ones. Here nothing is drawn on `meta`, and what begins with
values is made on the CPU. transformers replaces it, too, by what the files say or, where it is no weight, by
what it computes once more where the weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_FILLS = {name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")}
_DRAWN = torch.rand, torch.randn
_VALUES = torch.arange, torch.eye, torch.full, torch.linspace, torch.ones, torch.zeros


class Undrawn(TorchFunctionMode):
    """Within the `with` block weights on `meta` are given no values, which they would not keep."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """As PyTorch calls it for every operation."""
        named = dict(kwargs or {})
        if getattr(func, "__name__", "") in _FILLS:
            tensor = args[0] if args else named["tensor"]
            if tensor.is_meta:
                return tensor
        elif func is torch.empty_like and args[0].is_meta:
            return torch.empty(args[0].shape, **{"dtype": args[0].dtype, "device": "meta", **named})
        elif func in (*_DRAWN, *_VALUES) and torch.device(named.get("device") or "cpu").type == "meta":
            named["device"] = "cpu"
            func = torch.empty if func in _DRAWN else func
        return func(*args, **named)
