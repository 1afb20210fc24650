"""The run config of a deployment's ServerApp: its own part, and the settings of the run."""

from __future__ import annotations

import pytest

from cdc_flower.config import ConfigError
from strategies.served.app import settings
from strategies.served.settings import ServedConfig


def test_the_run_config_has_three_parts(tmp_path):
    config, own, cloud = settings(
        {"served.folder": str(tmp_path), "served.period": 5.0, "served.keep-versions": 3, "run.seed": 4}
    )
    assert own == ServedConfig(period=5.0, keep_versions=3)
    assert cloud == tmp_path
    assert (config.run.seed, config.run.out_dir, config.run.receipts) == (4, str(tmp_path / "run"), True)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"served.folder": "relative"}, "'served.folder' = 'relative'"),
        ({"served.period": -1.0}, "'served.period' = -1.0"),
        ({"served.zzz": 1}, "'served.zzz'"),
        ({"fleet.mode": "sync"}, "allowed: off"),
        ({"run.method": "fedavg_lora", "served.rounds": "buffer"}, "allowed: sync"),
        ({"run.zzz": 1}, "unknown setting 'run.zzz'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_loaded(more, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        settings({"served.folder": str(tmp_path), **more})
