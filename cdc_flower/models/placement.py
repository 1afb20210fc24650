"""Where models lie and how they compute: device, number format, way of attention. Decided here alone.

|               | on a CPU                       | on a GPU                                             |
|---------------|--------------------------------|------------------------------------------------------|
| tower         | float32                        | float32: its outputs are what devices send           |
| teacher       | float32                        | bfloat16, on as many GPUs as it needs                |
| student, twin | float32                        | frozen weights bfloat16, adapter and moments float32 |
| products      | float32                        | bfloat16 (autocast); norms, softmax, losses float32  |
| attention     | eager below `LARGE`, else sdpa | sdpa                                                 |

Which of the two is the setting `run.device`. Every way into a process that loads models calls `choose` first
(`strategies.run.prepare`, `clients.task.Task.of`, a device's agent, what trains a pair); `auto` is a GPU
wherever torch sees one.

A pass that shows its attention is eager everywhere (`attention.shown`). A model that trains all its weights
keeps them in float32, and autocast makes its products bfloat16; pretraining computes in float32 (`exact`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING

from cdc_flower.session import session
from cdc_flower.setting import ConfigError

LARGE = 512  # width of a language model from which its attention keeps no maps
SPARED = 0.5, 0.1  # of the free memory of the first GPU and of each further one, for all but the teacher


@dataclass(frozen=True)
class Place:
    """Where a process computes.

    Attributes:
        device: of models and of what goes into them.
        dtype: of frozen weights and of products.
        budget: bytes that one pass may have alive (`room`). The same whatever else is there, so that batches
            do not depend on it.
    """

    device: torch.device
    dtype: torch.dtype
    budget: int

    @property
    def half(self) -> bool:
        """Whether products are made in half precision."""
        return self.dtype is not torch.float32


CPU = Place(torch.device("cpu"), torch.float32, 2 * 2**30)


def on_gpu(device: str) -> bool:
    """Whether a value of `run.device` means a GPU in this process; with `cpu` no driver is asked.

    Raises:
        ConfigError: `cuda` where torch sees none.
    """
    if device == "cpu":
        return False
    seen = torch.cuda.is_available()
    if device == "cuda" and not seen:
        raise ConfigError("setting 'run.device' = 'cuda': torch sees no GPU here; allowed: auto, cpu")
    return seen


def choose(device: str) -> None:
    """Compute, in this process, where `run.device` says from now on; models of another choice are let go of.

    Raises:
        ConfigError: `cuda` where torch sees none.
    """
    on_gpu(device)
    if device != session().device:
        session().close()
        session().device = device


def here() -> Place:
    """The first GPU that this process sees, unless `run.device` is `cpu`; else the CPU."""
    if not on_gpu(session().device):
        return CPU
    return replace(_gpu(), dtype=torch.float32) if session().exact else _gpu()


@contextmanager
def exact() -> Iterator[None]:
    """In the `with` block products are made in float32 on a GPU, too: for small models whose weights all
    train.
    """
    session().exact, before = True, session().exact
    try:
        yield
    finally:
        session().exact = before


@cache
def _gpu() -> Place:
    """Asked once: the driver takes longer to say how much memory there is than a small pass takes."""
    return Place(torch.device("cuda"), torch.bfloat16, torch.cuda.mem_get_info()[1] // 4)


def attention(text_config: Any) -> str:
    """How the language model of a student computes attention."""
    able = getattr(MODEL_MAPPING.get(type(text_config), None), "_supports_sdpa", False)
    return "sdpa" if able and (here().half or text_config.hidden_size >= LARGE) else "eager"


def computing() -> AbstractContextManager[Any]:
    """Every pass of a language model, and every product with its head, is made in this."""
    place = here()
    return torch.autocast(place.device.type, place.dtype) if place.half else nullcontext()


def settled(model: nn.Module) -> nn.Module:
    """A loaded model in its place: what is frozen in the number format of products, adapters in float32."""
    place = here()
    for p in model.parameters() if place.half else ():
        if p.is_floating_point() and not p.requires_grad:
            p.data = p.data.to(place.dtype)
    give_back()
    return model


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it: once a checkpoint of bfloat16 has been
    read into float32 that is as much as the checkpoint.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def teacher() -> dict[str, Any]:
    """Arguments of `from_pretrained` for a teacher; of several GPUs it fills one after another."""
    place = here()
    if place.device.type != "cuda":
        return {"dtype": place.dtype}
    free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    most = {i: int(bytes_ * (1 - SPARED[min(i, 1)])) for i, bytes_ in enumerate(free)}
    return {"dtype": place.dtype, "device_map": "sequential", "max_memory": most}


def stored() -> dict[str, Any]:
    """Arguments of `from_pretrained` for weights that bitsandbytes compresses: left to itself it puts them on
    any GPU that it finds.
    """
    return {} if here().device.type == "cuda" else {"device_map": {"": "cpu"}}


def device_of(model: nn.Module) -> torch.device:
    """Where a model wants its inputs."""
    return next(model.parameters()).device
