"""A device is judged on its own items, by the answers of its own adapter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cdc_flower.data.world import load_world
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from strategies.accuracy import answers, measure
from strategies.personal import measure_own, of_devices, table

OWN = {0: np.array([3, 0]), 2: np.array([7, 1, 2]), 5: np.array([4, 3])}


@pytest.fixture
def world(config, shared):
    """In which an answer is worth something for its words alone, and half of the users are familiar."""
    found = load_world(config, shared)
    familiar = np.where(np.arange(len(found.test)) % 2, "seen", "unseen")
    return replace(
        found, test=found.test.assign(familiar=familiar), worth=lambda said, _: 1 / (1 + len(said))
    )


def test_every_device_answers_its_own_items_with_its_own_adapter(config, shared, world):
    model = twin_model(shared, config.pair)
    base = adapters.read(model)
    noise = np.random.default_rng(0).normal(0, 0.3, base.shape).astype(np.float32)
    flats = [base, base + noise, base]
    found = measure_own(model, shared, of_devices(world, OWN), OWN, flats)
    expected = []
    for rows, flat in zip(OWN.values(), flats, strict=True):
        some = replace(world, test=world.test.iloc[rows].reset_index(drop=True))
        with adapters.wearing(model, flat):
            expected += [world.worth(text, None) for text in answers(model, shared, some)]
    assert found.worth.tolist() == expected
    plain = measure(model, shared, of_devices(world, OWN))
    assert plain.worth[:2].tolist() == found.worth[:2].tolist()
    assert plain.worth.tolist() != expected, "the adapters answer alike: nothing is held"
    np.testing.assert_array_equal(adapters.read(model), base)
    seen = np.isin(np.concatenate(list(OWN.values())), (1, 3, 7))
    assert found.beside["accuracy familiar seen"] == pytest.approx(found.worth[seen].mean())
    assert {name.split()[1] for name in found.beside} == {"familiar", "qtype"}


def test_the_table_adds_up_what_each_device_is_worth_by_domain_and_familiarity(world):
    some, worth = of_devices(world, OWN), np.arange(7.0)
    found = table(some, OWN, worth, 4, "user")
    assert found["round"].unique().tolist() == [4]
    assert found.groupby("device")["worth"].sum().to_dict() == {0: 1.0, 2: 9.0, 5: 11.0}
    assert found.groupby("device")["items"].sum().to_dict() == {0: 2, 2: 3, 5: 2}
    of_two = some.test.iloc[2:5].assign(worth=worth[2:5], items=1)
    by_kind = of_two.groupby(["drift_domain", "familiar"], as_index=False)[["worth", "items"]].sum()
    mine = found[found["device"] == 2].reset_index(drop=True)
    pd.testing.assert_series_equal(mine["worth"], by_kind["worth"])
    assert mine["user"].unique().tolist() == [" ".join(sorted(set(of_two["user"].astype(str))))]
    assert table(some, OWN, worth, 4, "nobody")["user"].unique().tolist() == [""]
