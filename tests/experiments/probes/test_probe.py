"""What is probed is known, means are over seeds, and the command writes what it found."""

from __future__ import annotations

import pandas as pd
import pytest

from cdc_flower.config import ConfigError
from cdc_flower.uplink.scores import TOKEN_SCORES
from experiments.cli import app as cli
from experiments.probes import probe


def quiet(stage: str, done: int, total: int) -> None:
    pass


def test_means_are_over_seeds_and_over_the_drifted_domains():
    rows = [
        ("a", 6, 10.0, s, d, v)
        for s, v0 in ((0, 0.2), (1, 0.4))
        for d, v in (("source", 0.9), ("object", v0), ("question", v0 + 0.2))
    ]
    found = pd.DataFrame(rows, columns=["arm", "kept", "bytes", "seed", "domain", "accuracy"])
    row = probe.means(found).iloc[0]
    assert (row["drift"], row["source"]) == (pytest.approx(0.4), pytest.approx(0.9))
    assert row["drift_high"] - row["drift"] == pytest.approx(12.706 * 0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "seeds", "why"), [("sideways", 1, "uplink, downlink"), ("uplink", 0, "at least 1")]
)
def test_what_cannot_be_probed_is_refused(config, name, seeds, why):
    with pytest.raises(ConfigError, match=why):
        probe.run(name, config, seeds, quiet)


def test_the_command_writes_rows_and_a_plot(settings, tmp_path, capsys):
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    with pytest.raises(SystemExit) as end:
        cli.main(["probe", "uplink", "--out", str(tmp_path / "out"), *sets])
    assert end.value.code == 0
    assert "attention high" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "probe.csv")) == 3 * (4 * (2 * len(TOKEN_SCORES) - 1) + 1)
    assert (tmp_path / "out" / "probe.png").stat().st_size > 1000
