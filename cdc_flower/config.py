"""The settings of a run, checked: run-config strings become a `Config` here alone.

A run config is flat (`{"run.rounds": 12, "uplink.token-score": "attention"}`), because that is what a preset
TOML, the command line and `flwr run --run-config` can all say. `parse` turns it into a `Config`; a wrong
key or value is refused with one line that names it and what is allowed. `flat` is its inverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeVar

from cdc_flower import plugins
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.rules import RULES
from cdc_flower.setting import ConfigError, checked
from cdc_flower.stages import (
    CloudConfig,
    DataConfig,
    DownlinkConfig,
    DriftConfig,
    PairConfig,
    RunConfig,
    UplinkConfig,
)

T = TypeVar("T")


class RunError(RuntimeError):
    """A run that cannot go on, through no fault of its settings; one line. Commands exit with 1."""


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
        ConfigError: a method of this package whose section has the name of a stage or of another's section.
    """
    found = _own_sections()
    plugins.found(plugins.METHODS, lambda name: _add(found, name))
    return found


@lru_cache(maxsize=1)
def _sections_of(methods: tuple[str, ...]) -> dict[str, type]:
    found = dict(STAGES)
    for name in methods:
        _add(found, name)
    return found


def _own_sections() -> dict[str, type]:
    """`STAGES` and the sections of the methods of this package: no other package is imported."""
    return dict(_sections_of(plugins.own(plugins.METHODS)))


def _add(found: dict[str, type], method: str) -> None:
    """Put the sections of a method beside those that were found, or refuse the method."""
    added = plugins.load(plugins.METHODS, method).settings
    for section, cls in added.items():
        if found.get(section, cls) is not cls:
            raise ConfigError(f"method '{method}': section '{section}' is taken; allowed: another name")
    found.update(added)


def _sections_for(settings: Mapping[str, Any]) -> dict[str, type]:
    """The sections that settings under their full keys need: `_own_sections`, and another package's where it
    brings the method that they name, or where they set something of it. No other package is imported, so
    that a run does not depend on what is installed beside it.

    Raises:
        ConfigError: the method cannot be loaded.
    """
    found = _own_sections()
    method = settings.get("run.method", STAGES["run"]().method)
    if method in plugins.names(plugins.METHODS):
        _add(found, method)
    named = {key.partition(".")[0] for key in settings}
    if not named <= set(found):
        found |= {section: cls for section, cls in sections().items() if section in named}
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
        """The drift axes, e.g. ("object", "question"); empty when stationary. `auto` is those of which a
        setting says what is known; where none does, style of the generated clips, else object and question: a
        pack without them is refused.
        """
        names = tuple(a.strip() for a in self.drift.axes.split(",") if a.strip())
        if names == ("auto",):
            data = self.data
            known = {
                "object": data.known_objects,
                "question": data.known_questions,
                "style": data.known_styles,
            }
            usual = ("style",) if data.pack == "clips" else ("object", "question")
            return tuple(axis for axis, said in known.items() if said) or usual
        return () if names == ("none",) else names


