"""The ServerApp that `flwr run .` runs: the run of `strategies.run` on Flower's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from logging import ERROR, INFO
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.features import cache_folder
from strategies.run import run

app = ServerApp()


def out_dir(run_config: Mapping[str, Any]) -> Path:
    """The run folder under `flwr run`, where the app runs from a copy in a folder that nobody knows: the
    setting, else `runs/<method>-<seed>` in the cache folder.

    Raises:
        ConfigError: a relative path, or another setting that cannot be used.
    """
    config = parse(run_config)
    named = Path(config.run.out_dir or cache_folder() / "runs" / f"{config.run.method}-{config.run.seed}")
    if not named.expanduser().is_absolute():
        raise ConfigError(
            f"setting 'run.out-dir' = {config.run.out_dir!r}; allowed under `flwr run`: an absolute path, "
            "because the app runs elsewhere, or '' for one in the cache folder"
        )
    return named.expanduser()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run; a setting that cannot be used is one line in the log."""
    try:
        out = out_dir(context.run_config)
        log(INFO, "run folder: %s", out)
        context.run_config = {**context.run_config, "run.out-dir": str(out)}
        run(grid, context)
    except ConfigError as err:
        log(ERROR, "%s", err)
        raise
