"""The short test of a deployment: real processes over TLS, from provisioning to the second round.

It gives the ledger of a simulation of the same run, so that nothing but the way is another.
"""

from __future__ import annotations

from cdc_flower import results
from cdc_flower.config import parse
from experiments.controls.deployed import deployment
from experiments.run.processes import tails, until
from strategies.run import run_local

COLUMNS = ["round", "device", "status", "uplink_bytes", "downlink_bytes", "uploaded_samples", "tokens_sent"]
PATIENCE = 400.0  # s, on a loaded machine; a quiet one takes 25


def test_a_deployed_device_has_the_ledger_of_a_simulated_one(run_settings, tmp_path):
    settings = run_settings(method="cdc", devices=1, rounds=2) | {"run.receipts": True}
    simulated = results.read(run_local(parse({**settings, "run.out-dir": str(tmp_path / "simulated")})))
    with deployment(tmp_path / "deployed") as fleet:
        fleet.provision(1, {**settings, "run.out-dir": ""}, {"last_round": 2})
        fleet.start()
        until(lambda: not fleet.cloud.runs, PATIENCE, "the cloud does its last round", fleet.programs)
        assert fleet.cloud.code == 0, tails(fleet.programs)
        status = fleet.status()
        (device,) = status["devices"]
        deployed = results.read(fleet.cloud_folder / "run")
        assert deployed.devices[COLUMNS].to_dict("list") == simulated.devices[COLUMNS].to_dict("list")
        assert deployed.devices["status"].tolist() == ["ok", "ok"]
        assert (status["state"], status["round"], device["rounds"], device["refused"]) == ("ended", 2, 2, 0)
        assert device["samples"] == deployed.devices["uploaded_samples"].sum() > 0
