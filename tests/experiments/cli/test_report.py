"""The report of a comparison is written again from its folder."""

import pytest

from experiments.run import compare


@pytest.mark.parametrize(
    ("arguments", "message"), [(["."], "comparison.json is missing"), (["nowhere"], "'nowhere' is no folder")]
)
def test_a_folder_without_a_comparison_is_refused(refused, arguments, message):
    assert message in refused("report", *arguments)


@pytest.mark.parametrize("name", ["report", "leaderboard"])
@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_comparison_that_is_damaged_is_refused(refused, tmp_path, name, content):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/comparison.json").write_text(content)
    said = refused(name, "bad")
    assert said.startswith("bad/comparison.json: 'config' is missing or of another form; allowed: ")


def test_the_report_is_written_again_with_the_table_as_markdown(command, engine, tmp_path):
    small = {"run.rounds": 2, "run.devices": 2}
    compare.run(small, ("static", "cdc"), 1, tmp_path / "out", 0, progress=False, engine=engine)
    written = (tmp_path / "out/report.html").read_text()
    (tmp_path / "out/report.html").unlink()
    code, out, _ = command("report", tmp_path / "out", "--markdown")
    assert code == 0
    assert "\n| method | labels |" in f"\n{out}"
    assert (tmp_path / "out/report.html").read_text() == written


def test_several_are_set_side_by_side_with_a_warning_where_problems_differ(command, engine, tmp_path):
    folders = [tmp_path / "A/out", tmp_path / "B/out"]
    for rounds, folder in enumerate(folders, 1):
        small = {"run.rounds": rounds, "run.devices": 2}
        compare.run(small, ("static",), 1, folder, 0, progress=False, engine=engine)
    code, out, err = command("report", *folders, "--markdown", "--out", tmp_path / "page.html")
    assert code == 0
    assert "| static | B/out |" in out  # both are called `out`
    assert "not of one problem: run.rounds is 1 in A/out and 2 in B/out" in err
    assert "A/out and B/out, side by side" in (tmp_path / "page.html").read_text()
