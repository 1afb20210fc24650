"""Every setting of a run: one frozen dataclass per stage. Run-config strings are checked here alone.

A run config is flat (`{"rounds": 12, "token-score": "attention"}`), because that is what a preset TOML, the
command line and `flwr run --run-config` can all say. `parse` turns it into a `Config`; a wrong key or value
is refused with one line that names it and what is allowed. `flat` is its inverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cdc_flower.fleet.settings import FleetConfig

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Method = Literal["static", "cdc", "upload_all", "fedavg_lora", "fedprox_lora", "fedavg_full", "fedavg_pseudo"]
METHODS: tuple[str, ...] = get_args(Method)
TokenScore = Literal["attention", "sampled", "entropy", "mc_dropout", "norm", "random", "released"]
Axis = Literal["object", "question", "style", "mixed"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it and what is allowed. Commands exit with 2."""


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """What to run. `method` is a key of `strategies.STRATEGIES`; under `flwr run`, `out_dir` is absolute."""

    method: Method = "cdc"
    seed: int = Field(default=0, ge=0, lt=2**31)
    rounds: int = Field(default=14, ge=1)
    devices: int = Field(default=8, ge=1, le=10**7)
    cohort: float = Field(default=1.0, gt=0, le=1)  # share of the devices asked in a round
    samples_per_round: int = Field(default=32, ge=1)  # questions a device answers in a round
    eval_every: int = Field(default=7, ge=1)  # rounds between held-out accuracies; the last round has one
    min_devices: int = Field(default=1, ge=1)  # with fewer answering devices the run ends, saying so
    checkpoint_every: int = Field(default=1, ge=0)  # rounds between checkpoints to resume from; 0 = none
    round_timeout: float = Field(default=600.0, gt=0)  # s
    out_dir: str = ""  # the run folder; "" = results/<method>-<seed>
    tensorboard: bool = False
    fail_devices: str = ""  # fault injection, e.g. "2:1,4:0" = round 2 device 1 and round 4 device 0 raise


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which data and how it is spread over devices.

    `known_*` describe what the student was trained on, which is what makes a sample drifted: "" = everything
    is known, "a,b" = these values of the column, "50%" = that share of its values, chosen by a stable hash.
    """

    data: str = "scenes"  # "scenes" or a pack folder
    partition: Literal["iid", "natural", "dirichlet", "shared"] = "iid"  # shared: every device draws from all
    partition_by: str = "user"  # the column for natural / dirichlet
    dirichlet_alpha: float = Field(default=0.5, gt=0)
    items_per_domain: int = Field(default=200, ge=1)  # held-out test items of each domain
    items: Literal["test", "tuning"] = "test"  # tuning: other items of the test split, to choose settings by
    scenes_train: int = Field(default=3000, ge=1)  # pictures
    scenes_test: int = Field(default=800, ge=1)
    style_column: str = "domain"
    known_styles: str = ""
    object_column: str = "concept"
    known_objects: str = ""
    known_questions: str = ""  # values of qtype
    max_answer_chars: int = Field(default=64, ge=1)

    @property
    def name(self) -> str:
        """ "scenes", or the name of the pack's folder: under this name a pair for the data is looked for."""
        return self.data if self.data == "scenes" else Path(self.data).resolve().name


@dataclass(frozen=True, config=_STRICT)
class DriftConfig:
    """How the world of each device moves. Rounds count from 1."""

    drift: str = "object,question"  # comma list of axes that drift in; "none" = stationary
    drift_mode: Literal["sudden", "gradual"] = "gradual"
    drift_onset: int = Field(default=1, ge=1)  # the first round in which any device meets drift
    drift_spread: int = Field(default=1, ge=0)  # the devices' onsets are spread over so many further rounds
    drift_ramp: int = Field(default=2, ge=1)  # rounds from the onset to full drift, when gradual
    source_share: float = Field(default=0.25, ge=0, le=1)  # what remains of the source at full drift
    drift_per_device: Literal["all", "one"] = "all"  # every axis on every device, or one axis each


@dataclass(frozen=True, config=_STRICT)
class PairConfig:
    """Teacher and student. A pair is a folder made by `cdc-flower pretrain`, or two LLaVA checkpoints."""

    pair: str = ""  # folder; "" = the pair of the data's name, from cache or package
    teacher: str = ""  # LLaVA checkpoint (folder or hub name), with `student`: instead of `pair`
    student: str = ""
    compression: Literal["nf4", "int8", "none", "auto"] = "nf4"  # auto: the least that fits a device's RAM
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    prompt_prefix: str = ""  # used with `teacher`/`student`; a pair folder brings its own
    prompt_suffix: str = ""
    max_answer_tokens: int = Field(default=8, ge=1)
    token_cache: str = ""  # folder of cached tower outputs; "" = the user's cache folder


@dataclass(frozen=True, config=_STRICT)
class UplinkConfig:
    """UTS. Scores are keys of `cdc_flower.uplink.scores` registries.

    `uplink_unit` is what goes up of a chosen sample: its kept tokens, its whole picture (JPEG), or the
    patches of the picture that belong to the kept tokens; the last two show the picture to the cloud.
    """

    uplink_unit: Literal["tokens", "jpeg", "patches"] = "tokens"
    picture_quality: int = Field(default=75, ge=1, le=95)  # of jpeg and patches
    sample_score: Literal["mixed", "entropy", "margin", "released", "random"] = "mixed"
    token_score: TokenScore = "sampled"
    token_direction: Literal["high", "low"] = "high"
    tokens_kept: int = Field(default=40, ge=1)  # of N, per sample
    token_bits: Literal[8, 4, 3] = 3
    token_transform: Literal["auto", "pca", "none"] = "auto"  # auto: pca where the pair has one
    uplink_budget: int = Field(default=20_000, ge=1)  # bytes per device and round
    mc_passes: int = Field(default=4, ge=2)
    max_uplink_bytes: int = Field(default=64 * 2**20, ge=1)  # a larger frame is refused unread


