"""What a worker does for the teacher's cell, which is no run: it takes seconds, and is not resumed."""

from __future__ import annotations

from dataclasses import replace
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
    from cdc_flower.data.world import encoded
    from strategies.accuracy import measure
    from strategies.run import prepare

    try:
        setup = prepare(config, progress)
        model = setup.teacher()
    except ConfigError as err:
        raise RunError(str(err)) from None
    world, reads = setup.world, setup.shared
    train = world.train_tokens
    if model.own is not None:
        reads = model.own
        test, train = (encoded(config, reads, world.pack, split, progress) for split in ("test", "train"))
        world = replace(world, test_tokens=test)
    met = np.unique(np.concatenate([rows for device in world.streams for rows in device]))
    stream = replace(world, test=world.train.iloc[met].reset_index(drop=True), test_tokens=train)
    on_test, on_stream = (measure(model.model, reads, one, progress) for one in (world, stream))
    folder = Path(config.run.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "on_test": {k: round(v, 6) for k, v in on_test.accuracy.items()},
        "on_stream": {k: round(v, 6) for k, v in on_stream.accuracy.items()},
        "stream_items": len(met),
        "items": {},
        "versions": results.package_versions(),
    }
    results.write_json(folder / FILE, found)
    return folder
