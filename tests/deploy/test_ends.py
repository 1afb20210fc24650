"""Without TLS, with a buffer, and ended by Ctrl-C: what is warned of, refused, and left behind.

Two devices and a cloud; the tests share them and take their turns in order.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from cdc_flower import results
from experiments.cli.loading import LINE
from experiments.controls.deployed import deployment, said
from experiments.run.processes import Program, until

pytestmark = pytest.mark.slow
PATIENCE = 400.0  # s
FEW = {
    "run.samples-per-round": 4,
    "pair.max-answer-tokens": 3,
    "cloud.source-replay": 4,
    "cloud.confidence": 0.0,
    "run.rounds": 200,
}


@pytest.fixture(scope="module")
def fleet(settings, tmp_path_factory):
    """Rounds that end with one answer of two, without TLS and keys."""
    with deployment(tmp_path_factory.mktemp("ends") / "d") as found:
        cloud = {"insecure": True, "rounds": "buffer", "buffer": 1}
        found.provision(2, {**settings, **FEW}, cloud)
        for device in found.devices:
            device.node.command = [*device.node.command, "--insecure"]
        for program in found.programs:
            program.start()
        yield found


def interrupted(program: Program, seconds: float = 120.0) -> int | None:
    """The exit code after Ctrl-C."""
    os.kill(program.pid, signal.SIGINT)
    until(lambda: not program.runs, seconds, f"{program.name} ends", [program])
    return program.code


def errors(ended):
    """The lines on standard error, without the one that says that it is loading."""
    return [line for line in ended.stderr.strip().splitlines() if line != LINE]


def test_rounds_end_with_the_answers_that_are_enough_and_who_is_slower_answers_later(fleet):
    def answered():
        return [d["rounds"] for d in fleet.status().get("devices", [])]

    until(lambda: len(answered()) == 2 and min(answered()) >= 2, PATIENCE, "both answered", fleet.programs)
    found = results.read(fleet.cloud_folder / "run").devices
    assert set(found["status"]) == {"ok"}
    assert not found.duplicated(["device", "round"]).any()
    assert fleet.status()["mode"] == "buffer"


def test_what_is_not_safe_is_warned_of_on_both_ends(fleet):
    assert "warning: insecure = true: no TLS and no keys" in fleet.cloud.said()
    assert "warning: --insecure: whoever is on the way reads" in fleet.devices[0].node.said()


def test_a_second_cloud_on_the_folder_is_refused_in_one_line_and_the_first_goes_on(fleet):
    second = said(["cloud", "up", str(fleet.cloud_folder)], PATIENCE)
    assert second.returncode == 2
    (line,) = errors(second)
    assert "is in use by" in line
    fleet.reach(fleet.round + 1, PATIENCE)


def test_a_second_agent_of_a_device_is_refused_in_one_line(fleet):
    second = said(["device", "run", str(fleet.devices[0].bundle)], PATIENCE)
    assert second.returncode == 2
    assert "is in use by" in second.stderr.strip().splitlines()[-1]


def test_ctrl_c_ends_an_agent_cleanly(fleet):
    agent = fleet.devices[1].agent
    assert interrupted(agent) == 0
    assert "ended after" in agent.said()
    assert "Traceback" not in agent.said()


def test_ctrl_c_ends_a_cloud_with_all_that_it_started_and_it_goes_on_where_it_was(fleet):
    family = [p for p in fleet.cloud.family() if p.pid != fleet.cloud.pid]
    links = fleet.of_flower("flower-superlink")
    assert family
    assert interrupted(fleet.cloud) == 130
    _, alive = psutil.wait_procs([*family, *links], timeout=60)
    assert not alive, [p.cmdline() for p in alive]
    assert "Traceback" not in fleet.cloud.said()
    before = fleet.round
    fleet.cloud.start()
    fleet.reach(before + 1, PATIENCE)


def test_a_cloud_whose_settings_were_spoilt_is_refused_in_one_line(fleet):
    """The last one: it ends the cloud."""
    assert interrupted(fleet.cloud) == 130
    path = fleet.cloud_folder / "settings.json"
    path.write_text(path.read_text().replace('"run.rounds": 200', '"run.rounds": "many"'))
    spoilt = said(["cloud", "up", str(fleet.cloud_folder)], PATIENCE)
    assert spoilt.returncode == 2
    (line,) = errors(spoilt)
    assert "setting 'run.rounds' = 'many'" in line
