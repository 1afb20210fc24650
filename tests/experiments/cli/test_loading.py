"""Something is on the screen before anything is loaded that takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import click

from experiments.cli import loading
from tests.experiments.cli.test_bad_input import COMMANDS, called

NOTHING = click.Option(["--nothing"], is_flag=True)
ROOT = Path(__file__).parents[3]
FIRST = """
import json, sys
import typer
from experiments.cli import app
from experiments.cli.loading import HEAVY

class Seen(BaseException):
    pass

class Screen:
    encoding, errors = "utf-8", "strict"
    def write(self, text):
        loaded = sorted(HEAVY & set(sys.modules))
        if not text:  # click asks whether it takes bytes
            return
        raise Seen(text if isinstance(text, str) else text.decode(), loaded)
    def flush(self):
        pass
    def isatty(self):
        return False

app.app = typer.main.get_command(app.app)  # once, and not for every call
streams, first = (sys.stdout, sys.stderr), {}
for arguments in json.loads(sys.argv[1]):
    sys.stdout = sys.stderr = Screen()
    try:
        app.main(arguments)
    except Seen as seen:
        first[" ".join(arguments)] = seen.args
    except BaseException as err:
        first[" ".join(arguments)] = (repr(err), sorted(HEAVY & set(sys.modules)))
sys.stdout, sys.stderr = streams
print(json.dumps(first))
"""
"""Calls the commands, each up to the first thing that it writes."""


def test_every_command_says_something_before_it_loads_what_takes_seconds(tmp_path):
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-file").write_text("text")
    calls = [["--help"], ["--version"], *(called(path, NOTHING) for path in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", FIRST, json.dumps(calls)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    first = json.loads(done.stdout)
    assert len(first) == len({" ".join(call) for call in calls})
    late = {call: said for call, said in first.items() if said[1] or not said[0].strip()}
    assert not late, "what is loaded before the first line of it"
    assert first["plan --"][0] == f"{loading.LINE}\n"


def test_a_typo_is_refused_before_any_library_is_loaded():
    program = "import sys; from experiments.cli.app import main; main(sys.argv[1:])"
    for words, refusal in (
        (["simulate", "--set", "uplink.token-scor=norm"], "did you mean uplink.token-score"),
        (["compare", "--methods", "fedavg_lra"], "did you mean fedavg_lora?"),
        (["simulate", "--method", "fedavg_lra"], "did you mean fedavg_lora?"),
        (["plan", "--methods", "cdc,fedavg_lra"], "did you mean fedavg_lora?"),
    ):
        said = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=ROOT
        )
        assert said.returncode == 2
        assert refusal in said.stderr
        assert loading.LINE not in said.stderr
