import sys

import pytest

from experiments.bench import plan
from experiments.run.plan import Engine

HELD = "import numpy, time; x = numpy.ones(10_000_000); print('ready', flush=True); time.sleep(0.3)"
TWO = (
    "import subprocess, sys\n"
    f"two = [subprocess.Popen([sys.executable, '-c', {HELD!r}]) for _ in '12']\n"
    "[one.wait() for one in two]"
)


def test_the_memory_of_a_command_and_its_children_is_measured_at_its_peak(tmp_path):
    one = plan.measured([sys.executable, "-c", HELD], tmp_path / "a.log")
    two = plan.measured([sys.executable, "-c", TWO], tmp_path / "b.log")
    assert 80e6 < one.anonymous < 160e6
    assert two.anonymous > 1.7 * one.anonymous
    assert two.mapped < 2 * one.mapped  # files are shared


def test_a_command_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match="no such thing"):
        plan.measured([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path / "a.log")


def test_cases_can_be_planned(tmp_path):
    pair = plan.write_pair(tmp_path / "pair", hidden=64, layers=2)
    found = {case.name: plan.planned(case, pair) for case in plan.CASES}
    assert len(found) >= 6
    assert {case.engine for case in plan.CASES} <= {"compare", "local"}
    assert all(made.ram > 500e6 for made in found.values())
    (two,) = [c for c in plan.CASES if c.workers == 2 and not c.large]
    assert sum(p.count for p in found[two.name].processes) == 3
    assert Engine("compare", 2) == Engine(two.engine, two.workers)
