"""What a server can ask of a device, and what it cannot."""

from __future__ import annotations

import subprocess
import sys
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


def test_a_device_does_not_even_import_what_reads_packs_labels_or_teachers():
    code = "import sys, clients.bundle; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert "clients.cdc" in loaded
    for name in ("strategies", "cdc_flower.data.world", "cdc_flower.models.teacher", "pandas", "pyarrow"):
        assert name not in loaded
