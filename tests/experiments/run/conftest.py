"""`run(...)`: a small comparison by the stand-in engine."""

import pytest

from experiments.run import compare
from tests.conftest import full

THREE = ("static", "cdc", "fedprox_lora")


@pytest.fixture
def run(engine, tmp_path):
    def call(methods=THREE, seeds=1, workers=0, out=tmp_path / "out", **settings):
        own = ("resume", "replace", "plan", "progress")
        options = {"plan": False, "progress": False, **{k: settings.pop(k) for k in own if k in settings}}
        base = {"run.rounds": 4, "run.devices": 2, **full(settings)}
        return compare.run(base, methods, seeds, out, workers, engine=engine, **options)

    return call
