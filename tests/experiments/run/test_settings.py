"""What the command line says becomes a run config, in one order of precedence."""

import pytest

from cdc_flower.config import ConfigError, parse
from experiments.run import settings
from strategies.method import methods


@pytest.fixture
def presets(tmp_path, monkeypatch):
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "pack.toml").write_text('"run.rounds" = 5\n"uplink.token_score" = "norm"\n')
    (folder / "nested.toml").write_text('[run]\nrounds = 5\n[uplink]\ntoken-score = "norm"\n')
    (folder / "torn.toml").write_text("run.rounds = ")
    monkeypatch.setattr(settings, "PRESETS", folder)
    return folder


def test_every_committed_preset_is_a_valid_config():
    assert "scenes" in settings.presets()
    for name in settings.presets():
        parse(settings.preset(name))
        assert set(settings.compared(name) or ()) <= set(methods())
    assert "mmpg" in settings.compared("clips")


def test_a_preset_may_say_what_is_compared(presets):
    (presets / "pack.toml").write_text("compare = ['static', 'mmpg']\nrun.rounds = 5\n")
    assert settings.preset("pack") == {"run.rounds": 5}
    assert settings.compared("pack") == ("static", "mmpg")
    assert settings.compared("nested") is settings.compared("none") is settings.compared(None) is None
    (presets / "pack.toml").write_text("compare = 'static'\n")
    with pytest.raises(ConfigError, match="preset 'pack': compare = 'static'; allowed: a list of methods"):
        settings.compared("pack")


def test_values_take_the_type_of_their_setting():
    texts = [
        "run.rounds=3",
        "run.cohort=1",
        "data.known-styles=7",
        "uplink.token_bits=4",
        "run.fail-devices=2:1",
    ]
    found = settings.assignments(texts)
    assert list(found.items()) == [
        ("run.rounds", 3),
        ("run.cohort", 1.0),
        ("data.known-styles", "7"),
        ("uplink.token-bits", 4),
        ("run.fail-devices", "2:1"),
    ]
    assert isinstance(found["run.cohort"], float)
    assert parse(settings.assignments(["cloud.confidence-weighted=false"])).cloud.confidence_weighted is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds", "allowed: key=value"),
        ("round=3", "unknown setting 'round'; did you mean run.rounds"),
        ("zzzz=3", "`cdc-flower settings` lists them"),
    ],
)
def test_a_wrong_assignment_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        settings.assignments([text])


def test_a_value_of_the_wrong_type_is_refused_by_parse_with_its_key():
    with pytest.raises(ConfigError, match="setting 'run.rounds' = 'many'"):
        parse(settings.assignments(["run.rounds=many"]))


def test_the_preset_of_the_datas_name_is_taken_and_set_wins_over_it(presets, tmp_path):
    found, name = settings.resolve(str(tmp_path / "pack"), None, ["uplink.token-score=random"])
    assert name == "pack"
    assert found == {"run.rounds": 5, "uplink.token-score": "random", "data.pack": str(tmp_path / "pack")}


def test_a_preset_may_be_nested_as_in_a_flower_app(presets):
    assert settings.preset("nested") == settings.preset("pack")


def test_without_a_preset_of_that_name_the_defaults_stand(presets, tmp_path):
    assert settings.resolve(None, None, []) == ({}, None)
    assert settings.resolve(str(tmp_path / "other"), None, []) == (
        {"data.pack": str(tmp_path / "other")},
        None,
    )
    for generated in ("scenes", "clips"):
        assert settings.resolve(generated, "none", []) == ({"data.pack": generated}, "none")


def test_data_given_by_set_counts_as_data(presets, tmp_path):
    found, name = settings.resolve(None, None, [f"data.pack={tmp_path}/x/../pack"])
    assert (found["data.pack"], name) == (str(tmp_path / "pack"), "pack")


@pytest.mark.parametrize(
    ("name", "message"),
    [("nope", "unknown preset 'nope'; allowed: nested, pack, torn"), ("torn", "preset 'torn'")],
)
def test_a_preset_that_cannot_be_used_is_named(presets, name, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        settings.resolve(None, name, [])
