"""The inversion probe: it ranks uploads by what they show, and gives the same figures for the same seed."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from PIL import Image

from cdc_flower.config import ConfigError, parse
from experiments.probes import inversion, probe


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def found(settings) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        few = {name: inversion.ARMS[name] for name in (inversion.ALL, "6, 3 bits", "40, noise 8")}
        patch.setattr(inversion, "ARMS", few)
        patch.setattr(inversion, "QUICK", inversion.Size(48, 8, 24, 20, 2))
        return pd.DataFrame([{"seed": 0, **row} for row in _measured(settings)])


def _measured(settings):
    from cdc_flower.data.world import load_world
    from cdc_flower.models.shared import load_shared

    config = parse(settings)
    shared = load_shared(config.pair, config.data.name)
    world = load_world(config, shared)
    return inversion.measure(config, shared, world, quiet, inversion.QUICK)


def test_whole_tokens_are_found_and_cost_most_and_noise_hides_the_picture(found):
    by = found.set_index("arm")
    assert by.loc[inversion.ALL, "nearest"] == 1.0
    assert by.loc[inversion.ALL, "member"] == 1.0
    assert by.loc["40, noise 8", "nearest"] < 1.0
    assert by.loc[inversion.ALL, "bytes"] > by.loc["6, 3 bits", "bytes"]
    assert by.loc[inversion.REAL, "mse"] == 0
    assert by.loc[inversion.REAL, "ssim"] == pytest.approx(1.0)
    assert by["reads"].between(0, 1).all()
    assert by["serves"].dropna().between(0, 1).all()
    assert by.loc["40, noise 8", "clip"] > 0 == by.loc[inversion.ALL, "clip"]


def test_rows_become_a_table_and_a_picture_but_no_pixels_are_in_the_file(found, tmp_path):
    assert len(inversion.table(found).rows) == len(found)
    path = inversion.write(found, tmp_path)
    read = pd.read_csv(path)
    assert list(read["arm"]) == list(found["arm"])
    assert "shown" not in read
    image = Image.open(io.BytesIO((tmp_path / "probe.png").read_bytes()))
    assert min(image.size) > 100


def test_no_picture_of_the_attacker_is_one_of_the_victims(settings, shared):
    from cdc_flower.data.world import load_world

    config = parse(settings)
    own, victims, others = inversion._people(
        config, shared, load_world(config, shared), inversion.Size(20, 6, 12)
    )
    theirs = {picture.tobytes() for picture in victims.pixels}
    assert len(own) == 20
    assert len(theirs) == 6
    assert len(others) == 6
    assert not theirs & {picture.tobytes() for picture in own.pixels}


def test_only_the_inversion_can_be_tried_quickly(config):
    with pytest.raises(ConfigError, match="allowed: inversion"):
        probe.run("uplink", config, 1, quiet, quick=True)
    assert probe.shown("inversion") == (inversion.table, inversion.write)
    assert probe.shown("uplink") == (probe.table, probe.write)
