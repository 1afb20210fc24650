"""The ServerApp of a deployment: `cdc-flower cloud up` submits it, and again after it died.

Its run config holds the settings of the run, those of `ServedConfig` under `served.`, and `served.folder`,
the folder of the cloud. It stands in a JSON file that the environment names (`VARIABLE`), because what a
Flower app carries is fetched by every device.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log

from cdc_flower.config import Config, ConfigError, RunError, parse
from cdc_flower.lock import locked
from cdc_flower.setting import checked
from strategies.method import method
from strategies.run import prepare
from strategies.served.gathering import Gathering
from strategies.served.rounds import Service
from strategies.served.settings import FOLDER, RUN, SECTION, VARIABLE, ServedConfig

TRIES = 5  # for the lock of the run folder, a second apart

app = ServerApp()


def settings(run_config: Mapping[str, Any]) -> tuple[Config, ServedConfig, Path]:
    """The settings of the run, how its rounds are, and the folder of the cloud.

    Raises:
        ConfigError: one that cannot be used.
    """
    run_config = dict(run_config)
    cloud = Path(str(run_config.pop(FOLDER, "")))
    if not cloud.is_absolute() or not cloud.is_dir():
        raise ConfigError(f"setting '{FOLDER}' = '{cloud}'; allowed: the folder of a cloud, absolute")
    mine = {
        key.removeprefix(SECTION).replace("-", "_"): value
        for key, value in run_config.items()
        if key.startswith(SECTION)
    }
    own = checked(ServedConfig, mine, lambda name: f"{SECTION}{name.replace('_', '-')}")
    rest = {key: value for key, value in run_config.items() if not key.startswith(SECTION)}
    config = parse({**rest, "run.out-dir": str(cloud / RUN), "run.receipts": True})
    if config.fleet.mode != "off":
        raise ConfigError(
            f"setting 'fleet.mode' = '{config.fleet.mode}': a deployment has real time; allowed: off"
        )
    if own.rounds == "buffer" and not method(config.run.method).traits.takes_late:
        raise ConfigError(
            f"setting 'rounds' = 'buffer': method '{config.run.method}' averages the answers of one round; "
            "allowed: sync"
        )
    return config, own, cloud


def serve(grid: Grid, run_config: Mapping[str, Any]) -> None:
    """Rounds over a grid, without end or to the last one.

    Raises:
        ConfigError: settings, data or pair cannot be used, or another process serves this folder.
        DiskError: the disk does not take a file.
    """
    config, own, cloud = settings(run_config)
    with _alone(cloud / RUN):
        torch.set_num_threads(config.run.threads)
        setup = prepare(config, streams=False)
        playing = method(config.run.method).build(setup)
        gathering = Gathering(grid, own.buffer if own.rounds == "buffer" else 0)
        Service(config, own, cloud, setup, playing, gathering).serve()


def given() -> dict[str, Any]:
    """The run config that the environment names; {} where it names none.

    Raises:
        ConfigError: the file cannot be read.
    """
    named = os.environ.get(VARIABLE, "")
    if not named:
        return {}
    try:
        return dict(json.loads(Path(named).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as err:
        raise ConfigError(f"{VARIABLE} = '{named}' cannot be read: {err}; allowed: a JSON object") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the run folder. Who looks whether this process lives holds it for a moment, and one
    that was killed may not be quite gone.
    """
    with ExitStack() as held:
        for left in reversed(range(TRIES)):
            try:
                held.enter_context(locked(folder))
                break
            except ConfigError:
                if not left:
                    raise
                time.sleep(1)
        yield


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One process's rounds; what cannot be used is one line in the log."""
    try:
        serve(grid, {**context.run_config, **given()})
    except (ConfigError, RunError) as err:
        log(ERROR, "%s", err)
        raise
