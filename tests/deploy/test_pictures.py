"""No byte of a picture leaves a device: what passed the wire in clear is searched for it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from cdc_flower.programs import free_port
from cdc_flower.wire.messages import frame_of, state_of
from experiments.controls.deployed import deployment
from experiments.run.processes import Program, until

PATIENCE = 400.0  # s
WINDOW, STEP = 12, 7  # bytes that are looked for, and from one to the next
PICTURES, SIDE = 6, 48


def feed(folder):
    """Pictures of noise, which no coder makes small, and two questions about each."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir()
    pixels = []
    for number in range(PICTURES):
        pixels.append(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
        Image.fromarray(pixels[-1]).save(folder / f"{number}.png")
        rows += [{"image": f"{number}.png", "question": q} for q in ("what is there?", "what color is it?")]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pixels


def windows(data):
    return (data[at : at + WINDOW] for at in range(0, len(data) - WINDOW, STEP))


@pytest.mark.slow
def test_no_byte_of_a_picture_is_on_the_wire(settings, tmp_path):
    pixels = feed(tmp_path / "feed")
    port, at, record = free_port(), free_port(), tmp_path / "wire"
    few = {"run.samples-per-round": 6, "pair.max-answer-tokens": 3, "cloud.confidence": 0.0}
    own = {"feed": "folder", "feed_path": str(tmp_path / "feed")}
    with deployment(tmp_path / "d") as fleet:
        cloud = {"port": port, "insecure": True, "last_round": 2}
        fleet.provision(1, {**settings, **few}, cloud, own, [f"127.0.0.1:{at}"])
        link = [sys.executable, "-m", "experiments.controls.link", "--listen", f"127.0.0.1:{at}"]
        link += ["--to", f"127.0.0.1:{port}", "--record", str(record)]
        line = Program("link", link, fleet.environment, tmp_path / "link.log")
        device = fleet.devices[0]
        device.node.command = [*device.node.command, "--insecure"]
        try:
            for program in (line, fleet.cloud, device.agent):
                program.start()
            until(lambda: "ready" in device.agent.said(), PATIENCE, "the agent is ready", fleet.programs)
            device.node.start()
            until(lambda: not fleet.cloud.runs, PATIENCE, "two rounds", fleet.programs)
        finally:
            line.kill()
        with device.database() as database:
            content = database.rows("SELECT content FROM replies")[0][0]
            kept = database.rows("SELECT count(*) FROM samples WHERE picture IS NOT NULL")[0][0]
    said = b"".join(path.read_bytes() for path in sorted(record.glob("*.up")))
    frame = frame_of(state_of(content))
    assert len(frame) > 100
    assert frame in said  # what did go up is seen in clear, so a picture would be
    assert kept == 0
    for number, shown in enumerate(pixels):
        coded = (tmp_path / "feed" / f"{number}.png").read_bytes()[64:]
        assert not any(part in said for part in windows(coded)), number
        assert not any(part in said for part in windows(shown.tobytes())), number
