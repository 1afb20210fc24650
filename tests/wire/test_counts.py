"""Counts add up, and what a device says in another form counts nothing."""

from __future__ import annotations

import pytest
from flwr.app import MetricRecord

from cdc_flower.wire.counts import MOST, Counts


def test_counts_come_back_from_a_reply_and_add_up():
    one = Counts(1, 20, 16, 2, 0, 3)
    assert Counts.of(MetricRecord({"version": 1, **one.metrics()})) == one
    assert one + one * 2 == Counts(3, 60, 48, 6, 0, 9)


@pytest.mark.parametrize("said", [None, 7, [1, 2], [1.5] * 6, [-1, 0, 0, 0, 0, 0], [MOST + 1, 0, 0, 0, 0, 0]])
def test_another_form_counts_nothing(said):
    assert Counts.of({} if said is None else {"counts": said}) == Counts()
