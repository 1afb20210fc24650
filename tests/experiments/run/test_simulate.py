"""Flower's own engine, seen from outside; the run itself is in tests/strategies, tests/deploy and slow."""

import tomllib

import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, flat, parse
from experiments.run import simulate


def test_every_config_survives_the_way_through_toml():
    config = parse({"data": 'C:\\a "b"\n', "known-styles": "é,ü", "akd-lr": 1e-7, "wavelet": True})
    assert parse(tomllib.loads(simulate.toml(flat(config)))) == config


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
        folder = results.RunFolder(tmp_path / "run")
        folder.begin(parse({"rounds": 3, "out-dir": "elsewhere", "akd-steps": 7}), {}, {})
        folder.round(3, {"source": 0.5}, {}, {})
        if ended:
            folder.finish(ended)
        return folder.path

    return make


@pytest.mark.parametrize("ended", [None, "interrupted", "failed"])
def test_a_run_resumes_with_its_own_settings_where_it_lies_now(run_folder, ended):
    folder = run_folder(ended)
    config = simulate.resumed(folder, {})
    assert config == parse({"rounds": 3, "akd-steps": 7, "out-dir": str(folder)})
    assert simulate.resumed(folder, {"rounds": "5"}).run.rounds == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"akd-steps": 5}, "setting 'akd-steps' with --resume: a run goes on with its own settings"),
        ({}, "the run has completed its 3 rounds, nothing is left; allowed: --set rounds=N with more"),
        ({"rounds": 2}, "nothing is left"),
        ({"rounds": 0}, "setting 'rounds' = 0"),
    ],
)
def test_what_cannot_resume_is_refused_in_one_line(run_folder, changes, says):
    with pytest.raises(ConfigError, match=says):
        simulate.resumed(run_folder("completed"), changes)


def test_a_completed_run_can_be_given_more_rounds(run_folder):
    assert simulate.resumed(run_folder("completed"), {"rounds": 4}).run.rounds == 4


def test_flowers_engine_does_not_resume():
    with pytest.raises(ConfigError, match="engine 'flower' with --resume"):
        simulate.flower(parse({}), lambda *_: None, True)
