"""Rounds that go on counting where an earlier run stopped, for any Flower strategy.

`Strategy.start` always counts from 1 and calls `evaluate_fn` for round 0 first; there is no start round. So
the strategy is wrapped: it hears the true round, and round 0, which the earlier run has measured, is not
measured again. The rounds in Flower's `Result` are those of this start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from cdc_flower import checkpoint, results
from cdc_flower.checkpoint import Part, Saved
from cdc_flower.config import Config, ConfigError, flat
from cdc_flower.fleet import named_files
from cdc_flower.fleet.engines import adapter_files
from cdc_flower.run_folder import NAMED, RunFolder
from strategies.method import Method

FREE = (
    "run.rounds",
    "run.out-dir",
)  # settings that may be others when a run resumes: how far, and where it lies now
DIGESTS = ("pair_digest", "data_digest")  # beside those of the files that settings name
Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


class Resumed(Strategy):
    """A strategy that hears `done` + 1 where Flower says round 1.

    Args:
        strategy: any.
        done: rounds of the earlier run, from 0.
    """

    def __init__(self, strategy: Strategy, done: int) -> None:
        self.strategy, self.done = strategy, done

    def evaluation(self, evaluate: Evaluate) -> Evaluate:
        """The `evaluate_fn` to start with."""
        return lambda round, arrays: evaluate(self.done + round, arrays) if round else None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's, of the round it really is."""
        return self.strategy.configure_train(self.done + server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The strategy's, of the round it really is."""
        return self.strategy.aggregate_train(self.done + server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's, of the round it really is."""
        return self.strategy.configure_evaluate(self.done + server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The strategy's, of the round it really is."""
        return self.strategy.aggregate_evaluate(self.done + server_round, replies)

    def summary(self) -> None:
        """The strategy's."""
        self.strategy.summary()


@dataclass(frozen=True)
class Earlier:
    """Where an earlier run stopped."""

    round: int
    parts: dict[str, Part]


def earlier(folder: RunFolder, config: Config, facts: Mapping[str, Any], has_states: bool) -> Earlier | None:
    """The newest checkpoint of the run in `folder`; None, with a line that says so, where there is none.

    Args:
        folder: of the run.
        config: to go on with; only `FREE` may differ from that of the run.
        facts: `pair_digest` and `data_digest` of now.
        has_states: whether the grid can take back the devices' states.

    Raises:
        ConfigError: no run, another run, nothing left of it, or an engine that cannot resume.
    """
    if not has_states:
        raise ConfigError(
            f"engine '{facts['engine']}' keeps the devices' states to itself and cannot resume a run; "
            "allowed: the engines local and fleet"
        )
    before, now = results.read_to_resume(folder.path), identity(config, facts)
    _refuse_another({**before.info, "settings": before.config}, now, f"the run in {folder.path}")
    newest = checkpoint.load_newest(folder.checkpoints)
    if newest is None:
        log(WARNING, "%s: no usable checkpoint, the run starts from the beginning", folder.path)
        return None
    done, parts = newest
    own: Part = dict(parts.get("run", {}))
    where = f"the checkpoint {checkpoint.path_of(folder.checkpoints, done)}"
    if own and own["digest"] != now["digest"]:
        written = {name: json.loads(str(own[name])) for name in ("settings", NAMED) if name in own}
        _refuse_another({**own, **written}, now, where)
    if own.get("digest") != now["digest"]:
        raise ConfigError(f"{where} does not say of which run it is; allowed: one that does, or a new run")
    if config.run.rounds < done or (config.run.rounds == done and before.status == "completed"):
        raise ConfigError(
            f"setting 'run.rounds' = {config.run.rounds}: the run in {folder.path} has done {done}, nothing "
            f"is left; allowed: above {done}"
        )
    versions = results.provenance()
    other = [n for n in versions if before.info.get("versions", {}).get(n) != versions[n]]
    if other:
        log(WARNING, "%s: other versions than before of %s", folder.path, ", ".join(other))
    return Earlier(*newest)


def identity(config: Config, facts: Mapping[str, Any]) -> Part:
    """What decides the results of a run: its settings but for `FREE`, as JSON, the digests of its pair, its
    data and, where settings name any, files, and one digest of all of it. Every checkpoint holds it.

    Args:
        config: of the run.
        facts: `pair_digest` and `data_digest`.
    """
    own: Part = {"settings": json.dumps({k: v for k, v in flat(config).items() if k not in FREE})}
    own |= {key: facts[key] for key in DIGESTS}
    if files := named_files.digests(config.fleet):
        own[NAMED] = json.dumps(files)
    return {**own, "digest": hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()}


def _refuse_another(before: Mapping[str, Any], now: Part, where: str) -> None:
    """Name the first thing in which an earlier run differs.

    Raises:
        ConfigError: there is one.
    """
    for key, value in json.loads(str(now["settings"])).items():
        if before["settings"].get(key) != value:
            raise ConfigError(
                f"setting '{key}' = {value!r}: {where} has {before['settings'].get(key)!r}; "
                "allowed: the same, or a new run"
            )
    for key in DIGESTS:
        if before.get(key) != now[key]:
            raise ConfigError(
                f"{where} has the {key.replace('_', ' ')} {before.get(key)}, now it is {now[key]}; "
                "allowed: the same pair of models and the same data, or a new run"
            )
    files, then = json.loads(str(now.get(NAMED, "{}"))), before.get(NAMED, {})
    for name in {**files, **then}:
        if then.get(name) != files.get(name):
            raise ConfigError(
                f"{where} was begun with another content of the file '{name}' (sha256 "
                f"{then.get(name, 'unknown')}, now {files.get(name, 'none')}); allowed: the same content, "
                "or a new run"
            )


def adapters_back(method: Method, found: Earlier, folder: Path) -> None:
    """Write the adapters again that devices held at the checkpoint and that are gone or damaged.

    Raises:
        ConfigError: the method cannot make one of them again.
        DiskError: the disk does not take them.
    """
    place = folder / adapter_files.FOLDER
    states = {int(device): bytes(state) for device, state in found.parts["devices"].items()}  # type: ignore[arg-type]
    lost = adapter_files.lost(place, states)
    if not lost:
        return
    log(WARNING, "%s: %s devices' adapters were lost or damaged and are made again", folder, len(lost))
    for digest, adapter in method.restored(lost).items():
        adapter_files.write(place, digest, adapter)


def put_back(parts: Mapping[str, Saved], found: Earlier, folder: Path) -> None:
    """Give every part what was saved of it.

    Raises:
        ConfigError: the checkpoint is of another program: a part is missing or does not fit.
    """
    try:
        for name, part in parts.items():
            part.load(found.parts[name])
    except (KeyError, TypeError, ValueError) as err:
        raise ConfigError(
            f"{folder}: the checkpoint of round {found.round} does not fit: {err!r}; allowed: one that this "
            "version wrote, or a new run"
        ) from None
