from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdc_flower.config import Config, flat, parse
from cdc_flower.plan import facts
from cdc_flower.plan.checkpoints import open_checkpoint
from cdc_flower.plan.memory import Holds, Run
from tests import tiny

WORDS = "where is the star red heart answer"


@pytest.fixture(scope="session")
def tiny_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint of a family."""
    folder = tmp_path_factory.mktemp("tiny")

    def of(name: str) -> Path:
        return folder / name if (folder / name).exists() else tiny.write(name, folder / name, WORDS)

    return of


@pytest.fixture
def planned(config: Config, pair_folder: Path) -> Callable[..., Run]:
    """`planned(Holds(...), **settings)`: a run on the pair of other tests."""

    def make(holds: Holds, asked: int = 2, **changed: Any) -> Run:
        more = {name.replace("_", ".", 1).replace("_", "-"): value for name, value in changed.items()}
        own = parse({**flat(config), **more})
        student = open_checkpoint(
            str(pair_folder / "student"), "student", own.pair.adapter, own.pair.lora_rank, "eager"
        )
        teacher = open_checkpoint(str(pair_folder / "teacher"), "teacher")
        lengths = facts.lengths(own, student.config, student.path)
        return Run(own, holds, student, teacher, facts.data(own), lengths, asked)

    return make
