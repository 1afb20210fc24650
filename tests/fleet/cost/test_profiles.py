"""Profiles: every figure has a source and a range."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost.profiles import CLASSES, UNITS, Devices, read_profiles, write_profiles

PROFILES = read_profiles()
PI5, PHONE = PROFILES["pi5"], PROFILES["phone-mid"]
DOC = Path(__file__).parents[3] / "docs" / "fleet.md"


def test_the_table_has_each_class_and_a_source_for_every_figure():
    assert {p.device_class for p in PROFILES.values()} == set(CLASSES)
    for profile in PROFILES.values():
        assert set(profile.sources) == set(UNITS)
        assert all(len(source) > 3 for source in profile.sources.values())


def test_arithmetic_in_fewer_bits_is_never_slower_and_idle_draws_least():
    for p in PROFILES.values():
        assert p.flops_fp32 <= p.flops_fp16 <= p.flops_int8
        assert p.idle_power < p.radio_power
        assert p.idle_power < p.compute_power


def test_the_page_lists_every_profile():
    page = DOC.read_text()
    assert [name for name in PROFILES if f"| {name} |" not in page] == []


def test_a_written_table_reads_back(tmp_path):
    write_profiles(tmp_path / "mine.json", [replace(PI5, name="mine", ram=1e9), PHONE])
    read = read_profiles(tmp_path / "mine.json")
    assert read == {"mine": replace(PI5, name="mine", ram=1e9), PHONE.name: PHONE}
    assert read["mine"].sources == PI5.sources


@pytest.mark.parametrize("figure", UNITS)
@pytest.mark.parametrize("value", [-1.0, 0.0, math.nan, math.inf, "4", True, 1e25, 10**400])
def test_a_figure_out_of_its_range_is_refused_naming_profile_and_field(figure, value):
    if figure == "loss" and value == 0.0:
        replace(PI5, loss=0.0)
        return
    with pytest.raises(ConfigError) as error:
        replace(PHONE, **{figure: value})
    for part in ("'phone-mid'", f"'{figure}'", repr(value), "allowed"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": 1.0}, ["'loss'", "below 1"]),
        ({"battery": None}, ["'battery'", "null for battery and charge_power together"]),
        ({"charge_power": None}, ["'charge_power'"]),
        ({"device_class": "toaster"}, ["'toaster'", "board, phone, laptop, pc"]),
        ({"name": "a b"}, ["'a b'", "hyphens"]),
    ],
)
def test_what_does_not_go_together_is_refused(change, named):
    with pytest.raises(ConfigError) as error:
        replace(PHONE, **change)
    for part in named:
        assert part in str(error.value)


def record(**changes) -> dict:
    table = {"device_class": "board"} | {f: [getattr(PI5, f), "measured"] for f in UNITS}
    return {key: value for key, value in (table | changes).items() if value != "absent"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", ["allowed: one JSON object"]),
        ("[1]", ["allowed: one JSON object"]),
        ("[" * 100_000, ["allowed: one JSON object"]),
        ('{"a": {}, "a": {}}', ["'a' stands there twice"]),
        (json.dumps({"x": record(ram="absent")}), ["'x'", "'ram' is missing"]),
        (json.dumps({"x": record(ram=[4])}), ["'x'", "'ram'", "[value, source]"]),
        (json.dumps({"x": record(ram=[4, " "])}), ["'x'", "'ram'", "[value, source]"]),
        (json.dumps({"x": record(ram=[-4, "s"])}), ["'x'", "'ram'", "-4", "above 0 (B)"]),
        (json.dumps({"x": record(memory_bandwidth=[4, "s"])}), ["'x'", "memory_bandwidth", "mean memory_bw"]),
    ],
)
def test_a_file_of_profiles_that_is_not_allowed_is_refused(tmp_path, content, named):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ConfigError) as error:
        read_profiles(tmp_path / "p.json")
    for part in named:
        assert part in str(error.value)


def test_a_figure_without_a_source_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match=r"'pi5'.*'flops_fp32' has no source"):
        write_profiles(tmp_path / "p.json", [replace(PI5, sources={})])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_profiles(tmp_path / "p.json")


def test_devices_have_the_figures_of_their_profiles():
    devices = Devices.of([PHONE, PI5])
    assert len(devices) == 2
    assert devices.classes == ("phone", "board")
    assert devices.ram.tolist() == [PHONE.ram, PI5.ram]
    assert devices.battery.tolist() == [PHONE.battery, math.inf]
    assert devices.charge_power.tolist() == [PHONE.charge_power, 0.0]
    swapped = devices.rows(np.array([1, 0]))
    assert swapped.names == ("pi5", "phone-mid")
    assert swapped.rtt.tolist() == [PI5.rtt, PHONE.rtt]
