"""What can be chosen is listed completely, for people and for programs, and what is listed is taken."""

import json

import pytest

from cdc_flower.config import flat, keys, parse
from experiments.cli import settings


@pytest.fixture
def listed(command):
    code, out, _ = command("settings", "--json")
    assert code == 0
    return json.loads(out)


def test_every_setting_is_listed_once_with_default_meaning_and_reader(listed):
    assert [row["key"] for row in listed] == list(keys())
    assert {row["key"]: row["default"] for row in listed} == flat(parse({}))
    for row in listed:
        assert len(row["meaning"]) > 8, row["key"]
        assert set(row["reader"].split(", ")) <= {"device", "cloud", "simulator", "all"}


def test_listed_values_and_bounds_are_those_that_are_checked(listed):
    for row in listed:
        for value in [*row.get("values", []), *(row[end] for end in ("ge", "le") if end in row)]:
            parse(
                {"downlink.codec": "fp16", "uplink.clip": 1.0, row["key"]: value}
                if row["key"] == "uplink.noise"
                else {"downlink.codec": "fp16", row["key"]: value}
            )


def test_a_stage_alone_can_be_asked_for(command):
    code, out, _ = command("settings", "uplink")
    assert "attention, sampled, entropy, mc_dropout" in out  # what is registered
    assert code == 0
    named = [line.split()[0] for line in out.splitlines() if "." in line.partition(" ")[0]]
    assert named == [key for key in keys() if key.startswith("uplink.")]
    assert "tokens, jpeg, patches" in out
    assert "[bytes]" in out
    code, _, err = command("settings", "uplinks")
    assert (code, err) == (2, f"error: unknown stage 'uplinks'; allowed: {', '.join(settings.sections())}\n")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"type": "int", "ge": 1, "le": 95}, ">= 1, <= 95"),
        ({"type": "float", "gt": 0}, "> 0"),
        ({"type": "bool"}, "true, false"),
        ({"type": "str"}, "text"),
        ({"type": "int", "values": [16, 8]}, "16, 8"),
    ],
)
def test_a_range_in_a_few_characters(row, text):
    assert settings.allowed(row) == text


def test_every_method_is_listed_with_its_traits_and_settings(command):
    methods = pytest.importorskip("strategies.method").methods
    code, out, _ = command("methods", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["name"] for row in rows] == list(methods())
    for row in rows:
        assert row["about"]
        assert {"labels", "device_backprop", "adapts"} <= set(row["traits"])
        assert set(row["settings"]) <= set(keys())
    assert "fedprox.mu" in next(row for row in rows if row["name"] == "fedprox_lora")["settings"]
    code, out, _ = command("methods")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:] if line[:1].strip()] == list(methods())
