"""Methods are known by what they say of themselves, wherever they come from."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from cdc_flower import plugins
from cdc_flower.config import ConfigError, parse, sections
from cdc_flower.downlink.codecs import CODECS
from strategies.method import DEFINED, Method, Traits, method, methods, names
from tests.installed import announce


def test_names_are_known_without_importing_a_method():
    assert set(names()) >= {"static", "cdc", "fedavg_lora", "fedavg_full", "fedavg_pseudo", "fedprox_lora"}


def test_every_method_says_what_a_reader_of_a_table_must_know():
    found = methods()
    assert set(found) == set(names())
    for name, cls in found.items():
        assert cls.name == name
        assert cls.about
        assert isinstance(cls.traits, Traits)
    taught = {n for n, cls in found.items() if cls.traits.labels}
    assert taught >= {"labelled", "fedavg_full", "fedavg_lora", "fedprox_lora", "local"}
    assert taught.isdisjoint({"static", "cdc", "fedavg_pseudo", "no_uplink", "released", "cema"})
    trained = {n for n, cls in found.items() if cls.traits.device_backprop}
    assert trained >= {"fedavg_full", "fedavg_lora", "fedprox_lora", "fedavg_pseudo", "local"}
    assert trained.isdisjoint({"static", "cdc", "labelled", "no_uplink", "released", "cema"})


def test_a_table_begins_with_what_does_not_adapt_then_comes_what_needs_no_gradients():
    own = [name for name, cls in methods().items() if cls.__module__.startswith("strategies.")]
    assert own[:3] == ["static", "labelled", "cdc"]


def test_an_unknown_method_is_refused_with_those_that_are_installed():
    with pytest.raises(
        ConfigError, match=r"unknown method 'fedsgd'; did you mean fedkd\? allowed: cdc, .*static"
    ):
        method("fedsgd")
    with pytest.raises(ConfigError, match=r"'run.method' = 'fedsgd'; allowed: cdc, "):
        parse({"run.method": "fedsgd"})


@pytest.mark.parametrize("missing", DEFINED)
def test_a_method_that_lacks_something_is_refused_when_it_is_loaded(missing, monkeypatch):
    """`cloud_work` among them: a cloud that is charged nothing says so."""
    given = {name: lambda self: None for name in DEFINED if name != missing}
    half = type(
        "Half", (Method,), {"name": "half", "about": "a half", "traits": Traits(False, False), **given}
    )
    monkeypatch.setattr(plugins, "names", lambda group: ("half",))
    monkeypatch.setattr(plugins, "load", lambda group, name: half)
    with pytest.raises(ConfigError, match=rf"it lacks {missing}\(\)"):
        method("half")


def test_settings_of_a_method_are_settings_like_all_others():
    from strategies.fedavg import FedAvgSettings

    config = parse({"fedavg.epochs": 3, "fedavg.lr-full": "0.5"})
    assert config.of(FedAvgSettings).epochs == 3
    assert config.of(FedAvgSettings).lr_full == 0.5
    assert sections()["fedavg"] is FedAvgSettings
    with pytest.raises(ConfigError, match=r"setting 'fedavg.epochs' = 0"):
        parse({"fedavg.epochs": 0})


BROKEN = """
[cdc_flower.methods]
absent = absent_package.strategy:Absent

[cdc_flower.extensions]
torn = torn_package
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A package that was half installed: its entry points are there, a module is not, another is torn."""
    announce(tmp_path / "site", "broken", BROKEN)
    (tmp_path / "site" / "torn_package.py").write_text("def half(:\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins.forget()
    yield
    monkeypatch.undo()
    plugins.forget()


def test_a_broken_package_is_left_out_with_one_warning_where_nobody_asked_for_it(broken, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            parse({"run.method": "cdc", "fedavg.epochs": 2})
            assert set(methods()) == set(names()) - {"absent"}
            assert "fedavg" in sections()
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" cannot")[0] for line in said] == [
        "left out: 'torn' of cdc_flower.extensions (torn_package)",
        "left out: 'absent' of cdc_flower.methods (absent_package.strategy:Absent)",
    ]


def test_a_broken_package_is_refused_where_it_is_asked_for(broken):
    why = r"'absent' of cdc_flower.methods \(absent_package.strategy:Absent\) cannot be imported: "
    for ask in (lambda: parse({"run.method": "absent"}), lambda: method("absent")):
        with pytest.raises(ConfigError, match=why):
            ask()
    with pytest.raises(ConfigError, match=rf"unknown setting 'absent.rate'.*; left out: .*{why}"):
        parse({"absent.rate": 1})
    with pytest.raises(ConfigError, match=r"'ours'; allowed: .*dyadic.*; left out: 'torn' of"):
        parse({"downlink.codec": "ours"})
    assert "ours" not in CODECS


def test_whose_a_method_is_is_read_once_however_many_settings_are_asked_for(monkeypatch):
    looked = []

    class Entry:
        name = "made"

        @property
        def dist(self):
            looked.append(self.name)
            return SimpleNamespace(name=plugins.HERE)

    plugins.forget()
    monkeypatch.setattr(plugins, "entry_points", lambda group: [Entry()])
    assert [plugins.own("g"), plugins.own("g")] == [("made",), ("made",)]
    assert looked == ["made"]
    plugins.forget()
