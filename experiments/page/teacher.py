"""What a worker does for the teacher's cell, which is no run: it takes seconds, and is not resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cdc_flower import results
from cdc_flower.config import Config, ConfigError, RunError
from cdc_flower.results import Progress

FILE = "teacher.json"


def run_local(config: Config, progress: Progress | None = None, resume: bool = False) -> Path:
    """What the teacher's answers are worth, to the held-out items and to all that devices meet, as
    `teacher.json` in the run folder.

    Raises:
        RunError: as in `run_local`.
    """
    from strategies.run import prepare, teacher_on

    try:
        setup = prepare(config, progress)
        setup.teacher()
    except ConfigError as err:
        raise RunError(str(err)) from None
    world = setup.world
    met = np.unique(np.concatenate([rows for device in world.streams for rows in device]))
    stream = world.train.iloc[met].reset_index(drop=True)
    on_test, on_stream = (teacher_on(setup, rows, progress) for rows in (None, stream))
    folder = Path(config.run.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "on_test": {k: round(v, 6) for k, v in on_test.items()},
        "on_stream": {k: round(v, 6) for k, v in on_stream.items()},
        "stream_items": len(met),
        "items": {},
        "versions": results.provenance(),
    }
    results.write_json(folder / FILE, found)
    return folder
