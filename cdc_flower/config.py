"""Every setting of a run: one frozen dataclass per stage. Run-config strings are checked here alone.

A run config is flat (`{"run.rounds": 12, "uplink.token-score": "attention"}`), because that is what a preset
TOML, the command line and `flwr run --run-config` can all say. `parse` turns it into a `Config`; a wrong
key or value is refused with one line that names it and what is allowed. `flat` is its inverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cdc_flower import plugins
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.setting import STRICT, setting
from cdc_flower.tasks import TASKS

T = TypeVar("T")
TokenScore = Literal["attention", "sampled", "entropy", "mc_dropout", "norm", "random", "released"]
Axis = Literal["object", "question", "style", "mixed"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it and what is allowed. Commands exit with 2."""


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """What to run, how long, and where its results go."""

    method: str = setting("cdc", "what is run (`cdc-flower methods`)")
    seed: int = setting(0, "of every random draw", ge=0, lt=2**31)
    rounds: int = setting(14, "how many are run", "simulator", ge=1)
    devices: int = setting(8, "how many there are", "simulator", ge=1, le=10**7)
    cohort: float = setting(1.0, "share of the devices asked in a round", "cloud", gt=0, le=1)
    samples_per_round: int = setting(32, "questions a device answers in a round", ge=1)
    eval_every: int = setting(
        2, "rounds between held-out accuracies; the last round has one", "simulator", ge=1
    )
    min_devices: int = setting(1, "with fewer answering devices the run ends, saying so", "cloud", ge=1)
    checkpoint_every: int = setting(1, "rounds between checkpoints to resume from; 0 = none", "cloud", ge=0)
    round_timeout: float = setting(600.0, "the longest that the cloud waits for answers [s]", "cloud", gt=0)
    out_dir: str = setting("", "the run folder; absolute under `flwr run`; '' = results/<method>-<seed>")
    callbacks: str = setting("", "what else happens after rounds, by name: tensorboard", "simulator")
    fail_devices: str = setting(
        "", "devices that raise, 'round:device,...', to try what happens then", "device"
    )


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Which data, how it is spread over devices, and what in it the student was trained on.

    `known_*`: "" = everything is known, "a,b" = these values of the column, "50%" = that share of its values,
    chosen by a stable hash. What is not known is drift.
    """

    pack: str = setting("scenes", "'scenes' (generated) or the folder of a data pack", "simulator")
    partition: Literal["iid", "natural", "dirichlet", "shared"] = setting(
        "iid", "how rows are given to devices; shared = every device draws from all", "simulator"
    )
    partition_by: str = setting("user", "the column for natural and dirichlet", "simulator")
    dirichlet_alpha: float = setting(0.5, "of dirichlet; small = devices differ much", "simulator", gt=0)
    items_per_domain: int = setting(200, "held-out test items of each domain", "simulator", ge=1)
    items: Literal["test", "tuning"] = setting(
        "test", "tuning = other items of the test split, to choose settings by", "simulator"
    )
    task: str = setting("exact", "when an answer is right (`cdc_flower.tasks`)", "simulator")
    scenes_train: int = setting(3000, "pictures of the devices, for scenes", "simulator", ge=1)
    scenes_test: int = setting(800, "pictures of the test split, for scenes", "simulator", ge=1)
    style_column: str = setting("domain", "the column that says a picture's style", "simulator")
    known_styles: str = setting("", "styles the student knows", "simulator")
    object_column: str = setting("concept", "the column that says what is in a picture", "simulator")
    known_objects: str = setting("", "objects the student knows", "simulator")
    known_questions: str = setting("", "kinds of question (qtype) the student knows", "simulator")

    @property
    def name(self) -> str:
        """ "scenes", or the name of the pack's folder: under this name a pair for the data is looked for."""
        return self.pack if self.pack == "scenes" else Path(self.pack).resolve().name


