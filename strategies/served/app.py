"""The ServerApp of a deployment: `cdc-flower cloud up` submits it, and again after it died.

Its run config holds the settings of the run, those of `ServedConfig` under `served.`, and `served.folder`,
the folder of the cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from strategies.served.settings import ServedConfig

SECTION = "served."
FOLDER = "served.folder"
RUN = "run"  # folder of the run, in that of the cloud

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
    with locked(cloud / RUN):
        torch.set_num_threads(config.run.threads)
        setup = prepare(config, streams=False)
        playing = method(config.run.method).build(setup)
        gathering = Gathering(grid, own.buffer if own.rounds == "buffer" else 0)
        Service(config, own, cloud, setup, playing, gathering).serve()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One process's rounds; what cannot be used is one line in the log."""
    try:
        serve(grid, context.run_config)
    except (ConfigError, RunError) as err:
        log(ERROR, "%s", err)
        raise
