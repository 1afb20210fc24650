"""Counts add up, and come back from a reply."""

from __future__ import annotations

from flwr.app import MetricRecord

from cdc_flower.wire.counts import Counts


def test_counts_come_back_from_a_reply_and_add_up():
    one = Counts(1, 20, 16, 2, 0, 3)
    assert Counts.of(MetricRecord({"version": 1, **one.metrics()})) == one
    assert one + one * 2 == Counts(3, 60, 48, 6, 0, 9)
