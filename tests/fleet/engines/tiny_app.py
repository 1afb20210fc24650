"""A ClientApp of a few lines, which workers of a FleetGrid import by name."""

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"partition-id": 1})}), reply_to=message)


@app.train()
def train(message, context):
    """Counts its calls in the state, adds its device to what it was sent, and fails as the config says."""
    device, config = context.node_config["partition-id"], message.content["config"]
    seen = int(context.state.metric_records.get("seen", MetricRecord({"n": 0}))["n"]) + 1
    context.state["seen"] = MetricRecord({"n": seen})
    config["changed"] = True
    if "log" in config:
        with Path(config["log"]).open("a") as log:
            log.write(f"{device}\n")
    if config.get("raise"):
        raise RuntimeError("no battery")
    if config.get("forget"):
        del context.state["seen"]
    if config.get("die") == "always":
        os._exit(1)
    if config.get("die") == "once":
        mark = Path(f"{config['log']}.died")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
    time.sleep(float(config.get("sleep", 0)))
    values = message.content["arrays"]["w"].numpy() if "arrays" in message.content else np.zeros(2)
    metrics = {"seen": seen, "device": device, "lr": float(context.run_config["lr"]), "num-examples": 1}
    arrays = ArrayRecord({"w": Array(values + device)})
    return Message(RecordDict({"metrics": MetricRecord(metrics), "arrays": arrays}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "acc": 0.5})}), reply_to=message)


def bundle(messages, contexts):
    """All of them in one call; says how many came together."""
    replies = [train(m, c) for m, c in zip(messages, contexts, strict=True)]
    for reply in replies:
        reply.content["metrics"]["together"] = len(messages)
    return replies


def broken(messages, contexts):
    raise LookupError("a bundle function with a bug")
