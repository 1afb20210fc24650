"""Whose test items are whose."""

import numpy as np
import pandas as pd
import pytest

from cdc_flower.config import ConfigError
from cdc_flower.data.own import owners

TRAIN = pd.DataFrame({"user": ["a", "b", "a", "c"]})
TEST = pd.DataFrame({"user": ["c", "a", "b", "a", "d"]})


def test_a_device_has_the_items_of_all_its_users_and_of_no_others():
    found = owners(TRAIN, [np.array([0, 2]), np.array([1, 3]), np.array([], int)], TEST, "user")
    assert [found.items(device).tolist() for device in range(3)] == [[1, 3], [0, 2], []]


def test_users_without_a_held_out_item_are_refused_naming_the_setting():
    with pytest.raises(ConfigError, match="'data.tested' = 'own': nobody .*allowed: all"):
        owners(TRAIN, [np.arange(4)], TEST.iloc[4:], "user")
