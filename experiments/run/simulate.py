"""One run of one method, new or resumed: in this process, on Ray workers of our own, or on Flower's engine.

For Flower's engine a SuperLink of our own is started and stopped with the run: the one that `flwr run` would
leave behind keeps the interpreter, folder and environment of whoever started it first. `flwr run` ends with 0
even when the run failed, so its status is asked for until it is finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from cdc_flower import disk, programs, results
from cdc_flower.border import no_folder
from cdc_flower.config import Config, ConfigError, RunError, flat, parse
from cdc_flower.lock import FILE, locked, refuse_if_taken
from cdc_flower.results import Progress
from experiments.run.processes import silent

APP = Path(__file__).parents[2]
START_SECONDS, POLL_SECONDS = 180.0, 1.0
OFFLINE = {
    **programs.OFFLINE,
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ADDRESS": "local",  # a cluster that is gone leaves its address in /tmp/ray, and Ray waits for it
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


class EngineError(RunError):
    """Flower's engine did not start, or the run did not end as completed."""


def resumed(folder: Path, changes: Mapping[str, Any]) -> Config:
    """The config with which the run in `folder` goes on.

    Args:
        folder: where the run lies now.
        changes: new settings; only `rounds` can be another.

    Raises:
        ConfigError: no run there, another setting than `rounds`, or a completed run with nothing left.
    """
    found = results.read_to_resume(folder)
    other = [key for key in changes if key != "run.rounds"]
    if other:
        raise ConfigError(
            f"setting '{other[0]}' with --resume: a run goes on with its own settings; allowed: rounds"
        )
    config = parse({**found.config, **changes, "run.out-dir": str(folder.absolute())})
    if found.status == "completed" and config.run.rounds <= found.run.get("rounds_done", 0):
        raise ConfigError(
            f"{folder}: the run has completed its {found.run['rounds_done']} rounds, nothing is left; "
            "allowed: --set run.rounds=N with more"
        )
    return config


def refuse_something_else(folder: Path, ours: Callable[[Path], bool], allowed: str) -> None:
    """Refuse a folder that is not ours to write to, before anything is computed. What a killed process left
    of a file or a lock is nothing.

    Args:
        folder: may be new.
        ours: whether a folder that holds something may be written to.
        allowed: what such a folder is, in words.

    Raises:
        ConfigError: it holds something else, or cannot be written.
    """
    try:
        held = folder.is_dir() and any(
            one.name != FILE and not one.name.endswith(disk.PART) for one in folder.iterdir()
        )
        if (held and not ours(folder)) or (folder.exists() and not folder.is_dir()):
            raise ConfigError(
                f"out = {str(folder)!r} holds something else; allowed: a new or empty folder, or {allowed}"
            )
    except OSError as err:
        raise ConfigError(
            f"out = {str(folder)!r}: {err.strerror}; allowed: a folder that can be written"
        ) from None
    if wrong := no_folder(folder):
        raise ConfigError(f"out = {str(folder)!r}: {wrong}")


def is_run(folder: Path) -> bool:
    """Whether a run began in a folder: its config.json is a run's, and not a checkpoint's, say."""
    try:
        return bool(results.read_info(folder))
    except results.ResultError:
        return False


def refuse_what_is_in(folder: Path, config: Config) -> None:
    """Refuse a folder with a run that did not come to its end, or that is not the one which is asked for.

    Raises:
        ConfigError: such a run is there, and has rounds that would be lost.
    """
    try:
        found = results.read_to_resume(folder)
    except results.ResultError:
        return
    done, asked = rounds_done(folder), flat(config)
    if found.status != "completed" and done:
        of = f"{done} of {found.config.get('run.rounds')} rounds"
        raise ConfigError(
            f"'{folder}' holds an unfinished run ({of}); allowed: --resume {shlex.quote(str(folder))} (goes "
            "on with it), --replace (begins anew) or another folder (--out)"
        )
    if done and any(found.config.get(key) != asked[key] for key in asked if key != "run.out-dir"):
        raise ConfigError(
            f"'{folder}' holds a run of other settings ({done} rounds); allowed: --replace (begins anew), or "
            "another folder (--out)"
        )


@contextlib.contextmanager
def claimed(folder: Path, on_flower: bool) -> Iterator[None]:
    """Hold the lock of a run folder, before anything is computed for it. On Flower's engine it is the app
    that holds it, in another process, and this one holds that of the engine's folder.

    Raises:
        ConfigError: another run is there.
    """
    with locked(home_of(folder) if on_flower else folder):
        if on_flower:
            refuse_if_taken(folder)
        yield


def home_of(folder: Path) -> Path:
    """Where Flower's engine has its files of the run in `folder`."""
    return folder.with_name(folder.name + ".flower")


def local(config: Config, progress: Progress, resume: bool = False) -> Path:
    """Run in this process, devices one after another; returns the run folder."""
    from strategies.run import run_local

    return run_local(config, progress, resume=resume)


def fleet(
    config: Config,
    progress: Progress,
    resume: bool = False,
    *,
    workers: int = 0,
    ray_address: str = "",
    gpu_fraction: float = 0.0,
) -> Path:
    """Run on Ray workers, bundles of devices at a time; returns the run folder. See `fleet.FleetGrid`."""
    from strategies.run import run_fleet

    return run_fleet(
        config, progress, resume=resume, workers=workers, ray_address=ray_address, gpu_fraction=gpu_fraction
    )


