"""What a quarter of liars costs, with and without the doorkeeper.

`python -m experiments.controls.poisoning [--kinds huge,flood] [--seeds 100] [--out FOLDER] [--drops]`.
Two of eight
devices answer with each kind of harm (`clients.poisons`), once with `cloud.doorkeeper` off and once with it
on; beside them stand the run in which nobody lies, with both, and the run in which the two are silent: a
defence cannot do better than that. Short runs on `scenes`, on tuning items. Runs that are done are read from
the folder, so the table can be made in parts. Prints it as Markdown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

LIARS, ROUNDS = (0, 3), 8
SETTINGS: Mapping[str, Any] = {
    "run.rounds": ROUNDS,
    "run.eval-every": ROUNDS,
    "run.checkpoint-every": 0,
    "data.items": "tuning",
    "data.items-per-domain": 100,
    "uplink.budget": 4000,
    "cloud.source-replay": 1000,
}
"""Of every run, beside the seed."""
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


def settings(kind: str, doorkeeper: str, seed: int, out: Path, learns: bool = True) -> dict[str, Any]:
    """Of a run: `kind` is one of `clients.poisons.KINDS`, `NOBODY` or `SILENT`; without `learns` the student
    stays as it is.
    """
    liars = ",".join(map(str, LIARS))
    failing = ",".join(f"{r + 1}:{d}" for r in range(ROUNDS) for d in LIARS)
    return {
        **SETTINGS,
        **({} if learns else UNLEARNT),
        "run.seed": seed,
        "run.poison-devices": "" if kind in (NOBODY, SILENT) else f"{liars}:{kind}",
        "run.fail-devices": failing if kind == SILENT else "",
        "cloud.doorkeeper": doorkeeper,
        "run.out-dir": str(out),
    }


def figures(folder: Path) -> dict[str, float]:
    """Accuracy [%] on what drifted and on the source after the last round, and samples that were taken of the
    liars and of the others.
    """
    from cdc_flower import results

    found = results.read(folder)
    tested = found.rounds[found.rounds["kind"] == "test"]
    last = tested[tested["round"] == tested["round"].max()]
    of = {str(d): 100 * float(v) for d, v in zip(last["domain"], last["accuracy"], strict=True)}
    lied = found.devices["device"].isin(LIARS)
    drift = [v for domain, v in of.items() if domain != "source"]
    return {
        "drift": sum(drift) / len(drift),
        "source": of["source"],
        "liars": float(found.devices[lied]["uploaded_samples"].sum()),
        "honest": float(found.devices[~lied]["uploaded_samples"].sum()),
        **{str(name): float(of["value"].sum()) for name, of in found.metrics.groupby("name")},
    }


def made(kind: str, doorkeeper: str, seed: int, out: Path, learns: bool = True) -> dict[str, float]:
    """The figures of one run, which is made where it is not there."""
    from cdc_flower.config import parse
    from experiments.run.settings import resolve
    from strategies.run import run_local

    folder = out / f"{kind.replace(' ', '-')}-{doorkeeper}-{seed}"
    if not (folder / DONE).exists():
        own = [f"{key}={value}" for key, value in settings(kind, doorkeeper, seed, folder, learns).items()]
        run_local(parse(resolve("scenes", None, own)[0]))
        (folder / DONE).touch()
    return figures(folder)


def table(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown of kind -> doorkeeper -> figures; dropped means less than honest devices of `NOBODY` gave."""
    of = rows[NOBODY]["off"]
    lines = [
        "| two of eight | drift, off | on | source, off | on | taken of liars, off | on | honest dropped |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, both in rows.items():
        off, on = both["off"], both["on"]
        dropped = 100 * (1 - on["honest"] / of["honest"])
        lines.append(
            f"| {kind} | {off['drift']:.1f} | {on['drift']:.1f} | {off['source']:.1f} | {on['source']:.1f} | "
            f"{off['liars']:.0f} | {on['liars']:.0f} | {dropped:.1f} % |"
        )
    return "\n".join(lines)


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


def main(
    kinds: Annotated[str, typer.Option(help="Of harm; default: all.")] = "",
    seeds: Annotated[str, typer.Option(help="Of the runs.")] = "100",
    out: Annotated[Path | None, typer.Option(help="Where runs are, or will be; default: a new one.")] = None,
    drops: Annotated[bool, typer.Option(help="Learn nothing, and tell what is dropped.")] = False,
) -> None:
    """Run every kind of harm with and without the doorkeeper, and print the table."""
    from cdc_flower.rules import POISONS

    chosen = [kind for kind in kinds.split(",") if kind] or list(POISONS)
    odd = [kind for kind in chosen if kind not in POISONS]
    if odd or not all(seed.isdigit() for seed in seeds.split(",")):
        raise typer.BadParameter(f"{odd or seeds}; allowed: kinds of {', '.join(POISONS)}, seeds 1,2")
    folder = (out or Path(tempfile.mkdtemp(prefix="poisoning-"))).absolute()
    if drops:
        told = {}
        for kind in (NOBODY, *chosen):
            told[kind] = made(kind, "on", int(seeds.split(",")[0]), folder, learns=False)
            typer.echo(f"{kind}: {told[kind]}", err=True)
        typer.echo(dropped(told))
        return
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for kind in (NOBODY, SILENT, *chosen):
        for doorkeeper in ("off", "on"):
            found = [made(kind, doorkeeper, int(seed), folder) for seed in seeds.split(",")]
            mean = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
            rows.setdefault(kind, {})[doorkeeper] = mean
            typer.echo(f"{kind}, {doorkeeper}: {mean}", err=True)
    typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
