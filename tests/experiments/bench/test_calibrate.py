"""What calibrate writes is a profile like any other: it loads, has sources, and a mix takes it."""

from __future__ import annotations

import re

import pytest
import torch

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.profiles import UNITS, fleet, read_profiles
from experiments.bench import calibrate
from experiments.bench.calibrate import Measured
from experiments.cli import app as cli

LIKE = read_profiles()["minipc"]
MEASURED = Measured(4e10, 3e10, 1e11, 8e9, 2e9, "CPU, 1 thread", 2)


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


def test_arithmetic_in_fewer_bits_is_taken_only_where_it_is_faster():
    found = calibrate.profile("x", MEASURED, LIKE, {})
    assert (found.flops_fp32, found.flops_fp16, found.flops_int8) == (4e10, 4e10, 1e11)
    assert found.sources["flops_fp16"].startswith("as with more bits: here torch does 3e+10 op/s, slower")
    none = calibrate.profile("x", Measured(4e10, None, None, 8e9, 2e9, "CPU", 2), LIKE, {})
    assert (none.flops_fp16, none.flops_int8) == (4e10, 4e10)
    assert "has no such product" in none.sources["flops_int8"]


def test_a_large_product_runs_at_no_less_than_a_tiny_ones_rate():
    tiny = calibrate._rate("fp32", ((4, 4, 4),), 2, torch.device("cpu"))
    both = calibrate._rate("fp32", ((4, 4, 4), (256, 256, 256)), 2, torch.device("cpu"))
    assert tiny is not None
    assert both is not None
    assert both > tiny


def test_questions_together_read_the_weights_once():
    from cdc_flower.fleet.cost.cost_models import table

    shapes = roofline.shapes(table()["llava-1.5-7b"], 16)
    alone = roofline.answering(shapes, "nf4", 600, 576, 8)
    assert calibrate._together(shapes, "nf4", 600, 8, 1) == alone
    many = calibrate._together(shapes, "nf4", 600, 8, 32)
    for one, all_of_them in zip(alone, many, strict=True):
        assert all_of_them.flops == 32 * one.flops
        assert one.bytes_moved <= all_of_them.bytes_moved < 8 * one.bytes_moved


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--like", "toaster"], "--like 'toaster'; allowed: pizero2"),
        (["--name", "my machine"], "field 'name'"),
        (["--loss", "1.5"], "field 'loss'"),
        (["--out", "nowhere/x.json"], "no such folder"),
        (["--threads", "-1"], "--threads -1"),
        (["--threads", "1000000"], "--threads 1000000; allowed: 1 to "),
        (["--out", "."], "--out '.': is a folder"),
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


def test_an_accelerator_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert calibrate.measure(accelerator=True, quick=True).fp32 > 1e11
    else:
        with pytest.raises(ConfigError, match="no CUDA device"):
            calibrate.measure(accelerator=True, quick=True)


def test_the_check_answers_for_real_and_no_machine_beats_its_roofline_by_much():
    rows = list(calibrate.check(calibrate.profile("x", calibrate.measure(quick=True), LIKE, {}), quick=True))
    arms = [(r.compression, r.questions) for r in rows]
    assert arms == [("nf4", 1), ("nf4", 32), ("none", 1), ("none", 32)]
    for row in rows:
        assert row.measured > 0.3 * row.predicted
    assert rows[2].ratio > rows[3].ratio  # one small question is bound by the calling of functions
