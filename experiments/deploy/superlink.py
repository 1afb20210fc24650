"""The SuperLink of a cloud: Flower's own program, on loopback, and what is asked of it through `flwr`.

It listens on 127.0.0.1 alone, with a certificate that is made anew for each start of the cloud and that
nobody else needs to know: devices come through the gate (`experiments.deploy.gate`), which has the server's.
Its files lie in `superlink/` of the cloud: state.db (which devices are registered, outlives every start),
config.toml, app/ (the Flower app that is submitted) and logs.

The app is two files that import what is installed, on the cloud and on each device; the settings of the run
are no part of it, so that devices fetch nothing that names them. They lie in `superlink/run-config.json`, and
an environment variable tells the ServerApp where.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives import serialization

from cdc_flower.config import RunError
from cdc_flower.disk import writing
from cdc_flower.programs import BINARIES, environment
from cdc_flower.results import write_json
from experiments.deploy import keys
from experiments.run.processes import Program, silent
from experiments.run.simulate import OFFLINE
from strategies.served.settings import VARIABLE

NAME = "cloud"  # of the connection in config.toml
START = 120.0  # s, that the SuperLink may take to listen
CALL = 60.0  # s, that a call of `flwr` may take
LOG_HOURS, LOGS = 24, 14  # a log file of a day; so many are kept
APP = {
    "pyproject.toml": """\
[project]
name = "cdc-flower-deployed"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "cdc-flower"

