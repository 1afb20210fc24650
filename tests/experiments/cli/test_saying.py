"""Claims about lines for people."""

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from experiments.cli.saying import say

CLI = Path(__file__).parents[3] / "experiments" / "cli"
WORDS = " ".join(["of 4 device-tasks 0 failed"] * 8)


def test_a_pipe_gets_the_whole_line(capsys):
    say(WORDS)
    say("two\nlines", err=True)
    assert capsys.readouterr() == (f"{WORDS}\n", "two\nlines\n")


@pytest.mark.parametrize("err", [False, True])
def test_a_terminal_gets_lines_of_its_width_and_no_word_is_torn(monkeypatch, err):
    monkeypatch.setenv("COLUMNS", "60")
    ours, theirs = pty.openpty()
    path = "/a/path/" + "x" * 80
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr" if err else "stdout", terminal)
        say(f"{WORDS}\nrun folder: {path}", err)
    shown = os.read(ours, 4096).decode().split("\r\n")
    os.close(ours)
    assert path in shown
    assert max(len(line) for line in shown if line != path) <= 60
    assert " ".join(" ".join(shown).split()) == f"{WORDS} run folder: {path}"


def test_what_programs_read_is_never_wrapped():
    found = {
        p.name: re.findall(r"\bsay\(\s*(?:json\.|\w+\.markdown)", p.read_text()) for p in CLI.glob("*.py")
    }
    assert {name: calls for name, calls in found.items() if calls} == {}
