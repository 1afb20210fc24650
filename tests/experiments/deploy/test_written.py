"""Claims about the files that start a deployment: systemd, Docker and compose can use them as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cdc_flower.config import ConfigError
from experiments.cli.app import app
from experiments.deploy import written

ROOT = Path(__file__).parents[3]
INSTRUCTIONS = {
    "FROM",
    "ARG",
    "WORKDIR",
    "COPY",
    "RUN",
    "USER",
    "ENV",
    "VOLUME",
    "EXPOSE",
    "ENTRYPOINT",
    "CMD",
}


@pytest.fixture
def out(tmp_path):
    """The files, for an environment with programs of these names and a user that is here."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "cdc-flower").write_text("#!/bin/sh\n")
    (programs / "cdc-flower").chmod(0o755)
    written.write(tmp_path / "out", str(tmp_path / "venv"), "/var/lib/cdc-flower", "root")
    return tmp_path / "out"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_has_nothing_to_say_against_the_units(out):
    units = []
    for unit in sorted(out.glob("*.service")):
        units.append(unit.with_name(unit.name.replace("@.", "@device-0.")))
        unit.rename(units[-1])
    assert len(units) == 3
    said = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def commands(text):
    """What is executed, as words after the name of the program."""
    return [shlex.split(line) for line in re.findall(r"^ExecStart=\S+/cdc-flower (.*)$", text, re.M)]


def known(words):
    """The command line finds the command that the words name, and they are as many as it takes."""
    import typer

    command = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return len(rest) == sum(p.required and p.param_type_name == "argument" for p in command.params)


def test_every_unit_and_image_starts_a_command_that_there_is(out):
    starts = [words for unit in out.glob("*.service") for words in commands(unit.read_text())]
    starts += [image(out / f"Dockerfile.{name}")["CMD"] for name in ("cloud", "device")]
    services = yaml.safe_load((out / "compose.yaml").read_text())["services"]
    starts += [one["command"] for one in services.values() if "command" in one]
    assert len(starts) == 7
    assert [s for s in starts if not known(s)] == []


def image(path):
    """The last of each instruction of a Dockerfile; lists as lists, and of RUN all that there are."""
    found = {"RUN": []}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, rest = line.split(maxsplit=1)
        assert name in {
            *["FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"]
        }
        if name == "RUN":
            found["RUN"].append(rest)
        else:
            found[name] = yaml.safe_load(rest) if rest.startswith("[") else rest
        if name == "COPY":
            *sources, _ = rest.split()
            assert all(
                (ROOT / source).exists() for source in sources if "[" not in source
            )  # [] = if it is there
    return found


@pytest.mark.parametrize("name", ["cloud", "device"])
def test_an_image_runs_as_nobody_in_particular_on_any_processor(out, name):
    made = image(out / f"Dockerfile.{name}")
    assert made["FROM"] == "python:3.11-slim"  # for amd64 and arm64
    assert made["USER"] not in ("root", "0")
    assert "/whl/cpu" in made["ARG"]
    assert made["ENTRYPOINT"] == ["cdc-flower"]
    assert not any("cu1" in run or "apt-get" in run for run in made["RUN"])


def test_the_compose_file_names_the_images_that_are_built_and_their_volumes(out):
    services = yaml.safe_load((out / "compose.yaml").read_text())["services"]
    assert set(services) == {"cloud", "agent", "supernode"}
    for service in services.values():
        name = service["image"].removeprefix("cdc-flower-")
        assert f"-t {service['image']} ." in (out / f"Dockerfile.{name}").read_text()
        volumes = image(out / f"Dockerfile.{name}")["VOLUME"]
        inside = [volume.rpartition(":")[2] for volume in service["volumes"]]
        assert set(inside) <= set(volumes)
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert service["restart"] == "always"


@pytest.mark.parametrize(
    ("venv", "home", "user", "named"),
    [
        ("venv", "/h", "cdc", "--venv 'venv'"),
        ("/a b", "/h", "cdc", "--venv '/a b'"),
        ("/v", "/h%i", "cdc", "--home '/h%i'"),
        ("/v", "/h", "a b", "--user 'a b'"),
        ("/v", "/h", "", "--user ''"),
    ],
)
def test_what_a_unit_cannot_name_is_refused(tmp_path, venv, home, user, named):
    with pytest.raises(ConfigError, match=re.escape(named)):
        written.write(tmp_path / "out", venv, home, user)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["device"])
def test_the_steps_of_an_image_install_what_its_command_needs(out, name, tmp_path):
    """No container engine is needed: the same commands, in an environment of their own."""
    made = image(out / f"Dockerfile.{name}")
    place = tmp_path / "image"
    (place / "wheels").mkdir(parents=True)
    for source in ["pyproject.toml", "requirements.lock", "README.md", "LICENSE"]:
        shutil.copy(ROOT / source, place)
    for source in ["cdc_flower", "strategies", "clients", "experiments"]:
        shutil.copytree(ROOT / source, place / source, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    binaries = tmp_path / "env" / "bin"
    variables = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
    variables = {k: v for k, v in variables.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    key, _, value = made["ARG"].partition("=")
    variables[key] = os.environ.get(key, value)
    steps = [run for run in made["RUN"] if run.startswith("pip ")]
    assert len(steps) == len(made["RUN"]) - 1  # the other makes the user
    for step in steps:
        subprocess.run(step, shell=True, check=True, cwd=place, env=variables)
    command = [binaries / made["ENTRYPOINT"][0]]
    said = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=True, env=variables, cwd=tmp_path
    )
    assert said.stdout.startswith("cdc-flower 0")
    said = subprocess.run(
        [*command, "provision", "files", "out"],
        capture_output=True,
        text=True,
        check=True,
        env=variables,
        cwd=tmp_path,
    )
    assert "compose.yaml" in said.stdout  # the wheel has them
    freeze = subprocess.run(
        [binaries / "pip", "list"], capture_output=True, text=True, check=True, env=variables
    ).stdout
    assert "nvidia" not in freeze
    assert "pytest" not in freeze
