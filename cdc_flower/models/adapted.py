"""The student of a run as it is after the run: read from the run folder, and asked about a picture.

It is the float model that holds exactly the values of the weights that devices run (`student.twin_model`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from cdc_flower import checkpoint, results
from cdc_flower.config import Config, ConfigError, parse_stages
from cdc_flower.data.features import rgb, spread, stacked
from cdc_flower.data.instruction import asked, said, told_by_card
from cdc_flower.fleet.engines import adapter_files
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.models.teacher import pair_digest


@dataclass(frozen=True, eq=False)
class Adapted:
    """A student that answers.

    Attributes:
        config: of the run, without the settings of methods.
        shared: tower and tokenizer.
        model: the student, wearing what the run has learned.
        whole: whether all weights were trained, so that there is no adapter.
    """

    config: Config
    shared: Shared
    model: nn.Module
    whole: bool = False

    def answer(self, picture: Image.Image | Sequence[Image.Image], question: str) -> str:
        """What the student says about a picture, or about a clip, given as its frames in their order."""
        shared, frames = self.shared, [picture] if isinstance(picture, Image.Image) else list(picture)
        chosen = [frames[i] for i in spread(len(frames), shared.text.pictures)]
        tokens, grid = stacked(shared.encode([rgb(frame) for frame in chosen]))
        words = asked(question, said(told_by_card(self.config.data, shared.card)))
        ids = shared.text.question_ids(words)
        inputs = vlm.collate(shared.text, [tokens.astype(np.float16)], [ids], grids=[grid])
        return vlm.answer(self.model, shared.text, inputs, shared.max_answer_tokens).texts[0]


def adapted(run: str | Path, device: int | None = None, *, shipped: bool = False) -> Adapted:
    """The student of a run.

    Args:
        run: a run folder with a checkpoint (`run.checkpoint-every`).
        device: whose adapter; None = the newest of the cloud.
        shipped: as it was before the first round, to compare with.

    Raises:
        ConfigError: no such run or device, no checkpoint, or weights that have changed since.
    """
    run = Path(run)
    found = results.read(run)
    config = parse_stages(found.config)
    shared = load_shared(config.pair, config.data.name, config.data.frames)
    if pair_digest(config.pair, shared, config.data.name) != found.info.get("pair_digest"):
        raise ConfigError(f"run '{run}': its models have changed since; allowed: the weights of the run")
    model = twin_model(shared, config.pair)
    if shipped:
        return Adapted(config, shared, model)
    newest = checkpoint.load_newest(run / "checkpoints")
    if newest is None:
        raise ConfigError(f"run '{run}': no checkpoint; allowed: a run with run.checkpoint-every above 0")
    flat = _newest(newest[1]) if device is None else _of_device(run, newest[1], device)
    whole = len(flat) != adapters.layout(model).total
    if whole:  # a method that trains all weights
        model = full_model(shared, config.pair)
    adapters.write(model, flat)
    return Adapted(config, shared, model, whole)


def _newest(parts: dict[str, Any]) -> np.ndarray:
    (flat,) = parts["arrays"].values()
    return np.asarray(flat, np.float32)


def _of_device(run: Path, parts: dict[str, Any], device: int) -> np.ndarray:
    """The adapter that a device holds: the file that its state names, as in `adapter_files`."""
    state = parts.get("devices", {}).get(str(device))
    if state is None:
        raise ConfigError(f"device {device}: not in run '{run}'; allowed: 0 to {len(parts['devices']) - 1}")
    for file in sorted((run / adapter_files.FOLDER).glob("*.npy")):
        if bytes.fromhex(file.stem) in bytes(state):
            return np.load(file, allow_pickle=False)
    raise ConfigError(
        f"device {device}: holds no adapter but the first; allowed: no --device, or another one"
    )
