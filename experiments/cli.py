"""The command line: `cdc-flower compare | simulate | pretrain | data | report`.

What cannot be used is refused with one line on standard error and exit code 2; Ctrl-C ends with 130 after
the rounds that were done have been reported; a run that failed ends with 1. Commands import what they need
when they are called.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from cdc_flower.config import METHODS, ConfigError, parse
from experiments import settings

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Compressed multimodal models on devices, and a cloud that keeps them right as their world drifts.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="Check, look at and import data packs.")
app.add_typer(data_app, name="data")

Data = Annotated[str | None, typer.Option(help='"scenes" (generated) or the folder of a data pack.')]
Preset = Annotated[
    str | None, typer.Option(help="Settings by name; default: the preset of the data, or 'none'.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; repeatable.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the results.")]


class Engine(StrEnum):
    """Where a simulation runs."""

    local = "local"
    flower = "flower"


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from cdc_flower import results

        typer.echo(f"cdc-flower {results.package_versions().get('cdc-flower', 'as source, not installed')}")
        raise typer.Exit


def _settings(data: str | None, preset: str | None, sets: list[str] | None) -> dict[str, Any]:
    found, name = settings.resolve(data, preset, sets or [])
    if name not in (None, "none"):
        typer.echo(f"preset {name}: experiments/presets/{name}.toml", err=True)
    parse(found)
    return found


@app.command()
def compare(
    data: Data = None,
    preset: Preset = None,
    methods: Annotated[
        str, typer.Option(help="Comma list, in the order of the table; default: all.", show_default=False)
    ] = ",".join(METHODS),
    seeds: Annotated[
        int,
        typer.Option(help="Runs per method, default 1; from 2 on with 95 % intervals.", show_default=False),
    ] = 1,
    out: Out = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished runs of the same settings.")
    ] = False,
    sets: Sets = None,
) -> None:
    """Run methods side by side and write a table, summary.json and report.html."""
    from experiments import compare as comparing

    chosen = tuple(m.strip() for m in methods.split(",") if m.strip())
    try:
        made = comparing.run(
            _settings(data, preset, sets), chosen, seeds=seeds, out=out, workers=workers, resume=resume
        )
    except comparing.Interrupted as stopped:
        _show(stopped.comparison)
        raise
    _show(made)
    if made.status == "failed":
        for name, why in made.index["failed"].items():
            typer.echo(f"error: {name}: {why}", err=True)
        raise typer.Exit(1)


def _show(comparison: Any) -> None:
    from rich.console import Console

    from experiments import screen
    from experiments.notes import notes
    from experiments.report import REPORT

    console = Console(highlight=False)
    console.print(screen.table(comparison))
    for line in notes(comparison):
        console.print(line, markup=False)
    typer.echo(f"report: {comparison.out / REPORT}")


@app.command()
def simulate(
    method: Annotated[
        str, typer.Option(help=f"One of {', '.join(METHODS)}; default cdc.", show_default=False)
    ] = "cdc",
    data: Data = None,
    preset: Preset = None,
    engine: Annotated[
        Engine,
        typer.Option(help="local (default): this process; flower: `flwr run .` on Ray.", show_default=False),
    ] = Engine.local,
    out: Out = None,
    sets: Sets = None,
) -> None:
    """Run one method and write its run folder."""
    found = {**_settings(data, preset, sets), "method": method}
    config = parse(found)
    target = Path(out or config.run.out_dir or f"results/{method}-{config.run.seed}").absolute()
    config = parse({**found, "out-dir": str(target)})

    from cdc_flower import results
    from experiments import pool
    from experiments import simulate as simulating
    from experiments.screen import Screen, share, size

    pool.silence()
    with Screen(1) as screen, screen.preparing(f"{method} · seed {config.run.seed}") as tell:
        folder = {Engine.local: simulating.local, Engine.flower: simulating.flower}[engine](config, tell)
    run = results.read(folder)
    for domain, accuracy in results.final_accuracy(run.rounds).items():
        typer.echo(f"{domain}: {share(accuracy)} %")
    total = results.totals(run.devices)
    typer.echo(f"up {size(total['uplink_bytes'])}, down {size(total['downlink_bytes'])}, "
               f"{total['failures']} failed device-tasks")  # fmt: skip
    typer.echo(f"run folder: {folder}")


@app.command()
def pretrain(
    data: Data = None,
    preset: Preset = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the pair; default pairs/<name of the data>.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Train a pair of models (tower, teacher, student) for a data pack; run again to resume."""
    config = parse(_settings(data, preset, sets))
    target = (out or Path("pairs") / config.data.name).absolute()

    from experiments import pool
    from experiments import pretrain as training
    from experiments.screen import Screen, share

    pool.silence()
    with Screen(1) as screen, screen.preparing(f"pair for {config.data.name}") as tell:
        card = training.pretrain(config, target, progress=tell)
    for role, scores in card["scores"].items():
        by_domain = ", ".join(f"{domain} {share(value)} %" for domain, value in scores["by_domain"].items())
        typer.echo(f"{role}: {by_domain}")
    typer.echo(f"pair: {target}  (use it with --set pair={target})")


