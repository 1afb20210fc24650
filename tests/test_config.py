"""Settings are checked once, refused in one line, and the same everywhere they are written down."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.config import METHODS, STAGES, ConfigError, flat, keys, parse

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())


def refusal(settings):
    with pytest.raises(ConfigError) as caught:
        parse(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_flower_app_lists_every_key_with_its_default_and_type():
    listed, defaults = PYPROJECT["tool"]["flwr"]["app"]["config"], flat(parse({}))
    assert listed == defaults
    assert list(listed) == list(keys())
    assert {k: type(v) for k, v in listed.items()} == {k: type(v) for k, v in defaults.items()}


def test_every_default_is_a_value_that_flower_carries():
    assert {type(v) for v in flat(parse({})).values()} <= {str, int, float, bool}


def test_no_key_belongs_to_two_stages():
    assert len(keys()) == sum(len(cls.__dataclass_fields__) for cls in STAGES.values())


def test_flat_is_the_inverse_of_parse():
    config = parse({"rounds": 3, "token-score": "mc_dropout", "known_styles": "a,b", "tau": 2})
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
    config = parse({"rounds": "5", "cohort": "0.5", "tensorboard": "true"})
    assert (config.run.rounds, config.run.cohort, config.run.tensorboard) == (5, 0.5, True)


def test_kebab_and_snake_case_name_the_same_key():
    assert parse({"min-devices": 2}) == parse({"min_devices": 2})


def test_an_unknown_key_is_refused_with_the_nearest_names():
    assert refusal({"token-scores": "norm"}).startswith(
        "unknown setting 'token-scores'; did you mean token-score"
    )
    assert "allowed: method, seed, rounds" in refusal({"zzz": 1})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("method", "fedsgd", "'static', 'cdc'"),
        ("rounds", 0, "greater than or equal to 1"),
        ("rounds", "many", "valid integer"),
        ("rounds", 2.5, "valid integer"),
        ("cohort", 1.5, "less than or equal to 1"),
        ("token-bits", 16, "8, 4 or 3"),
        ("compression", "fp4", "'nf4', 'int8', 'none' or 'auto'"),
        ("uplink-budget", 0, "greater than or equal to 1"),
        ("uplink-unit", "png", "'tokens', 'jpeg' or 'patches'"),
        ("picture-quality", 0, "greater than or equal to 1"),
        ("picture-quality", 96, "less than or equal to 95"),
        ("tensorboard", "maybe", "valid boolean"),
        ("data", None, "valid string"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(key, value, allowed):
    message = refusal({key: value})
    assert f"setting '{key}' = {value!r}" in message
    assert allowed in message


def test_drift_axes_are_checked_and_split():
    assert parse({"drift": "object, style"}).axes == ("object", "style")
    assert parse({"drift": "none"}).axes == ()
    assert "unknown axis 'colour'" in refusal({"drift": "object,colour"})


def test_every_method_of_the_comparison_is_a_method():
    assert [parse({"method": m}).run.method for m in METHODS] == list(METHODS)


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
