"""bitsandbytes, imported without PyTorch's compiler: 40 MB less on a device that has little.

At its import bitsandbytes has three functions compiled, and with the first `torch.compile` PyTorch loads all
of its compiler. They are what a processor falls back to for which bitsandbytes has no kernel of its own; they
work uncompiled, too, and need no C compiler on the device then. To be imported before anything else that
imports bitsandbytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import cdc_flower.models  # noqa: F401  it keeps a warning of bitsandbytes' import off the log


@contextmanager
def _uncompiled() -> Iterator[None]:
    compiler = torch.compile

    def as_it_is(model: Any = None, **how: Any) -> Any:
        return model if model is not None else lambda function: function

    torch.compile = as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compiler


with _uncompiled():
    importlib.import_module("bitsandbytes")
