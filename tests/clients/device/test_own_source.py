"""Device work reads samples of the spool as it reads those of a simulation."""

import numpy as np
import pytest

from clients.device.own_source import OwnSource
from clients.device.spool import Spooled


@pytest.fixture
def source():
    tokens = np.ones((2, 3), np.float16)
    samples = [Spooled(f"question {i}", tokens * i, (2, 1, 2), "a", 0.5, b"p", "", i) for i in (7, 4)]
    return OwnSource(3, samples, 20, "nf4")


def test_items_are_numbers_of_samples_in_the_order_of_the_round(source):
    assert source.items(3).tolist() == [7, 4]
    assert source.items(3).dtype == source.items(2).dtype == np.int64
    assert source.items(2).tolist() == []
    assert source.question(4) == "question 4"
    assert source.tokens(4)[0, 0] == 4
    assert (source.grid(7).n, source.picture(7)) == (2, b"p")


def test_there_is_no_label(source):
    with pytest.raises(PermissionError, match="no labels on a device"):
        source.label(7)