@dataclass(frozen=True, config=STRICT)
class DriftConfig:
    """How the world of each device moves. Rounds count from 1."""

    axes: str = setting(
        "object,question", "what drifts in: of object, question, style, mixed; or none", "simulator"
    )
    onset: int = setting(1, "the first round in which any device meets drift", "simulator", ge=1)
    spread: int = setting(1, "the devices' onsets are spread over so many further rounds", "simulator", ge=0)
    ramp: int = setting(2, "rounds from the onset to full drift; 1 = sudden", "simulator", ge=1)
    source_share: float = setting(0.25, "share of known samples at full drift", "simulator", ge=0, le=1)
    per_device: Literal["all", "one"] = setting("all", "every axis on every device, or one each", "simulator")


@dataclass(frozen=True, config=STRICT)
class PairConfig:
    """Teacher and student: a folder made by `cdc-flower pretrain`, or two checkpoints."""

    folder: str = setting("", "of a pair; '' = the pair of the data's name, from cache or package")
    teacher: str = setting("", "checkpoint (folder or hub name), with `student`; instead of a pair", "cloud")
    student: str = setting("", "checkpoint (folder or hub name), with `teacher`")
    compression: Literal["nf4", "int8", "none", "auto"] = setting(
        "nf4", "of the student's weights; auto = the least that fits a device's RAM"
    )
    lora_rank: int = setting(16, "r of the adapter; its alpha is 2 r", ge=1)
    max_answer_tokens: int = setting(8, "the longest answer, its end token not counted", ge=1)
    token_cache: str = setting("", "folder of cached tower outputs; '' = the user's cache folder")


@dataclass(frozen=True, config=STRICT)
class UplinkConfig:
    """UTS: what a device sends. Scores are keys of the registries of `cdc_flower.uplink.scores`."""

    unit: Literal["tokens", "jpeg", "patches"] = setting(
        "tokens", "of a chosen sample: its kept tokens, its picture, or the patches of its kept tokens"
    )
    picture_quality: int = setting(75, "of jpeg and patches", "device", ge=1, le=95)
    sample_score: Literal["mixed", "entropy", "margin", "released", "random"] = setting(
        "mixed", "which samples go first", "device"
    )
    token_score: TokenScore = setting("sampled", "which of a sample's tokens go", "device")
    token_direction: Literal["high", "low"] = setting("high", "keep the highest or the lowest", "device")
    tokens_kept: int = setting(40, "tokens of a sample that go up; 0 = all of its N", "device", ge=0)
    token_bits: Literal[16, 8, 4, 3] = setting(3, "of a token's values; 16 = float16", "device")
    transform: Literal["auto", "pca", "none"] = setting(
        "auto", "axes that tokens are sent in; auto = pca where the pair has one"
    )
    budget: int = setting(20_000, "of a device's message in a round; 0 = no limit [bytes]", "device", ge=0)
    mc_passes: int = setting(4, "passes of the score mc_dropout", "device", ge=2)


@dataclass(frozen=True, config=STRICT)
class CloudConfig:
    """AKD: how the cloud distils. The loss is that of `cdc_flower.cloud.losses`."""

    steps: int = setting(50, "optimiser steps a round", "cloud", ge=0)
    batch: int = setting(96, "samples a step", "cloud", ge=1)
    lr: float = setting(5e-3, "learning rate of AdamW", "cloud", gt=0)
    ema_decay: float = setting(0.98, "per step, of the averaged adapter that is shipped", "cloud", ge=0, lt=1)
    tau: float = setting(1.0, "temperature of the KL term", "cloud", gt=0)
    ce_weight: float = setting(1.0, "of the cross-entropy with the teacher's answer", "cloud", ge=0)
    kl_weight: float = setting(1.0, "of the KL divergence from the teacher's logits", "cloud", ge=0)
    feature_weight: float = setting(0.0, "of the distance of hidden states", "cloud", ge=0)
    wavelet: bool = setting(False, "add the 3-level db6 term of the released code to it", "cloud")
    confidence: float = setting(
        0.5, "teacher's answers below it are dropped and counted", "cloud", ge=0, le=1
    )
    confidence_weighted: bool = setting(True, "a sample counts as much as the teacher is sure", "cloud")
    replay_share: float = setting(0.66, "of each batch that is taken from the past", "cloud", ge=0, lt=1)
    replay_bytes: int = setting(64 * 2**20, "of samples of the past that are kept [bytes]", "cloud", ge=0)
    source_replay: int = setting(
        3000, "unlabelled samples of the student's training, replayed", "cloud", ge=0
    )


