"""What a worker does for a cell: a run. What only models and data can refuse fails that cell alone."""

from __future__ import annotations

from pathlib import Path

from cdc_flower.config import Config, ConfigError, RunError
from cdc_flower.results import Progress


def run_local(config: Config, progress: Progress | None = None, resume: bool = False) -> Path:
    """A run in this process; its folder.

    Raises:
        RunError: it cannot be made with these settings, models or data.
    """
    from strategies.run import run_local as whole

    try:
        return whole(config, progress, resume=resume)
    except ConfigError as err:
        raise RunError(str(err)) from None
