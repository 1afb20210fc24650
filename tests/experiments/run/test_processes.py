"""A program that is killed leaves no child, and a wait that fails says what everybody said."""

import os
import sys

import psutil
import pytest

from cdc_flower.programs import free_port
from experiments.run.processes import Program, answers, silent, until

PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session=SESSION)
print("child", child.pid, flush=True)
time.sleep(600)
"""


def program(tmp_path, code, name="one"):
    return Program(name, [sys.executable, "-c", code], dict(os.environ), tmp_path / f"{name}.log")


@pytest.mark.parametrize(("end", "session"), [("kill", True), ("stop", False)])
def test_who_ends_takes_its_children_along(end, session, tmp_path):
    parent = program(tmp_path, PARENT.replace("SESSION", str(session))).start()
    try:
        until(lambda: "child" in parent.said() and parent.said().endswith("\n"), 60, "a child", [parent])
        child = int(parent.said().split()[1])
        assert {parent.pid, child} <= {p.pid for p in parent.family()}
        assert parent.memory() > 0
    finally:
        getattr(parent, end)()
    assert not parent.runs
    assert parent.code == (-9 if end == "kill" else -15)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_program_starts_again_and_its_log_goes_on(tmp_path):
    again = program(tmp_path, "print('here', flush=True)")
    assert (again.code, again.runs, again.stop(), again.kill()) == (None, False, None, None)
    for count in (1, 2):
        again.start()
        until(lambda: not again.runs, 60, "its end", [again])
        assert (again.starts, again.code, again.said()) == (count, 0, "here\n" * count)


def test_a_wait_that_fails_has_the_end_of_every_log(tmp_path):
    ended = program(tmp_path, "print('the reason'); raise SystemExit(3)").start()
    until(lambda: not ended.runs, 60, "its end", [ended])
    with pytest.raises(TimeoutError, match=r"not: a miracle\n.*one \(ended with 3\).*\nthe reason"):
        until(lambda: False, 0.1, "a miracle", [ended])


def test_a_superlink_that_ends_or_never_answers_is_told_apart():
    nobody = f"http://127.0.0.1:{free_port()}"
    assert not answers(nobody)
    assert silent(nobody, lambda: 3, 60) == "it ended with code 3"
    assert silent(nobody, lambda: None, 0.1) == "no answer in 0 s"