@dataclass(frozen=True, config=_STRICT)
class CloudConfig:
    """AKD. The loss is that of `cdc_flower.cloud.losses`; the `*_weight` settings weight its terms."""

    akd_steps: int = Field(default=50, ge=0)  # per round
    akd_batch: int = Field(default=96, ge=1)
    akd_lr: float = Field(default=5e-3, gt=0)
    average: float = Field(default=0.98, ge=0, lt=1)  # of the running mean that is shipped, per step
    tau: float = Field(default=1.0, gt=0)
    ce_weight: float = Field(default=1.0, ge=0)
    kl_weight: float = Field(default=1.0, ge=0)
    feature_weight: float = Field(default=0.0, ge=0)
    wavelet: bool = False  # adds the 3-level db6 term of the released code to the feature loss
    confidence: float = Field(default=0.5, ge=0, le=1)  # the teacher's in its answer; below: dropped, counted
    confidence_weighted: bool = True  # a lesson counts as much as the teacher is confident; False: all alike
    replay_share: float = Field(default=0.66, ge=0, lt=1)  # of each batch
    replay_bytes: int = Field(default=64 * 2**20, ge=0)
    source_replay: int = Field(default=3000, ge=0)  # unlabelled source samples that the cloud kept
    anchor_weight: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, config=_STRICT)
class DownlinkConfig:
    """DWC. `codec` is a key of `cdc_flower.downlink.codecs.CODECS`."""

    codec: Literal["dyadic", "deadzone", "fp16", "int8", "nf4", "topk", "topk_int4", "stc"] = "dyadic"
    downlink_budget: int = Field(default=10_000, ge=1)  # bytes per update, for the codecs that can aim at one
    importance: Literal["none", "fisher"] = "fisher"  # weights of errors (dyadic, deadzone)
    history: int = Field(default=16, ge=1)  # versions kept for catch-up
    max_downlink_bytes: int = Field(default=256 * 2**20, ge=1)


@dataclass(frozen=True, config=_STRICT)
class LocalConfig:
    """Training on the device, for the FedAvg family."""

    local_epochs: int = Field(default=1, ge=1)
    local_batch: int = Field(default=8, ge=1)
    local_lr: float = Field(default=3e-3, gt=0)
    local_lr_full: float = Field(default=1e-3, gt=0)
    local_memory: int = Field(default=64, ge=0)  # past samples a device may train on again
    proximal_mu: float = Field(default=0.01, ge=0)
    pseudo_confidence: float = Field(default=0.8, ge=0, le=1)  # fedavg_pseudo: below it, not learned from


STAGES: dict[str, type] = {
    "run": RunConfig,
    "data": DataConfig,
    "drift": DriftConfig,
    "pair": PairConfig,
    "uplink": UplinkConfig,
    "cloud": CloudConfig,
    "downlink": DownlinkConfig,
    "local": LocalConfig,
    "fleet": FleetConfig,
}
"""Stage name -> its dataclass."""


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
    local: LocalConfig
    fleet: FleetConfig

    @property
    def axes(self) -> tuple[str, ...]:
        """The drift axes, e.g. ("object", "question"); empty when stationary."""
        names = tuple(a.strip() for a in self.drift.drift.split(",") if a.strip())
        return () if names == ("none",) else names


_OWNER = {f.name.replace("_", "-"): stage for stage, cls in STAGES.items() for f in dataclasses.fields(cls)}


def keys() -> tuple[str, ...]:
    """All run-config keys, in kebab-case, in the order of the stages."""
    return tuple(_OWNER)


def parse(settings: Mapping[str, Any]) -> Config:
    """Check a flat run config. Missing keys take their defaults.

    Raises:
        ConfigError: unknown key, or a value that is not allowed; one line.
    """
    stages: dict[str, dict[str, Any]] = {name: {} for name in STAGES}
    for key, value in settings.items():
        kebab = key.replace("_", "-")
        if kebab not in _OWNER:
            near = get_close_matches(kebab, _OWNER, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(_OWNER)}"
            raise ConfigError(f"unknown setting '{key}'; {hint}")
        stages[_OWNER[kebab]][kebab.replace("-", "_")] = value
    built = {}
    for name, values in stages.items():
        try:
            built[name] = TypeAdapter(STAGES[name]).validate_python(values)
        except ValidationError as err:
            first = err.errors()[0]
            key = str(first["loc"][0]).replace("_", "-")
            raise ConfigError(f"setting '{key}' = {first['input']!r}: {first['msg']}") from None
    config = Config(**built)
    for axis in config.axes:
        if axis not in ("object", "question", "style", "mixed"):
            raise ConfigError(
                f"setting 'drift' = {config.drift.drift!r}: unknown axis '{axis}'; "
                "allowed: a comma list of object, question, style, mixed, or none"
            )
    return config


def flat(config: Config) -> dict[str, Any]:
    """The flat run config of `config`, every key present; `parse(flat(c)) == c`."""
    return {key: getattr(getattr(config, stage), key.replace("-", "_")) for key, stage in _OWNER.items()}
