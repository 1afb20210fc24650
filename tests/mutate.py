"""Planted bugs: does the default tier notice a plausible mistake in a central function?

`tests/mutations.toml` lists them: a file, a piece of its text that stands there once, what is written
instead, why that is plausible, and the tests that must fail then. Each bug is put into a copy of the source
tree, and its tests run there. Libraries are imported once; each bug has a process that is forked from that.

    python -m tests.mutate            # all: a table, exit code 1 where one is not caught
    python -m tests.mutate wire cloud # those whose name or file has one of these words in it
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutations.toml")
PARTS = ("cdc_flower", "strategies", "clients", "experiments", "tests", "docs", "pyproject.toml", "README.md")
LIMIT = 300  # s of one bug's tests
OURS = {"cdc_flower", "strategies", "clients", "experiments", "tests"}
HEAVY = ("strategies.run", "clients.client_app", "experiments.run.compare", "matplotlib.figure")


@dataclass(frozen=True)
class Bug:
    """A planted bug: `old`, which stands once in `file`, becomes `new`, and one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: list[str]

    def planted(self, root: Path = ROOT) -> str:
        """The text of the file with the bug.

        Raises:
            ValueError: `old` is not there, or not once, or the bug changes nothing.
        """
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: {self.old!r} stands {text.count(self.old)} times in {self.file}")
        for test in self.tests:
            if not (root / test.partition("::")[0]).is_file():
                raise ValueError(f"{self.name}: no such test file as {test}")
        return text.replace(self.old, self.new)


def listed() -> list[Bug]:
    """All planted bugs of the list."""
    return [Bug(**bug) for bug in tomllib.loads(LIST.read_text(encoding="utf-8"))["bug"]]


def caught(bug: Bug, copy: Path) -> str | None:
    """The first test that fails with the bug in the tree `copy`; None where all pass.

    Raises:
        RuntimeError: the tests could not be run.
    """
    clean = (copy / bug.file).read_text(encoding="utf-8")
    planted = bug.planted(copy)
    try:
        (copy / bug.file).write_text(planted, encoding="utf-8")
        return failing(bug.tests, copy)
    finally:
        (copy / bug.file).write_text(clean, encoding="utf-8")


def failing(tests: list[str], copy: Path) -> str | None:
    """The first of the tests that fails in the tree `copy`; None where all pass.

    Raises:
        RuntimeError: they could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        report, log = Path(folder) / "failed", Path(folder) / "log"
        child = os.fork()
        if child == 0:
            _run(tests, copy, report, log)
        deadline, ended, status = time.monotonic() + LIMIT, 0, 0
        while not ended:
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return f"ran past {LIMIT} s"
            time.sleep(0.05)
            ended, status = os.waitpid(child, os.WNOHANG)
        if report.exists():
            return report.read_text() or None
        said = log.read_text(errors="replace") if log.exists() else ""
        raise RuntimeError(f"{' '.join(tests)} could not be run, status {status}:\n{said[-2000:]}")


def _run(tests: list[str], copy: Path, report: Path, log: Path) -> None:
    """In a process of its own: run pytest in the tree `copy`, write the name of what failed, and end."""
    try:
        os.setsid()
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(copy)
        sys.dont_write_bytecode = True  # a bug of the same length in the same second would not be read
        sys.path[:] = [str(copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
        for name in [n for n in sys.modules if n.partition(".")[0] in OURS]:
            del sys.modules[name]
        import pytest

        failed: list[str] = []

        class Names:
            """Keeps what failed."""

            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed:
                    failed.append(report.nodeid)

            def pytest_collectreport(self, report: pytest.CollectReport) -> None:
                if report.failed:
                    failed.append(f"{report.nodeid} cannot be imported")

        known = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of libraries that are loaded already
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *known, *tests], plugins=[Names()])
        if code == 0 or failed:
            report.write_text(failed[0] if failed else "")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main(words: list[str]) -> int:
    """Run the bugs whose name or file has one of the words in it; 1 where one is not caught."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for module in HEAVY:  # for the libraries that they import; of ours each process loads the copy's
        import_module(module)
    bugs = [b for b in listed() if not words or any(w in b.name or w in b.file for w in words)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for part in PARTS:
            source = ROOT / part
            ignored = shutil.ignore_patterns("__pycache__")
            _ = (
                shutil.copytree(source, copy / part, ignore=ignored)
                if source.is_dir()
                else shutil.copy(source, copy)
            )
        for bug in bugs:
            began = time.monotonic()
            by = caught(bug, copy)
            missed += by is None
            say = f"| {bug.name} | {bug.file} | {by or 'NOT CAUGHT'} | {time.monotonic() - began:.0f} s |"
            print(say, flush=True)  # noqa: T201
    print(f"{len(bugs) - missed} of {len(bugs)} caught")  # noqa: T201
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
