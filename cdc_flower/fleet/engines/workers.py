"""Workers on Ray: start Ray or join a cluster, start one actor a core, replace those that die.

Knows nothing of what they work on. Ray alone waits for minutes for a cluster that is gone and then ends the
process, and makes its workers give way to anything else that runs on the machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from logging import ERROR
from typing import Any

from cdc_flower.config import ConfigError
from cdc_flower.fleet.engines.head import LOOK_SECONDS, Head

CONNECT_SECONDS = 15.0  # until a cluster that does not answer is given up
START_SECONDS = 180.0  # until workers that do not start are
ANSWER_SECONDS = 5.0  # until a machine whose worker has died counts as gone
DEATHS = 3  # of each worker while it loads
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # pages of the raylet's log where it has died
    "RAY_worker_niceness": "0",  # 15 by default: workers of a busy machine then stand still
}
"""Environment of a Ray of our own, where nothing else is said."""


class Workers:
    """Actors of one class, and those of them that have nothing to do.

    Args:
        kind: the class that runs in an actor; its `load()` makes it ready and returns Ray's name of its
            machine.
        arguments: of its constructor.
        count: actors; 0 = one per core, of the cluster where there is one.
        ray_address: "" = a Ray of this process's own, "auto" = the cluster of this machine, or "host:port".
        gpu_fraction: of a GPU, for each worker; 0 = workers see no GPU.

    Raises:
        ConfigError: the cluster cannot be reached or has less than the workers need.
        RayDied: a Ray of this process's own does not start.
    """

    def __init__(
        self, kind: type, arguments: Iterable[Any], count: int, ray_address: str, gpu_fraction: float
    ) -> None:
        self._head = start_ray(ray_address, count, gpu_fraction)
        self._idle: list[Any] = []
        self._died = 0  # while they loaded, one after another
        self._starting: dict[Any, Any] = {}  # what is there once a worker has loaded -> the worker
        self._machines: dict[Any, str] = {}  # of workers that have started
        self.cluster = bool(ray_address)
        self._grows = self.cluster and count == 0
        try:
            import ray

            self.count = affordable(count, gpu_fraction)
            actor = ray.remote(num_cpus=1, num_gpus=gpu_fraction, max_restarts=0)(kind)
            self._new: Callable[[], Any] = lambda: actor.remote(*arguments)
            for _ in range(self.count):
                self.start()
        except BaseException:
            self.close()
            raise

    @property
    def starting(self) -> list[Any]:
        """One reference for each worker that starts, there once it has."""
        return list(self._starting)

    @property
    def _lost(self) -> bool:
        return self._head is not None and self._head.lost

    def check(self) -> None:
        """Nothing, while a Ray of this process's own lives.

        Raises:
            RayDied: it has died.
        """
        if self._head is not None:
            self._head.check()

    def waited(self, refs: list[Any], timeout: float | None) -> list[Any]:
        """The first of `refs` that is there, as a list; [] after `timeout` seconds.

        Raises:
            RayDied: none will come any more.
        """
        import ray

        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self.check()
            left = LOOK_SECONDS if end is None else min(LOOK_SECONDS, max(0.0, end - time.monotonic()))
            done, _ = ray.wait(refs, num_returns=1, timeout=left)
            if done or (end is not None and time.monotonic() >= end):
                return done

    def result(self, ref: Any) -> Any:
        """What a reference that is there stands for.

        Raises:
            RayDied: it will not come any more.
            RayError: its worker died, or raised.
        """
        import ray
        from ray.exceptions import GetTimeoutError

        while True:
            self.check()
            try:
                return ray.get(ref, timeout=LOOK_SECONDS)
            except GetTimeoutError:
                continue

    def start(self) -> None:
        """One more, in place of one that died."""
        worker = self._new()
        self._starting[worker.load.remote()] = worker

    def take(self, wait: bool) -> Any | None:
        """A worker without work, None where there is none yet; with `wait` one that starts is waited for.

        Raises:
            ConfigError: none has started, or what it is to load cannot be.
            RayDied: none will start any more.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        while not self._idle and self._starting:
            done = self.waited(self.starting, START_SECONDS if wait else 0)
            if not done and not wait:
                return None
            if not done:
                raise ConfigError(
                    f"no worker of the fleet started within {START_SECONDS:.0f} s; is the "
                    "cluster busy? setting 'workers' asks for a core each"
                )
            worker = self._starting.pop(done[0])
            try:
                self._machines[worker] = ray.get(done[0])
            except RayTaskError as err:
                raise ConfigError(f"the workers of the fleet cannot load the client: {err.cause}") from None
            except RayError as err:
                self._died += 1
                if self._died > DEATHS * self.count:
                    raise ConfigError(
                        f"{self._died} workers of the fleet died while they loaded: "
                        f"{str(err).splitlines()[0]}"
                    ) from None
                self.start()
                continue
            self._died = 0
            self._idle.append(worker)
        return self._idle.pop() if self._idle else None

    def wait(self) -> None:
        """Until there is a worker without work; see `take`."""
        worker = self.take(wait=True)
        if worker is not None:
            self.give_back(worker)

    def give_back(self, worker: Any) -> None:
        """One that has done its work."""
        self._idle.append(worker)

    def replace(self, worker: Any) -> None:
        """End one that is at work, and start another."""
        import ray

        if not self._lost:
            ray.kill(worker)
            self._machines.pop(worker, None)
            self.start()

    def died(self, worker: Any) -> bool:
        """Start another in place of one that died at work; False where its whole machine is gone, and with it
        those that had nothing to do there.
        """
        machine = self._machines.pop(worker, "")
        self.start()
        if not self.cluster or _answers(machine):
            return True
        for other in [w for w in self._idle if self._machines.get(w) == machine]:
            self._idle.remove(other)
            del self._machines[other]
            self.start()
        return False

    def grow(self) -> None:
        """Start workers on machines that have joined the cluster, where there is to be one a core."""
        if not self._grows:
            return
        import ray

        more = int(ray.cluster_resources().get("CPU", 0)) - self.count
        for _ in range(more):
            self.start()
        self.count += max(0, more)

    def close(self) -> None:
        """End those that have nothing to do or start, and the connection to Ray where it was made here."""
        import ray

        if ray.is_initialized() and not self._lost:
            for worker in [*self._idle, *self._starting.values()]:
                ray.kill(worker)
        self._idle, self._starting, self._machines = [], {}, {}
        if self._head is not None:
            self._head.close()


