"""The process of a SuperNode ends when its work does, with the code that it asks for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from clients.device.supernode import ended


@pytest.mark.parametrize(
    ("asked", "code"), [(SystemExit(), 0), (SystemExit(0), 0), (SystemExit(3), 3), (ValueError("odd"), 1)]
)
def test_the_code_is_what_was_asked_for(asked, code, capsys):
    def work():
        raise asked

    assert ended(work) == code
    assert ("ValueError: odd" in capsys.readouterr().err) == isinstance(asked, ValueError)


def test_words_in_the_place_of_a_code_are_said(capsys):
    assert ended(lambda: sys.exit("no such port")) == 1
    assert capsys.readouterr().err == "no such port\n"


def test_one_whose_main_thread_returns_ends_although_another_thread_lives():
    code = """
        import runpy, threading, time, flwr.supernode.cli as cli
        other = threading.Thread(target=time.sleep, args=(100,))
        cli.flower_supernode = lambda: (other.start(), print("over"))
        runpy.run_module("clients.device.supernode", run_name="__main__")
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout) == (1, "over\n"), found.stderr
