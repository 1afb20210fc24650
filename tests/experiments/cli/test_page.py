"""The command says what it would make, and refuses what cannot be a page in one line."""

from pathlib import Path

import pytest

from experiments.page import digests
from experiments.page import plan as planning


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "--only 'nothing'; allowed: main, ladder"),
        (["--set", "run.rounds=2"], "--set with the results of the documents; allowed: --results"),
        (["--plan", str(planning.PAGE)], "--plan with the results of the documents; allowed: --results"),
        (["--plan", "/nowhere.toml"], "'/nowhere.toml' is no file; allowed: a file that is there"),
        (["--minutes", "-1"], "--minutes"),
        (["--seeds", "0"], "--seeds"),
        (["--workers", "-1"], "--workers"),
    ],
)
def test_what_cannot_be_a_page_is_refused(refused, arguments, message, tmp_path):
    assert message in refused("page", "--out", str(tmp_path / "out"), *arguments)


def test_the_results_of_the_documents_are_known_by_any_path(refused, tmp_path):
    arguments = ["--list", "--set", "run.rounds=2", "--results", str(tmp_path / "docs/../docs/results")]
    assert "--set with the results of the documents; allowed: --results" in refused("page", *arguments)


@pytest.mark.parametrize(
    "arguments", [["--minutes=0"], ["--list"], ["--tables"], ["--results", "docs/../docs/results"]]
)
def test_outside_the_repository_no_empty_page_is_made(refused, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("<!-- page: main summary -->\nmine\n<!-- /page -->\n")
    said = refused("page", *arguments)
    assert "docs/results/cells' here; allowed: the repository's root, or --results FOLDER" in said
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert "mine" in Path("README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "filled"),
    [
        ([], True),
        (["--results", "results/../docs/results"], True),
        (["--results", "results/try"], False),
        (["--plan", "mine.toml", "--results", "results/try"], False),
        (["--results", "results/try", "--set", "run.rounds=2"], False),
    ],
)
def test_a_try_writes_into_no_document(command, monkeypatch, tmp_path, arguments, filled):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("docs/results/cells").mkdir(parents=True)
    Path("mine.toml").write_text(planning.PAGE.read_text())
    Path("README.md").write_text("<!-- page: main summary -->\nold\n<!-- /page -->\n")
    code, said, _ = command("page", "--tables", "--out", "results/page", *arguments)
    assert code == 0
    assert ("README.md" in said) == filled
    assert ("old" not in Path("README.md").read_text()) == filled


def test_the_list_says_what_would_be_made_and_makes_nothing(command, monkeypatch, tmp_path):
    monkeypatch.setattr(digests, "of_pair_and_data", lambda config: {"pair": "p", "data": "d"})
    folders = ["--out", tmp_path / "out", "--results", tmp_path / "docs/results"]
    code, said, _ = command("page", "--list", "--only", "main,scenes,cdc,static", "--seeds", 2, *folders)
    assert code == 0
    assert said.splitlines()[0] == "scenes: static, seed 0: to make: missing, 180 s"
    assert said.splitlines()[-1].startswith("4 left, about ")
    assert not (tmp_path / "out").exists()


def test_nothing_to_make_writes_the_tables(command, monkeypatch, tmp_path):
    folders = ["--out", tmp_path / "out", "--results", tmp_path / "docs/results"]
    code, said, _ = command("page", "--tables", *folders)
    assert code == 0
    assert str(tmp_path / "out/page.json") in said.splitlines()
    assert "Not made yet" in (tmp_path / "docs/results/main.md").read_text()
