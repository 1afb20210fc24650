"""Lies are drawn from a seed, change what they say they change, and leave the honest reply alone."""

from random import Random

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict

from cdc_flower.wire import frame, keys
from cdc_flower.wire.messages import copied, message_bytes, payload
from experiments.controls.lies import PLAUSIBLE, REFUSED

EVERY = {**REFUSED, **PLAUSIBLE}


def honest(kind: str) -> RecordDict:
    metrics = MetricRecord({keys.VERSION: 1, keys.COUNTS: [1, 2, 3], keys.SECONDS: 0.5})
    config = ConfigRecord({keys.DIGEST: b"12345678", keys.ANSWERS: ["red", "two"]})
    weights = ArrayRecord({keys.PAYLOAD: Array(np.ones(5, np.float16))})
    body = payload(frame.pack(frame.Kind.TOKEN_BATCH, b"abc", b"defg")) if kind == "frame" else weights
    return RecordDict({keys.METRICS: metrics, keys.CONFIG: config, keys.ARRAYS: body})


def written(said) -> str:
    if isinstance(said, Error):
        return f"{said.code} {said.reason}"
    return repr({n: [(k, getattr(v, "__dict__", v)) for k, v in r.items()] for n, r in said.items()})


@pytest.mark.parametrize("kind", ["frame", "weights"])
@pytest.mark.parametrize("name", EVERY)
def test_a_lie_differs_from_the_truth_and_is_the_same_for_the_same_seed(name, kind):
    truth, lies = honest(kind), []
    for seed in range(40):
        said = EVERY[name](Random(seed), copied(truth))
        again = EVERY[name](Random(seed), copied(truth))
        if said is None:
            assert again is None
            continue
        assert written(said) == written(again)
        lies.append(said)
    assert written(truth) == written(honest(kind))  # what is handed in was a copy
    told = [lie for lie in lies if written(lie) != written(truth)]
    assert bool(told) == (name != "the_truth" and (name, kind) != ("damaged", "weights"))


def test_a_lie_goes_over_the_wire():
    """Nothing is told that Flower's protobuf could not carry."""
    for name, lie in EVERY.items():
        for seed in range(20):
            said = lie(Random(seed), honest("frame"))
            assert said is None or isinstance(said, Error) or message_bytes(said) >= 0, name