[tool.flwr.app.components]
serverapp = "deployed.server:app"
clientapp = "deployed.client:app"
""",
    "deployed/__init__.py": "",
    "deployed/server.py": "from strategies.served import app as served\n\napp = served.app\n",
    "deployed/client.py": "from clients.device import mover\n\napp = mover.app\n",
}


class SuperLinkError(RunError):
    """The SuperLink does not start, or does not do what it was asked."""


@dataclass
class SuperLink:
    """A cloud's SuperLink.

    Args:
        cloud: folder of the cloud.
        port: on loopback.
        insecure: without TLS and keys.
    """

    cloud: Path
    port: int
    insecure: bool = False

    def __post_init__(self) -> None:
        self.home = self.cloud / "superlink"
        self.program = Program("superlink", self._command(), self.environment, self.home / "superlink.log")

    @property
    def flower_log(self) -> Path:
        """What Flower writes, a file a day; `program.log` has what the programs say, too."""
        return self.home / "flower.log"

    @property
    def _database(self) -> Path:
        return self.home / "state.db"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'' if self.insecure else 's'}://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path | None:
        """Of its certificate."""
        return None if self.insecure else self.home / "tls" / keys.CA_CERT

    @property
    def environment(self) -> dict[str, str]:
        """Of Flower's programs."""
        own = {**environment(self.home), VARIABLE: str(self.home / "run-config.json")}
        return {**os.environ, **OFFLINE, **own}

    def _command(self) -> list[str]:
        tls = self.home / "tls"
        safe = [
            *("--ssl-ca-certfile", str(tls / keys.CA_CERT)),
            *("--ssl-certfile", str(tls / keys.SERVER_CERT)),
            *("--ssl-keyfile", str(tls / keys.SERVER_KEY)),
            "--enable-supernode-auth",
        ]
        return [
            str(BINARIES / "flower-superlink"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--database", str(self._database)),
            *("--log-file", str(self.flower_log)),
            *("--log-rotation-interval-hours", str(LOG_HOURS), "--log-rotation-backup-count", str(LOGS)),
            "--disable-runtime-dependency-installation",
            *(["--insecure"] if self.insecure else safe),
        ]

    def prepare(self, run_config: Mapping[str, Any]) -> None:
        """Write what its programs read, and end what an earlier start of this cloud left running."""
        self._end_earlier()
        with writing(self.home):
            self.home.mkdir(mode=0o700, exist_ok=True)
            safe = "insecure = true" if self.insecure else f"root-certificates = {json.dumps(str(self.ca))}"
            (self.home / "config.toml").write_text(
                f'[superlink]\ndefault = "{NAME}"\n[superlink.{NAME}]\n'
                f'address = "127.0.0.1:{self.port}"\n{safe}\n',
                encoding="utf-8",
            )
            for name, text in APP.items():
                (self.home / "app" / name).parent.mkdir(parents=True, exist_ok=True)
                (self.home / "app" / name).write_text(text, encoding="utf-8")
            shutil.rmtree(self.home / "tls", ignore_errors=True)
            (self.home / "tls").mkdir(mode=0o700)
        keys.authority(self.home / "tls")
        keys.server(self.home / "tls", ["127.0.0.1", "localhost"])
        (self.home / "tls" / keys.CA_KEY).unlink()  # it signs nothing else
        write_json(self.home / "run-config.json", dict(run_config))

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            SuperLinkError: it does not.
        """
        self.program.start()
        own = psutil.Process(self.program.pid)
        write_json(self.home / "superlink.json", {"pid": own.pid, "began": own.create_time()})
        why = silent(self.url, lambda: self.program.code, START, self._trust())
        if why:
            self.stop()
            raise SuperLinkError(f"the SuperLink did not start: {why}; log: {self.program.log}")

    def _trust(self) -> ssl.SSLContext | None:
        return None if self.ca is None else ssl.create_default_context(cafile=str(self.ca))

    def stop(self) -> None:
        """End it, with all that it started."""
        self.program.stop()
        with contextlib.suppress(OSError):
            (self.home / "superlink.json").unlink()

    def _end_earlier(self) -> None:
        """End the SuperLink of a cloud whose own process was killed: it holds the database."""
        try:
            said = json.loads((self.home / "superlink.json").read_text(encoding="utf-8"))
            left = psutil.Process(int(said["pid"]))
            if abs(left.create_time() - float(said["began"])) > 1:
                return
            family = [left, *left.children(recursive=True)]
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=10)

    # --- what it is asked -----------------------------------------------------------------------------------

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """What a command of `flwr` answers.

        Raises:
            SuperLinkError: it failed, or did not end in time.
        """
        what = " ".join(arguments[:2])
        try:
            done = subprocess.run(  # noqa: S603
                [str(BINARIES / "flwr"), *arguments, "--format", "json"],
                env=self.environment,
                cwd=self.home,
                capture_output=True,
                text=True,
                timeout=CALL,
                check=False,
                start_new_session=True,
            )
            found = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise SuperLinkError(f"`flwr {what}` did not end within {CALL:g} s") from None
        except ValueError:
            said = " ".join((done.stderr or done.stdout).split())[-400:]
            raise SuperLinkError(f"`flwr {what}` failed: {said}") from None
        if not found.get("success"):
            raise SuperLinkError(f"`flwr {what}` was refused: {found.get('error-message', found)}")
        return found

    def nodes(self) -> set[int]:
        """Node ids of the keys that it knows."""
        found = self.flwr("supernode", "ls", NAME)["nodes"]
        return {int(one["node-id"]) for one in found if one["status"] != "unregistered"}

    def keys(self) -> dict[int, str]:
        """Node id -> its public key, as OpenSSH writes it. `flwr` does not tell them, so they are read where
        Flower 1.41 keeps them.

        Raises:
            SuperLinkError: they are not there.
        """
        form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        try:
            where = f"{self._database.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(where, uri=True)) as database:
                rows = database.execute("SELECT node_id, public_key FROM node").fetchall()
            found = {int(n) % 2**64: serialization.load_pem_public_key(key) for n, key in rows if key}
        except (sqlite3.Error, ValueError, TypeError) as err:
            raise SuperLinkError(f"the keys in '{self._database}' cannot be read: {err}") from None
        return {n: key.public_bytes(*form).decode() for n, key in found.items()}

    def register(self, key: Path, name: str) -> int:
        """Let a key in; its node id."""
        return int(self.flwr("supernode", "register", str(key), NAME, "--name", name)["node-id"])

    def unregister(self, node: int) -> None:
        """Let a key in no longer."""
        self.flwr("supernode", "unregister", str(node), NAME)

    def submit(self) -> str:
        """Start a run of the app; its id."""
        return str(self.flwr("run", str(self.home / "app"), NAME)["run-id"])

    def status(self, run: str) -> tuple[str, str]:
        """What became of a run so far, and why."""
        found = (self.flwr("ls", NAME, "--run-id", run).get("runs") or [{}])[0]
        return str(found.get("status", "")), str(found.get("status-details", ""))

    def stop_run(self, run: str) -> None:
        """End a run; devices then leave off what it asked them."""
        self.flwr("stop", run, NAME)
