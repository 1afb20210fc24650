"""Under `flwr run` results go where the setting says, or to a place that is said."""

import pytest

from cdc_flower.config import ConfigError
from strategies import server_app


def test_without_a_run_folder_one_in_the_cache_folder_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path))
    assert server_app.out_dir({"run.method": "static", "run.seed": 3}) == tmp_path / "runs" / "static-3"


def test_a_run_folder_that_is_set_is_absolute(tmp_path):
    assert server_app.out_dir({"run.out-dir": str(tmp_path / "x")}) == tmp_path / "x"
    with pytest.raises(ConfigError, match=r"'run\.out-dir' = 'results/x'; allowed under `flwr run`: an abs"):
        server_app.out_dir({"run.out-dir": "results/x"})
