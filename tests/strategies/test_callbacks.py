"""After a round: what is evaluated, and who else is told."""

from __future__ import annotations

import sys

import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.run_folder import RunFolder
from strategies.callbacks import Round, chosen, tensorboard
from strategies.devices import SHOWN, shown
from strategies.run import run_local


def test_a_callback_that_is_not_registered_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"'run.callbacks' = 'mail'; allowed: tensorboard"):
        chosen(parse({"run.callbacks": "mail"}))
    assert chosen(parse({})) == []


def test_tensorboard_without_the_package_is_a_config_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ConfigError, match="tensorboard package is not installed"):
        tensorboard(parse({}))


def test_tensorboard_gets_accuracy_and_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write = tensorboard(parse({}))
    write(Round(1, {"source": 0.5}, {"source": (1, 4)}, {"loss": 2.0}, RunFolder(tmp_path)))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = {"accuracy_test/source": 0.5, "accuracy_prequential/source": 0.25, "metrics/loss": 2.0}
    assert {tag: events.Scalars(tag)[0].value for tag in tags} == tags


def test_each_callback_is_told_of_every_round_after_its_tables_are_written(run_settings, monkeypatch):
    told = []

    def tell(round: Round) -> None:
        rows = results.read(round.folder.path).rounds["round"]
        told.append((round.number, round.measured is not None, round.number in rows.tolist()))

    monkeypatch.setattr("strategies.callbacks.chosen", lambda config: [tell])
    monkeypatch.setattr("strategies.run.chosen", lambda config: [tell])
    run_local(parse(run_settings(method="static", rounds=3, eval_every=2)))
    assert told == [(0, True, True), (1, False, True), (2, True, True), (3, True, True)]


@pytest.mark.parametrize(("devices", "some"), [(1, 1), (3, 3), (100, SHOWN)])
def test_personal_adapters_are_evaluated_on_devices_spread_over_the_fleet(devices, some):
    spread = shown(devices)
    assert len(set(spread)) == len(spread) == some
    assert (spread[0], spread[-1]) == (0, devices - 1)
