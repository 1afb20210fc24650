"""A second family of models goes through whole runs, over every part that the first goes through."""

from __future__ import annotations

import pytest

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.data import scenes
from strategies.run import run_fleet, run_local
from tests import tiny_smolvlm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SmolVLM checkpoint with random weights, in the hub's layout, that knows the words of scenes."""
    asked = scenes.generate(40, 20, seed=1)
    words = {w for frame in (asked.train, asked.test) for text in frame["question"] for w in text.split()}
    return tiny_smolvlm.write(tmp_path_factory.mktemp("smolvlm"), " ".join(sorted(words)).replace("?", ""))


@pytest.fixture
def settings(folder, run_settings):
    """Teacher and student are one checkpoint: what is learned does not matter here."""
    models = {"pair.folder": "", "pair.teacher": str(folder), "pair.student": str(folder)}
    small = {"scenes_train": 40, "scenes_test": 20, "devices": 2, "rounds": 2, "uplink_budget": 30_000}
    return lambda **more: run_settings(**{**models, **small, "tokens_kept": 3, "cloud_steps": 2, **more})


@pytest.mark.parametrize("method", ["cdc", "fedavg_lora"])
def test_a_run_of_smolvlm_completes_and_teaches(method, settings):
    found = results.read(run_local(parse(settings(method=method))))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    assert (found.devices["flops_forward"] > 0).all()
    if method == "cdc":
        assert found.devices["uploaded_samples"].sum() > 0
        assert (found.devices["tokens_sent"] == 3 * found.devices["uploaded_samples"]).all()
        assert found.metrics.set_index("name").loc["version", "value"].max() > 0


@pytest.mark.filterwarnings(
    "ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"
)
def test_a_worker_of_another_process_gives_the_same_ledger(settings):
    here = results.read(run_local(parse(settings())))
    there = results.read(run_fleet(parse(settings()), workers=1))
    assert there.run["ledger_digest"] == here.run["ledger_digest"]
