"""A second device that every machine has: a tensor there computes on the CPU and refuses to meet one of here.

It tells code that moves its inputs to the model from code that leaves them behind, without a GPU. PyTorch
calls it `meta`; inside `elsewhere()` such tensors have values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
ACROSS = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default
"""What copies from one device to another."""


class There(Tensor):
    """A tensor on the other device; `inner` has its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the values."""
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"There({self.inner!r})"


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    moved = [x for x in tensors if isinstance(x, There)]
    left = [x for x in tensors if not isinstance(x, There) and x.dim()]
    if moved and left and func not in ACROSS:
        raise RuntimeError(f"{func}: {len(moved)} tensors are on the model's device, {len(left)} are not")
    where = kwargs.get("device")
    target = isinstance(args[0], There) if func in ACROSS[1:] else bool(moved)
    if where is not None:
        target, kwargs = torch.device(where) == DEVICE, {**kwargs, "device": torch.device("cpu")}
    given, named = tree_map(lambda x: x.inner if isinstance(x, There) else x, (args, kwargs))
    out = func(*given, **named)
    if func._schema.name.endswith("_") and tensors and out is given[0]:
        return args[0]
    return tree_map(lambda x: There(x) if isinstance(x, Tensor) else x, out) if target else out


class _Factories(TorchDispatchMode):
    """What is made on the other device, or goes there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Values(TorchFunctionMode):
    """What reads values without a dispatch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist and isinstance(args[0], There):
            return args[0].inner.tolist()
        if func is Tensor.new_tensor and isinstance(args[0], There):
            return There(args[0].inner.new_tensor(*args[1:], **kwargs))
        if func is not torch.tensor or torch.device(kwargs.get("device") or "cpu") != DEVICE:
            return func(*args, **kwargs)
        return There(func(*args, **{**kwargs, "device": "cpu"}))


@contextmanager
def elsewhere() -> Iterator[None]:
    """While this is open, the other device has values."""
    with _Factories(), _Values():
        yield


def move(model: nn.Module) -> nn.Module:
    """Move a model there, in place."""
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if not isinstance(p.data, There):
                module._parameters[name] = nn.Parameter(There(p.data), requires_grad=p.requires_grad)
        for name, buffer in module.named_buffers(recurse=False):
            if not isinstance(buffer, There):
                module._buffers[name] = There(buffer)
    return model
