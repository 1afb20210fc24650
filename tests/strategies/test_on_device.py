"""Methods that share nothing: what a device learns is seen in its accuracy and is in no traffic."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower import results
from cdc_flower.config import parse
from strategies.method import method, methods
from strategies.on_device import OnDevice
from strategies.run import prepare, run_local

ALONE = [name for name, found in methods().items() if issubclass(found, OnDevice)]
LATER = ("finetune", "spa")  # as `local`, but for what is trained from what


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LATER else n for n in ALONE]
)
def test_each_device_has_an_adapter_of_its_own_that_no_message_of_the_method_holds(name, run_settings):
    settings = run_settings(method=name, rounds=2, eval_every=2, cohort=0.7)
    kept = []

    def look(stage, done, total):
        if stage == "rounds":
            kept.append(dict(playing.own))

    kind = method(name)
    built = kind.build
    playing = built(prepare(parse(settings)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "build", classmethod(lambda cls, setup: playing))
        found = results.read(run_local(parse(settings), look))
    assert set(found.devices["status"]) == {"ok"}
    assert found.devices[["uplink_bytes", "downlink_bytes"]].to_numpy().max() < 400
    assert (found.devices["flops_backward"] > 0).all()
    assert [len(own) for own in kept[:2]] == [0, 2]  # before round 1, and of the 2 that a round asks
    flats = list(playing.own.values())
    assert not any(np.array_equal(flat, playing.base) for flat in flats)
    assert len({flat.tobytes() for flat in flats}) == len(flats)
    assert playing.cloud_work(5) == playing.cloud_work(0)
    again = built(prepare(parse(settings)))
    again.load(playing.state())
    assert again.metrics == playing.metrics
    assert all(np.array_equal(again.adapter_of(d), playing.adapter_of(d)) for d in range(3))


def test_what_a_device_shows_is_asked_of_those_alone_whose_accuracy_is_shown(run_settings):
    playing = method("local").build(prepare(parse(run_settings(method="local"))))
    playing.shown = [0, 2]
    playing.fleet.nodes = {d: d + 10 for d in range(3)}
    playing.fleet._worked = dict.fromkeys(range(3), 1)
    asked = {m.metadata.dst_node_id: m.content["config"] for m in playing.configure_evaluate(1, *[None] * 3)}
    wanted = {node: order.get("held") for node, order in asked.items()}
    assert wanted == {10: len(playing.base), 11: None, 12: len(playing.base)}
