"""What many tests share: a small world and a pair with random weights, real in every other respect."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

with warnings.catch_warnings():  # flwr's command line imports a name that click has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import flwr.app  # noqa: F401

from cdc_flower.config import Config, parse
from cdc_flower.models.pair import Pair, load_pair

hypothesis_settings.register_profile("any machine", deadline=None)  # a deadline measures the host's load
hypothesis_settings.load_profile("any machine")

PACKS = Path(os.environ.get("CDC_FLOWER_PACKS") or Path(__file__).parents[2] / "shared" / "data")
SMALL = {
    "scenes-train": 80,
    "scenes-test": 40,
    "items-per-domain": 20,
    "known-objects": "old shapes",
    "known-questions": "what,colour,yesno,count",
    "drift": "object,question",
    "devices": 2,
    "rounds": 2,
    "samples-per-round": 6,
    "akd-steps": 2,
    "akd-batch": 8,
    "source-replay": 16,
    "lora-rank": 4,
}


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair folder whose models were initialised and never trained."""
    from experiments.pretrain.pretrain import Recipe, pretrain

    folder = tmp_path_factory.mktemp("pair")
    pretrain(parse(SMALL), folder, Recipe(pictures=80, tower_steps=0, teacher_steps=0, student_steps=0))
    return folder


@pytest.fixture(scope="session")
def settings(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Flat settings of a small run on that pair; every cache in a temporary folder."""
    return {**SMALL, "pair": str(pair_folder), "token-cache": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def config(settings: dict[str, object]) -> Config:
    return parse(settings)


@pytest.fixture(scope="session")
def pair(config: Config) -> Pair:
    return load_pair(config.pair, "scenes")


@pytest.fixture(scope="session")
def packs_folder() -> Path:
    """The folder of real data packs; tests that need it are skipped where it is absent."""
    if not PACKS.is_dir():
        pytest.skip(f"no data packs at {PACKS}; set CDC_FLOWER_PACKS")
    return PACKS


@pytest.fixture
def run_settings(settings: dict[str, object], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`run_settings(method="cdc", ...)`: settings of a whole run of seconds; its folder is `tmp_path /
    method`.
    """

    def make(**more: Any) -> dict[str, Any]:
        changed = {"method": "cdc", **{key.replace("_", "-"): value for key, value in more.items()}}
        base = {
            **settings,
            "devices": 3,
            "rounds": 3,
            "drift-onset": 1,
            "drift-spread": 0,
            "eval-every": 3,
            "items-per-domain": 6,
            "lora-rank": 2,
            "tokens-kept": 4,
            "max-answer-tokens": 3,
            "uplink-budget": 3000,
            "downlink-budget": 3000,
            "confidence": 0.0,
            "source-replay": 4,
            "local-epochs": 1,
            "pseudo-confidence": 0.0,
            "out-dir": str(tmp_path / changed["method"]),
        }
        return {**base, **changed}

    return make
