"""Every family of models goes through whole runs, over every part that the first goes through."""

from __future__ import annotations

import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.data import scenes
from strategies.run import run_fleet, run_local
from tests import tiny


@pytest.fixture(scope="module")
def words():
    """All that is asked of scenes."""
    asked = scenes.generate(40, 20, seed=1)
    found = {w for frame in (asked.train, asked.test) for text in frame["question"] for w in text.split()}
    return " ".join(sorted(found)).replace("?", "")


@pytest.fixture
def settings(words, run_settings, tmp_path):
    """Teacher and student are one checkpoint: what is learned does not matter here."""

    def make(family="smolvlm", **more):
        folder = tmp_path / family
        if not folder.exists():
            tiny.write(family, folder, words)
        models = {"pair.folder": "", "pair.teacher": str(folder), "pair.student": str(folder)}
        small = {"scenes_train": 40, "scenes_test": 20, "devices": 2, "rounds": 2, "uplink_budget": 30_000}
        return run_settings(**{**models, **small, "tokens_kept": 3, "cloud_steps": 2, **more})

    return make


RUNS = [
    ("smolvlm", "fedavg_lora"),
    ("gemma3", "fedavg_full"),
    *((name, "cdc") for name in tiny.BUILDERS if name != "llava"),
]


@pytest.mark.parametrize(("family", "method"), RUNS)
def test_a_run_completes_and_teaches(family, method, settings):
    found = results.read(run_local(parse(settings(family, method=method))))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    assert (found.devices["flops_forward"] > 0).all()
    if method == "cdc":
        assert found.devices["uploaded_samples"].sum() > 0
        assert (found.devices["tokens_sent"] == 3 * found.devices["uploaded_samples"]).all()
        assert found.metrics.set_index("name").loc["version", "value"].max() > 0


def test_pictures_go_up_where_a_token_is_a_patch(settings):
    found = results.read(run_local(parse(settings("paligemma", uplink_unit="jpeg"))))
    assert found.status == "completed"
    assert found.devices["uploaded_samples"].sum() > 0


def test_picture_units_are_refused_where_a_token_is_no_patch(settings):
    with pytest.raises(ConfigError, match="in models of family 'smolvlm' a token is no patch"):
        run_local(parse(settings(uplink_unit="jpeg")))


@pytest.mark.filterwarnings(
    "ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"
)
def test_a_worker_of_another_process_gives_the_same_ledger(settings):
    here = results.read(run_local(parse(settings())))
    there = results.read(run_fleet(parse(settings()), workers=1))
    assert there.run["ledger_digest"] == here.run["ledger_digest"]
