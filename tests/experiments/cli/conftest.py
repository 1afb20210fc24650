"""Bad input is one line on standard error and exit code 2, for every command."""

import pytest


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
