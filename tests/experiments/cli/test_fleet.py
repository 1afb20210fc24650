"""Fleet commands: every profile in the tables, traces convert without loss, one line for what is wrong."""

from __future__ import annotations

import pandas as pd
import pytest

from cdc_flower.fleet.cost.cost_models import table
from cdc_flower.fleet.cost.profiles import read_profiles
from cdc_flower.fleet.time.availability import generate
from cdc_flower.fleet.time.trace_files import frame, read_trace, write_trace
from cdc_flower.fleet.time.traces import always
from experiments.cli import fleet as cli_fleet


def test_profiles_are_listed_with_their_sources_where_asked_for(command):
    code, plain, _ = command("fleet", "profiles")
    assert code == 0
    _, long, _ = command("fleet", "profiles", "--sources")
    for name, profile in read_profiles().items():
        assert sum(line.split()[:1] == [name] for line in plain.splitlines()) == 1
        assert f"  ram: {profile.sources['ram']}\n" in long
        assert profile.sources["ram"] not in plain


def test_costs_have_a_cell_for_every_profile_and_model_and_the_page_shows_them(command):
    code, out, _ = command("fleet", "costs", "--markdown")
    assert code == 0
    head, _, *rows = [[c.strip() for c in line.strip("|").split("|")] for line in out.splitlines()]
    assert head == ["profile", "scenes (own)", *table()]
    assert [row[0] for row in rows] == list(read_profiles())
    cells = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert cells["pizero2"]["llava-1.5-7b"] == "too big"
    assert cells["pi5"]["llava-1.5-7b"].startswith("nf4, ")
    page = (cli_fleet.Path(cli_fleet.__file__).parents[2] / "docs" / "fleet.md").read_text()
    assert out.strip() in page


def test_costs_say_what_a_cell_holds(command):
    _, out, _ = command("fleet", "costs")
    assert "compression of the weights (none = as they are), seconds, joules" in out.splitlines()[-1]


def test_a_generated_trace_goes_to_parquet_and_json_and_back(command, tmp_path):
    code, out, _ = command(
        "fleet",
        "trace",
        "--devices",
        12,
        "--days",
        3,
        "--mix",
        "phone-mid=50%,pi4=50%",
        "--zones=-8,0",
        "--seed",
        5,
        "--out",
        tmp_path / "t.parquet",
    )
    assert code == 0
    assert out.startswith("12 devices, 3 days, ")
    assert sum(line[:2].isdigit() and "%" in line for line in out.splitlines()[1:]) == 24
    first = read_trace(tmp_path / "t.parquet", 12)
    assert command("fleet", "trace", tmp_path / "t.parquet", "--out", tmp_path / "t.json")[0] == 0
    second = read_trace(tmp_path / "t.json", 12)
    assert first.period == second.period == 3 * 86_400
    pd.testing.assert_frame_equal(frame(first), frame(second))


def test_the_summary_counts_what_the_trace_says(command, tmp_path):
    write_trace(tmp_path / "a.json", always(3))
    _, out, _ = command("fleet", "trace", tmp_path / "a.json", "--devices", 4)
    assert "4 devices, 1 days, 3 intervals, online 75.0% of the time" in out
    for line in [line for line in out.splitlines() if line[:2].isdigit() and "█" in line]:
        assert line.split()[1:5] == ["75%"] * 4
    write_trace(tmp_path / "n.json", generate(["phone"] * 300, 0))
    _, out, _ = command("fleet", "trace", tmp_path / "n.json")
    eligible = [int(line.split()[4].strip("%")) for line in out.splitlines() if "░" in line or "█" in line]
    assert len(eligible) == 24
    assert eligible[2] > 2 * eligible[14]  # a night on the charger


def test_a_trace_of_very_many_days_is_summed_up_in_no_time(command, tmp_path):
    write_trace(tmp_path / "a.json", always(2, 1e12))
    code, out, _ = command("fleet", "trace", tmp_path / "a.json")
    assert code == 0
    assert out.startswith("2 devices, 1.15741e+07 days, 2 intervals, online 100.0% of the time")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["trace"], "a FILE to read, or --devices N"),
        (["trace", "nowhere.json"], "'nowhere.json' is no file; allowed: a file that is there"),
        (["trace", "t.csv"], "trace 't.csv'; allowed: a file ending in .parquet or .json"),
        (["trace", "bad.json"], "cannot be read"),
        (["trace", "columns.parquet"], "no column 'device'"),
        (["trace", "row.json"], "row 1: [50.0, 20.0) ends before it has begun"),
        (["trace", "row.json", "--days", "2"], "--days 2"),
        (["trace", "--devices", "3", "--zones", "x"], "--zones 'x'"),
        (["trace", "--devices", "3", "--zones", "99"], "-12 to 14"),
        (["trace", "--devices", "3", "--mix", "pi9=100%"], "unknown profile 'pi9'"),
        (["trace", "--devices", "3", "--out", "t.txt"], ".parquet or .json"),
        (["trace", "--devices", "3", "--out", "no/t.json"], "no such folder"),
        (
            ["trace", "--devices", "10000000000"],
            "'--devices': 10000000000 is not in the range 1<=x<=10000000",
        ),
        (["trace", "--devices", "3", "--days", "367"], "'--days': 367 is not in the range 1<=x<=366"),
        (["trace", "many.json"], "10000000001 devices; allowed: up to 10000000"),
        (["trace", "text.parquet"], "column 'end' = 'x'; allowed: float64"),
        (["trace", "gap.parquet"], "column 'device' = <NA>; allowed: int64, no gaps"),
        (["trace", "long.json"], "period = 1e+300; allowed: a number of seconds from 1 to 1e+12"),
        (["trace", "--devices", "3", "--out", "folder.json"], "'--out': 'folder.json': is a folder"),
        (["profiles", "nowhere.json"], "'nowhere.json' is no file"),
        (["profiles", "bad.json"], "profiles 'bad.json'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, tmp_path, monkeypatch, arguments, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "t.csv").write_text("")
    (tmp_path / "row.json").write_text(
        '{"period": 100, "intervals": [[0, 0.0, 5.0, true, true], [0, 50.0, 20.0, true, true]]}'
    )
    (tmp_path / "many.json").write_text('{"period": 9, "intervals": [[10000000000, 0, 1, true, true]]}')
    (tmp_path / "long.json").write_text('{"period": 1e300, "intervals": []}')
    (tmp_path / "folder.json").mkdir()
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "columns.parquet")
    row = {"device": [0, 1], "start": [0.0] * 2, "end": [1.0] * 2, "charging": [True] * 2, "idle": [True] * 2}
    pd.DataFrame({**row, "end": ["x", "y"]}).to_parquet(tmp_path / "text.parquet")
    pd.DataFrame({**row, "device": pd.array([0, None], "Int64")}).to_parquet(tmp_path / "gap.parquet")
    code, out, err = command("fleet", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert why in err
