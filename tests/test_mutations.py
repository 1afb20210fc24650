"""The list of planted bugs fits the source, and every one of them is caught."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.mutate import ROOT, listed

BUGS = listed()


def test_the_list_is_long_and_reaches_over_the_whole_product():
    assert len(BUGS) >= 40
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert {bug.file.partition("/")[0] for bug in BUGS} == {
        "cdc_flower",
        "strategies",
        "clients",
        "experiments",
    }
    assert all(len(bug.why) > 5 and bug.tests for bug in BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_planted_bug_can_be_planted(bug):
    compile(bug.planted(), bug.file, "exec")


@pytest.mark.parametrize("old", ["no such text", "import "])
def test_a_bug_whose_text_is_not_there_once_is_refused(old):
    with pytest.raises(ValueError, match=r"stands (0|\d+) times in"):
        replace(BUGS[0], old=old).planted()


def test_a_bug_without_its_test_file_is_refused():
    with pytest.raises(ValueError, match="no such test file"):
        replace(BUGS[0], tests=["tests/test_nothing.py"]).planted()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_planted_bug_is_caught():
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutate"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
