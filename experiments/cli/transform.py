"""`cdc-flower transform`: the axes that tokens are sent in, estimated for a pair that came without."""

from __future__ import annotations

import typer

from cdc_flower.config import parse
from experiments.cli.options import Data, Preset, Sets, chosen_settings
from experiments.cli.saying import say


def transform(data: Data = None, preset: Preset = None, sets: Sets = None) -> None:
    """Estimate the transform of tokens of a pair that has none, as its first run does.

    The pair is that of the settings, e.g. --set pair.teacher=FOLDER --set pair.student=FOLDER.
    """
    config = parse(chosen_settings(data, preset, sets))

    from experiments.report.terminal import Terminal
    from experiments.run import pairs, pool

    pool.silence()
    with Terminal(1) as terminal, terminal.preparing("transform") as tell:
        pairs.ensure(config, terminal.say, tell)
        found = pairs.transform(config, terminal.say, tell)
    if found is None:
        raise typer.Exit(1)
    path, turn, errors = found
    say(f"{path}: {turn.mean.size} components, {(turn.scale > 1).sum()} outlying channels divided")
    for bits, (plain, turned) in errors.items():
        say(f"error in {bits} bits: {plain:.1%} of the tokens as they are, {turned:.1%} transformed")
