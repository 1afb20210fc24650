"""The first screen of a report: two sentences, computed from the numbers whichever way they fall.

The first says what was compared. The second says who came first, at what cost, and how sure that is; where a
lead is not told from 0, or runs are missing, it names no winner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdc_flower.tasks import task_of
from experiments.report import sure
from experiments.report.amounts import percent, size
from experiments.report.summary import Comparison, moved
from experiments.report.sure import Sure
from experiments.report.terminal import share

NAMED = 6  # arms that are named one by one
SAID = 2  # of those that are not told from the first, with their figures
NEW = {"object": "objects", "question": "kinds of question", "style": "styles", "mixed": "mixtures of these"}


def sentences(comparison: Comparison) -> tuple[str, str]:
    """What was compared, and what came of it."""
    return compared(comparison), verdict(comparison)


def named(index: Mapping[str, Any]) -> str:
    """The arms, by name where they are few."""
    arms = index["methods"]
    what = "method" if all(arm == of.get("run.method") for arm, of in index["arms"].items()) else "variant"
    return listed([_name(arm) for arm in arms]) if len(arms) <= NAMED else counted(len(arms), what)


def compared(comparison: Comparison) -> str:
    """Data, devices, rounds, methods and seeds, for somebody who has read nothing."""
    index, by = comparison.index, sure.judged_by(comparison)
    config, arms, seeds = index["config"], index["methods"], len(index["seeds"])
    new = [NEW.get(domain, domain) for domain in comparison.items if domain != sure.SOURCE]
    met = f"met {listed(new)} that they were not trained on" if new else "met only what they were trained on"
    return (
        f"On the data “{index['data']}”, models on {counted(config['run.devices'], 'device')} {met}, "
        f"for {counted(config['run.rounds'], 'round')}; {named(index)} {'was' if len(arms) == 1 else 'were'} "
        f"to keep their answers right, {'each ' if len(arms) > 1 else ''}in {counted(seeds, 'run')}"
        f"{' of different seeds' if seeds > 1 else ''}, judged by {_items(comparison, by)}."
    )


def _items(comparison: Comparison, by: str) -> str:
    every = comparison.items.items()
    held = sum(n for d, n in every if by == sure.OWN or (d == sure.SOURCE) == (by == sure.SOURCE))
    of = {sure.OWN: " of the devices' own", sure.DRIFT: " about what was new"}.get(by, "")
    return f"{held:,} questions{of} that nothing was learned from"


def verdict(comparison: Comparison) -> str:
    """Who came first, at what cost, and how sure that is."""
    if comparison.methods.empty:
        return "No run has come to an evaluation, so nothing can be said about any of them."
    by, index = sure.judged_by(comparison), comparison.index
    planned = len(index["methods"]) * len(index["seeds"])
    if left := planned - int((comparison.runs["status"] == "completed").sum()):
        return (
            f"No winner can be named: {left} of {planned} runs did not end, and the others conclude nothing."
        )
    reached = {arm: sure.reached(comparison, arm, by) for arm in comparison.methods["method"]}
    ranked = sorted(reached, key=lambda arm: -reached[arm].value)
    facts = {arm: _fact(comparison, arm, has) for arm, has in reached.items()}
    if len(ranked) == 1:
        return _alone(comparison, ranked[0], reached[ranked[0]], by)
    ahead = {arm: sure.lead((comparison, ranked[0]), (comparison, arm), by) for arm in ranked[1:]}
    if like := [arm for arm in ahead if not ahead[arm].apart]:
        return _tie(comparison, facts, ranked[0], like, ahead)
    return _won(comparison, facts, ranked, ahead)


def _alone(comparison: Comparison, arm: str, has: Sure, by: str) -> str:
    """Of one arm there is nothing but what it began with."""
    fact = _fact(comparison, arm, has)
    if not comparison.index["traits"][arm]["adapts"]:
        return f"Nothing was tried but {fact}, so there is no winner."
    curve = sure.curve(comparison, by)
    began = curve[(curve["method"] == arm) & (curve["round"] == 0)]["mean"].tolist()
    since = f" after {_worth(comparison, began[0])} as shipped" if began else ""
    sure_of = how_sure(has, "its share")
    return f"It ended as {fact}{since}; nothing else was run to compare it with, and {sure_of}."


def _tie(
    comparison: Comparison,
    facts: Mapping[str, str],
    best: str,
    like: Sequence[str],
    ahead: Mapping[str, Sure],
) -> str:
    """The first and those that it is not told apart from, with the nearest lead."""
    lead = ahead[like[0]]
    what = f"the lead over {_name(like[0])}"
    adapt = [arm for arm in (best, *like) if comparison.index["traits"][arm]["adapts"]]
    cheap = min(adapt, key=lambda arm: moved(comparison, arm), default=best)
    least = f"; {_name(cheap)} sent the least" if moved(comparison, cheap) < moved(comparison, best) else ""
    more = [f"{len(like) - SAID} others"] if len(like) > SAID else []
    others = listed([facts[arm] for arm in like[:SAID]] + more)
    behind = next((arm for arm in ahead if arm not in like), None)
    next_ = f"; {_points(ahead[behind].value)} behind is {facts[behind]}" if behind else ""
    less = " or less" if len(like) > 1 else ""
    return (
        f"No winner can be named: {facts[best]} is {_points(ahead[like[-1]].value)}{less} ahead of "
        f"{others}, which may be chance{least}{next_}; {how_sure(lead, what)}."
    )


def _won(
    comparison: Comparison, facts: Mapping[str, str], ranked: Sequence[str], ahead: Mapping[str, Sure]
) -> str:
    (best, second, *others), traits = ranked, comparison.index["traits"]
    begin = "First is" if traits[best]["adapts"] else "Nothing did better than no change at all: first is"
    free = [arm for arm in others if traits[arm]["adapts"] and not traits[arm]["labels"]]
    also = ""
    if free and traits[best]["labels"] and (traits[second]["labels"] or not traits[second]["adapts"]):
        also = (
            f", and {_points(ahead[free[0]].value)} ahead of the best without true labels, {facts[free[0]]}"
        )
    return (
        f"{begin} {facts[best]}, {_points(ahead[second].value)} ahead of {facts[second]}{also}; "
        f"{how_sure(ahead[second], 'the first lead' if also else 'that lead')}."
    )


def _fact(comparison: Comparison, arm: str, has: Sure) -> str:
    """An arm, what it reached, and what that took: "cdc (73.2 % right, 2.14 MB sent, no true labels)"."""
    traits = comparison.index["traits"][arm]
    if not traits["adapts"]:
        return f"{_name(arm)} ({_worth(comparison, has.value)}, the model as shipped)"
    took = [f"{size(moved(comparison, arm))} sent", f"{'with' if traits['labels'] else 'no'} true labels"]
    took += ["training on devices"] if traits["device_backprop"] else []
    return f"{_name(arm)} ({', '.join([_worth(comparison, has.value), *took])})"


def how_sure(what: Sure, name: str) -> str:
    """A clause on an interval, what it is over, and what it leaves out."""
    if what.ends is None:
        runs = {0: "runs without a common seed", 1: "one run"}.get(what.seeds, "runs that are all alike")
        return f"{runs} cannot say how sure {name} is"
    low, high = (percent(end, sign=name.endswith("lead") or " over " in name) for end in what.ends)
    lies = f"{name} lies between {low} and {high} (95 % interval over "
    if what.seeds > 1:
        return f"{lies}{what.seeds} seeds{' and their devices' if what.over == 'devices' else ''})"
    return f"{lies}{what.over}), but one seed was run, and another may end otherwise"


def _worth(comparison: Comparison, value: float) -> str:
    unit = task_of(comparison.index["config"]).shown
    return f"{share(value)} % right" if unit == "%" else f"{unit} {share(value)}"


def _points(value: float) -> str:
    return f"{share(value)} points"


def _name(arm: str) -> str:
    return f"“{arm}”" if "," in arm else arm


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def counted(many: int, what: str) -> str:
    """A number of things."""
    return f"{many:,} {what}{'' if many == 1 else 's'}"
