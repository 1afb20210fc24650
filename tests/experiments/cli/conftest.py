"""Bad input is one line on standard error and exit code 2, for every command."""

import threading

import pytest

from cdc_flower.lock import locked


@pytest.fixture
def refused(command, tmp_path, monkeypatch):
    """`refused("simulate", ...)` -> the line on standard error, the only one."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code, out, err = command(*arguments)
        (line,) = [line for line in err.splitlines() if not line.startswith("preset ")]
        assert (code, out) == (2, "")
        return line.removeprefix("error: ")

    return call


@pytest.fixture
def taken():
    """`taken(folder)`: from now on somebody else holds the lock of the folder."""
    held, done = threading.Event(), threading.Event()
    threads = []

    def call(folder):
        def hold():
            with locked(folder):
                held.set()
                done.wait()

        threads.append(threading.Thread(target=hold))
        threads[-1].start()
        assert held.wait(120)

    yield call
    done.set()
    for thread in threads:
        thread.join()
