"""A study names arms; a comparison runs them like methods."""

import pytest

from cdc_flower.config import ConfigError, parse
from experiments.run import arms as studies
from experiments.run import compare
from strategies.checks import check_named
from strategies.method import method

STUDY = """
[settings]
run.rounds = 4
[grid]
uplink.token-score = ["random", "norm"]
uplink.tokens_kept = [8, 16]
cloud.steps = [5]
[arms."no replay"]
cloud.replay-share = 0.0
"""


@pytest.fixture
def study(tmp_path):
    def write(text):
        (tmp_path / "mine.toml").write_text(text)
        return str(tmp_path / "mine.toml")

    return write


def test_a_grid_gives_every_combination_named_after_what_varies(study):
    settings, arms = studies.read(study(STUDY))
    assert settings == {"run.rounds": 4}
    assert list(arms) == [
        "random tokens-kept=8",
        "random tokens-kept=16",
        "norm tokens-kept=8",
        "norm tokens-kept=16",
        "no replay",
    ]
    assert arms["norm tokens-kept=8"] == {
        "uplink.token-score": "norm",
        "uplink.tokens-kept": 8,
        "cloud.steps": 5,
    }
    assert arms["no replay"] == {"cloud.replay-share": 0.0}


@pytest.mark.parametrize("name", studies.studies())
def test_every_study_in_the_package_can_be_run(name):
    settings, arms = studies.read(name)
    assert len(arms) > 1
    for arm in studies.with_needs(arms, settings).values():
        check_named(parse({**settings, **arm}))


def test_an_arm_of_a_method_gets_what_the_method_needs_and_may_say_otherwise():
    arms = {"rate": {"run.method": "cema", "cema.lr": 1e-3}, "own": {"run.method": "cema", "cloud.tau": 2.0}}
    found = studies.with_needs(arms, {})
    assert found["rate"] == {"run.method": "cema", **method("cema").needs, "cema.lr": 1e-3}
    assert found["own"]["cloud.tau"] == 2.0
    assert studies.with_needs({"x": {}}, {"run.method": "static"}) == {"x": {"run.method": "static"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rounds = 4", "'rounds'; allowed: the tables settings, grid, arms"),
        ("[grid]\nrun.rounds = 4", "grid 'run.rounds'; allowed: a list of words and numbers"),
        ("[grid]\nrun.rounds = []", "grid 'run.rounds'; allowed: a list of words and numbers"),
        ("[grid]\nrun.rounds = [[4], [5]]", "grid 'run.rounds'; allowed: a list of words and numbers"),
        ("[grid]\nrun.seed = [1, 1]", "two arms are named 'seed=1'"),
        ("[settings]\ndata.pack = 'x'", "sets 'data.pack'; allowed: the option --data"),
        ("[arms]\nx = 4", "arm 'x'; allowed: a table of settings"),
        ("[settings]\nakd-steps = 4", "unknown setting 'akd-steps'; did you mean cloud.steps?"),
        ("[arms", "mine.toml"),
    ],
)
def test_what_is_no_study_is_refused(study, text, said):
    with pytest.raises(ConfigError, match="mine") as refused:
        studies.read(study(text))
    assert said in str(refused.value)


def test_an_unknown_study_is_refused_naming_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown study 'x'; allowed: .*fedavg"):
        studies.read("x")


def test_arms_are_compared_like_methods(engine, tmp_path):
    arms = {
        "few": {"run.rounds": 2},
        "many": {"run.rounds": 4},
        "still": {"run.method": "static", "run.rounds": 2},
    }
    made = compare.run(
        {"run.method": "fedprox_lora"}, arms, 2, tmp_path / "out", 0, progress=False, engine=engine
    )
    assert made.methods["method"].tolist() == ["few", "many", "still"]
    assert made.methods["uplink_bytes"].tolist() == [2 * 2 * 2000, 4 * 2 * 2000, 0]
    assert (tmp_path / "out/runs/few-1/run.json").exists()
    assert made.index["arms"]["many"] == {"run.method": "fedprox_lora", "run.rounds": 4}


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({}, "no arms"),
        ({"a/b": {}}, "arm 'a/b'"),
        ({"a": {}, "b": {"run.devices": 3}}, "arms 'a' and 'b' differ in data, drift, models or what"),
        ({"a": {}, "b": {"run.samples-per-round": 3}}, "arms 'a' and 'b' differ"),
        ({"a": {}, "b": {"run.seed": 3}}, "arms 'a' and 'b' differ"),
        ({"a": {}, "b": {"drift.axes": "object"}}, "arms 'a' and 'b' differ"),
    ],
)
def test_arms_that_share_no_stream_are_refused(engine, tmp_path, arms, said):
    with pytest.raises(ConfigError, match=said):
        compare.run({}, arms, 1, tmp_path / "out", 0, progress=False, engine=engine)
