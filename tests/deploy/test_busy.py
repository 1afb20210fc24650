"""An agent that is busy is ended by Ctrl-C within seconds: no traceback, nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cdc_flower.config import ConfigError, RunError
from cdc_flower.programs import free_port
from clients.device.ask import ask
from clients.device.settings import Bundle
from clients.device.spool import Spool
from experiments.controls.deployed import deployment
from experiments.run.processes import until

pytestmark = pytest.mark.slow
PATIENCE = 400.0  # s
ROWS = 150
SIDE = 64


@pytest.fixture
def device(settings, tmp_path):
    """A device with much to read, and a program that asks it all the time."""
    feed, rng = tmp_path / "feed", np.random.default_rng(0)
    feed.mkdir()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(feed / "x.png")
    row = json.dumps({"image": "x.png", "question": "what is there?"})
    (feed / "questions.jsonl").write_text(f"{row}\n" * ROWS)
    with deployment(tmp_path / "d") as fleet:
        own = {"feed": "folder", "feed_path": str(feed), "http_port": free_port()}
        fleet.provision(1, settings, device=own)
        (found,) = fleet.devices
        bundle, over, found.answered = Bundle.of(found.bundle), threading.Event(), [0]

        def asking():
            while not over.wait(0.01):
                try:
                    ask(bundle, feed / "x.png", "what color is it?")
                except (RunError, ConfigError):  # it is ended
                    continue
                found.answered[0] += 1

        program = threading.Thread(target=asking)
        program.start()
        try:
            yield found
        finally:
            over.set()
            program.join()


def spooled(device):
    """Question -> how many samples of it came, all of which still wait."""
    with device.database() as database:
        facts = Spool(database, 2000, 2**28).facts()
        rows = database.rows("SELECT question, count(*) FROM samples GROUP BY question")
        database.whole()
    found = Counter({q.splitlines()[0]: n for q, n in rows})
    assert facts.came == facts.waiting == found.total()
    return found


def fed(device):
    return spooled(device)["what is there?"]


def test_ctrl_c_while_it_answers(device):
    agent, before = device.agent, 0
    for signals in (1, 2):
        agent.start()
        until(lambda: "ready" in agent.said(), PATIENCE, "it is ready", [agent])
        until(lambda before=before: fed(device) > before, PATIENCE, "it reads", [agent])
        for _ in range(signals):
            os.kill(agent.pid, signal.SIGINT)
        until(lambda: not agent.runs, 60.0, "it ends", [agent])
        assert agent.code == 0
        before = fed(device)
        assert before < ROWS
        agent.log.rename(agent.log.with_suffix(f".{signals}"))
    said = "".join(path.read_text() for path in agent.log.parent.glob("agent-0.*"))
    assert "Traceback" not in said
    assert "ended after" in said
    agent.start()
    until(lambda: fed(device) == ROWS, PATIENCE, "all is read", [agent])
    until(lambda: device.answered[0], PATIENCE, "it answers", [agent])
    os.kill(agent.pid, signal.SIGTERM)
    until(lambda: not agent.runs, 60.0, "it ends", [agent])
    found = spooled(device)
    assert found["what is there?"] == ROWS
    assert found["what color is it?"] >= device.answered[0] > 0


def test_ctrl_c_while_it_loads(device):
    device.agent.start()
    until(lambda: device.agent.starts and _handles(device.agent.pid), PATIENCE, "it takes signals")
    os.kill(device.agent.pid, signal.SIGINT)
    until(lambda: not device.agent.runs, 120.0, "it ends", [device.agent])
    assert device.agent.code == 0
    assert "Traceback" not in device.agent.said()


def _handles(pid):
    """Whether a process has a handler of SIGTERM, as an agent that is asked to end cleanly has."""
    with open(f"/proc/{pid}/status") as file:
        caught = next(line for line in file if line.startswith("SigCgt")).split()[1]
    return int(caught, 16) >> (signal.SIGTERM - 1) & 1
