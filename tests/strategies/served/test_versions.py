"""Versions are kept as second names of checkpoints, and asked for by a file."""

from __future__ import annotations

import os

import numpy as np
import pytest

from cdc_flower import checkpoint
from strategies.served import versions
from strategies.served.versions import RollbackError


class Saved:
    """A part that remembers what it was given."""

    def __init__(self):
        self.given = None

    def load(self, state):
        self.given = state

    def state(self):
        return {}


def made(run, version, round, most=20):
    value = np.array([version, round])
    checkpoint.save(run / "checkpoints", round, {name: {"x": value} for name in ("mirror", "cloud", "fleet")})
    versions.keep(run, version, round, most)


def test_the_newest_versions_are_kept_beyond_their_checkpoints_and_cost_no_second_copy(tmp_path):
    for version in range(6):
        made(tmp_path, version, 2 * version, most=3)
    assert {v: r for v, (_, r) in versions.kept(tmp_path).items()} == {3: 6, 4: 8, 5: 10}
    newest = checkpoint.path_of(tmp_path / "checkpoints", 10)
    assert os.path.samestat(newest.stat(), versions.kept(tmp_path)[5][0].stat())


def test_parts_are_put_back_and_the_others_left(tmp_path):
    made(tmp_path, 3, 7)
    parts = {name: Saved() for name in ("mirror", "cloud", "fleet")}
    versions.go_back(tmp_path, 3, parts)
    assert parts["mirror"].given["x"].tolist() == parts["cloud"].given["x"].tolist() == [3, 7]
    assert parts["fleet"].given is None


def test_the_line_that_was_left_goes_when_its_numbers_come_again(tmp_path):
    for version in range(5):
        made(tmp_path, version, version)
    assert list(versions.kept(tmp_path)) == [0, 1, 2, 3, 4]
    made(tmp_path, 2, 9)  # after a rollback to 1
    assert {v: r for v, (_, r) in versions.kept(tmp_path).items()} == {0: 0, 1: 1, 2: 9}


def test_what_cannot_be_gone_back_to_says_why(tmp_path):
    made(tmp_path, 1, 1)
    parts = {name: Saved() for name in ("mirror", "cloud", "guard")}
    with pytest.raises(RollbackError, match="version 2 is not kept; kept: 1"):
        versions.go_back(tmp_path, 2, parts)
    with pytest.raises(RollbackError, match="'guard'"):
        versions.go_back(tmp_path, 1, parts)
    with pytest.raises(RollbackError, match="no part 'cloud'"):
        versions.go_back(tmp_path, 1, {"mirror": Saved()})
    versions.kept(tmp_path)[1][0].write_bytes(b"x")
    with pytest.raises(RollbackError, match="fewer than a head"):
        versions.go_back(tmp_path, 1, {"mirror": Saved(), "cloud": Saved()})


def test_a_request_is_a_file_and_what_is_none_is_removed(tmp_path):
    assert versions.requested(tmp_path) is None
    versions.request(tmp_path, 4)
    assert versions.requested(tmp_path) == 4
    versions.forget(tmp_path)
    versions.forget(tmp_path)
    assert versions.requested(tmp_path) is None
    for text in ('{"version": "x"', '{"version": 1e999}', '{"version": NaN}', "[" * 10**5, "3", "{}"):
        (tmp_path / "rollback.json").write_text(text)
        assert versions.requested(tmp_path) is None
        assert not (tmp_path / "rollback.json").exists()


def test_a_request_is_on_the_disk_when_it_is_made(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(os, "fsync", kept.append)
    versions.request(tmp_path, 4)
    assert len(kept) == 2  # the file and its folder
