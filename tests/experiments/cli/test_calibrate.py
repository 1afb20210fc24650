"""What calibrate writes is a profile like any other: it loads, has sources, and a mix takes it."""

from __future__ import annotations

import re

import pytest

from cdc_flower.fleet.cost.mixes import fleet
from cdc_flower.fleet.cost.profiles import UNITS, read_profiles
from experiments.cli import app as cli


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A profile file as the command writes it."""
    path = tmp_path_factory.mktemp("profile") / "bench.json"
    with pytest.raises(SystemExit) as ended:
        cli.main(
            [
                "calibrate",
                "--quick",
                "--name",
                "bench",
                "--out",
                str(path),
                "--like",
                "pi5",
                "--up",
                "12.5",
                "--rtt",
                "30",
                "--idle-watts",
                "4",
            ]
        )
    assert ended.value.code == 0
    return path


def test_the_written_file_loads_and_a_mix_uses_it(written, tmp_path):
    found = read_profiles(written)["bench"]
    assert found.device_class == "board"
    mix = written.with_name("mix.toml")
    mix.write_text('profiles = ["bench.json"]\n[mix]\nbench = 75\npi4 = 25\n')
    devices = fleet(str(mix), 8, 0)
    assert sorted(devices.names) == ["bench"] * 6 + ["pi4"] * 2
    assert devices.memory_bw[devices.names.index("bench")] == found.memory_bw


def test_measured_figures_are_those_of_a_computer_and_the_others_say_whose_they_are(written):
    found, pi5 = read_profiles(written)["bench"], read_profiles()["pi5"]
    assert 1e8 < found.flops_fp32 < 1e13
    assert found.flops_fp32 <= found.flops_fp16 <= found.flops_int8 < 1e15
    assert 1e8 < found.memory_bw < 1e13
    assert 1e8 < found.ram < 1e14
    assert (found.up_bw, found.rtt, found.idle_power) == (12.5e6, 0.03, 4.0)
    assert found.down_bw == pi5.down_bw
    dated = r"measured by cdc-flower calibrate, \d{4}-\d\d-\d\d, best of 2, CPU, \d+ thread"
    for figure in ("flops_fp32", "memory_bw", "ram"):
        assert re.search(dated, found.sources[figure])
    assert found.sources["up_bw"] == "given to cdc-flower calibrate"
    assert found.sources["down_bw"] == f"as profile pi5, not measured: {pi5.sources['down_bw']}"
    assert set(found.sources) == set(UNITS)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--like", "toaster"], "--like 'toaster'; allowed: pizero2"),
        (["--name", "my machine"], "field 'name'"),
        (["--loss", "1.5"], "'--loss': 1.5 is not in the range 0<=x<=1"),
        (["--loss", "1"], "field 'loss'"),
        (["--out", "nowhere/x.json"], "no such folder"),
        (["--threads", "-1"], "'--threads': -1 is not in the range"),
        (["--threads", "1000"], "--threads 1000; allowed: 1 to "),
        (["--out", "."], "'--out': '.': is a folder"),
    ],
)
def test_what_cannot_be_measured_or_written_is_one_line(arguments, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["calibrate", "--quick", *arguments])
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert why in shown.err
