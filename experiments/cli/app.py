"""The command line: `cdc-flower compare | simulate | probe | pretrain | data | fleet | ...`, a file each.

What cannot be used is refused with one line on standard error and exit code 2; Ctrl-C ends with 130 after
the rounds that were done have been reported; a run that failed ends with 1. Commands import what they need
when they are called.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated

import click
import typer

from cdc_flower.border import one_line
from cdc_flower.config import ConfigError, RunError
from experiments.cli.calibrate import calibrate
from experiments.cli.checked import App, Stopped
from experiments.cli.cloud import cloud_app
from experiments.cli.compare import compare
from experiments.cli.data import data_app
from experiments.cli.device import device_app
from experiments.cli.export import export, families
from experiments.cli.fleet import fleet_app
from experiments.cli.leaderboard import leaderboard
from experiments.cli.loading import announced
from experiments.cli.page import page
from experiments.cli.plan import plan
from experiments.cli.pretrain import pretrain
from experiments.cli.privacy import privacy
from experiments.cli.probe import probe
from experiments.cli.provision import provision_app
from experiments.cli.report import report
from experiments.cli.saying import say
from experiments.cli.settings import methods, settings
from experiments.cli.simulate import simulate
from experiments.cli.transform import transform

EXAMPLES = {
    "compare": "cdc-flower compare --methods static,cdc --out results/look",
    "simulate": "cdc-flower simulate --method cdc --live --set run.rounds=4",
    "page": "cdc-flower page --only main,scenes --seeds 1",
    "plan": "cdc-flower plan --methods static,cdc --set run.devices=100",
    "probe": "cdc-flower probe downlink --seeds 3 --out results/probe",
    "pretrain": "cdc-flower pretrain --data FOLDER",
    "report": "cdc-flower report results/mine results/theirs",
    "data": "cdc-flower data check FOLDER",
}
"""Command -> the last line of its help."""


def _example(command: str) -> str | None:
    """What stands at the end of a command's help; click wraps no paragraph that begins so."""
    return f"\b\nExample: {EXAMPLES[command]}" if command in EXAMPLES else None


app = App(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compressed multimodal models on devices, and a cloud that keeps them right as their world drifts.",
)
for command in (
    compare,
    simulate,
    page,
    plan,
    privacy,
    probe,
    pretrain,
    transform,
    report,
    leaderboard,
    export,
    settings,
    methods,
    families,
    calibrate,
):
    app.command(epilog=_example(command.__name__))(command)
app.add_typer(data_app, name="data", epilog=_example("data"))
app.add_typer(fleet_app, name="fleet")
app.add_typer(provision_app, name="provision")
app.add_typer(cloud_app, name="cloud")
app.add_typer(device_app, name="device")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        try:
            number = metadata.version("cdc-flower")
        except metadata.PackageNotFoundError:
            number = "as source, not installed"
        say(f"cdc-flower {number}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Entry of the `cdc-flower` command; ends the process with its exit code."""
    announced()
    # Threads that wait by spinning take the cores from one another: where another process computes, a step of
    # pretraining on all cores took eight times as long. On idle cores sleeping costs it a tenth.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(args=arguments, standalone_mode=False)
    except ConfigError as err:
        _end("error", str(err), 2)
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        sys.exit(2)
    except Stopped as err:
        said, _, command = err.message.partition("\n")
        _end("interrupted", said, err.exit_code, command)
    except click.ClickException as err:
        _end("error", err.format_message(), err.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _end("interrupted", "", 130)
    except RunError as err:
        _end("error", str(err), 1)
    else:
        if code == 130:  # how typer returns Ctrl-C before a command is called
            _end("interrupted", "", code)
        sys.exit(code if isinstance(code, int) else 0)


def _end(what: str, message: str, code: int, command: str = "") -> None:
    """Say how it ended, in one line, and end; a command that goes on is on a line of its own, as it is typed,
    so that it can be pasted.
    """
    if code == 130 and sys.stderr.isatty():
        say("", err=True)  # behind the ^C that a terminal shows
    say(f"{what}: {one_line(message)}" if message else what, err=True)
    if command:
        typer.echo(command, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
