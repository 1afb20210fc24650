"""Partitions: every row has one device, and a seed decides which."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.partition import hold_out, partition
from tests.data.frames import frame


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["iid", "natural", "dirichlet"]), st.integers(1, 6), st.integers(0, 2**31 - 1))
def test_every_row_belongs_to_exactly_one_device(kind, devices, seed):
    rows = frame(120)
    data = parse({"data.partition": kind, "data.dirichlet-alpha": 5.0}).data
    parts = partition(rows, data, devices, seed)
    assert len(parts) == devices
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(120))
    assert all(part.dtype == np.int64 and len(part) for part in parts)
    again = partition(rows, data, devices, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("kind", ["iid", "natural", "dirichlet"])
def test_another_seed_is_another_partition(kind):
    data = parse({"data.partition": kind}).data
    first, second = (partition(frame(users=40), data, 5, seed) for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("devices", [1, 3, 7, 10])
def test_natural_devices_get_whole_users_in_even_groups(devices):
    rows = frame(users=10)
    parts = partition(rows, parse({"data.partition": "natural"}).data, devices, 0)
    users = [set(rows["user"].iloc[part]) for part in parts]
    assert sum(map(len, users)) == 10, "no user is on two devices"
    assert max(map(len, users)) - min(map(len, users)) <= 1


def test_iid_devices_are_equally_large():
    sizes = [len(part) for part in partition(frame(242), parse({}).data, 5, 0)]
    assert max(sizes) - min(sizes) <= 1


def test_a_small_alpha_makes_devices_of_one_kind():
    rows = frame(1200)
    by = {"data.partition": "dirichlet", "data.partition-by": "concept"}

    def largest_share(alpha: float) -> float:
        parts = partition(rows, parse(by | {"data.dirichlet-alpha": alpha}).data, 4, 3)
        return float(np.mean([Counter(rows["concept"].iloc[p]).most_common(1)[0][1] / len(p) for p in parts]))

    assert largest_share(0.2) > largest_share(100.0) + 0.15


@pytest.mark.parametrize(
    ("settings_", "devices", "named"),
    [
        ({"data.partition": "natural"}, 7, ["devices", "7", "6 values", "at most 6"]),
        (
            {"data.partition": "natural", "data.partition-by": "city"},
            2,
            ["data.partition-by", "city", "concept, qtype"],
        ),
        ({}, 241, ["devices", "241", "240"]),
        (
            {"data.partition": "dirichlet", "data.dirichlet-alpha": 1e-3},
            100,
            ["data.dirichlet-alpha", "100 devices", "larger"],
        ),
    ],
)
def test_an_impossible_partition_is_refused(settings_, devices, named):
    with pytest.raises(ConfigError) as error:
        partition(frame(), parse(settings_).data, devices, 0)
    for part in named:
        assert part in str(error.value)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 99),
)
def test_held_out_rows_share_no_picture_with_the_others(ids, share, seed):
    rows = pd.DataFrame({"image_id": [f"p{i}" for i in ids], "n": range(len(ids))})
    train, test = hold_out(rows, share, seed)
    assert not set(train["image_id"]) & set(test["image_id"])
    assert sorted([*train["n"], *test["n"]]) == list(range(len(ids)))
    assert len(train)
    assert len(test)


@pytest.mark.parametrize("kind", ["natural", "dirichlet"])
def test_rows_without_a_value_belong_to_a_device_too(kind):
    frame = pd.DataFrame({"rate": [0.5, np.nan] * 20})
    data = parse({"data.partition": kind, "data.partition-by": "rate"}).data
    parts = partition(frame, data, 2, seed=0)
    assert sorted(np.concatenate(parts)) == list(range(40))
