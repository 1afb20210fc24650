"""The stages of a run and their settings: one frozen dataclass each, fields with meaning and reader.

`cdc_flower.config` checks and combines them; the settings of virtual time are in `cdc_flower.fleet.settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from cdc_flower.setting import STRICT, YEAR, setting


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """What to run, how long, and where its results go."""

    method: str = setting("cdc", "what is run (`cdc-flower methods`)")
    seed: int = setting(0, "of every random draw", ge=0, lt=2**31)
    rounds: int = setting(14, "how many are run", "simulator", ge=1, le=10**6)
    devices: int = setting(8, "how many there are", "simulator", ge=1, le=10**7)
    cohort: float = setting(1.0, "share of the devices asked in a round", "cloud", gt=0, le=1)
    samples_per_round: int = setting(32, "questions a device answers in a round", ge=1, le=10**5)
    eval_every: int = setting(
        2, "rounds between held-out accuracies; the last round has one", "simulator", ge=1, le=10**6
    )
    min_devices: int = setting(
        1, "with fewer answering devices the run ends, saying so", "cloud", ge=1, le=10**7
    )
    checkpoint_every: int = setting(
        1, "rounds between checkpoints to resume from; 0 = none", "cloud", ge=0, le=10**6
    )
    round_timeout: float = setting(
        600.0, "the longest that the cloud waits for answers [s]", "cloud", gt=0, le=YEAR
    )
    receipts: bool = setting(
        False,
        "orders say which reply of the device was taken last, so that nothing is counted twice",
        "cloud",
    )
    out_dir: str = setting("", "the run folder; absolute under `flwr run`; '' = results/<method>-<seed>")
    threads: int = setting(
        1, "of a process that computes; above 1 last bits depend on who else is asked", ge=1, le=1024
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto",
        "what models compute on; auto = a GPU, in bfloat16, where torch sees one; cuda = a GPU or nothing",
    )
    callbacks: str = setting(
        "", "what else happens after rounds, by name: tensorboard, mlflow, wandb", "simulator"
    )
    fail_devices: str = setting(
        "", "devices that raise, 'round:device,...', to try what happens then", "device"
    )
    poison_devices: str = setting(
        "", "devices that answer with harm, 'device,...:kind', to try what a defence is worth", "device"
    )


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Which data, how it is spread over devices, and what in it the student was trained on.

    `known_*`: "" = everything is known, "a,b" = these values of the column, "50%" = that share of its values,
    chosen by a stable hash. What is not known is drift.
    """

    pack: str = setting(
        "scenes", "'scenes' or 'clips' (generated), or the folder of a data pack", "simulator"
    )
    split_by: str = setting(
        "",
        "the column by whose values A (what models are trained on) and B (what devices meet) share nothing; "
        "'' = as the pair was trained, else picture",
        "simulator",
    )
    partition: Literal["iid", "natural", "dirichlet", "shared"] = setting(
        "iid", "how rows are given to devices; shared = every device draws from all", "simulator"
    )
    partition_by: str = setting("user", "the column for natural and dirichlet", "simulator")
    dirichlet_alpha: float = setting(
        0.5, "of dirichlet; small = devices differ much", "simulator", ge=1e-3, le=1e6
    )
    items_per_domain: int = setting(
        200,
        "held-out items of each domain, where `tested` is own of each user; 0 = all there are",
        "simulator",
        ge=0,
        le=10**6,
    )
    items: Literal["test", "tuning"] = setting(
        "test", "test = of C; tuning = of A's validation part, to choose settings by", "simulator"
    )
    tested: Literal["auto", "all", "own"] = setting(
        "auto",
        "which held-out items a device is judged by; own = those of its own values of `partition-by`; "
        "auto = own for clips that natural gives to devices, else all",
        "simulator",
    )
    frames: int = setting(
        0, "that models read of a clip; 0 = as the pair was made for, 8 where one is made", ge=0, le=64
    )
    task: str = setting("exact", "when an answer is right (`cdc_flower.tasks`)", "simulator")
    instruction: str = setting(
        "auto", "said behind questions; auto = the task's, for bare checkpoints; none", "simulator"
    )
    scenes_train: int = setting(3000, "pictures of the devices, for scenes", "simulator", ge=1, le=10**6)
    scenes_test: int = setting(800, "pictures of the test split, for scenes", "simulator", ge=1, le=10**6)
    clips_users: int = setting(
        400,
        "users that models are trained on, for clips; devices have an eighth of them and as many new ones",
        "simulator",
        ge=1,
        le=10**5,
    )
    clips_each: int = setting(
        12, "clips of a user, for clips; half as many are in the test split", "simulator", ge=1, le=10**4
    )
    style_column: str = setting("domain", "the column that says a picture's style", "simulator")
    known_styles: str = setting("", "styles the student knows", "simulator")
    object_column: str = setting("concept", "the column that says what is in a picture", "simulator")
    known_objects: str = setting("", "objects the student knows", "simulator")
    known_questions: str = setting("", "kinds of question (qtype) the student knows", "simulator")

    @property
    def name(self) -> str:
        """Of a generator, or of the pack's folder: under this name a pair for the data is looked for."""
        return self.pack if self.pack in ("scenes", "clips") else Path(self.pack).resolve().name


