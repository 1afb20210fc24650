"""Every command and every block of code in the documents is held against what is there.

Commands are parsed, their options, settings and names looked up; blocks of Python are run by the tests that
are named here. Above a block with commands that are not ours stands why they are not tried:
`<!-- not run: REASON -->`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from cdc_flower.fleet.cost import mixes
from clients.device import conditions
from experiments.run import arms
from tests import documents

EXECUTED = {
    "device.md": "tests/clients/device/test_camera.py",
    "extending.md": "tests/test_extending.py",  # all of them, as the files of a package
    "guide.md": "tests/test_walk.py",  # what the walk ends with, and test_the_comparison_from_python
}
"""Document with blocks of Python -> the tests that run them."""


def test_every_block_of_commands_can_be_read_by_a_shell():
    text = "\n".join(block.text for block in documents.blocks("sh"))
    said = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("document", [d.name for d in documents.DOCUMENTS if d.name != "extending.md"])
def test_commands_in_blocks_are_there_with_their_options_and_settings(document):
    """Those of extending.md are looked up where its package is installed: tests/test_extending.py."""
    found = {}
    for block in documents.blocks("sh"):
        for words in documents.commands(block.text) if block.document == document else ():
            why = documents.wrong(words)
            if why and not (block.not_run and why.endswith(documents.UNKNOWN)):
                found[" ".join(words)] = why
    assert found == {}


def test_commands_in_sentences_are_there_with_their_options_and_settings():
    tried = {
        f"{document}: {' '.join(words)}": documents.wrong(words, True)
        for document, words in documents.inline()
    }
    assert len(tried) > 50
    assert {command: why for command, why in tried.items() if why} == {}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("cdc-flower comparee", "no command"),
        ("cdc-flower compare --arm binding", "No such option"),
        ("cdc-flower compare --set run.roundz=3", "run.roundz"),
        ("cdc-flower compare --set run.rounds=0", "run.rounds"),
        ("cdc-flower compare --methods static,cdd", "no method"),
        ("cdc-flower compare --seeds many", "many"),
        ("cdc-flower compare --preset scene", "scene"),
        ("cdc-flower compare --arms bindings", "bindings"),
        ("cdc-flower page --only mains", "mains"),
        ("cdc-flower export results/cdc-0", "out is missing"),
        ("cdc-flower methods cdc", "unexpected"),
        ("cdc-flower provision device CLOUD --name x --set port=1", "no setting port"),
        ("make demos", "no target"),
        ("python -m experiments.bench.wires", "no module"),
        ("python -m experiments.bench.wire --fast", "no option"),
        ("pytest -m slow tests/test_none.py", "no file"),
        ("flwr run .", "not known here"),
    ],
)
def test_a_command_that_is_not_there_is_found(command, why):
    assert why in documents.wrong(command.split())


def test_blocks_say_what_they_are_and_data_can_be_read(tmp_path):
    kinds = {"sh": str, "toml": tomllib.loads, "json": json.loads, "python": compile, "text": str}
    for block in documents.blocks():
        assert block.kind in kinds, block
        if block.kind == "python":
            compile(block.text, block.document, "exec")
        else:
            kinds[block.kind](block.text)
    assert {b.document for b in documents.blocks("python")} == set(EXECUTED)


def test_files_that_are_shown_are_files_that_are_read(tmp_path):
    (study,) = [b for b in documents.blocks("toml") if b.document == "guide.md"]
    (tmp_path / "mine.toml").write_text(study.text)
    _, found = arms.read(str(tmp_path / "mine.toml"))
    assert len(found) == 5
    (mix,) = [b for b in documents.blocks("toml") if b.document == "fleet.md"]
    table = tomllib.loads(mix.text)
    assert table["mix"] == {"mine": 25, "pi4": 75}
    shares, _ = mixes.parse_mix("pi4=75%,pi5=25%")
    assert list(shares) == ["pi4", "pi5"]
    (now,) = [b for b in documents.blocks("json") if b.document == "device.md"]
    (tmp_path / "conditions.json").write_text(now.text)
    read = conditions.read(tmp_path)
    assert (read.battery, read.charging, read.temperature, read.metered) == (0.15, False, 71.5, True)


@pytest.mark.slow
def test_the_comparison_from_python(tmp_path):
    """As it stands in the guide, with fewer rounds and seeds."""
    (block,) = [b.text for b in documents.blocks("python") if "compare.run" in b.text]
    for long, short in (("seeds=3", "seeds=1"), ("run_rounds=6", "run_rounds=1, data_items_per_domain=10")):
        assert long in block
        block = block.replace(long, short)
    (tmp_path / "mine.py").write_text(block)
    said = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr[-3000:]
    assert "cdc" in said.stdout
    assert (tmp_path / "results" / "mine" / "summary.json").is_file()
