"""The probe of the compressions: students of every compression wear every adapter, and one wears none."""

from __future__ import annotations

from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.models.student import twin_model
from experiments.probes import probe
from strategies.accuracy import accuracy


def quiet(stage: str, done: int, total: int) -> None:
    pass


def test_devices_of_every_compression_wear_every_adapter(run_settings, shared):
    config = parse(run_settings(rounds=2, **{"cloud.lr": 0.05}))
    found = probe.run("compressions", config, 1, quiet)
    worn = ["none, as shipped", "for int4", "for nf4", "for int8", "for none"]
    pairs = list(zip(found["arm"], found["student"], strict=True))
    assert list(dict.fromkeys(pairs)) == [(a, s) for s in ("int4", "nf4", "int8", "none") for a in worn]
    assert found["accuracy"].between(0, 1).all()
    assert not found.duplicated(["arm", "student", "domain"]).any()
    shown = probe.means(found)
    assert len(shown) == 20
    assert "bytes" not in shown
    assert len(probe.table(found).rows) == 20
    world = load_world(config, shared)
    shipped = accuracy(
        twin_model(shared, config.pair), shared, world
    )  # version 0, whatever the run has left on
    mine = found[(found["arm"] == "none, as shipped") & (found["student"] == "nf4")]
    assert dict(zip(mine["domain"], mine["accuracy"], strict=True)) == shipped
