"""`cdc-flower privacy`: what clipping and noise on tokens are worth, before anything is sent."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated

import typer

from cdc_flower.config import ConfigError
from experiments.cli.options import Data, Preset, Sets, checked, chosen_settings
from experiments.cli.saying import say
from experiments.report.tables import Fitted, show

STRONG = (1.0, 8.0)  # epsilons for which the noise is named: what is called strong, and what is in use


def privacy(
    delta: Annotated[
        float, typer.Option(min=1e-30, max=0.5, help="Of (epsilon, delta) differential privacy.")
    ] = 1e-5,
    data: Data = None,
    preset: Preset = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Epsilon of what a device sends under uplink.clip and uplink.noise; needs opacus.

    Local, replace-one, against the cloud and everyone behind it. Nothing is loaded but the model's shape.
    """
    config = checked(chosen_settings(data, preset, sets))
    if config.uplink.unit != "tokens":
        raise ConfigError(
            f"setting 'uplink.unit' = '{config.uplink.unit}': pictures go up as they are; allowed: tokens"
        )

    from cdc_flower.models.folders import paths
    from cdc_flower.models.shared import checked_config
    from cdc_flower.plan.facts import lengths
    from cdc_flower.plan.privacy import noise_for, releases

    student = paths(config.pair, config.data.name).student
    picture = lengths(config, checked_config(student, "student"), student).picture
    found = releases(config, picture, delta)
    once = found[1].tokens
    needed = {wanted: noise_for(wanted, once, delta) for wanted in STRONG}
    if as_json:
        rows = [dataclasses.asdict(one) | {"epsilon": _number(one.epsilon)} for one in found]
        typer.echo(
            json.dumps(
                {
                    "clip": config.uplink.clip,
                    "noise": config.uplink.noise,
                    "delta": delta,
                    "releases": rows,
                    "noise_for_a_picture": {f"{wanted:g}": round(n, 4) for wanted, n in needed.items()},
                },
                indent=1,
            )
        )
        return
    heads = ("what may differ", "tokens, at most", f"epsilon at delta {delta:g}, at most")
    show(Fitted(heads, [(one.name, f"{one.tokens:,}", _shown(one.epsilon)) for one in found]))
    if not config.uplink.noise:
        say("no noise: nothing is promised (--set uplink.clip=C --set uplink.noise=S)")
    for wanted, noise in needed.items():
        say(f"epsilon {wanted:g} for a picture that is sent once takes uplink.noise = {noise:.3g}")
    show("not covered: which samples and how many, which tokens are kept, questions, answers, uncertainty")


def _number(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return round(value, 4) if math.isfinite(value) else None


def _shown(value: float) -> str:
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}" if math.isfinite(value) else "infinite"
