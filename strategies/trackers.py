"""What other programs that show experiments are told after each round: TensorBoard, MLflow, Weights & Biases.

Each is a function `(config) -> callback` for `run.callbacks`, and an extra of the package. Nothing of a run
depends on them: what they cannot write is warned of once, and the run goes on. By default all of them write
into the run folder, and nothing leaves the machine; MLFLOW_TRACKING_URI and WANDB_MODE are theirs.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from logging import WARNING
from typing import Any, Protocol

from flwr.supercore import log

from cdc_flower.config import Config, ConfigError, flat
from cdc_flower.run_folder import MLFLOW, TENSORBOARD, WANDB, RunFolder
from strategies.callbacks import Callback, Round

PROJECT = "cdc-flower"  # how the runs are filed
PARAMETERS = 100  # of MLflow in one request


class Open(Protocol):
    """What one run is told to."""

    def write(self, figures: Mapping[str, float], round: int) -> None:
        """Take the figures of a round."""

    def end(self) -> None:
        """No further round comes."""


def figures(round: Round) -> dict[str, float]:
    """What a round is known by: accuracy by domain, held-out and on the stream, and the metrics."""
    found = {f"accuracy_test/{domain}": value for domain, value in (round.measured or {}).items()}
    for domain, (right, total) in round.prequential.items():
        found[f"accuracy_prequential/{domain}"] = right / max(1, total)
    found |= {f"metrics/{name}": float(value) for name, value in round.metrics.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def tensorboard(config: Config) -> Callback:
    """Files of TensorBoard in the run folder.

    Raises:
        ConfigError: the package is not installed.
    """
    return _told(config, "tensorboard", "torch.utils.tensorboard.writer", _Board)


def mlflow(config: Config) -> Callback:
    """A run of MLflow: at MLFLOW_TRACKING_URI, else in `mlflow.db` in the run folder.

    Raises:
        ConfigError: the package is not installed.
    """
    return _told(config, "mlflow", "mlflow", _Mlflow)


def wandb(config: Config) -> Callback:
    """A run of Weights & Biases, in files below `wandb` in the run folder; WANDB_MODE=online sends them.

    Raises:
        ConfigError: the package is not installed.
    """
    return _told(config, "wandb", "wandb", _Wandb)


def _told(
    config: Config, name: str, module: str, begin: Callable[[Any, Config, RunFolder, int], Open]
) -> Callback:
    """The callback that opens a tracker with the first round that it is told of."""
    try:
        package = import_module(module)
    except ImportError:
        raise ConfigError(
            f"setting 'run.callbacks' = '{name}': the package {name} is not installed; allowed: without it, "
            f"or `pip install 'cdc-flower[{name}]'`"
        ) from None
    opened: list[Open] = []
    failed: list[str] = []

    def tell(round: Round) -> None:
        if failed:
            return
        try:
            if not opened:
                opened.append(begin(package, config, round.folder, round.number))
            opened[0].write(figures(round), round.number)
            if round.number == config.run.rounds:
                opened[0].end()
        except Exception as err:  # whatever a library says of a server that is gone
            failed.append(name)
            said = (str(err).strip() or type(err).__name__).splitlines()[0]
            log(WARNING, "%s takes no more of this run, which goes on: %s", name, said)

    return tell


def _named(config: Config) -> str:
    return f"{config.run.method}-{config.run.seed}"


def _kept(folder: RunFolder, name: str, make: Callable[[], str]) -> str:
    """What a tracker knows a run by, kept in the run folder, so that a resumed run goes on in it; a new run
    in the folder has another (`RunFolder.begin`).
    """
    path = folder.path / name
    if not path.is_file():
        path.write_text(make(), encoding="utf-8")
    return path.read_text(encoding="utf-8")


class _Board:
    def __init__(self, package: Any, config: Config, folder: RunFolder, round: int) -> None:
        self.board = package.SummaryWriter(str(folder.path / TENSORBOARD), purge_step=round)

    def write(self, figures: Mapping[str, float], round: int) -> None:
        for name, value in figures.items():
            self.board.add_scalar(name, value, round)
        self.board.flush()

    def end(self) -> None:
        self.board.close()


class _Mlflow:
    def __init__(self, package: Any, config: Config, folder: RunFolder, round: int) -> None:
        home = folder.path.absolute()
        where = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.entities = import_module("mlflow.entities")
        self.client = package.MlflowClient(tracking_uri=where or f"sqlite:///{home / 'mlflow.db'}")
        self.run = _kept(folder, MLFLOW, lambda: self._begun(config, "" if where else home.as_uri()))

    def _begun(self, config: Config, artifacts: str) -> str:
        found = self.client.get_experiment_by_name(PROJECT)
        place = f"{artifacts}/mlflow-artifacts" if artifacts else None
        number = found.experiment_id if found else self.client.create_experiment(PROJECT, place)
        run = self.client.create_run(number, run_name=_named(config)).info.run_id
        settings = [self.entities.Param(key, str(value)) for key, value in flat(config).items()]
        for i in range(0, len(settings), PARAMETERS):
            self.client.log_batch(run, params=settings[i : i + PARAMETERS])
        return run

    def write(self, figures: Mapping[str, float], round: int) -> None:
        now = int(1000 * time.time())
        self.client.log_batch(
            self.run, metrics=[self.entities.Metric(name, v, now, round) for name, v in figures.items()]
        )

    def end(self) -> None:
        self.client.set_terminated(self.run)


class _Wandb:
    def __init__(self, package: Any, config: Config, folder: RunFolder, round: int) -> None:
        self.run = package.init(
            project=PROJECT,
            name=_named(config),
            id=_kept(folder, WANDB, lambda: secrets.token_hex(4)),
            resume="allow",
            reinit="create_new",  # a process has several runs, one after another
            dir=str(folder.path),
            config=flat(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=package.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def write(self, figures: Mapping[str, float], round: int) -> None:
        self.run.log(dict(figures), step=round)

    def end(self) -> None:
        self.run.finish()
