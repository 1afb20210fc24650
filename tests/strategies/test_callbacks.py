"""After a round: what is evaluated, and who else is told."""

from __future__ import annotations

import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from strategies.callbacks import After, Round, chosen
from strategies.devices import SHOWN, shown
from strategies.run import run_local


def test_a_callback_that_is_not_registered_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"'run.callbacks' = 'mail'; allowed: mlflow, tensorboard, wandb"):
        chosen(parse({"run.callbacks": "mail"}))
    assert chosen(parse({})) == []


def test_each_callback_is_told_of_every_round_after_its_tables_are_written(run_settings, monkeypatch):
    told = []

    def tell(round: Round) -> None:
        rows = results.read(round.folder.path).rounds["round"]
        told.append((round.number, round.measured is not None, round.number in rows.tolist()))

    monkeypatch.setattr("strategies.callbacks.chosen", lambda config: [tell])
    monkeypatch.setattr("strategies.run.chosen", lambda config: [tell])
    run_local(parse(run_settings(method="static", rounds=3, eval_every=2)))
    assert told == [(0, True, True), (1, False, True), (2, True, True), (3, True, True)]


@pytest.mark.parametrize(("saved", "again"), [(True, [2]), (False, [1, 2])])
def test_a_run_that_is_killed_beside_its_checkpoint_loses_no_round_of_a_callback(
    saved, again, run_settings, monkeypatch
):
    told = []
    monkeypatch.setattr("strategies.run.chosen", lambda config: [lambda round: told.append(round.number)])
    settings = parse(run_settings(method="static", rounds=2))
    save = After._checkpoint

    def killed(self, round, arrays):
        if saved or round == 0:
            save(self, round, arrays)
        if round == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(After, "_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            run_local(settings)
    run_local(settings, resume=True)
    assert told == [0, 1, *again]


@pytest.mark.parametrize(("devices", "some"), [(1, 1), (3, 3), (100, SHOWN)])
def test_personal_adapters_are_evaluated_on_devices_spread_over_the_fleet(devices, some):
    spread = shown(devices)
    assert len(set(spread)) == len(spread) == some
    assert (spread[0], spread[-1]) == (0, devices - 1)
