"""Training that can be stopped at any moment: one loop for every stage of `experiments.pretrain.pretrain`.

Weights and optimizer state lie in one safetensors file per stage, written every minute. What a step computes
depends on its number and the weights alone, so an interrupted stage ends with the bits of one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from cdc_flower import disk
from cdc_flower.config import ConfigError
from experiments.pretrain.recipes import Recipe

Progress = Callable[[str, int, int], None]
SAVE_SECONDS = 60.0
CHECKS = 12  # of a stage on what it does not train on


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """What a disk refuses in the `with` block is one line about `path`; safetensors has an error of its own.

    Raises:
        DiskError: see above.
    """
    with disk.writing(path):
        try:
            yield
        except SafetensorError as err:
            raise OSError(" ".join(str(err).split())) from None


def _save(path: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, str]) -> None:
    part = path.with_suffix(".part")
    with saving(path):
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, str(part), dict(meta))
        part.replace(path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A stage's file.

    Raises:
        ConfigError: it is broken.
    """
    try:
        with safe_open(str(path), "pt") as f:
            yield f
    except SafetensorError as err:
        raise ConfigError(
            f"{path}: cannot be read: {err}; allowed: a file that was written whole, or none, and the stage "
            "begins again"
        ) from None


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with _opened(path) as f:
        return {k: f.get_tensor(k) for k in f.keys()}, dict(f.metadata() or {})  # noqa: SIM118


def done_before(folder: Path, name: str, fingerprint: str) -> int:
    """Steps of a stage that `folder` holds; 0 where it holds none, or those of another fingerprint.

    Raises:
        ConfigError: its file is broken.
    """
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        return 0
    with _opened(path) as f:
        meta = f.metadata() or {}
    return int(meta["step"]) if meta.get("fingerprint") == fingerprint else 0


def _optimizers(params: Mapping[str, nn.Parameter], recipe: Recipe, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of transformer blocks, AdamW for all else.

    With Muon the language models leave question-only accuracy after about 250 steps, with AdamW alone after
    about 700.
    """
    blocks = [p for name, p in params.items() if p.ndim == 2 and ".layers." in name]
    inside = {id(p) for p in blocks}
    rest = [p for p in params.values() if id(p) not in inside]
    return [
        torch.optim.Muon(
            blocks, lr=recipe.muon_lr, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=lr, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def optimise(
    name: str,
    module: nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    steps: int,
    lr: float,
    recipe: Recipe,
    folder: Path,
    fingerprint: str,
    progress: Progress | None,
    validate: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Warm-up and cosine decay; `loss_of(step)` must be a pure function of the step and the weights.

    The state is saved every minute and at the end in `folder/<name>.safetensors`; an interrupted stage goes
    on from there, a finished one is only loaded. A stage of another `fingerprint`, or of other shapes,
    starts afresh.

    Args:
        validate: the loss on what is not trained on, a pure function of the weights. It is asked `CHECKS`
            times, evenly spaced (in a short stage every ten steps), and the module ends with the weights of
            the lowest.

    Returns:
        for the card: of `validate`, if it was ever asked, after which `step` it was lowest, of so many
        (`steps`), and the lowest value (`loss`).
    """
    path = folder / f"{name}.safetensors"
    params = dict(module.named_parameters())
    optimizers = _optimizers(params, recipe, lr)
    rates = [group["lr"] for o in optimizers for group in o.param_groups]
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    start, best, found = 0, {}, {}
    checks = max(1, min(CHECKS, steps // 10))
    marks = {round((i + 1) * steps / checks) for i in range(checks)} if validate else set()
    if done_before(folder, name, fingerprint):
        (tensors, meta), none = _read(path), torch.zeros(0)
        if all(tensors.get(f"weight/{k}", none).shape == p.shape for k, p in params.items()):
            start, found = int(meta["step"]), json.loads(meta.get("best", "{}"))
            best = {k.removeprefix("best/"): t for k, t in tensors.items() if k.startswith("best/")}
            with torch.no_grad():
                for key, p in params.items():
                    p.copy_(tensors[f"weight/{key}"])
            for entry, tensor in tensors.items():
                kind, _, key = entry.partition("/")
                if kind not in ("weight", "best"):
                    there = tensor if kind == "step" else tensor.to(params[key].device)
                    owner[id(params[key])].state[params[key]][kind] = there
    saved = time.monotonic()
    for step in range(start, steps):
        share = min(1.0, (step + 1) / (0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for rate, group in zip(rates, (g for o in optimizers for g in o.param_groups), strict=True):
            group["lr"] = rate * share
        loss = loss_of(step)
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params.values(), 1.0)
        for o in optimizers:
            o.step()
        if progress and (step % 20 == 19 or step == steps - 1):
            progress(f"{name} (loss {loss.item():.3f})", step + 1, steps)
        if validate and step + 1 in marks:
            checked = validate()
            if not found or checked < found["loss"]:
                found = {"step": step + 1, "steps": steps, "loss": round(checked, 5)}
                best = {key: p.detach().clone() for key, p in params.items()}
        if step == steps - 1 and best:
            with torch.no_grad():
                for key, p in params.items():
                    p.copy_(best[key])
        if step == steps - 1 or time.monotonic() - saved > SAVE_SECONDS:
            state = {f"weight/{k}": p for k, p in params.items()}
            if step < steps - 1:
                state |= {f"best/{k}": p for k, p in best.items()}
                state |= {
                    f"{kind}/{k}": v
                    for k, p in params.items()
                    for kind, v in owner[id(p)].state.get(p, {}).items()
                }
            _save(path, state, {"step": str(step + 1), "fingerprint": fingerprint, "best": json.dumps(found)})
            saved = time.monotonic()
    return found