@dataclass(frozen=True, config=STRICT)
class DriftConfig:
    """How the world of each device moves. Rounds count from 1."""

    axes: str = setting(
        "auto",
        "what drifts in: of object, question, style, mixed; or none; auto = what data.known-... name",
        "simulator",
    )
    onset: int = setting(1, "the first round in which any device meets drift", "simulator", ge=1, le=10**6)
    spread: int = setting(
        1, "the devices' onsets are spread over so many further rounds", "simulator", ge=0, le=10**6
    )
    ramp: int = setting(2, "rounds from the onset to full drift; 1 = sudden", "simulator", ge=1, le=10**6)
    source_share: float = setting(0.25, "share of known samples at full drift", "simulator", ge=0, le=1)
    per_device: Literal["all", "one"] = setting("all", "every axis on every device, or one each", "simulator")


@dataclass(frozen=True, config=STRICT)
class PairConfig:
    """Teacher and student: a folder made by `cdc-flower pretrain`, or two checkpoints."""

    folder: str = setting("", "of a pair; '' = the pair of the data's name, from cache or package")
    teacher: str = setting("", "checkpoint (folder or hub name), with `student`; instead of a pair", "cloud")
    student: str = setting("", "checkpoint (folder or hub name), with `teacher`")
    compression: Literal["nf4", "int4", "int8", "none", "auto"] = setting(
        "nf4", "of the student's weights; auto = the least that fits a device's RAM"
    )
    adapter: Literal["lora", "norms"] = setting(
        "lora", "what is trained: LoRA, projector and norms, or norms, biases and scales alone"
    )
    lora_rank: int = setting(16, "r of LoRA; its alpha is 2 r", ge=1, le=1024)
    max_answer_tokens: int = setting(8, "the longest answer, its end token not counted", ge=1, le=1024)
    token_cache: str = setting("", "folder of cached tower outputs; '' = the user's cache folder")

    @property
    def rank(self) -> int:
        """Of the layers that the adapter adds; 0 = it adds none."""
        return self.lora_rank if self.adapter == "lora" else 0


