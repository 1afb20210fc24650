"""Machines of a cluster that share no folder give what one process gives, also while some leave and join."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from flwr.app import Context, RecordDict

from cdc_flower import results
from cdc_flower.config import flat, parse
from cdc_flower.disk import DiskError
from cdc_flower.fleet.engines import depot
from cdc_flower.fleet.engines.depot import Depot, fetched
from cdc_flower.fleet.engines.fleet_grid import FleetGrid
from strategies.run import BUNDLE, CLIENT_APP, out_dir, read_by_devices, run, run_fleet, run_local

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*subprocess .* is still running:ResourceWarning",
    "ignore:unclosed file:ResourceWarning",
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning",
)
HERE = Path(__file__).parents[3]
ALONE = ["unshare", "-Urm"]


def needed() -> None:
    """Skip where a process may have no namespaces of its own."""
    try:
        subprocess.run([*ALONE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"no mount namespaces here: {err}")


class Machine:
    """A machine that joins a cluster: cores, and a cache folder of its own."""

    def __init__(self, address: str, cores: int, hidden: Iterable[Path], cache: Path) -> None:
        hide = "".join(f"mount -t tmpfs none {str(folder)!r} && " for folder in hidden)
        ray = f"{sys.executable} -m ray.scripts.scripts start --block --address={address} --num-cpus={cores}"
        memory = "--object-store-memory=150000000 --disable-usage-stats"
        self.log = cache.with_suffix(".log").open("w")
        self.process = subprocess.Popen(
            [*ALONE, "sh", "-c", f"{hide} exec {ray} {memory}"],
            env={**os.environ, "CDC_FLOWER_CACHE": str(cache)},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def leave(self) -> None:
        """All of its processes end at once, without a word."""
        every = [
            self.process.pid,
            *(p.pid for p in psutil.Process(self.process.pid).children(recursive=True)),
        ]
        for pid in every:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.process.wait()
        self.log.close()


def test_what_is_listed_comes_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(depot, "BLOCK", 1000)
    big, small, asked = tmp_path / "big", tmp_path / "small", []
    big.write_bytes(bytes(range(250)) * 11)
    small.write_bytes(b"")
    kept = Depot("", {"pair.folder": ("mine", {"a/big": big, "small": small, "again": big})})

    def block(digest, start):
        asked.append(start)
        return kept.block(digest, start)

    root = tmp_path / "other"
    for _ in range(2):
        (folder,) = fetched(root, kept.listing(), block).values()
        assert folder.name == "mine"
        assert (folder / "a" / "big").read_bytes() == big.read_bytes() == (folder / "again").read_bytes()
        assert (folder / "small").read_bytes() == b""
    assert asked == [0, 1000, 2000]


def test_a_file_that_changes_under_way_is_refused_and_leaves_nothing(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one")
    kept = Depot("", {"pair.folder": ("mine", {"file": file})})
    kept.listing()
    file.write_bytes(b"two")
    with pytest.raises(DiskError, match="has changed on the driver's machine"):
        fetched(tmp_path / "other", kept.listing(), kept.block)
    assert [p for p in (tmp_path / "other").rglob("*") if p.is_file()] == [tmp_path / "other" / "lock"]


@pytest.fixture
def cluster(monkeypatch):
    """`cluster(cores)`: a head with so many, which sees the driver's folders; its address."""
    needed()
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.cluster_utils import Cluster

    made = []

    def start(cores):
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
        args = {"num_cpus": cores, "include_dashboard": False, "_system_config": quick}
        made.append(Cluster(initialize_head=True, head_node_args=args))
        return made[-1].address

    yield start
    ray.shutdown()
    for each in made:
        each.shutdown()


@pytest.fixture
def machine(tmp_path, settings):
    """`machine(address, name, cores=1)`: one that sees no folder of the driver's."""
    made = []
    hidden = [
        *(Path(str(settings[key])) for key in ("pair.folder", "pair.token-cache")),
        tmp_path / "driver",
        HERE / "cdc_flower" / "weights",
    ]
    (tmp_path / "driver").mkdir()

    def start(address, name, cores=1):
        made.append(Machine(address, cores, hidden, tmp_path / name))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.leave()


def joined(cores: int) -> None:
    """Wait until the cluster has so many."""
    import ray

    end = time.monotonic() + 60
    while ray.cluster_resources().get("CPU", 0) != cores:
        assert time.monotonic() < end
        time.sleep(0.2)


def when_all_have_started(config, workers: int, address: str) -> Path:
    """`run_fleet`, but no worker is early and takes it all."""
    import ray

    settings = {**flat(config), "run.out-dir": str(out_dir(config))}
    how = {"bundle": BUNDLE, "workers": workers, "ray_address": address}
    with FleetGrid(
        CLIENT_APP, config.run.devices, settings, files=lambda: read_by_devices(config), **how
    ) as grid:
        ray.wait(grid.workers.starting, num_returns=workers, timeout=120)
        return run(grid, Context(1, 1, {}, RecordDict(), settings))


def found_in(folder: Path) -> tuple:
    run = results.read(folder)
    assert run.status == "completed"
    assert set(run.devices["status"]) <= {"ok", "missing"}  # late ones
    adapters = {p.name: p.read_bytes() for p in (folder / "adapters").iterdir()}
    return run.run["ledger_digest"], run.run["adapter_digest"], adapters, run.rounds.to_dict("list")


@pytest.mark.slow
@pytest.mark.parametrize("here", [0, 1])
def test_ledger_and_adapters_are_those_of_one_process(cluster, machine, run_settings, tmp_path, here):
    """All work on other machines, or some here and some there; some devices are two versions behind."""
    import ray

    settings = run_settings(
        devices=4, rounds=4, samples_per_round=4, mode="async", in_flight=3, buffer=2, trace="always"
    )
    address = cluster(here)
    machine(address, "other", 2)
    ray.init(address=address, log_to_driver=False)
    joined(here + 2)
    alone = run_local(parse({**settings, "run.out-dir": str(tmp_path / "driver" / "local")}))
    config = parse({**settings, "run.out-dir": str(tmp_path / "driver" / "fleet")})
    there = when_all_have_started(config, 2 + here, address)
    assert found_in(there) == found_in(alone)
    assert len(found_in(there)[2]) > 1
    assert len(list((tmp_path / "other" / "nodes" / "files").iterdir())) > 5
    assert not list(tmp_path.rglob("other/**/teacher*"))


@pytest.mark.slow
def test_a_machine_joins_and_the_one_that_worked_leaves_in_mid_run(cluster, machine, run_settings, tmp_path):
    import ray

    settings = run_settings(devices=6, rounds=4, samples_per_round=4)
    address = cluster(0)
    first = machine(address, "first")
    ray.init(address=address, log_to_driver=False)
    joined(1)
    leaving = threading.Timer(0.3, first.leave)

    def watch(stage, done, total):
        if (stage, done) == ("rounds", 1):
            machine(address, "second")
            joined(2)
            leaving.start()

    alone = run_local(parse({**settings, "run.out-dir": str(tmp_path / "driver" / "local")}))
    config = parse({**settings, "run.out-dir": str(tmp_path / "driver" / "fleet")})
    there = run_fleet(config, watch, ray_address=address)
    leaving.join()
    assert first.process.poll() is not None
    assert found_in(there) == found_in(alone)
    assert list((tmp_path / "second" / "nodes" / "files").iterdir())
