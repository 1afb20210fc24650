"""`cdc-flower pretrain`: a pair of models for a data pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cdc_flower.config import parse
from experiments.cli.checked import NewFolder, goes_on
from experiments.cli.options import Data, Preset, Sets, chosen_settings
from experiments.cli.saying import say
from experiments.pretrain.recipes import RECIPES, Recipe, shortened


def pretrain(
    data: Data = None,
    preset: Preset = None,
    out: Annotated[
        Path | None,
        typer.Option(
            click_type=NewFolder(), help="Folder of the pair; default: in the cache, where runs find it."
        ),
    ] = None,
    steps_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of every stage's steps, for a quick try; default 1.", show_default=False
        ),
    ] = 1.0,
    recipe_seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**31 - 1, help="Of every draw of the training: pairs that differ in it alone."
        ),
    ] = 0,
    teacher_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the teacher's steps alone: a weaker teacher of the same student; default 1.",
            show_default=False,
        ),
    ] = 1.0,
    sets: Sets = None,
) -> None:
    """Train a pair of models for a data pack.

    Tower, teacher and student; the same command goes on where it was stopped.
    """
    config = parse(chosen_settings(data, preset, sets))
    name = config.data.name
    recipe = replace(shortened(RECIPES.get(name, Recipe()), steps_share), seed=recipe_seed)
    recipe = replace(recipe, teacher_steps=shortened(recipe, teacher_share).teacher_steps)

    from experiments.report.terminal import Terminal, share
    from experiments.run import pairs, pool

    other = "-quick" if steps_share < 1 else f"-{recipe_seed}" if recipe_seed else ""
    other += f"-t{100 * teacher_share:.0f}" if teacher_share < 1 else ""
    kept = pairs.folder(name + other)  # runs look for the pair of seed 0, and a quick try is none to run with
    target = (out or kept).absolute()
    pool.silence()
    if teacher_share < 1:
        pairs.borrow(target, [pairs.folder(name), *pairs.folder(name).parent.glob(f"{name}-t*")])
    stages = goes_on(lambda: f"what was trained is in '{target}'; the same command goes on")
    with stages, Terminal(1) as terminal, terminal.preparing(f"pair for {name}") as tell:
        card = pairs.train(config, target, recipe, tell, terminal.say)
    say("A: what the pair learned from; B: what devices meet; C: what runs are judged by")
    for role, scores in card["scores"].items():
        for part, found in scores.items():
            by_domain = ", ".join(f"{domain} {share(of)} %" for domain, of in found["by_domain"].items())
            say(f"{role} on {part}: {by_domain}")
    found = target == pairs.folder(name).absolute()
    say(f"pair: {target}" + ("" if found else f"  (use it with --set pair.folder={target})"))
    if steps_share < 1:
        say(f"note: {steps_share:.3g} of the steps: enough to try the commands with, not to judge methods by")
