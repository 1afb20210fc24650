"""Side parameters need labels, as every training on them does."""

from __future__ import annotations

import pytest

from cdc_flower.wire import keys
from clients.inference import alone
from clients.spa import work

ORDER = {"epochs": 1, "batch": 4, "lr": 1e-2, "memory": 4, keys.FULL: False}


def test_without_leave_to_read_labels_nothing_is_learned(make_task):
    with pytest.raises(PermissionError, match="labels are for methods"):
        alone(work(make_task(order={**ORDER, keys.LABELS: "own"})))
    reply = alone(work(make_task(order={**ORDER, keys.LABELS: "true"})))
    assert reply[keys.METRICS][keys.EXAMPLES] == 6