@dataclass(frozen=True, config=STRICT)
class UplinkConfig:
    """UTS: what a device sends. Scores are keys of the registries of `cdc_flower.uplink.scores`."""

    unit: Literal["tokens", "jpeg", "patches"] = setting(
        "tokens", "of a chosen sample: its kept tokens, its picture, or the patches of its kept tokens"
    )
    picture_quality: int = setting(75, "of jpeg and patches", "device", ge=1, le=95)
    sample_score: str = setting("mixed", "which samples go first", "device")
    least_worth: float = setting(
        0.0, "of worth: samples of a lower chance to be news go up less often", "device", ge=0, le=1
    )
    token_score: str = setting("sampled", "which of a sample's tokens go; -score = lowest first", "device")
    tokens_kept: int = setting(
        40, "tokens of a sample that go up; 0 = all of its N", "device", ge=0, le=2**16 - 1
    )
    token_bits: Literal[16, 8, 4, 3] = setting(3, "of a token's values; 16 = float16", "device")
    transform: Literal["auto", "pca", "none"] = setting(
        "auto", "axes that tokens are sent in; auto = pca where the pair has one"
    )
    clip: float = setting(
        0.0,
        "greatest distance of a token that goes up from the mean of all; 0 = as it is",
        "device",
        ge=0,
        le=1e4,
    )
    noise: float = setting(
        0.0, "deviation of Gaussian noise on each value of such a token, times clip", "device", ge=0, le=1e3
    )
    budget: int = setting(
        20_000, "of a device's message in a round; 0 = no limit [bytes]", "device", ge=0, le=2**30
    )


@dataclass(frozen=True, config=STRICT)
class CloudConfig:
    """AKD: how the cloud distils. The loss is that of `cdc_flower.cloud.losses`."""

    steps: int = setting(64, "optimiser steps a round", "cloud", ge=0, le=10**6)
    batch: int = setting(96, "questions a step", "cloud", ge=1, le=2**16)
    questions: int = setting(
        3, "of each picture: its own and others that devices asked; 1 = its own", "cloud", ge=1, le=64
    )
    lr: float = setting(5e-3, "learning rate of AdamW", "cloud", gt=0, le=10)
    ema_decay: float = setting(0.98, "per step, of the averaged adapter that is shipped", "cloud", ge=0, lt=1)
    tau: float = setting(1.0, "temperature of the KL term", "cloud", ge=1e-3, le=1e3)
    losses: str = setting("ce,kl", "of ce, kl, feature, wavelet, entropy; ce=1,kl=0.5 gives weights", "cloud")
    confidence: float = setting(
        0.5, "teacher's answers below it are dropped and counted", "cloud", ge=0, le=1
    )
    confidence_weighted: bool = setting(True, "a sample counts as much as the teacher is sure", "cloud")
    replay_share: float = setting(0.66, "of each batch that is taken from the past", "cloud", ge=0, lt=1)
    replay_bytes: int = setting(
        64 * 2**20, "of samples of the past that are kept [bytes]", "cloud", ge=0, le=2**40
    )
    source_replay: int = setting(3000, "samples of the student's training, replayed", "cloud", ge=0, le=10**7)
    source_teacher: Literal["auto", "teacher", "student", "label"] = setting(
        "auto",
        "who teaches them; auto = the better of both where right, else the other, else the label",
        "cloud",
    )
    guard: float = setting(
        0.1,
        "how much worse on held-out source samples a version may be than the one before and than version 0; "
        "0 = not looked at",
        "cloud",
        ge=0,
        le=10,
    )
    doorkeeper: Literal["off", "on"] = setting(
        "off",
        "samples that are unlike all of A, came before, or are too many of one device are dropped",
        "cloud",
    )
    influence: float = setting(
        2.0,
        "times the median of samples that a device may give, where the doorkeeper is on",
        "cloud",
        ge=1,
        le=1e6,
    )


@dataclass(frozen=True, config=STRICT)
class DownlinkConfig:
    """DWC: what goes back. `codec` is a key of `cdc_flower.downlink.codecs.CODECS`."""

    codec: str = setting("dyadic", "of an update of the adapter", "cloud")
    budget: int | float = setting(
        10_000,
        "of an update, for codecs that can aim at one [bytes]; below 1 = a share of the adapter in float16",
        "cloud",
        gt=0,
        le=2**30,
    )
    history: int = setting(
        16, "versions a device may lag behind and still get what changed", "device, cloud", ge=1, le=4096
    )
