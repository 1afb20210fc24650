"""What a quarter of liars costs, with and without the doorkeeper.

`python -m experiments.controls.poisoning [--kinds huge,flood] [--seeds 100] [--out FOLDER] [--drops]`, or
with `--written`, or with `--aims`. Two of eight devices answer with each kind of harm (`clients.poisons`),
once with `cloud.doorkeeper` off and once with it on; beside them stand the run in which nobody lies, with
both, and the run in which the two are silent: a defence cannot do better than that. With `--written` no
teacher stands between: of `labelled`, whose cloud teaches what devices write, more and more devices write
wrong answers. With `--aims` nothing is learned, and of kinds that search for tokens it is counted to how many
samples the teacher gives the answer that was aimed at, and to how many the student as shipped answers as
before. Short runs on `scenes`, on tuning items. Runs that are done are read from the folder, so a table can
be made in parts. Prints it as Markdown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_flower import results
from cdc_flower.results import RunResult

if TYPE_CHECKING:
    from cdc_flower.uplink.sample import Batch
    from clients.poisons import Samples
    from clients.task import Task

LIARS, ROUNDS = (0, 3), 8
SHARES = (0, 1, 2, 4, 6)  # of eight devices, who write wrong answers
SETTINGS: Mapping[str, Any] = {
    "run.checkpoint-every": 0,
    "data.items": "tuning",
    "data.items-per-domain": 100,
    "cloud.source-replay": 1000,
    "cloud.batch": 48,
}
"""Of every run, beside the seed."""
WRITTEN: Mapping[str, Any] = {
    "run.method": "labelled",
    "run.rounds": 4,
    "run.eval-every": 4,
    "uplink.budget": 0,
    "cloud.questions": 1,
}
"""Instead, where devices write what is taught: all of it, and nothing else."""
UNLEARNT: Mapping[str, Any] = {
    "run.rounds": 3,
    "run.eval-every": 3,
    "uplink.budget": 20_000,
    "data.items-per-domain": 1,
    "cloud.steps": 0,
    "cloud.source-replay": 0,
    "cloud.source-teacher": "teacher",
    "cloud.guard": 0.0,
}
"""Instead, where it is only looked at what is dropped."""
NOBODY, SILENT = "nobody lies", "silent"
DONE = "done"  # in the folder of a run that ended


def settings(
    kind: str,
    doorkeeper: str,
    seed: int,
    out: Path,
    learns: bool = True,
    rounds: int = ROUNDS,
    budget: int | None = None,
) -> dict[str, Any]:
    """Of a run: `kind` is one of `clients.poisons.KINDS`, `NOBODY` or `SILENT`; without `learns` the student
    stays as it is, for three rounds; `budget` is `uplink.budget` [bytes], None = the default.
    """
    liars = ",".join(map(str, LIARS))
    failing = ",".join(f"{r + 1}:{d}" for r in range(rounds) for d in LIARS)
    return {
        **SETTINGS,
        "run.rounds": rounds,
        "run.eval-every": rounds,
        **({} if budget is None else {"uplink.budget": budget}),
        **({} if learns else UNLEARNT),
        "run.seed": seed,
        "run.poison-devices": "" if kind in (NOBODY, SILENT) else f"{liars}:{kind}",
        "run.fail-devices": failing if kind == SILENT else "",
        "cloud.doorkeeper": doorkeeper,
        "run.out-dir": str(out),
    }


def written(liars: int, seed: int, out: Path) -> dict[str, Any]:
    """Settings of a run in which the first so many devices write wrong answers, and all others true ones."""
    who = ",".join(map(str, range(liars)))
    harm = {"run.poison-devices": f"{who}:mislabelled" if liars else ""}
    return {**SETTINGS, **WRITTEN, **harm, "run.seed": seed, "run.out-dir": str(out)}


def figures(folder: Path) -> dict[str, float]:
    """Accuracy [%] on what drifted and on the source after the last round, and what was `taken`."""
    found = results.read(folder)
    tested = found.rounds[found.rounds["kind"] == "test"]
    last = tested[tested["round"] == tested["round"].max()]
    of = {str(d): float(v) for d, v in zip(last["domain"], last["accuracy"], strict=True)}
    return {**right(of), **taken(found, LIARS)}


def right(of: Mapping[str, float]) -> dict[str, float]:
    """Accuracies by domain -> those [%] on what drifted, a mean over its domains, and on the source."""
    drift = [value for domain, value in of.items() if domain != "source"]
    return {"drift": 100 * sum(drift) / len(drift), "source": 100 * of["source"]}


def taken(found: RunResult, liars: Sequence[int]) -> dict[str, float]:
    """Samples that were taken of the liars and of the others, and the sum of every metric of the rounds."""
    lied = found.devices["device"].isin(liars)
    return {
        "liars": float(found.devices[lied]["uploaded_samples"].sum()),
        "honest": float(found.devices[~lied]["uploaded_samples"].sum()),
        **{str(name): float(of["value"].sum()) for name, of in found.metrics.groupby("name")},
    }


def made(folder: Path, own: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the run in a folder, which is made where it is not there."""
    from cdc_flower.config import parse
    from experiments.run.settings import resolve
    from strategies.run import run_local

    if not (folder / DONE).exists():
        run_local(parse(resolve("scenes", None, [f"{key}={value}" for key, value in own.items()])[0]))
        (folder / DONE).touch()
    return figures(folder)


def mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of every figure, over seeds."""
    return {key: sum(one[key] for one in found) / len(found) for key in found[0]}


def table(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown of kind -> doorkeeper -> figures, where one that was not run is absent; dropped means less
    than honest devices of `NOBODY` gave without it.
    """
    lines = [
        "| two of eight | drift, off | on | source, off | on | taken of liars, off | on | honest dropped |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    given = rows[NOBODY].get("off", rows[NOBODY].get("on", {})).get("honest", 0.0)
    for kind, both in rows.items():
        cells = [
            f"{both[door][name]:.{places}f}" if door in both else ""
            for name, places in (("drift", 1), ("source", 1), ("liars", 0))
            for door in ("off", "on")
        ]
        dropped = f"{100 * (1 - both['on']['honest'] / given):.1f} %" if "on" in both else ""
        lines.append(f"| {kind} | {' | '.join([*cells, dropped])} |")
    return "\n".join(lines)


def shares(rows: Mapping[int, Mapping[str, float]]) -> str:
    """Markdown of how many write wrong answers -> figures."""
    lines = ["| of eight write wrong answers | drift | source |", "| ---: | ---: | ---: |"]
    return "\n".join(
        [*lines, *(f"| {n} | {of['drift']:.1f} | {of['source']:.1f} |" for n, of in rows.items())]
    )


def dropped(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown of kind -> figures of a run with the doorkeeper."""
    lines = [
        "| two of eight | strange | twice | beyond | unheard | taken of liars | taken of others |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, of in rows.items():
        cells = [of[f"dropped_{why}"] for why in ("strange", "twice", "beyond", "unheard")]
        lines.append(
            " | ".join([f"| {kind}", *(f"{n:.0f}" for n in (*cells, of["liars"], of["honest"]))]) + " |"
        )
    return "\n".join(lines)


def aims(kind: str, seed: int) -> dict[str, float]:
    """What the search of a kind reaches in a run of three rounds in which nothing is learned, as
    `clients.poisons.reached` counts it; means [%] over the batches of both liars.
    """
    from clients import poisons

    found: list[tuple[float, float]] = []
    search = poisons.KINDS[kind]

    def counted(task: Task, batch: Batch, poisoners: Sequence[int]) -> Samples:
        harmful = search(task, batch, poisoners)
        found.append(poisons.reached(task, batch, harmful))
        return harmful

    poisons.KINDS[kind] = counted
    try:
        with tempfile.TemporaryDirectory(prefix="aims-") as out:
            made(Path(out), settings(kind, "off", seed, Path(out), learns=False))
    finally:
        poisons.KINDS[kind] = search
    hit, same = (100 * sum(of) / len(of) for of in zip(*found, strict=True))
    return {"batches": float(len(found)), "aimed": hit, "unseen": same}


def main(
    kinds: Annotated[str, typer.Option(help="Of harm; default: all that devices can do in cdc.")] = "",
    seeds: Annotated[str, typer.Option(help="Of the runs.")] = "100",
    out: Annotated[Path | None, typer.Option(help="Where runs are, or will be; default: a new one.")] = None,
    drops: Annotated[bool, typer.Option(help="Learn nothing, and tell what is dropped.")] = False,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Of a run that learns.")] = ROUNDS,
    budget: Annotated[int | None, typer.Option(min=1, help="uplink.budget; default: as ever.")] = None,
    doors: Annotated[str, typer.Option(help="The doorkeeper: off, on, or off,on.")] = "off,on",
    answers: Annotated[bool, typer.Option("--written", help="Devices write what is taught.")] = False,
    reach: Annotated[
        bool, typer.Option("--aims", help="Learn nothing, and tell what searches reach.")
    ] = False,
) -> None:
    """Run every kind of harm with and without the doorkeeper, and print the table."""
    from cdc_flower.rules import POISONS

    chosen = [kind for kind in kinds.split(",") if kind] or [k for k in POISONS if k != "mislabelled"]
    odd = [kind for kind in chosen if kind not in POISONS]
    if odd_door := [door for door in doors.split(",") if door not in ("off", "on")]:
        raise typer.BadParameter(f"{odd_door}; allowed: off, on, or off,on", param_hint="--doors")
    if odd or not all(seed.isdigit() for seed in seeds.split(",")):
        raise typer.BadParameter(f"{odd or seeds}; allowed: kinds of {', '.join(POISONS)}, seeds 1,2")
    whole = (out or Path(tempfile.mkdtemp(prefix="poisoning-"))).absolute()

    def run(name: str, own: Callable[[int, Path], Mapping[str, Any]]) -> dict[str, float]:
        found = []
        for seed in map(int, seeds.split(",")):
            folder = whole / f"{name.replace(' ', '-')}-{seed}"
            found.append(made(folder, own(seed, folder)))
        typer.echo(f"{name}: {mean(found)}", err=True)
        return mean(found)

    if reach:
        typer.echo("| kind | batches | teacher says what was aimed at, % | student answers as before, % |")
        typer.echo("| --- | ---: | ---: | ---: |")
        for kind in chosen:
            of = [aims(kind, int(seed)) for seed in seeds.split(",")]
            batches, hit, same = sum(o["batches"] for o in of), mean(of)["aimed"], mean(of)["unseen"]
            typer.echo(f"| {kind} | {batches:.0f} | {hit:.0f} | {same:.0f} |")
    elif answers:
        typer.echo(shares({n: run(f"{n} write", partial(written, n)) for n in SHARES}))
    elif drops:
        told = {k: run(f"{k}-unlearnt", partial(settings, k, "on", learns=False)) for k in (NOBODY, *chosen)}
        typer.echo(dropped(told))
    else:
        own = "" if (rounds, budget) == (ROUNDS, None) else f"-{rounds}-{budget or 'default'}"
        rows = {
            kind: {
                door: run(f"{kind}-{door}{own}", partial(settings, kind, door, rounds=rounds, budget=budget))
                for door in doors.split(",")
            }
            for kind in (NOBODY, SILENT, *chosen)
        }
        typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
