"""Mixes: exact to within one device, reproducible, and refused where they do not add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost.mixes import deal, fleet, parse_mix
from cdc_flower.fleet.cost.profiles import read_profiles, write_profiles

PI5 = read_profiles()["pi5"]


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
    shares, _ = parse_mix("pi4=40%, pi5=30%,phone-old=30%")
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


def test_a_fleet_without_devices_is_refused():
    with pytest.raises(ConfigError, match="0 devices"):
        fleet("pi4=100%", 0, 0)