def _answers(machine: str) -> bool:
    """Whether a machine of the cluster is there; Ray itself notices that one is gone only after a while."""
    import ray

    for node in ray.nodes():
        if node["NodeID"] == machine and node["Alive"]:
            try:
                where = node["NodeManagerAddress"], node["NodeManagerPort"]
                socket.create_connection(where, timeout=ANSWER_SECONDS).close()
            except OSError:
                return False
            return True
    return False


def start_ray(address: str = "", workers: int = 0, gpu_fraction: float = 0.0) -> Head | None:
    """Connect to Ray, quietly; None when this process was connected already.

    Raises:
        ConfigError: a setting that is not allowed, or no cluster at the address.
        RayDied: a Ray of this process's own does not start.
    """
    if workers < 0:
        raise ConfigError(f"setting 'workers' = {workers}; allowed: at least 1, or 0 for one per core")
    if not 0 <= gpu_fraction <= 1:
        raise ConfigError(f"setting 'gpu-fraction' = {gpu_fraction:g}; allowed: 0 to 1")
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    import ray

    if ray.is_initialized():
        return None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": ERROR}
    if address:
        _reach(address)
        return Head(lambda: ray.init(address=address, **quiet), ours=False)
    cores = workers or os.cpu_count()
    return Head(lambda: ray.init("local", num_cpus=cores, include_dashboard=False, **quiet), ours=True)


def _reach(address: str) -> None:
    """Refuse a cluster that does not answer. Tried in a process of its own, because Ray waits for 70 s and
    then ends the process.
    """
    allowed = "allowed: '' (a Ray of its own), 'auto' (a cluster of this machine), or host:port of a head"
    end, refused = time.monotonic() + CONNECT_SECONDS, f"setting 'ray-address' = {address!r}"
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"{refused}; {allowed}")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as err:
            raise ConfigError(f"{refused}: nothing answers there ({err}); {allowed}") from None
    command = [sys.executable, "-c", "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"]
    try:
        done = subprocess.run(  # noqa: S603
            [*command, address], capture_output=True, check=False, timeout=max(1.0, end - time.monotonic())
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{refused}: no Ray answers there; {allowed}") from None
    if done.returncode:
        raise ConfigError(f"{refused}: no Ray cluster of this version is there; {allowed}")


def affordable(workers: int, gpu_fraction: float) -> int:
    """How many workers to start.

    Raises:
        ConfigError: more than there is room for.
    """
    import ray

    there = ray.cluster_resources()
    cores, gpus = int(there.get("CPU", 0)), float(there.get("GPU", 0))
    fit = int(gpus) * int(1 / gpu_fraction) if gpu_fraction else cores  # a worker has its share of one GPU
    workers = workers or max(1, min(cores, fit))
    if not 1 <= workers <= cores:
        raise ConfigError(f"setting 'workers' = {workers}; allowed: up to {cores}, the cores of the cluster")
    if workers > fit and gpu_fraction:
        raise ConfigError(
            f"setting 'gpu-fraction' = {gpu_fraction:g} for {workers} workers; allowed: {gpus:g} GPUs in all"
        )
    return workers
