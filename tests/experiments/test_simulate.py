"""Flower's own engine, seen from outside; the run itself is in tests/strategies, tests/deploy and slow."""

import tomllib

import pytest

from cdc_flower.config import ConfigError, flat, parse
from experiments import simulate


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
