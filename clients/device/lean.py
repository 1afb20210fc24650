"""bitsandbytes and transformers, imported without what a device has no use for: 150 MB less.

At its import bitsandbytes has three functions compiled, and with the first `torch.compile` PyTorch loads all
of its compiler, and with that sympy. They are what a processor falls back to for which bitsandbytes has no
kernel of its own; they work uncompiled, too, and need no C compiler on the device then. transformers loads
the compiler to tell it of functions that it must not look into. Where there is PyTorch's package for several
machines, transformers loads its tensors; where there is scipy, it loads its optimisers for a loss of object
detection. While these libraries are imported, all that is not there. Afterwards it is, and is loaded by
whoever asks for it. And a check of PyTorch's loads sympy to see whether its condition is a symbol: here one
that plainly holds has passed. To be imported before anything else that imports either library.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed
from transformers import utils
from transformers.utils import import_utils

import cdc_flower.models  # noqa: F401  it keeps a warning of bitsandbytes' import off the log


def _as_it_is(model: Any = None, **how: Any) -> Any:
    return model if model is not None else lambda function: function


def _nowhere() -> bool:
    return False


def _mode() -> Any:
    return getattr(importlib.import_module(_MODE.__name__), _NAMED)()


def _forget() -> None:
    del torch._dynamo  # type: ignore[attr-defined]
    del sys.modules[_COMPILER.__name__], sys.modules[_MODE.__name__]


_NAMED = "TransformGetItemToIndex"
_MODE = ModuleType("torch._dynamo._trace_wrapped_higher_order_op")
_COMPILER = ModuleType("torch._dynamo")
vars(_MODE)[_NAMED] = _mode  # the real one, when it is wanted
for _name in ("assume_constant_result", "allow_in_graph", "disable"):
    vars(_COMPILER)[_name] = _as_it_is


@contextmanager
def _alone() -> Iterator[None]:
    """Within the `with` block nothing is compiled, and there is one machine and no scipy."""
    with ExitStack() as held:
        for where, name, instead in (
            (torch, "compile", _as_it_is),
            (
                torch,
                "_disable_dynamo",
                _as_it_is,
            ),  # wraps kernels, and loads the compiler at their first call
            (torch.compiler, "disable", _as_it_is),
            (torch.compiler, "allow_in_graph", _as_it_is),
            (torch.distributed, "is_available", _nowhere),
            (utils, "is_torch_distributed_available", _nowhere),
            (import_utils, "is_torch_distributed_available", _nowhere),
            (utils, "is_scipy_available", _nowhere),
        ):
            held.enter_context(patch.object(where, name, instead))
        if _COMPILER.__name__ not in sys.modules:  # torch imports it when it is asked for that name
            held.callback(_forget)
            torch._dynamo = _COMPILER  # type: ignore[assignment]
            sys.modules.update({module.__name__: module for module in (_COMPILER, _MODE)})
        yield


_checked = torch._check_with


def _check_with(kind: type[Exception], holds: Any, message: Any = None) -> None:
    if holds is not True:
        _checked(kind, holds, message)


torch._check_with = _check_with
with _alone():
    for _name in ("bitsandbytes", "transformers.masking_utils", "transformers.modeling_utils", "peft"):
        importlib.import_module(_name)
