"""The cost of one adaptation, of a real round."""

from __future__ import annotations

import pytest

from cdc_flower.config import parse
from experiments.bench import adaptation


def test_settings_that_cannot_be_used_end_in_one_line(capsys):
    assert adaptation.main(["--set", "mmpg.frames=0"]) == 2
    assert capsys.readouterr().err.startswith("error: setting 'mmpg.frames' = 0; allowed: ")


@pytest.mark.slow
def test_every_adaptation_is_timed_and_weighed(clip_settings):
    config = parse(clip_settings(**adaptation.SETTINGS, rounds=3))
    spent, down = adaptation.measure(config)
    assert len(spent) == 3
    assert min(spent) > 0
    assert len(down) == 2
    assert 100 < max(down) <= config.downlink.budget + 1000
    assert [f.limit for f in adaptation.figures(config)] == [50, 50, 20_000]