def flower(config: Config, progress: Progress, resume: bool = False, app: Path = APP) -> Path:
    """Run with `flwr run` on Flower's simulation engine; returns the run folder, `run.out-dir` of the config.

    Args:
        config: its `run.out-dir` must be absolute, because the app runs from a copy elsewhere.
        progress: is told the status and, once there are rounds, how many are done.
        resume: refused, because the devices' states live in Flower and end with it.
        app: the folder with the pyproject.toml of the Flower app.

    Raises:
        ConfigError: `app` is no Flower app, or the settings cannot be run.
        EngineError: the engine did not start, or the run ended otherwise than `finished:completed`.
    """
    from cdc_flower.models import folders
    from strategies.run import prepare

    if resume:
        raise ConfigError(
            "engine 'flower' with --resume: the devices' states live in Flower; allowed: engines local, fleet"
        )
    check_app(app)
    folders.install(config.data.name)  # the app's copy carries no weights
    prepare(config, progress)  # refuses here and now what the app would refuse once Ray is up
    out = Path(config.run.out_dir)

    def tell(status: str) -> None:
        progress(status, rounds_done(out), config.run.rounds)

    run_app(app, home_of(out), config.run.devices, tell, flat(config))
    return out


def run_app(
    app: Path,
    home: Path,
    nodes: int,
    tell: Callable[[str], None] = lambda status: None,
    settings: Mapping[str, str | int | float | bool] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """`flwr run` of an app on a SuperLink of our own, to its end.

    Args:
        app: the folder with its pyproject.toml.
        home: for Flower's files and log.
        nodes: SuperNodes; each worker has one core.
        tell: is told the status from time to time.
        settings: over those of the app.
        environment: added to this process's.

    Raises:
        EngineError: the engine did not start, or the run ended otherwise than `finished:completed`.
    """
    overrides = home / "run-config.toml"
    with disk.writing(overrides):
        home.mkdir(parents=True, exist_ok=True)
        overrides.write_text(toml(settings or {}), encoding="utf-8")
    with _superlink(home, environment or {}) as (flwr, variables):
        federation = f"num-supernodes={nodes} client-resources-num-cpus=1"
        command = [flwr, "run", str(app), "own", "-c", str(overrides), "--federation-config", federation]
        started = _json(command, variables)
        run_id = started.get("run-id")
        if not run_id:
            raise EngineError(f"flwr run was refused: {started.get('error-message', started)}")
        try:
            status, details = _wait(flwr, str(run_id), variables, tell)
        except KeyboardInterrupt:
            _json([flwr, "stop", str(run_id), "own"], variables)
            raise
    if status != "finished:completed":
        raise EngineError(
            f"the run ended as {status}: {details or 'no details'}; log: {home / 'superlink.log'}"
        )


def check_app(app: Path) -> None:
    """Refuse a folder that is no Flower app."""
    try:
        project = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
        found = "app" in project["tool"]["flwr"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        found = False
    if not found:
        raise ConfigError(
            f"engine 'flower' needs the Flower app, and {app} has no pyproject.toml with [tool.flwr.app]; "
            "allowed: run from a clone installed with pip install -e ."
        )


def toml(settings: Mapping[str, str | int | float | bool]) -> str:
    """A flat TOML table."""
    return "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in settings.items())


@contextlib.contextmanager
def _superlink(home: Path, more: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A SuperLink in simulation mode, in a session of its own; gives `flwr` and its environment."""
    port, control = programs.free_port(), programs.free_port()
    flwr = programs.BINARIES / "flwr"
    if not flwr.exists():
        raise EngineError(
            f"{flwr} is missing; install the package of requirements.lock into this environment"
        )
    environment = {**os.environ, **OFFLINE, **more, **programs.environment(home)}
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "own"\n[superlink.own]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    command = [
        str(programs.BINARIES / "flower-superlink"),
        "--insecure",
        "--simulation",
        "--isolation",
        "subprocess",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--control-api-address",
        f"127.0.0.1:{control}",
        "--database",
        str(home / "state.db"),
        "--disable-runtime-dependency-installation",
    ]
    with (home / "superlink.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if why := silent(f"http://127.0.0.1:{port}", process.poll, START_SECONDS):
                raise EngineError(f"the SuperLink did not start: {why}; log: {home / 'superlink.log'}")
            yield str(flwr), environment
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the SuperLink and whatever it started (its SuperExec, the simulation, Ray), each by its own id."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    process.kill()
    for left in psutil.wait_procs(started, timeout=10)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    process.wait()


def _json(command: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603
        [*command, "--format", "json"], env=dict(environment), capture_output=True, text=True, check=False
    )
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise EngineError(f"{' '.join(command[1:2])} failed: {said}") from None


def rounds_done(folder: Path) -> int:
    """Rounds that a run folder has so far."""
    import pandas as pd

    written = folder / "rounds.parquet"
    if not written.exists():
        return 0
    return int(max(pd.read_parquet(written, columns=["round"])["round"], default=0))


def _wait(
    flwr: str, run_id: str, environment: Mapping[str, str], tell: Callable[[str], None]
) -> tuple[str, str]:
    """Poll until the run is finished; returns its status and details."""
    while True:
        runs = _json([flwr, "ls", "own", "--run-id", run_id], environment).get("runs") or [{}]
        status = runs[0].get("status", "")
        if status.startswith("finished"):
            return status, runs[0].get("status-details", "")
        tell(status)
        time.sleep(POLL_SECONDS)
