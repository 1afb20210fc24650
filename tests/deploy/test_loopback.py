"""The app on Flower's deployment engine, two SuperNodes on this host: the ledger of a grid in this process.

Slow: Flower starts a process for every message, and each imports torch.
"""

import json
import time

import pytest

from cdc_flower import results
from cdc_flower.config import parse
from strategies.run import run_local


@pytest.mark.slow
def test_two_supernodes_give_the_ledger_of_a_local_grid_without_a_teacher(
    run_settings, start_fleet, submit, pair_folder, tmp_path
):
    """The server opens the teacher before the first round; from then on nobody can."""
    settings = run_settings(method="cdc", devices=2, rounds=2)
    local = results.read(run_local(parse(settings)))
    out = tmp_path / "deployed"
    submit(settings, out, start_fleet({}, {}))
    end = time.monotonic() + 400
    teacher, away = pair_folder / "teacher", pair_folder / "nobody-s teacher"
    try:
        while not (out / "run.json").exists() and time.monotonic() < end:
            time.sleep(0.1)
            if teacher.exists() and (out / "config.json").exists():
                teacher.rename(away)
        assert away.exists()
    finally:
        if away.exists():
            away.rename(teacher)
    deployed = results.read(out)
    assert deployed.status == "completed"
    assert deployed.run["ledger_digest"] == local.run["ledger_digest"]
    assert deployed.run["accuracy"] == local.run["accuracy"]
    assert json.loads((out / "config.json").read_text())["engine"] != "LocalGrid"
