"""What other programs are told of a round, and that a run does without them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from cdc_flower.config import ConfigError, parse
from cdc_flower.run_folder import RunFolder
from strategies import trackers
from strategies.callbacks import Round

CONFIG = parse({"run.rounds": 2})
TOLD = {"accuracy_test/source": 0.5, "accuracy_prequential/source": 0.25, "metrics/loss": 2.0}


def round_of(number, folder):
    metrics = {"loss": 2.0, "none": float("nan")}
    return Round(number, {"source": 0.5}, {"source": (1, 4)}, metrics, RunFolder(folder))


def tell(name, folder, numbers):
    told = getattr(trackers, name)(CONFIG)
    for number in numbers:
        told(round_of(number, folder))


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard.writer"), ("mlflow",) * 2, ("wandb",) * 2]
)
def test_a_tracker_whose_package_is_absent_is_refused_with_what_installs_it(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ConfigError, match=rf"{name} is not installed; .* `pip install 'cdc-flower\[{name}\]'`"
    ):
        getattr(trackers, name)(CONFIG)


def test_figures_are_finite():
    assert trackers.figures(round_of(1, "x")) == TOLD


def test_a_tracker_that_fails_is_warned_of_once_and_the_run_goes_on(tmp_path, caplog, monkeypatch):
    calls = []

    class Broken:
        def __init__(self, *_):
            calls.append(1)
            raise OSError("no server\nTraceback")

    told = trackers._told(CONFIG, "mlflow", "json", Broken)
    monkeypatch.setattr(trackers, "log", lambda level, text, *words: calls.append(text % words))
    for number in range(3):
        told(round_of(number, tmp_path))
    assert calls == [1, "mlflow takes no more of this run, which goes on: no server"]


def test_a_new_run_in_the_same_folder_is_another_run_of_wandb_and_a_resumed_one_is_the_same(
    tmp_path, monkeypatch
):
    begun = []

    class Run:
        def __init__(self, **named):
            begun.append(named["id"])

        def log(self, figures, step):
            pass

        finish = log

    package = SimpleNamespace(init=Run, Settings=lambda **named: None)
    monkeypatch.setitem(sys.modules, "wandb", package)
    folder = RunFolder(tmp_path)
    for resumed in (None, (0, folder.state()), None):
        folder.begin(CONFIG, {}, {}, resumed)
        trackers.wandb(CONFIG)(round_of(1, tmp_path))
    assert begun[0] == begun[1] != begun[2]


def test_tensorboard_gets_every_figure_of_a_round(tmp_path):
    pytest.importorskip("tensorboard", reason="needs cdc-flower[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell("tensorboard", tmp_path, [1])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {tag: events.Scalars(tag)[0].value for tag in TOLD} == TOLD


@pytest.mark.filterwarnings("ignore")  # of a library's own libraries
def test_mlflow_has_one_run_with_settings_and_figures_by_round_also_when_it_is_resumed(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs cdc-flower[mlflow]")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    tell("mlflow", tmp_path, [0, 1])
    tell("mlflow", tmp_path, [2])
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cdc-flower")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("cdc-0", "FINISHED")
    assert run.data.params["run.rounds"] == "2"
    assert run.data.metrics == TOLD
    history = client.get_metric_history(run.info.run_id, "metrics/loss")
    assert [one.step for one in history] == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow-run", "mlflow.db"]


@pytest.mark.filterwarnings("ignore")  # of a library's own libraries
def test_wandb_writes_into_the_run_folder_and_sends_nothing(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs cdc-flower[wandb]")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    seen = []
    begin = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **named: seen.append(begin(**named)) or seen[-1])
    tell("wandb", tmp_path, [0, 1])
    assert TOLD.items() <= dict(seen[0].summary).items()
    seen[0].finish()  # as at the end of a process that was interrupted
    tell("wandb", tmp_path, [2])
    first, second = seen
    assert first.id == second.id == (tmp_path / "wandb-run").read_text()
    assert first.offline
    assert second.offline
    assert second.config["run.rounds"] == 2
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) >= 1
    assert all(file.stat().st_size for file in files)
