"""A comparison of four methods over two seeds, by the stand-in engine."""

import pytest

from experiments.run import compare


@pytest.fixture
def comparison(engine, tmp_path):
    return compare.run(
        {"run.rounds": 4, "run.devices": 2},
        ("static", "cdc", "fedprox_lora", "fedavg_lora"),
        2,
        tmp_path / "out",
        0,
        progress=False,
        engine=engine,
    )