@dataclass(frozen=True, config=STRICT)
class DownlinkConfig:
    """DWC: what goes back. `codec` is a key of `cdc_flower.downlink.codecs.CODECS`."""

    codec: Literal["dyadic", "fp16", "int8", "nf4", "topk", "topk_int4", "stc"] = setting(
        "dyadic", "of an update of the adapter", "cloud"
    )
    budget: int = setting(10_000, "of an update, for codecs that can aim at one [bytes]", "cloud", ge=1)
    history: int = setting(16, "versions a device may lag behind and still get what changed", "cloud", ge=1)


STAGES: dict[str, type] = {
    "run": RunConfig,
    "data": DataConfig,
    "drift": DriftConfig,
    "pair": PairConfig,
    "uplink": UplinkConfig,
    "cloud": CloudConfig,
    "downlink": DownlinkConfig,
    "fleet": FleetConfig,
}
"""Stage name -> its dataclass. Methods add sections of their own, see `sections`."""


def sections() -> dict[str, type]:
    """`STAGES`, then the sections of all methods that are installed; loads the methods.

    Raises:
        ConfigError: a method whose section has the name of a stage or of another's section.
    """
    return _sections(plugins.names(plugins.METHODS))


@lru_cache(maxsize=1)
def _sections(methods: tuple[str, ...]) -> dict[str, type]:
    found = dict(STAGES)
    for name in methods:
        for section, cls in plugins.load(plugins.METHODS, name).settings.items():
            if found.setdefault(section, cls) is not cls:
                raise ConfigError(f"method '{name}': section '{section}' is taken; allowed: another name")
    return found


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. Built by `parse`; change one with `parse({**flat(config), key: value})`."""

    run: RunConfig
    data: DataConfig
    drift: DriftConfig
    pair: PairConfig
    uplink: UplinkConfig
    cloud: CloudConfig
    downlink: DownlinkConfig
    fleet: FleetConfig
    methods: tuple[tuple[str, Any], ...] = ()  # section -> settings of methods; () on a device

    def of(self, cls: type[T]) -> T:
        """The settings of a method's section, by their class."""
        return next(found for _, found in self.methods if type(found) is cls)

    @property
    def axes(self) -> tuple[str, ...]:
        """The drift axes, e.g. ("object", "question"); empty when stationary."""
        names = tuple(a.strip() for a in self.drift.axes.split(",") if a.strip())
        return () if names == ("none",) else names


def _owner() -> dict[str, tuple[str, str]]:
    """`stage.key` -> its stage and the name of its field."""
    return _owner_of(plugins.names(plugins.METHODS))


