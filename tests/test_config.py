"""Settings are checked once, refused in one line, and the same everywhere they are written down."""

import json
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from flwr.common.config import flatten_dict
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.config import RENAMED, ConfigError, flat, keys, parse, sections
from cdc_flower.setting import Reader

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())


def refusal(settings):
    with pytest.raises(ConfigError) as caught:
        parse(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_flower_app_lists_every_key_with_its_default_and_type():
    listed = flatten_dict(PYPROJECT["tool"]["flwr"]["app"]["config"])
    defaults = flat(parse({}))
    assert listed == defaults
    assert list(listed) == list(keys())
    assert {k: type(v) for k, v in listed.items()} == {k: type(v) for k, v in defaults.items()}


def test_every_default_is_a_value_that_flower_carries():
    assert {type(v) for v in flat(parse({})).values()} <= {str, int, float, bool}


def test_no_key_belongs_to_two_stages():
    assert len(keys()) == sum(len(cls.__dataclass_fields__) for cls in sections().values())


def test_flat_is_the_inverse_of_parse():
    config = parse(
        {"run.rounds": 3, "uplink.token-score": "mc_dropout", "data.known_styles": "a,b", "cloud_tau": 2}
    )
    assert parse(flat(config)) == config
    assert config.run.rounds == 3
    assert config.uplink.token_score == "mc_dropout"
    assert config.cloud.tau == 2.0


VALUES = st.one_of(st.integers(), st.floats(), st.text(max_size=8), st.booleans(), st.none())


@given(st.sampled_from(keys()), VALUES)
def test_any_value_is_taken_for_good_or_refused_in_one_line_that_names_the_key(key, value):
    try:
        config, message = parse({key: value}), ""
    except ConfigError as err:
        config, message = None, str(err)
    if config is None:
        assert f"'{key}'" in message
        assert "\n" not in message
    else:
        assert parse(json.loads(json.dumps(flat(config), allow_nan=False))) == config


def test_numbers_may_come_as_text():
    config = parse({"run.rounds": "5", "run.cohort": "0.5", "cloud.confidence-weighted": "false"})
    assert (config.run.rounds, config.run.cohort, config.cloud.confidence_weighted) == (5, 0.5, False)


def test_a_key_may_be_written_as_in_python():
    assert parse({"run.min-devices": 2}) == parse({"run.min_devices": 2}) == parse({"run_min_devices": 2})


def test_an_unknown_key_is_refused_with_the_nearest_names():
    assert "did you mean uplink.token-score" in refusal({"uplink.token-scores": "norm"})
    assert "`cdc-flower settings`" in refusal({"zzz": 1})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rounds", "run.rounds"),
        ("token-score", "uplink.token-score"),
        ("pace", "fleet.mode"),
        *RENAMED.items(),
    ],
)
def test_a_key_of_the_first_version_is_refused_with_its_new_name(old, new):
    assert refusal({old: 1}) == f"unknown setting '{old}'; did you mean {new}?"
    assert new in keys() or new == "chat_template.jinja of the checkpoint"


def test_every_setting_has_a_meaning_and_a_reader():
    for stage in sections().values():
        for field in stage.__pydantic_fields__.values():
            assert len(field.description) > 8
            assert field.json_schema_extra["reader"] in get_args(Reader)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("run.method", "fedsgd", "allowed: cdc, "),
        ("run.rounds", 0, "allowed: a whole number from 1 to 1000000"),
        ("run.rounds", "many", "a whole number"),
        ("run.rounds", 2.5, "a whole number"),
        ("run.cohort", 1.5, "allowed: a number above 0 to 1"),
        ("uplink.token-bits", 5, "16, 8, 4 or 3"),
        ("pair.compression", "fp4", "'nf4', 'int4', 'int8', 'none' or 'auto'"),
        ("uplink.budget", -1, "a whole number from 0"),
        ("uplink.unit", "png", "'tokens', 'jpeg' or 'patches'"),
        ("uplink.picture-quality", 0, "from 1 to 95"),
        ("uplink.picture-quality", 96, "from 1 to 95"),
        ("cloud.confidence-weighted", "maybe", "allowed: true or false"),
        ("data.pack", None, "allowed: text"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(key, value, allowed):
    message = refusal({key: value})
    assert f"setting '{key}' = {value!r}" in message
    assert allowed in message


def test_drift_axes_are_checked_and_split():
    assert parse({"drift.axes": "object, style"}).axes == ("object", "style")
    assert parse({"drift.axes": "none"}).axes == ()
    assert "unknown axis 'colour'" in refusal({"drift.axes": "object,colour"})
    assert "unknown axis 'auto'" in refusal({"drift.axes": "auto,object"})


def test_drift_axes_are_by_default_those_of_which_something_is_known():
    assert parse({"data.known-questions": "digit"}).axes == ("question",)
    assert parse({"data.known-styles": "noto", "data.known-objects": "50%"}).axes == ("object", "style")
    assert parse({"data.known-questions": "digit", "drift.axes": "object"}).axes == ("object",)
    assert parse({}).axes == ("object", "question")


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("data.task", "exact"),
        ("uplink.token-score", "attention, sampled"),
        ("uplink.sample-score", "entropy, mixed"),
        ("downlink.codec", "dyadic"),
        ("cloud.losses", "ce, kl"),
    ],
)
def test_a_name_that_is_in_no_registry_is_refused_with_those_that_are(key, allowed):
    message = refusal({key: "mine"})
    assert f"setting '{key}' = 'mine'" in message
    assert allowed in message


def test_what_is_registered_is_a_choice_without_an_edit(monkeypatch):
    from cdc_flower.uplink.scores import TOKEN_SCORES

    monkeypatch.setitem(TOKEN_SCORES, "mine", TOKEN_SCORES["norm"])
    assert parse({"uplink.token-score": "mine"}).uplink.token_score == "mine"
    assert parse({"uplink.token-score": "-mine"}).uplink.token_score == "-mine"
    assert "'-dyadic'" in refusal({"downlink.codec": "-dyadic"})


def test_a_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        parse({}).run.rounds = 5


def test_every_pattern_of_the_app_bundle_matches_a_file():
    root = Path(__file__).parents[1]  # Flower refuses a bundle with a pattern that matches nothing
    patterns = PYPROJECT["tool"]["flwr"]["app"]["fab-include"]
    assert [p for p in patterns if not any(root.glob(p))] == []


def test_the_app_bundle_holds_the_cards_of_packaged_weights():
    root = Path(__file__).parents[1]  # by them the app finds the weights in the cache
    patterns = PYPROJECT["tool"]["flwr"]["app"]["fab-include"]
    bundled = {path for pattern in patterns for path in root.glob(pattern)}
    assert [c for c in root.glob("cdc_flower/weights/*/pair.json") if c not in bundled] == []
