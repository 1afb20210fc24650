"""A comparison of four methods over two seeds, by the stand-in engine."""

from copy import deepcopy

import pytest

from experiments.report.summary import Comparison
from experiments.run import compare
from tests.experiments.conftest import ENGINE


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """`compared(settings, methods)`: the comparison, of two seeds, in a folder of its own."""

    def make(settings, methods) -> Comparison:
        folder = tmp_path_factory.mktemp("compared")
        (folder / "engine_of_reports.py").write_text(ENGINE)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(folder))
            own = {"progress": False, "plan": False, "engine": "engine_of_reports"}
            return compare.run(settings, methods, 2, folder / "out", 0, **own)

    return make


@pytest.fixture(scope="session")
def of_four(compared) -> Comparison:
    return compared({"run.rounds": 4, "run.devices": 2}, ("static", "cdc", "fedprox_lora", "fedavg_lora"))


@pytest.fixture
def comparison(of_four) -> Comparison:
    """Which a test may change."""
    return deepcopy(of_four)
