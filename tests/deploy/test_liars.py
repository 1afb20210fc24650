"""A registered device sends garbage, 32 MiB, and an old reply: refused, counted, the others as ever.

Its mover lies (`lying_mover`); the two others have the rows of a simulation in which that device fails. Where
it sends well-formed lies the doorkeeper drops them, and the others have those rows, too.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from cdc_flower import results
from cdc_flower.config import parse
from experiments.controls.deployed import ROOT, SMALL, deployment
from experiments.run.processes import until
from strategies.run import run_local

HERE = Path(__file__).parent
ROUNDS, LIAR = 5, 2
COLUMNS = ["round", "device", "status", "uplink_bytes", "downlink_bytes", "uploaded_samples", "tokens_sent"]
GROWTH = 512 * 2**20  # bytes: 32 MiB are held a few times by Flower, and nothing of them stays


@pytest.mark.slow
def test_a_lying_device_changes_nothing_for_the_others_and_memory_stays(run_settings, tmp_path):
    settings = run_settings(method="cdc", devices=3, rounds=ROUNDS) | {"run.receipts": True}
    silent = ",".join(f"{r}:{LIAR}" for r in range(1, ROUNDS + 1))
    alone = {**settings, "run.fail-devices": silent, "run.out-dir": str(tmp_path / "simulated")}
    expected = results.read(run_local(parse(alone)))
    with deployment(tmp_path / "deployed") as fleet:
        fleet.provision(3, {**settings, "run.out-dir": ""}, {"last_round": ROUNDS, "least": 3})
        path = os.pathsep.join([str(HERE / "lying_mover"), str(ROOT)])
        fleet.devices[LIAR].node.environment = {**fleet.environment, "PYTHONPATH": path}
        fleet.start()
        fleet.reach(1, 400.0)
        watched = [p for word in ("flower-superlink", "flwr-serverapp") for p in fleet.of_flower(word)]
        before, most = [p.memory_info().rss for p in watched], [0] * len(watched)

        def ended():
            for i, process in enumerate(watched):
                if psutil.pid_exists(process.pid):
                    most[i] = max(most[i], process.memory_info().rss)
            return not fleet.cloud.runs

        until(ended, 400.0, "the cloud does its last round", fleet.programs)
        found = results.read(fleet.cloud_folder / "run")
    rows, same = (
        of.devices[of.devices["device"] != LIAR][COLUMNS].to_dict("list") for of in (found, expected)
    )
    assert rows == same
    lies = found.devices[found.devices["device"] == LIAR].set_index("round")
    assert set(lies["status"]) <= {"refused", "failed"}
    assert (lies["status"][2], lies["status"][3]) == ("refused", "refused")
    assert all(lies["reason"])
    assert len(before) >= 2
    assert all(after - rss < GROWTH for rss, after in zip(before, most, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("doorkeeper", ["on", "off"])
def test_one_of_four_devices_sends_huge_tokens(doorkeeper, tmp_path):
    """With the doorkeeper nothing of it is learnt: the others have those rows of a run where it is silent."""
    liar, rounds = 3, 2
    settings = {
        **SMALL,
        "run.rounds": rounds,
        "run.eval-every": rounds,
        "run.receipts": True,
        "run.devices": 4,
        "cloud.doorkeeper": doorkeeper,
    }
    silent = ",".join(f"{r}:{liar}" for r in range(1, rounds + 1))
    alone = {**settings, "run.fail-devices": silent}
    expected = results.read(run_local(parse({**alone, "run.out-dir": str(tmp_path / "simulated")})))
    with deployment(tmp_path / "deployed") as fleet:
        lying = {**settings, "run.poison-devices": f"{liar}:huge"}
        fleet.provision(4, {**lying, "run.out-dir": ""}, {"last_round": rounds, "least": 4})
        fleet.start()
        until(lambda: not fleet.cloud.runs, 600.0, "the cloud does its last round", fleet.programs)
        found = results.read(fleet.cloud_folder / "run")
    rows, same = (
        of.devices[of.devices["device"] != liar][COLUMNS].to_dict("list") for of in (found, expected)
    )
    taken = found.devices[found.devices["device"] == liar]["uploaded_samples"].tolist()
    dropped = found.metrics[found.metrics["name"].str.startswith("dropped_")].groupby("name")["value"].sum()
    assert set(found.devices["status"]) == {"ok"}
    if doorkeeper == "on":
        assert taken == [0] * rounds
        assert dropped.sum() == dropped["dropped_strange"] + dropped["dropped_unheard"] > 0
        assert rows == same
    else:
        assert min(taken) > 0
        assert rows["uploaded_samples"] == same["uploaded_samples"]
