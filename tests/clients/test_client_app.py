"""What a server can ask of a device, and what it cannot."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.session import session
from clients import cdc, client_app
from clients.client_app import GROUP, failures, work_of


@pytest.mark.parametrize("spec", ["2:1", " 2:1, 4:0", ""])
def test_fault_injection_reads_round_and_device(spec):
    assert failures(spec) == ({(2, 1)} if spec == "2:1" else {(2, 1), (4, 0)} if spec else set())


def test_work_is_what_is_here_or_was_installed_and_nothing_else(monkeypatch):
    session().close()
    announced = [EntryPoint("one", "pathlib:Path", GROUP)]
    monkeypatch.setattr(client_app, "entry_points", lambda group: announced if group == GROUP else [])
    assert work_of("clients.cdc:work") is cdc.work
    assert work_of("pathlib:Path").__name__ == "Path"
    for name in ("os:system", "clients.cdc:reply", "one", ""):
        with pytest.raises(ConfigError, match=r"unknown to this client; allowed: clients\.cdc:work"):
            work_of(name)
    session().close()
