"""Workers start, die and end as told, and what cannot be started is refused soon, in one line."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.fleet.engines import workers
from cdc_flower.fleet.engines.workers import Workers

pytestmark = [
    pytest.mark.usefixtures("ray"),
    pytest.mark.filterwarnings(
        "ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"
    ),
]


class Worker:
    """Cannot load some things."""

    def __init__(self, what: str) -> None:
        self.what = what

    def load(self) -> int:
        if self.what:
            raise ModuleNotFoundError(f"No module named {self.what!r}")
        return os.getpid()


@pytest.mark.parametrize(
    ("count", "gpus", "says"),
    [
        (-1, 0.0, "'workers' = -1; allowed: at least 1"),
        (99, 0.0, "'workers' = 99; allowed: up to 2"),
        (0, 2.0, "'gpu-fraction' = 2; allowed: 0 to 1"),
        (1, 1.0, "'gpu-fraction' = 1 for 1 workers; allowed: 0 GPUs"),
    ],
)
def test_what_cannot_work_is_refused(count, gpus, says):
    with pytest.raises(ConfigError, match=says):
        Workers(Worker, [""], count, "", gpus)


def test_a_client_that_cannot_be_imported_is_named():
    crew = Workers(Worker, ["no_such_module"], 1, "", 0.0)
    with pytest.raises(ConfigError, match="cannot load the client: No module named 'no_such_module'"):
        crew.wait()
    crew.close()


@pytest.mark.parametrize("what", ["nobody", "no Ray", "no port"])
def test_a_cluster_that_is_not_there_is_refused_soon(what, monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 4.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if what == "no Ray":
            server.listen()
        began = time.monotonic()
        with pytest.raises(ConfigError, match=r"setting 'ray-address' = .*; allowed: ''"):
            workers._reach("here" if what == "no port" else address)
        assert time.monotonic() - began < 60  # Ray itself gives up after 70 s


def pid_of(worker) -> int:
    import ray

    return ray.get(worker.load.remote())


def ended(pid: int) -> bool:
    end = time.monotonic() + 120
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.2)
    return not Path(f"/proc/{pid}").exists()


def test_there_are_as_many_as_asked_for_and_one_that_is_replaced_ends():
    crew = Workers(Worker, [""], 2, "", 0.0)
    one, two = crew.take(wait=True), crew.take(wait=True)
    assert crew.take(wait=False) is None
    first, second = pid_of(one), pid_of(two)
    assert first != second
    crew.replace(one)
    assert pid_of(crew.take(wait=True)) not in (first, second)
    assert ended(first)
    crew.give_back(two)
    assert crew.take(wait=False) is two
    crew.close()


def test_no_worker_is_left_behind():
    crew = Workers(Worker, [""], 1, "", 0.0)
    worker = crew.take(wait=True)
    pid = pid_of(worker)
    crew.give_back(worker)
    crew.close()
    assert ended(pid)


def test_a_machine_that_does_not_answer_takes_its_idle_workers_along(ray, monkeypatch):
    here = ray.get_runtime_context().get_node_id()
    assert workers._answers(here)
    assert not workers._answers("0" * len(here))
    crew = Workers(Worker, [""], 2, "", 0.0)
    crew.cluster = True
    one, two = crew.take(wait=True), crew.take(wait=True)
    crew._machines = {one: here, two: here}
    crew.give_back(two)
    assert crew.died(one)  # alone: the machine is there
    assert crew.take(wait=False) is two
    crew._machines = {one: "gone", two: "gone"}
    crew.give_back(two)
    assert not crew.died(one)
    assert two not in crew._idle
    assert len(crew.starting) == 3
    crew.close()


@pytest.mark.parametrize(
    ("gpus", "fraction", "asked", "found"), [(2, 0.5, 0, 4), (2, 0.6, 0, 2), (2, 1.0, 2, 2), (1, 0.1, 0, 8)]
)
def test_every_worker_has_its_share_of_one_gpu(monkeypatch, gpus, fraction, asked, found):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8, "GPU": gpus})
    assert workers.affordable(asked, fraction) == found
    if fraction > 0.5:
        with pytest.raises(ConfigError, match=f"for {found + 1} workers; allowed: {gpus} GPUs in all"):
            workers.affordable(found + 1, fraction)
