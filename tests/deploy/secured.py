"""A SuperLink with TLS and SuperNodes that authenticate, without an app: who is let in, and who is not."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdc_flower.programs import BINARIES, environment, free_port
from experiments.run import simulate
from experiments.run.processes import Program, until
from tests.deploy import certificates


class Secured:
    """A SuperLink with TLS and SuperNodes that authenticate, on this host, without an app.

    Args:
        folder: for keys, certificates, Flower's files and logs; there is a file `ca.crt`.
    """

    def __init__(self, folder: Path, authority: certificates.Authority) -> None:
        self.folder, self.authority, self.programs = folder, authority, list[Program]()
        self.environment = {**os.environ, **simulate.OFFLINE, **environment(folder)}
        self.port = free_port()
        (folder / "config.toml").write_text(
            f'[superlink.fleet]\naddress = "127.0.0.1:{self.port}"\nroot-certificates = "{folder}/ca.crt"\n'
        )

    def _program(self, name: str, command: Sequence[str], more: Mapping[str, str]) -> Program:
        whole = [str(BINARIES / command[0]), *command[1:]]
        found = Program(name, whole, {**self.environment, **more}, self.folder / f"{name}.log")
        self.programs.append(found)
        return found.start()

    def superlink(self, certificate: str = "server", port: int = 0) -> Program:
        """A SuperLink with a certificate; the first is that of `flwr`."""
        own = [f"--ssl-{what}file={self.folder / name}" for what, name in self._files(certificate)]
        rest = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        where = ["--port", str(port or self.port), "--database", str(self.folder / f"{certificate}.db")]
        link = self._program(f"superlink-{certificate}", ["flower-superlink", *own, *rest, *where], {})
        until(lambda: "startup complete" in link.said(), 60, "the SuperLink listens", [link])
        return link

    @staticmethod
    def _files(certificate: str) -> tuple[tuple[str, str], ...]:
        return ("cert", f"{certificate}.crt"), ("key", f"{certificate}.key"), ("ca-cert", "ca.crt")

    def key(self, name: str, registered: bool = True) -> str:
        """A device's key pair, and its node id where it is registered."""
        certificates.device_key(self.folder, name)
        if not registered:
            return ""
        public = self.folder / f"{name}.pub"
        return str(self.flwr("supernode", "register", str(public), "fleet", "--name", name)["node-id"])

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """What Flower's command says, which must succeed."""
        said = subprocess.run(
            [BINARIES / "flwr", *arguments, "--format", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.returncode == 0, said.stdout + said.stderr
        found = json.loads(said.stdout)
        assert found["success"], found
        return found

    def supernode(
        self,
        name: str,
        *,
        key: str | None,
        ca: str | None = "ca.crt",
        port: int = 0,
        more: Mapping[str, str] = {},
    ) -> Program:
        """A SuperNode; without `ca` it speaks plain HTTP."""
        whom = ["--insecure"] if ca is None else ["--root-certificates", str(self.folder / ca)]
        own = ["--auth-supernode-private-key", str(self.folder / key)] if key else []
        to = ["--superlink", f"127.0.0.1:{port or self.port}", "--port", str(free_port())]
        return self._program(
            name, ["flower-supernode", *whom, *own, *to, "--node-config", "partition-id=0"], more
        )

    def online(self) -> set[str]:
        """Node ids."""
        return {
            n["node-id"] for n in self.flwr("supernode", "ls", "fleet")["nodes"] if n["status"] == "online"
        }
