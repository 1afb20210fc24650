"""Evidence connects sources of one arm on one data set, by cells that were made with both."""

import pytest

from cdc_flower.config import ConfigError
from experiments.page import same
from experiments.page.plan import Cell

CDC = Cell("scenes", "", "cdc", 0)


def figures(source, **other):
    return {"digests": {"method": source}, "ledger_digest": "l", "items": {"a": "01"}, **other}


def test_sources_are_connected_through_one_another_and_in_both_directions(tmp_path):
    assert same.read(tmp_path) == []
    assert same.record(tmp_path, CDC, figures("a"), figures("b"))
    assert same.record(tmp_path, Cell("scenes", "", "cdc", 3), figures("c"), figures("b"))
    known = same.read(tmp_path)
    assert same.witness(known, CDC, "a", "c") == "scenes: cdc, seed 0, scenes: cdc, seed 3"
    assert same.witness(known, CDC, "c", "a") == "scenes: cdc, seed 3, scenes: cdc, seed 0"
    assert same.witness(known, CDC, "a", "d") == ""
    assert same.record(tmp_path, CDC, figures("a"), figures("c"))
    assert same.read(tmp_path) == known  # nothing new


def test_other_arms_and_other_data_ask_for_evidence_of_their_own(tmp_path):
    same.record(tmp_path, CDC, figures("a"), figures("b"))
    known = same.read(tmp_path)
    assert same.witness(known, Cell("scenes", "scenes-1", "cdc", 2), "a", "b")
    assert same.witness(known, Cell("scenes", "", "random tokens", 0), "a", "b") == ""
    assert same.witness(known, Cell("emoji", "", "cdc", 0), "a", "b") == ""


@pytest.mark.parametrize("other", [{"ledger_digest": "m"}, {"items": {"a": "10"}}, {"cloud_gflops": 1.0}])
def test_other_bits_are_no_evidence(tmp_path, other):
    assert not same.record(tmp_path, CDC, figures("a"), figures("b", **other))
    assert not same.record(tmp_path, CDC, figures("a", ledger_digest=None), figures("b", ledger_digest=None))
    assert {one.bits for one in same.read(tmp_path)} == {False}


def test_other_bits_on_another_processor_or_of_other_packages_say_nothing_of_the_source(tmp_path):
    here, there = {"torch": "2.13", "processor": "a"}, {"torch": "2.13", "processor": "b"}
    for then in ({}, {"versions": {"torch": "2.13"}}, {"versions": there}):
        was, now = figures("a", failures=1, **then), figures("b", versions=here)
        assert not same.record(tmp_path, CDC, was, now)
    assert same.read(tmp_path) == []
    assert same.record(tmp_path, CDC, figures("a", versions=there), figures("b", versions=here))
    assert [one.bits for one in same.read(tmp_path)] == [True]
    assert not same.record(
        tmp_path, CDC, figures("a", failures=1, versions=here), figures("b", versions=here)
    )
    assert [one.bits for one in same.read(tmp_path)] == [True, False]


def test_one_cell_with_other_bits_outweighs_those_with_the_same(tmp_path):
    same.record(tmp_path, CDC, figures("a"), figures("b"))
    same.record(tmp_path, CDC, figures("b"), figures("c"))
    same.record(tmp_path, CDC, figures("a"), figures("c", failures=1))
    known = same.read(tmp_path)
    assert [same.witness(known, CDC, "a", now) for now in "bc"] == ["", ""]
    same.record(tmp_path, CDC, figures("x"), figures("y"))
    assert same.witness(same.read(tmp_path), CDC, "x", "y") == "scenes: cdc, seed 0"


@pytest.mark.parametrize("text", ["{", '[{"arm": "cdc"}]', "[1]", '{"a": 1}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / same.FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"same\.json: cannot be read.*allowed: a file that `page` wrote"):
        same.read(tmp_path)
