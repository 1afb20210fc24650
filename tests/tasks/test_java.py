"""METEOR and SPICE are computed where Java and pycocoevalcap are, and are otherwise said not to be."""

import pytest

from cdc_flower.tasks import TASKS, Truth, java

TRUTHS = [Truth("x", ("a man rides a red bike",)), Truth("x", ("two dogs on a bench",))]


def test_without_java_nothing_is_computed(monkeypatch):
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    beside = TASKS["captions"].beside
    assert beside["METEOR"](["a man"] * 2, TRUTHS) is None
    assert beside["SPICE"](["a man"] * 2, TRUTHS) is None


def test_without_the_parser_spice_is_not_computed_and_nothing_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(java, "folder", lambda: tmp_path)
    assert java.spice(["a man"], [["a man"]]) is None


def test_meteor_is_that_of_pycocoevalcap():
    pytest.importorskip("pycocoevalcap")
    if java.folder() is None:
        pytest.skip("no Java")
    meteor = TASKS["captions"].beside["METEOR"]
    assert meteor(["A man rides a red bike.", "two dogs on a bench"], TRUTHS) == pytest.approx(1.0)
    assert 0 < (meteor(["a man on a bike", "dogs"], TRUTHS) or 0) < 0.7
