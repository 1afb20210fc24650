"""One of three SuperNodes lies: the others' rows are those of a run in which its device fails.

Python reads `lying_site/sitecustomize.py` at the start of that SuperNode's processes, and it wraps every
ClientApp in them. Slow, as all that is deployed.
"""

import os
import time
from pathlib import Path

import pytest

from cdc_flower import results
from cdc_flower.config import parse
from experiments.controls.hostile import SAME
from strategies.run import run_local

HERE = Path(__file__).parent
ROUNDS, LIAR = 3, 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cdc", "fedavg_lora"])
def test_a_lying_supernode_changes_nothing_for_the_others(
    method, run_settings, start_fleet, submit, tmp_path
):
    settings = run_settings(method=method, devices=3, rounds=ROUNDS)
    silent = ",".join(f"{r}:{LIAR}" for r in range(1, ROUNDS + 1))
    expected = results.read(run_local(parse({**settings, "run.fail-devices": silent})))
    out, path = tmp_path / "deployed", os.pathsep.join([str(HERE / "lying_site"), str(HERE.parents[1])])
    submit(settings, out, start_fleet({}, {}, {"PYTHONPATH": path}))
    end = time.monotonic() + 500
    while not (out / "run.json").exists() and time.monotonic() < end:
        time.sleep(0.5)
    found = results.read(out)
    assert found.status == "completed"
    rows, same = ((of.devices[of.devices["device"] != LIAR][list(SAME)]) for of in (found, expected))
    assert rows.to_dict("list") == same.to_dict("list")
    assert set(found.devices[found.devices["device"] == LIAR]["status"]) <= {"refused", "failed"}
    assert found.run["adapter_digest"] == expected.run["adapter_digest"]
