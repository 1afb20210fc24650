"""A bundle gives each device the reply, byte for byte, that it gives alone."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from cdc_flower.downlink.versions import Mirror
from cdc_flower.fleet.engines.local_grid import identify, node_id
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.messages import attempt, payload
from clients import bundle
from clients.client_app import app
from clients.task import resident

ROUNDS = (
    (1, "train", "clients.cdc:work"),
    (2, "train", "clients.cdc:work"),
    (2, "evaluate", ""),
    (3, "query", ""),
    (3, "train", "clients.static:work"),
)


def said(reply: Message) -> tuple:
    """All of a reply but for how long this machine took."""
    if reply.has_error():
        return reply.error.code, reply.error.reason
    metrics = reply.content.metric_records.get(keys.METRICS, {})
    frame = reply.content.array_records.get(keys.ARRAYS)
    config = reply.content.config_records.get(keys.CONFIG)
    return (
        {k: v for k, v in metrics.items() if k != keys.SECONDS},
        frame[keys.PAYLOAD].data if frame else b"",
        dict(config) if config else {},
    )


@pytest.mark.parametrize("compression", ["nf4", "int8"])
def test_devices_of_several_versions_one_of_which_fails(make_task, run_settings, compression):
    devices, version = 5, {0: 0, 1: 1, 2: 2, 3: 0, 4: 2}
    settings = run_settings(devices=devices, fail_devices="2:3", out_dir="", compression=compression)
    task = make_task(devices=devices, compression=compression)
    student = resident(task.shared, task.config.pair)
    mirror = Mirror(student.initial.flat, student.layout, "fp16", 10_000, 4)
    line = {0: None}
    for v in (1, 2):
        rng = np.random.default_rng(v)
        mirror.advance(mirror.adapter(v - 1) + rng.normal(0, 0.01, len(student.initial.flat)).astype("f4"))
        line[v] = mirror.frame_for(0)
    identify()

    def run(together: bool):
        contexts = [
            Context(1, 1, {"partition-id": d, "num-partitions": devices}, RecordDict(), dict(settings))
            for d in range(devices)
        ]
        rounds = []
        for round, kind, works in ROUNDS:
            messages = []
            for d in range(devices):
                order = ConfigRecord({keys.WORK: works, keys.ROUND: round, keys.VERSION: version[d]})
                content = RecordDict({keys.CONFIG: order})
                if round == 1 and line[version[d]]:
                    content[keys.ARRAYS] = payload(line[version[d]])
                messages.append(Message(content, dst_node_id=node_id(d), message_type=kind))
            if together:
                replies = bundle.run(messages, contexts)
            else:
                replies = [attempt(app, m, c) for m, c in zip(messages, contexts, strict=True)]
            rounds.append([said(r) for r in replies])
        return rounds, [{k: dict(r) for k, r in c.state.items()} for c in contexts]

    together, apart = run(True), run(False)
    assert together == apart
    replies, states = together
    assert replies[1][3][0] == 2
    assert "device 3 fails in round 2" in replies[1][3][1]
    assert states[3]["said"]["server-round"] == 3
    assert [replies[1][d][0][keys.VERSION] for d in (0, 1, 2, 4)] == [0, 1, 2, 2]
    assert all(r[0][keys.UPLOADED] for r in replies[0])
    assert replies[3][4][0] == {keys.DEVICE: 4}


def test_every_work_reports_its_seconds_and_its_decoded_tokens(run_settings, make_task):
    settings = run_settings(devices=2, out_dir="")
    make_task(devices=2)  # its source is there
    identify()
    contexts = [Context(1, 1, {"partition-id": d}, RecordDict(), dict(settings)) for d in (0, 1)]
    order = ConfigRecord({keys.WORK: "clients.cdc:work", keys.ROUND: 1, keys.VERSION: 0})
    content = RecordDict({keys.CONFIG: order})
    messages = [Message(content, dst_node_id=d + 5, message_type="train") for d in (0, 1)]
    replies = bundle.run(messages, contexts)
    for reply in replies:
        assert 0 < reply.content["metrics"][keys.SECONDS] < 60
        assert 6 <= Counts.of(reply.content["metrics"]).decoded <= 18