@data_app.command("check")
def data_check(
    folder: Path,
    max_answer_chars: Annotated[
        int, typer.Option(help="Longest answer allowed, default 64.", show_default=False)
    ] = 64,
) -> None:
    """Validate a pack: files, columns, rows, pictures."""
    from cdc_flower.data.packs import read_pack

    pack = read_pack(folder, max_answer_chars)
    for name, frame, images in (
        ("train", pack.train, pack.train_images),
        ("test", pack.test, pack.test_images),
    ):
        counts = {column: frame[column].nunique() for column in ("answer", "qtype", "user")}
        typer.echo(
            f"{name}: {len(frame)} questions on {len(images)} pictures, {counts['answer']} answers, "
            f"{counts['qtype']} kinds, {counts['user']} users"
        )
    typer.echo(f"{pack.name}: fine, sha256 {pack.digest}")


@data_app.command("show")
def data_show(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help='A pack folder, or "scenes".')] = "scenes",
    preset: Preset = None,
    sets: Sets = None,
) -> None:
    """Count a pack's samples by domain and kind of question, as a run with these settings would see them."""
    config = parse(_settings(folder, preset, sets))

    from rich.console import Console
    from rich.table import Table

    from cdc_flower.data import packs, stream

    pack = packs.load(config.data)
    table = Table("split", "domain", "qtype", "samples", "pictures", "answers", "e.g.")
    for name, frame in (("train", pack.train), ("test", pack.test)):
        parts = frame.assign(drift=stream.domains(frame, config.data, pack.train))
        for (domain, qtype), rows in parts.groupby(["drift", "qtype"], sort=True):
            example = f"{rows['question'].iloc[0]} {rows['answer'].iloc[0]}"
            table.add_row(name, str(domain), str(qtype), str(len(rows)), str(rows["image_id"].nunique()),
                          str(rows["answer"].nunique()), example)  # fmt: skip
    Console(highlight=False).print(table)


Mapping = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="COLUMN=FIELD", help="Pack column and its name in the source."),
]
TestShare = Annotated[
    float,
    typer.Option(help="Share of pictures held out without a test split; default 0.2.", show_default=False),
]


def _mapping(texts: list[str] | None) -> dict[str, str]:
    found = {}
    for text in texts or []:
        column, equals, name = text.partition("=")
        if not equals:
            raise ConfigError(f"--map {text!r}; allowed: column=field")
        found[column.strip()] = name.strip()
    return found


@data_app.command("import-jsonl")
def data_import_jsonl(
    source: Path,
    out: Path,
    jsonl: Annotated[
        str, typer.Option(help="Name of the file in SOURCE; default: the only *.jsonl there.")
    ] = "",
    mapping: Mapping = None,
    test_share: TestShare = 0.2,
) -> None:
    """Make the pack OUT from a folder of pictures and a JSONL file (image, question, answer)."""
    from cdc_flower.data.importers import from_jsonl

    from_jsonl(source, out, jsonl=jsonl, mapping=_mapping(mapping), test_share=test_share)
    data_check(out)


@data_app.command("import-datasets")
def data_import_datasets(
    source: Annotated[str, typer.Argument(help="A dataset saved on disk, or its name on the hub.")],
    out: Path,
    mapping: Mapping = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub dataset.")] = None,
    train_split: Annotated[
        str, typer.Option(help="Split that becomes train, default train.", show_default=False)
    ] = "train",
    test_split: Annotated[str | None, typer.Option(help="Split that becomes test.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many rows of each split.")] = None,
    test_share: TestShare = 0.2,
) -> None:
    """Make the pack OUT from a Hugging Face dataset."""
    from cdc_flower.data.importers import from_datasets

    from_datasets(
        source,
        out,
        _mapping(mapping),
        subset=subset,
        train_split=train_split,
        test_split=test_split,
        limit=limit,
        test_share=test_share,
    )
    data_check(out)


@app.command()
def report(folder: Path) -> None:
    """Write report.html and summary.json of a comparison again, from what lies in its folder."""
    from experiments import report as reporting
    from experiments import summary

    summary.write_summary(summary.read(folder))
    typer.echo(f"report: {reporting.write(folder)}")


def main(arguments: list[str] | None = None) -> None:
    """Entry of the `cdc-flower` command; ends the process with its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except ConfigError as err:
        _refuse(str(err), 2)
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        sys.exit(2)
    except click.ClickException as err:
        _refuse(err.format_message(), err.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _stopped()
    except RuntimeError as err:
        from experiments.simulate import EngineError

        if not isinstance(err, EngineError):
            raise
        _refuse(str(err), 1)
    else:
        if code == 130:  # how typer returns Ctrl-C
            _stopped()
        sys.exit(code if isinstance(code, int) else 0)


def _stopped() -> None:
    typer.echo("interrupted", err=True)
    sys.exit(130)


def _refuse(message: str, code: int) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
