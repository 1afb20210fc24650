"""Profiles, mixes and fleets: every figure has a source and a range, and a mix is exact."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost.profiles import (
    CLASSES,
    UNITS,
    Devices,
    deal,
    fleet,
    parse_mix,
    read_profiles,
    write_profiles,
)

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


# --- mixes -----------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 300), st.integers(0, 5))
def test_a_mix_is_exact_to_within_one_device_and_reproducible(parts, devices, seed):
    shares = {f"p{i}": part / sum(parts) for i, part in enumerate(parts)}
    dealt = deal(shares, devices, seed)
    assert len(dealt) == devices
    assert dealt == deal(shares, devices, seed)
    for name, share in shares.items():
        assert abs(dealt.count(name) - share * devices) < 1


def test_a_mix_that_divides_evenly_is_exact_and_seeds_place_it_differently():
    shares, _ = parse_mix("pi4=40%, pi5=30%,phone-old=30%", PROFILES)
    first, second = deal(shares, 50, 0), deal(shares, 50, 1)
    assert sorted(first) == sorted(second) == sorted(["pi4"] * 20 + ["pi5"] * 15 + ["phone-old"] * 15)
    assert first != second


def test_a_mix_file_may_bring_its_own_profiles(tmp_path):
    write_profiles(tmp_path / "mine.json", [replace(PI5, name="mine")])
    (tmp_path / "mix.toml").write_text('profiles = ["mine.json"]\n[mix]\nmine = 25\npi4 = 75.0\n')
    devices = fleet(str(tmp_path / "mix.toml"), 8, 0)
    assert (devices.names.count("mine"), devices.names.count("pi4")) == (2, 6)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("pi4=40%,pi5=50%", ["90 %", "100"]),
        ("", ["0 %"]),
        ("pi6=100%", ["'pi6'", "pi4, pi5"]),
        ("pi4=50%,pi4=50%", ["'pi4' stands there twice"]),
        ("pi4=1", ["'pi4'", "'40%'"]),
        ("pi4", ["'pi4'", "'40%'"]),
        ("pi4=-10%,pi5=110%", ["'pi4'", "-10%"]),
        ("pi4=nan%", ["'pi4'", "nan%"]),
        ("nowhere.toml", ["cannot be read"]),
    ],
)
def test_a_mix_that_is_not_allowed_is_refused(spec, named):
    with pytest.raises(ConfigError) as error:
        fleet(spec, 10, 0)
    for part in named:
        assert part in str(error.value)


def test_a_fleet_has_the_figures_of_its_profiles():
    devices = Devices.of([PHONE, PI5])
    assert len(devices) == 2
    assert devices.classes == ("phone", "board")
    assert devices.ram.tolist() == [PHONE.ram, PI5.ram]
    assert devices.battery.tolist() == [PHONE.battery, math.inf]
    assert devices.charge_power.tolist() == [PHONE.charge_power, 0.0]
    swapped = devices.rows(np.array([1, 0]))
    assert swapped.names == ("pi5", "phone-mid")
    assert swapped.rtt.tolist() == [PI5.rtt, PHONE.rtt]
    with pytest.raises(ConfigError, match="0 devices"):
        fleet("pi4=100%", 0, 0)
