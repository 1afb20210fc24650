"""The ServerApp that `flwr run .` runs: the run of `strategies.run` on Flower's own grid."""

from __future__ import annotations

from logging import ERROR
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log

from cdc_flower.config import ConfigError
from strategies.run import run

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run; a setting that cannot be used is one line in the log."""
    try:
        if not Path(str(context.run_config.get("run.out-dir", ""))).is_absolute():
            raise ConfigError(
                f"setting 'run.out-dir' = {context.run_config.get('run.out-dir', '')!r}; allowed under "
                "`flwr run`: an absolute path, because the app runs elsewhere"
            )
        run(grid, context)
    except ConfigError as err:
        log(ERROR, "%s", err)
        raise