def _keys_of(sections: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """`stage.key` -> its section and the name of its field, of classes or objects of settings."""
    return {
        f"{section}.{f.name.replace('_', '-')}": (section, f.name)
        for section, settings in sections.items()
        for f in dataclasses.fields(settings)
    }


@lru_cache(maxsize=1)
def _stage_keys() -> tuple[str, ...]:
    return tuple(_keys_of(STAGES))


@lru_cache(maxsize=1)
def _own_keys(methods: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_keys_of(_sections_of(methods)))


def keys() -> tuple[str, ...]:
    """All run-config keys, `stage.key`, in the order of the stages."""
    return tuple(_keys_of(sections()))


def full_key(key: str) -> str:
    """A key as it was given: `cloud.ema-decay`, `cloud.ema_decay`, or as a Python name `cloud_ema_decay`.

    Raises:
        ConfigError: there is none like it; names the nearest.
    """
    kebab = key.replace("_", "-")
    spelt = (key, kebab, key.replace("_", ".", 1).replace("_", "-"))
    for known in (_stage_keys, lambda: _own_keys(plugins.own(plugins.METHODS)), keys):
        for name in spelt:
            if name in known():
                return name
        if key.partition(".")[0] in STAGES:  # no method has such a section, and none is loaded to look for it
            raise ConfigError(f"unknown setting '{key}'; {_hint(kebab, _stage_keys())}")
    raise ConfigError(f"unknown setting '{key}'; {_hint(kebab, keys())}{plugins.left_out()}")


def default(key: str) -> Any:
    """The default of a setting, by its full key; another package is imported for a key of its own alone."""
    section, _, name = key.partition(".")
    cls = _own_sections().get(section) or sections()[section]
    return cls.__pydantic_fields__[name.replace("-", "_")].default  # type: ignore[attr-defined]


def _hint(key: str, known: Sequence[str]) -> str:
    last = key.rpartition(".")[2]
    same = [k for k in known if k.rpartition(".")[2] == last]
    near = [RENAMED[key]] if key in RENAMED else same or get_close_matches(key, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "allowed: `cdc-flower settings` lists them"


REGISTRIES = {
    "data.task": ("cdc_flower.tasks", "TASKS"),
    "uplink.sample-score": ("cdc_flower.uplink.scores", "SAMPLE_SCORES"),
    "uplink.token-score": ("cdc_flower.uplink.scores", "TOKEN_SCORES"),
    "downlink.codec": ("cdc_flower.downlink.codecs", "CODECS"),
}
"""Setting -> module and registry whose keys it may be."""
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
    "token-direction": "uplink.token-score",
    "mc-passes": "uplink.token-score",
    "token-transform": "uplink.transform",
    "uplink-budget": "uplink.budget",
    "akd-steps": "cloud.steps",
    "akd-batch": "cloud.batch",
    "akd-lr": "cloud.lr",
    "ce-weight": "cloud.losses",
    "kl-weight": "cloud.losses",
    "feature-weight": "cloud.losses",
    "wavelet": "cloud.losses",
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
    found = {full_key(key): value for key, value in settings.items()}
    config = _built(_sections_for(found), found)
    known = plugins.names(plugins.METHODS)
    if config.run.method not in known:
        raise ConfigError(f"setting 'run.method' = {config.run.method!r}; allowed: {', '.join(known)}")
    _check_names(config)
    for key, rule in RULES.items():
        if wrong := rule(config):
            stage, _, name = key.partition(".")
            value = getattr(getattr(config, stage), name.replace("-", "_"))
            raise ConfigError(
                f"setting '{key}' = {value!r}{'; ' if wrong.startswith('allowed') else ': '}{wrong}"
            )
    return config


def _check_names(config: Config) -> None:
    """Refuse a name that is in no registry; what is registered there is allowed, without an edit here.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    for key, (module, registry) in REGISTRIES.items():
        stage, _, name = key.partition(".")
        value = getattr(getattr(config, stage), name.replace("-", "_"))
        known = getattr(import_module(module), registry)
        find = import_module(module).token_score if key == "uplink.token-score" else known.__getitem__
        try:
            find(value)
        except KeyError:
            also = ", mc_dropout=2 to 1024, and -score" if key == "uplink.token-score" else ""
            raise ConfigError(
                f"setting '{key}' = {value!r}; allowed: {', '.join(known)}{also}{plugins.left_out()}"
            ) from None
    import_module("cdc_flower.cloud.losses").weights(config.cloud.losses)


def parse_stages(run_config: Mapping[str, Any]) -> Config:
    """A run config as a device reads it: without the sections of methods, whose code it does not have.

    Raises:
        ConfigError: a value that is not allowed.
    """
    own = {key: value for key, value in run_config.items() if key.partition(".")[0] in STAGES}
    return _built(STAGES, own)


def _built(stages: Mapping[str, type], settings: Mapping[str, Any]) -> Config:
    """The stages from values under their full keys; what they may name is registered by then."""
    plugins.extend()
    values: dict[str, dict[str, Any]] = {name: {} for name in stages}
    for key, value in settings.items():
        stage, _, name = key.partition(".")
        values[stage][name.replace("-", "_")] = value
    built: dict[str, Any] = {}
    for stage, cls in stages.items():
        built[stage] = checked(cls, values[stage], lambda name, of=stage: f"{of}.{name.replace('_', '-')}")
    return Config(
        **{stage: built[stage] for stage in STAGES},
        methods=tuple((name, found) for name, found in built.items() if name not in STAGES),
    )


def flat(config: Config) -> dict[str, Any]:
    """The flat run config of `config`, every key of its sections present; `parse(flat(c)) == c`."""
    stages = {**{stage: getattr(config, stage) for stage in STAGES}, **dict(config.methods)}
    return {key: getattr(stages[section], name) for key, (section, name) in _keys_of(stages).items()}
