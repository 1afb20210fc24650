"""What `cdc-flower privacy` says, for people and for programs."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def sets(pair_folder):
    return [f"--set=pair.folder={pair_folder}", "--set=uplink.clip=4"]


def test_epsilon_is_said_for_each_unit_and_what_it_would_take(command, sets):
    code, out, _ = command("privacy", *sets, "--set=uplink.noise=1")
    assert code == 0
    assert "a picture, sent once" in out
    assert "epsilon 8 for a picture that is sent once takes uplink.noise = " in out
    assert "not covered: which samples" in out


def test_without_noise_epsilon_is_infinite_and_null_for_programs(command, sets):
    code, out, _ = command("privacy", *sets)
    assert code == 0
    assert "infinite" in out
    assert "nothing is promised" in out
    code, out, _ = command("privacy", "--json", "--delta=1e-6", *sets)
    said = json.loads(out)
    assert (code, said["noise"], said["delta"]) == (0, 0.0, 1e-6)
    assert [row["epsilon"] for row in said["releases"]] == [None] * 5


def test_pictures_have_no_epsilon(refused, pair_folder):
    said = refused("privacy", f"--set=pair.folder={pair_folder}", "--set=uplink.unit=jpeg")
    assert said == "setting 'uplink.unit' = 'jpeg': pictures go up as they are; allowed: tokens"
