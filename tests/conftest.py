"""What many tests share: a small world and a pair with random weights, real in every other respect."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # figures of tests are those of a CPU, also beside a GPU

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.internal.conjecture import providers

with warnings.catch_warnings():  # flwr's command line imports a name that click has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import flwr.app  # noqa: F401

from cdc_flower.config import Config, full_key, keys, parse
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.models.teacher import Teacher, load_teacher
from cdc_flower.stages import PairConfig

# No deadline, and drawing may be slow: both measure the host's load. Hypothesis also draws constants that
# stand in the modules loaded so far: with these, draws depend on which tests came before and on every line of
# the source. `--hypothesis-profile random` draws other examples each time.
ANY_HOST: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("random", **ANY_HOST)
hypothesis_settings.register_profile("same every time", **ANY_HOST, derandomize=True)
hypothesis_settings.load_profile("same every time")
providers._get_local_constants = providers.Constants

PACKS = Path(os.environ.get("CDC_FLOWER_PACKS") or Path(__file__).parents[2] / "shared" / "data")
SMALL = {
    "data.scenes-train": 80,
    "data.scenes-test": 40,
    "data.items-per-domain": 20,
    "data.known-objects": "old shapes",
    "data.known-questions": "what,colour,yesno,count",
    "drift.axes": "object,question",
    "run.devices": 2,
    "run.rounds": 2,
    "run.samples-per-round": 6,
    "cloud.steps": 2,
    "cloud.batch": 8,
    "cloud.source-replay": 16,
    "cloud.source-teacher": "teacher",
    "cloud.guard": 0.0,
    "pair.lora-rank": 4,
    "mmpg.steps": 2,
}
CLIP_WORDS = (
    "what which where how many does do did is the a moves move go first meet anything things thing colour of "
    "red green blue yellow purple orange circle square triangle star cross ring moon left right up down "
    "heart round still one two three 1 2 3 yes no and then to caption describe clip"
)
"""Words that the pair of clips knows."""


OFTEN = ("static", "cdc", "labelled", "fedavg_lora", "fedkd", "local")
"""Methods that differ most in what they send and keep; tests over methods run the others in the slow tier."""


def each_method(names: Iterable[str]) -> list[Any]:
    """Parameters of a test over methods."""
    return [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in names]


def full(short: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by Python names: `uplink_budget`, or `rounds` where one stage alone has such a key."""
    found = {}
    for name, value in short.items():
        kebab = name.replace("_", "-")
        ends = [key for key in keys() if key.partition(".")[2] == kebab]
        found[ends[0] if len(ends) == 1 else full_key(name)] = value
    return found


@pytest.fixture(scope="session", autouse=True)
def cache_folder_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from, or written to, the cache in a person's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDC_FLOWER_CACHE", str(tmp_path_factory.mktemp("home-cache")))
        yield


def untrained(folder: Path, teacher: tuple[int, ...], student: tuple[int, ...], tower_layers: int) -> Path:
    """A pair in that folder whose models were initialised and never trained; sizes as of `LanguageModel`."""
    from experiments.pretrain.pretrain import LanguageModel, Recipe, pretrain

    models = {"teacher": LanguageModel(*teacher), "student": LanguageModel(*student)}
    steps = {"tower_steps": 0, "teacher_steps": 0, "student_steps": 0}
    pretrain(parse(SMALL), folder, Recipe(80, tower_layers=tower_layers, **models, **steps))
    return folder


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair folder whose models were initialised and never trained."""
    return untrained(tmp_path_factory.mktemp("pair"), (128, 1, 192), (64, 1, 192), tower_layers=2)


@pytest.fixture(scope="session")
def deep_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student like that one, of three layers: for what happens between layers."""
    three = 64, 3, 192
    return untrained(tmp_path_factory.mktemp("deep"), three, three, tower_layers=1) / "student"


@pytest.fixture(scope="session")
def clip_pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair folder for clips of three frames of 2 x 2 tokens; its models were never trained."""
    from tests.tiny import clips

    return clips.write_pair(tmp_path_factory.mktemp("clip-pair"), CLIP_WORDS)


@pytest.fixture(scope="session")
def clip_shared(clip_pair_folder: Path) -> Shared:
    """What both sides of that pair need."""
    return load_shared(PairConfig(folder=str(clip_pair_folder), lora_rank=4), "clips")


@pytest.fixture(scope="session")
def settings(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Flat settings of a small run on that pair; every cache in a temporary folder."""
    return {
        **SMALL,
        "pair.folder": str(pair_folder),
        "pair.token-cache": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="session")
def config(settings: dict[str, object]) -> Config:
    return parse(settings)


@pytest.fixture(scope="session")
def shared(config: Config) -> Shared:
    return load_shared(config.pair, "scenes")


@pytest.fixture(scope="session")
def teacher(config: Config, shared: Shared) -> Teacher:
    return load_teacher(config.pair, shared, "scenes")


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

    from strategies import method as methods

    def make(**more: Any) -> dict[str, Any]:
        changed = {"run.method": "cdc", **full(more)}
        base = {
            **settings,
            "run.devices": 3,
            "run.rounds": 3,
            "drift.onset": 1,
            "drift.spread": 0,
            "run.eval-every": 3,
            "data.items-per-domain": 6,
            "pair.lora-rank": 2,
            "uplink.tokens-kept": 4,
            "pair.max-answer-tokens": 3,
            "uplink.budget": 3000,
            "downlink.budget": 3000,
            "cloud.confidence": 0.0,
            "cloud.source-replay": 4,
            "fedavg.epochs": 1,
            "fedavg.confidence": 0.0,
            "cotta.views": 2,
            "feddf.steps": 2,
            "dccl.steps": 2,
            "run.out-dir": str(tmp_path / changed["run.method"]),
        }
        name = changed["run.method"]
        return {**base, **(methods.method(name).needs if name in methods.names() else {}), **changed}

    return make


@pytest.fixture
def clip_settings(
    run_settings: Callable[..., dict[str, Any]], clip_pair_folder: Path
) -> Callable[..., dict[str, Any]]:
    """As `run_settings`, of four devices with a user each who send and see clips."""

    def make(**more: Any) -> dict[str, Any]:
        made = run_settings(**more)
        made = {key: value for key, value in made.items() if not key.startswith("data.scenes")}
        return {
            **made,
            "data.pack": "clips",
            "data.clips-users": 16,
            "data.clips-each": 6,
            "data.known-objects": "",
            "data.known-questions": "",
            "data.known-styles": "day,night",
            "drift.axes": "style",
            "data.partition": "natural",
            "data.partition-by": "user",
            "pair.folder": str(clip_pair_folder),
            "run.devices": 4,
            **full(more),
        }

    return make
