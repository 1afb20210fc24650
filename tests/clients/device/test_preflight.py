"""Claims about what a device tries first: a wrong product, too little memory and a wrong clock are said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.models import compressions
from clients.device import preflight
from clients.device.settings import Bundle


@pytest.fixture(scope="module")
def bundle(one_bundle):
    """A bundle that nobody changes."""
    return Bundle.of(one_bundle)


def test_a_machine_that_multiplies_wrongly_is_told_what_it_can_do(bundle, monkeypatch):
    preflight.arithmetic(bundle)
    monkeypatch.setattr(compressions, "fault", lambda name: "no kernel" if name in ("nf4", "int8") else "")
    with pytest.raises(ConfigError, match=r"no kernel.*allowed: int4, none.*device\.toml") as refused:
        preflight.arithmetic(bundle)
    assert "\n" not in str(refused.value)


def test_memory_is_held_against_the_packed_student(bundle, monkeypatch):
    monkeypatch.setattr(preflight.psutil, "virtual_memory", lambda: SimpleNamespace(available=16e9))
    assert preflight.memory(bundle) == ""
    monkeypatch.setattr(preflight.psutil, "virtual_memory", lambda: SimpleNamespace(available=4e8))
    assert "400 MB are free" in preflight.memory(bundle)


def test_a_clock_before_or_after_the_certificate(bundle, tmp_path):
    now = datetime.now(UTC)
    assert preflight.clock(bundle) == ""
    assert "set the clock" in preflight.clock(bundle, now - timedelta(days=366))
    assert "provision anew" in preflight.clock(bundle, now + timedelta(days=366 * 200))
    assert "cannot be read" in preflight.clock(Bundle(tmp_path, bundle.device))
