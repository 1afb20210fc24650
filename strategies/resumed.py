"""Rounds that go on counting where an earlier run stopped, for any Flower strategy.

`Strategy.start` always counts from 1 and calls `evaluate_fn` for round 0 first; there is no start round. So
the strategy is wrapped: it hears the true round, and round 0, which the earlier run has measured, is not
measured again. The rounds in Flower's `Result` are those of this start."""

from __future__ import annotations

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
from cdc_flower.run_folder import RunFolder

FREE = (
    "run.rounds",
    "run.out-dir",
)  # settings that may be others when a run resumes: how far, and where it lies now
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
    before, now = results.read(folder.path), flat(config)
    for key in now:
        if key not in FREE and before.config.get(key) != now[key]:
            raise ConfigError(
                f"setting '{key}' = {now[key]!r}: the run in {folder.path} has {before.config.get(key)!r}; "
                "allowed: the same, or a new run"
            )
    for key in ("pair_digest", "data_digest"):
        if before.info.get(key) != facts[key]:
            raise ConfigError(
                f"{folder.path}: the run's {key.replace('_', ' ')} is {before.info.get(key)}, now it is "
                f"{facts[key]}; allowed: the same pair of models and the same data, or a new run"
            )
    newest = checkpoint.load_newest(folder.checkpoints)
    if newest is None:
        log(WARNING, "%s: no usable checkpoint, the run starts from the beginning", folder.path)
        return None
    done = newest[0]
    if config.run.rounds < done or (config.run.rounds == done and before.status == "completed"):
        raise ConfigError(
            f"setting 'run.rounds' = {config.run.rounds}: the run in {folder.path} has done {done}, nothing "
            f"is left; allowed: above {done}"
        )
    versions = results.package_versions()
    other = [n for n in versions if before.info.get("versions", {}).get(n) != versions[n]]
    if other:
        log(WARNING, "%s: other versions than before of %s", folder.path, ", ".join(other))
    return Earlier(*newest)


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
