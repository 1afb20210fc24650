"""What docs/extending.md shows works as it stands there: its files are installed as a package, and run."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cdc_flower import plugins, results
from cdc_flower.config import parse
from cdc_flower.downlink.codecs import BY_ID, CODECS
from tests import documents
from tests.installed import announce

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
OWN = {
    "uplink.token-score": "odd",
    "uplink.sample-score": "short",
    "cloud.losses": "ce,confident=0.1",
    "downlink.codec": "signs",
    "data.task": "begins",
    "run.callbacks": "csv",
}


def blocks(kind):
    """The blocks of code of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What installing the package leaves, and nothing of it afterwards."""
    site = tmp_path / "site"
    (site / "my_package").mkdir(parents=True)
    for block in blocks("python"):
        name = re.match(r"# (my_package/\w+\.py)\n", block)[1]
        (site / name).write_text(block)
    entries = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", blocks("toml")[0])
    lines = [re.sub(r"\s+#.*", "", line).replace('"', "") for line in entries.splitlines()]
    announce(site, "my-package", "\n".join(lines))
    from cdc_flower.cloud.losses import LOSSES
    from cdc_flower.tasks import TASKS
    from cdc_flower.uplink.scores import SAMPLE_SCORES, TOKEN_SCORES

    registries = (CODECS, BY_ID, LOSSES, TASKS, SAMPLE_SCORES, TOKEN_SCORES)
    before = [dict(registry) for registry in registries]
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))
    plugins.forget()
    yield site
    monkeypatch.undo()
    for registry, was in zip(registries, before, strict=True):
        registry.clear()
        registry.update(was)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]
    plugins.forget()


def test_every_registry_takes_what_a_package_brings(installed):
    config = parse(OWN)
    assert config.uplink.token_score == "odd"
    assert CODECS["signs"].id == 200
    assert "patient" in plugins.names(plugins.METHODS)


def test_its_commands_are_there_with_their_options_and_settings(installed):
    found = [words for block in blocks("sh") for words in documents.commands(block)]
    tried = {" ".join(words): documents.wrong(words) for words in found}
    assert len(tried) == 3
    assert {command: why for command, why in tried.items() if why} == {}


def test_without_the_package_its_names_are_refused():
    with pytest.raises(ValueError, match="allowed: attention"):
        parse({"uplink.token-score": "odd"})


def test_its_callback_replaces_a_round_that_it_is_told_again(installed, tmp_path):
    write = importlib.import_module("my_package.callback").csv(parse({}))
    folder = SimpleNamespace(path=tmp_path)
    for number, value in ((0, 0.5), (1, 0.6), (2, 0.7), (1, 0.8)):
        write(SimpleNamespace(number=number, measured={"source": value, "object": 0.1}, folder=folder))
    write(SimpleNamespace(number=2, measured=None, folder=folder))
    written = (tmp_path / "accuracy.csv").read_text()
    assert written == "0,source,0.5\n0,object,0.1\n1,source,0.8\n1,object,0.1\n"


@pytest.mark.slow
def test_a_run_with_all_of_it(installed, run_settings):
    from strategies.run import run_local

    folder = run_local(parse(run_settings(method="patient", **{"patient.every": 2}) | OWN))
    found = results.read(folder)
    assert found.status == "completed"
    sent = found.devices.groupby("round")["uploaded_samples"].sum()
    assert sent[1] == sent[3] == 0 < sent[2]
    assert (folder / "accuracy.csv").read_text().startswith("0,")


@pytest.mark.slow
def test_a_run_whose_cloud_is_told_how_much_each_sample_counts(installed, run_settings):
    from strategies.run import run_local

    plain, rare = (results.read(run_local(parse(run_settings(method=name)))) for name in ("cdc", "rare"))
    assert rare.status == "completed"
    sent = [found.devices.groupby("round")["uplink_bytes"].sum().iloc[0] for found in (plain, rare)]
    assert sent[0] == sent[1]
    losses = [found.metrics.query("name == 'loss_ce'")["value"].tolist() for found in (plain, rare)]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_run_that_averages_as_the_document_has_it(installed, run_settings):
    from strategies.run import run_local

    plain, own = (
        results.read(run_local(parse(run_settings(method=name)))) for name in ("fedavg_lora", "agree")
    )
    losses = [found.metrics.query("name == 'loss'")["value"].tolist() for found in (plain, own)]
    assert losses[0][0] == losses[1][0]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_client_that_shares_no_code_is_learned_from(installed, run_settings):
    from strategies.run import run_local

    settings = run_settings(**{"uplink.tokens-kept": 0, "uplink.budget": 0})
    found = results.read(run_local(parse(settings), app=importlib.import_module("my_package.client").app))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    assert found.devices["uploaded_samples"].sum() == 4 * len(found.devices)


@pytest.mark.slow
@pytest.mark.parametrize("listed", ["methods", "families"])
def test_commands_list_it(installed, listed):
    said = subprocess.run(
        [sys.executable, "-m", "experiments.cli.app", listed, "--json"], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert {"methods": "patient", "families": "llava"}[listed] in said.stdout
