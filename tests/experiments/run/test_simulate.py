"""Flower's own engine, seen from outside; the run itself is in tests/strategies, tests/deploy and slow."""

import tomllib

import pytest

from cdc_flower.config import ConfigError, flat, parse
from cdc_flower.ledger import Ledger
from cdc_flower.run_folder import RunFolder
from experiments.run import simulate
from experiments.run.settings import flattened


def test_every_config_survives_the_way_through_toml():
    config = parse(
        {
            "data.pack": 'C:\\a "b"',
            "data.known-styles": "é,ü",
            "cloud.lr": 1e-7,
            "cloud.confidence-weighted": False,
        }
    )
    assert parse(flattened(tomllib.loads(simulate.toml(flat(config))))) == config


@pytest.mark.parametrize("content", [None, "", "[tool.flwr]\n", "not toml ="])
def test_a_folder_without_the_flower_app_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(ConfigError, match="needs the Flower app"):
        simulate.check_app(tmp_path)


def test_this_project_is_a_flower_app():
    simulate.check_app(simulate.APP)


@pytest.fixture
def run_folder(tmp_path):
    """A run of three rounds as it lies there; `ended` says how."""

    def make(ended):
        folder = RunFolder(tmp_path / "run")
        folder.begin(parse({"run.rounds": 3, "run.out-dir": "elsewhere", "cloud.steps": 7}), {}, {})
        folder.round(3, {"source": 0.5}, {}, {})
        folder.devices(Ledger().frame())
        if ended:
            folder.finish(ended)
        return folder.path

    return make


@pytest.mark.parametrize("ended", [None, "interrupted", "failed"])
def test_a_run_resumes_with_its_own_settings_where_it_lies_now(run_folder, ended):
    folder = run_folder(ended)
    config = simulate.resumed(folder, {})
    assert config == parse({"run.rounds": 3, "cloud.steps": 7, "run.out-dir": str(folder)})
    assert simulate.resumed(folder, {"run.rounds": "5"}).run.rounds == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cloud.steps": 5}, "setting 'cloud.steps' with --resume: a run goes on with its own settings"),
        ({}, "the run has completed its 3 rounds, nothing is left; allowed: --set run.rounds=N with more"),
        ({"run.rounds": 2}, "nothing is left"),
        ({"run.rounds": 0}, "setting 'run.rounds' = 0"),
    ],
)
def test_what_cannot_resume_is_refused_in_one_line(run_folder, changes, says):
    with pytest.raises(ConfigError, match=says):
        simulate.resumed(run_folder("completed"), changes)


def test_a_completed_run_can_be_given_more_rounds(run_folder):
    assert simulate.resumed(run_folder("completed"), {"run.rounds": 4}).run.rounds == 4


@pytest.mark.parametrize(
    ("ended", "changes", "says"),
    [
        ("completed", {}, ""),
        ("completed", {"cloud.steps": 5}, r"holds a run of other settings \(3 rounds\); allowed: --replace"),
        ("interrupted", {}, r"holds an unfinished run \(3 of 3 rounds\); allowed: --resume .*run \(goes on"),
        (None, {"cloud.steps": 5}, "holds an unfinished run"),
    ],
)
def test_a_run_begins_anew_only_where_the_same_one_came_to_its_end(run_folder, ended, changes, says):
    folder = run_folder(ended)
    config = parse({"run.rounds": 3, "cloud.steps": 7, "run.out-dir": str(folder), **changes})
    if not says:
        simulate.refuse_what_is_in(folder, config)
        return
    with pytest.raises(ConfigError, match=says):
        simulate.refuse_what_is_in(folder, config)


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", '{"model_type": "llava"}'), ("comparison.json", "{}"), ("thesis.tex", "x")],
)
def test_a_folder_with_something_else_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=r"out = .* holds something else; allowed: a new or empty folder, "):
        simulate.refuse_something_else(tmp_path, simulate.is_run, "that of a run")
    with pytest.raises(ConfigError, match="holds something else"):
        simulate.refuse_something_else(tmp_path / name, simulate.is_run, "that of a run")


def test_a_run_and_what_a_killed_process_left_are_nothing_else(run_folder, tmp_path):
    left = tmp_path / "left"
    left.mkdir()
    for name in (".lock", ".config.json.0a1b.part"):
        (left / name).write_text("")
    for folder in (left, tmp_path / "new", run_folder("failed")):
        simulate.refuse_something_else(folder, simulate.is_run, "that of a run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["left", "run"]


def test_a_folder_without_a_round_can_be_used(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(parse({"run.rounds": 3}), {}, {})
    simulate.refuse_what_is_in(folder.path, parse({}))
    simulate.refuse_what_is_in(tmp_path / "nothing", parse({}))


def test_flowers_engine_does_not_resume():
    with pytest.raises(ConfigError, match="engine 'flower' with --resume"):
        simulate.flower(parse({}), lambda *_: None, True)
