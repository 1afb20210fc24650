from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cdc_flower.config import parse
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.stages import PairConfig
from tests import tiny

QUESTIONS = ["where is the star?", "is there a red heart?", "what is at the top?"]
WORDS = " ".join(QUESTIONS).replace("?", "") + " red {star} answer"


@dataclass(frozen=True)
class Made:
    """A checkpoint on disk, what is shared of it, and its model as transformers loads it."""

    shared: Shared
    model: Any
    images: list[Image.Image]
    tokens: list[np.ndarray]
    grids: list[Any]
    asked: list[list[int]]


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> the folder of a checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    return {name: tiny.write(name, folder / name, WORDS) for name in tiny.BUILDERS}


@pytest.fixture(scope="session")
def make(tiny_folders: dict[str, Path], pair_folder: Path) -> Callable[[str], Made]:
    """The checkpoint of a name; "pair" is the student of the pair of other tests."""
    made: dict[str, Made] = {}

    def of(name: str) -> Made:
        if name not in made:
            path = str(pair_folder / "student" if name == "pair" else tiny_folders[name])
            shared = load_shared(PairConfig(teacher="nowhere", student=path), "x")
            model: Any = FAMILIES[shared.family].model_class.from_pretrained(
                path, dtype=torch.float32, attn_implementation="eager"
            )
            rng = np.random.default_rng(1)
            sizes = (96, 96), (40, 80), (80, 30)
            images = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
            tokens, grids = zip(*shared.encode(images), strict=True)
            asked = [shared.text.question_ids(q) for q in QUESTIONS]
            made[name] = Made(shared, model.eval(), images, list(tokens), list(grids), asked)
        return made[name]

    return of


@pytest.fixture(params=sorted(tiny.BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    """Every checkpoint in turn."""
    return request.param


@pytest.fixture
def made(name: str, make: Callable[[str], Made]) -> Made:
    """Every checkpoint in turn."""
    return make(name)


@pytest.fixture(scope="session")
def learn(settings: dict[str, Any]) -> Callable[..., Path]:
    """`learn(folder, **changed)`: the folder of a run in which devices got updates."""
    from strategies.run import run_local

    def made(out: Path, **changed: Any) -> Path:
        more = {
            "run.devices": 2,
            "drift.onset": 1,
            "drift.spread": 0,
            "uplink.budget": 9000,
            "downlink.budget": 6000,
            "cloud.confidence": 0.0,
            "cloud.source-replay": 4,
            "run.out-dir": str(out),
            "run.checkpoint-every": 1,
            "pair.lora-rank": 2,  # the models of this process with another rank stay as other tests left them
        }
        return run_local(parse({**settings, **more, **changed}))

    return made


@pytest.fixture(scope="session")
def run(learn: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds."""
    return learn(tmp_path_factory.mktemp("run") / "cdc")
