"""Claims about the ledger: one row for each device and round, in one order, summed exactly."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.ledger import COLUMNS, INTEGERS, STATUSES, SUMMED, Ledger, Row

COUNT = st.integers(0, 2**60)
ROWS = st.lists(
    st.builds(
        Row,
        round=st.integers(1, 5),
        device=st.integers(0, 5),
        status=st.sampled_from(STATUSES),
        uplink_bytes=COUNT,
        flops_forward=COUNT,
        host_seconds=st.floats(0, 10),
        reason=st.text(max_size=5),
    ),
    unique_by=lambda r: (r.round, r.device),
    max_size=12,
)


@given(ROWS, st.randoms())
def test_the_order_of_entry_does_not_matter(rows, random):
    one = Ledger(rows)
    mixed = list(rows)
    random.shuffle(mixed)
    two = Ledger(mixed)
    assert one.digest() == two.digest()
    assert one.frame().equals(two.frame())
    assert one.totals() == two.totals() | {"host_seconds": one.totals()["host_seconds"]}


def test_rows_are_in_the_order_of_numbers_not_of_their_digits():
    keys = [(2, 3), (2, 20), (10, 1), (10, 11)]
    rows = Ledger(Row(round=r, device=d) for r, d in reversed(keys)).rows()
    assert [(row.round, row.device) for row in rows] == keys


@given(ROWS)
def test_totals_are_the_sums_of_the_frame(rows):
    ledger = Ledger(rows)
    table, totals = ledger.frame(), ledger.totals()
    assert list(table.columns) == list(COLUMNS)
    assert len(ledger) == len(table)
    for name in SUMMED:
        assert totals[name] == sum(int(v) for v in table[name])
    for status in STATUSES:
        assert totals[status] == (table["status"] == status).sum()
    keys = list(zip(table["round"], table["device"], strict=True))
    assert keys == sorted(keys)


@given(ROWS)
def test_a_ledger_comes_back_from_its_frame(rows):
    ledger = Ledger(rows)
    back = Ledger.from_frame(ledger.frame())
    assert back.rows() == ledger.rows()
    assert back.digest() == ledger.digest()


@pytest.mark.parametrize("name", [c for c in COLUMNS if c not in ("host_seconds", "reason")])
def test_the_digest_sees_every_column(name):
    row = Row(1, 2, "ok", 3, 4, 5, 6, 7, 8, 0.5)
    other = dataclasses.replace(row, **{name: "failed" if name == "status" else getattr(row, name) + 1})
    assert Ledger([row]).digest() != Ledger([other]).digest()


def test_the_digest_sees_neither_host_seconds_nor_reasons():
    assert Ledger([Row(1, 0, host_seconds=1)]).digest() == Ledger([Row(1, 0, host_seconds=2)]).digest()
    assert Ledger([Row(1, 0, reason="a")]).digest() == Ledger([Row(1, 0, reason="b")]).digest()


def test_a_ledger_of_an_older_version_comes_back_without_reasons():
    ledger = Ledger([Row(1, 0, "failed", 3), Row(1, 1)])
    back = Ledger.from_frame(ledger.frame().drop(columns="reason"))
    assert back.rows() == ledger.rows()


def test_a_device_is_counted_once_in_a_round():
    ledger = Ledger([Row(1, 3)])
    ledger.add(Row(2, 3))
    with pytest.raises(ValueError, match="device 3 already has a row in round 2"):
        ledger.add(Row(2, 3, "failed"))


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("bad", [-1, 0.5, True, 2**63])
def test_counts_are_integers_from_zero(name, bad):
    with pytest.raises(ValueError, match=name):
        Row(**({"round": 1, "device": 0} | {name: bad}))


def test_an_unknown_status_is_named():
    with pytest.raises(ValueError, match="allowed: ok, refused, failed, missing"):
        Row(1, 0, "late")


def test_an_empty_ledger_has_zero_totals():
    assert set(Ledger().totals().values()) == {0}
    assert Ledger().frame().empty


def test_rows_are_also_given_in_the_order_of_entry():
    ledger = Ledger([Row(2, 0), Row(1, 1), Row(1, 0)])
    assert [(r.round, r.device) for r in ledger.entered(1)] == [(1, 1), (1, 0)]
    assert ledger.entered(3) == []