@lru_cache(maxsize=1)
def _owner_of(methods: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    return {
        f"{stage}.{f.name.replace('_', '-')}": (stage, f.name)
        for stage, cls in _sections(methods).items()
        for f in dataclasses.fields(cls)
    }


def keys() -> tuple[str, ...]:
    """All run-config keys, `stage.key`, in the order of the stages."""
    return tuple(_owner())


def full_key(key: str) -> str:
    """A key as it was given: `cloud.ema-decay`, `cloud.ema_decay`, or as a Python name `cloud_ema_decay`.

    Raises:
        ConfigError: there is none like it; names the nearest.
    """
    kebab = key.replace("_", "-")
    for name in (key, kebab, key.replace("_", ".", 1).replace("_", "-")):
        if name in _owner():
            return name
    raise ConfigError(f"unknown setting '{key}'; {_hint(kebab)}")


def _hint(key: str) -> str:
    last = key.rpartition(".")[2]
    same = [k for k in _owner() if k.rpartition(".")[2] == last]
    near = [RENAMED[key]] if key in RENAMED else same or get_close_matches(key, _owner(), n=3)
    return f"did you mean {' or '.join(near)}?" if near else "allowed: `cdc-flower settings` lists them"


RENAMED: dict[str, str] = {
    "data": "data.pack",
    "drift": "drift.axes",
    "pair": "pair.folder",
    "pace": "fleet.mode",
    "drift-mode": "drift.ramp",
    "lora-alpha": "pair.lora-rank",
    **dict.fromkeys(("prompt-prefix", "pair.prompt-prefix"), "chat_template.jinja of the checkpoint"),
    **dict.fromkeys(("prompt-suffix", "pair.prompt-suffix"), "chat_template.jinja of the checkpoint"),
    "uplink-unit": "uplink.unit",
    "token-transform": "uplink.transform",
    "uplink-budget": "uplink.budget",
    "akd-steps": "cloud.steps",
    "akd-batch": "cloud.batch",
    "akd-lr": "cloud.lr",
    "average": "cloud.ema-decay",
    "downlink-budget": "downlink.budget",
    "local-epochs": "fedavg.epochs",
    "local-batch": "fedavg.batch",
    "local-lr": "fedavg.lr",
    "local-lr-full": "fedavg.lr-full",
    "local-memory": "fedavg.memory",
    "pseudo-confidence": "fedavg.confidence",
    "proximal-mu": "fedprox.mu",
    "tensorboard": "run.callbacks",
}
"""Keys of version 0.1 whose last part has changed -> what to say now."""


def parse(settings: Mapping[str, Any]) -> Config:
    """Check a flat run config. Missing keys take their defaults.

    Raises:
        ConfigError: unknown key, or a value that is not allowed; one line.
    """
    config = _built(sections(), {full_key(key): value for key, value in settings.items()})
    known = plugins.names(plugins.METHODS)
    if config.run.method not in known:
        raise ConfigError(f"setting 'run.method' = {config.run.method!r}; allowed: {', '.join(known)}")
    if config.data.task not in TASKS:
        raise ConfigError(f"setting 'data.task' = {config.data.task!r}; allowed: {', '.join(TASKS)}")
    for axis in config.axes:
        if axis not in ("object", "question", "style", "mixed"):
            raise ConfigError(
                f"setting 'drift.axes' = {config.drift.axes!r}: unknown axis '{axis}'; "
                "allowed: a comma list of object, question, style, mixed, or none"
            )
    return config


def parse_stages(run_config: Mapping[str, Any]) -> Config:
    """A run config as a device reads it: without the sections of methods, whose code it does not have.

    Raises:
        ConfigError: a value that is not allowed.
    """
    own = {key: value for key, value in run_config.items() if key.partition(".")[0] in STAGES}
    return _built(STAGES, own)


def _built(stages: Mapping[str, type], settings: Mapping[str, Any]) -> Config:
    """The stages from values under their full keys."""
    values: dict[str, dict[str, Any]] = {name: {} for name in stages}
    for key, value in settings.items():
        stage, _, name = key.partition(".")
        values[stage][name.replace("-", "_")] = value
    built: dict[str, Any] = {}
    for stage, cls in stages.items():
        try:
            built[stage] = TypeAdapter(cls).validate_python(values[stage])
        except ValidationError as err:
            first = err.errors()[0]
            key = f"{stage}.{str(first['loc'][0]).replace('_', '-')}"
            raise ConfigError(f"setting '{key}' = {first['input']!r}: {first['msg']}") from None
    return Config(
        **{stage: built[stage] for stage in STAGES},
        methods=tuple((name, found) for name, found in built.items() if name not in STAGES),
    )


def flat(config: Config) -> dict[str, Any]:
    """The flat run config of `config`, every key present; `parse(flat(c)) == c`."""
    stages = {**{stage: getattr(config, stage) for stage in STAGES}, **dict(config.methods)}
    return {key: getattr(stages[stage], name) for key, (stage, name) in _owner().items() if stage in stages}
