"""A pair of models for every data pack: where none is found, one is trained before the run and kept.

What is trained lies in the cache folder under the name of the data, which is where
`cdc_flower.models.folders` looks. An interrupted training goes on with the next call of any command that
needs the pair.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cdc_flower.config import Config, ConfigError
from cdc_flower.results import Progress
from experiments.pretrain.recipes import Recipe

if TYPE_CHECKING:
    from cdc_flower.models.transform import Transform

PICTURES = 64  # that errors of a transform are measured on
LEAST_LEAD = 0.05  # of a teacher over its student on what drifts in, for anything to be learned from it
KNOWN = ("known_styles", "known_objects", "known_questions")


def folder(data_name: str) -> Path:
    """Where the pair for the data of this name is kept."""
    from cdc_flower.data.features import cache_folder

    return cache_folder() / "pairs" / data_name


def ensure(
    config: Config, say: Callable[[str], None], progress: Progress, allowed: bool = True
) -> Path | None:
    """Train the pair of `config.data`, where one is needed and none is found.

    Never for the generated `scenes`, whose pair comes with the package, nor where the settings name models.
    A pair that was trained on what devices stream (an older one, without a split in its card) counts as none.
    Where the student of a pair was taught other things than the run assumes, a line says so.

    Args:
        config: the run's.
        say: gets lines for the person who waits.
        progress: gets the progress of the training.
        allowed: False = refuse instead of training.

    Returns:
        the folder of a pair trained here, None when there was one.

    Raises:
        PairError: none is found and `allowed` is False.
        ConfigError: the pack cannot be used, or not with this drift or name; before any training.
    """
    if config.pair.teacher or config.pair.student:
        return None
    from cdc_flower.data import packs, splits
    from cdc_flower.data.domains import check_domains, domains
    from cdc_flower.models import folders as finding

    name, why = config.data.name, ""
    try:
        found = finding.find_pair(config.pair, name)
        why = _outdated(found, config)
        if not why:
            _tell_difference(found, config, say)
            return None
        if not allowed or config.pair.folder:
            raise finding.PairError(f"{found}: {why}; allowed: another pair, by `cdc-flower pretrain`")
    except finding.PairError:
        if not allowed or config.pair.folder or config.data.pack in packs.GENERATED:
            raise
    target = folder(name)
    _check_name(config, target)
    pack = packs.load(config.data)
    parts = splits.divide(pack.train, pack.test, splits.Split(splits.column_of(config.data.split_by)))
    check_domains(
        domains(pack.train, config.data)[parts.met],
        domains(pack.test, config.data, reference=pack.train),
        config.axes,
    )
    say(
        f"{why or f'no pair of models for {name!r} yet'}: training one (tower, teacher, student), once, 5 to "
        "60 minutes on two cores. Ctrl-C is safe: the same command goes on where it stopped. "
        f"Kept in {target}; --no-pretrain refuses instead."
    )
    train(config, target, None, progress, say)
    return target


def _check_name(config: Config, target: Path) -> None:
    """Refuse to train for a pack folder that is called as generated data are: runs find the packaged pair.

    Raises:
        ConfigError: before any training.
    """
    from cdc_flower.data import packs

    name = config.data.name
    if name in packs.GENERATED and config.data.pack != name and target.absolute() == folder(name).absolute():
        raise ConfigError(
            f"data pack '{config.data.pack}': '{name}' are generated data, whose pair would be found in "
            "place of one trained here; allowed: a folder of another name, or `cdc-flower pretrain --out "
            "PAIR` and pair.folder=PAIR"
        )


def _outdated(found: Path, config: Config) -> str:
    """Why a pair that was found cannot be used with the data (`splits.old`), "" where it can."""
    from cdc_flower.data import packs, splits

    if config.data.pack in packs.GENERATED:
        return ""
    card = json.loads((found / "pair.json").read_text(encoding="utf-8"))
    return splits.old(card, packs.load(config.data))


def transform(
    config: Config, say: Callable[[str], None], progress: Progress
) -> tuple[Path, Transform, dict[int, tuple[float, float]]] | None:
    """Where the transform of a pair's tokens is, estimated if there is none; None where it cannot be had.

    With it come the relative errors of source tokens in 3, 4 and 8 bits: as they are, and transformed.
    """
    from cdc_flower.cloud.source import source_tokens
    from cdc_flower.data.world import load_world
    from cdc_flower.models import placement
    from cdc_flower.models.folders import paths
    from cdc_flower.models.shared import load_shared
    from cdc_flower.models.transform import FILE
    from cdc_flower.uplink.token_batch import error
    from strategies.transforms import provided

    placement.choose(config.run.device)
    shared = load_shared(config.pair, config.data.name, config.data.frames)
    world = load_world(config, shared, progress)
    shared = provided(config, shared, world, say, progress)
    if shared.transform is None:
        return None
    every = source_tokens(config, shared, world, progress)
    some = np.concatenate(every[:: max(len(every) // PICTURES, 1)]).astype(np.float32)
    errors = {bits: (error(some, bits), error(some, bits, shared.transform)) for bits in (3, 4, 8)}
    return paths(config.pair, config.data.name).transforms / FILE, shared.transform, errors


def tell_unlike(configs: Iterable[Config], say: Callable[[str], None]) -> None:
    """Say what a teacher cannot teach that has other words than the student, where a method has a teacher.

    Raises:
        ConfigError: what devices send or the loss needs is not possible with this pair.
    """
    from experiments.run.plan import holds
    from strategies.checks import check_unlike

    said = {check_unlike(c) for c in configs if c.pair.teacher and holds(c).distils}
    for line in sorted(said - {""}):
        say(f"note: {line}")


def _tell_difference(found: Path, config: Config, say: Callable[[str], None]) -> None:
    """Where the student was taught other things than the run assumes, drift is not what it seems."""
    taught = json.loads((found / "pair.json").read_text(encoding="utf-8")).get("known", {})
    assumed = {k: getattr(config.data, k) for k in KNOWN}
    other = [k for k in KNOWN if taught and any(assumed.values()) and assumed[k] != taught.get(k, "")]
    for key in other:
        say(
            f"note: the student of {found} was taught data.{key.replace('_', '-')}={taught.get(key, '')!r}, "
            f"the run assumes {assumed[key]!r}; train another with `cdc-flower pretrain`"
        )


def hardly_trained(config: Config) -> str:
    """Why figures of the pair of a run say little of methods, and what to do, in a sentence; "" where nothing
    is known against it, as of bare checkpoints.
    """
    if config.pair.teacher or config.pair.student:
        return ""
    from cdc_flower.models.folders import find_pair

    found = find_pair(config.pair, config.data.name)
    card = json.loads((found / "pair.json").read_text(encoding="utf-8"))
    whole = f"`cdc-flower pretrain --data {config.data.pack}` trains one whole"
    short = {stage: share for stage, share in card.get("steps_share", {}).items() if share < 1}
    short = {stage: share for stage, share in short.items() if stage != "teacher" or len(short) > 1}
    if short:
        most = max(short.values())
        return (
            f"The pair '{found}' was hardly trained ({100 * most:.3g} % of its steps): figures show that the "
            f"commands work, not what a method is worth; {whole}, without --steps-share."
        )
    teacher, student = (_drifted(card, role, config.axes) for role in ("teacher", "student"))
    if teacher is None or student is None or teacher - student >= LEAST_LEAD:
        return ""
    return (
        f"The teacher of '{found}' has {100 * teacher:.1f} % of drifted held-out samples right, the "
        f"student as shipped {100 * student:.1f} %: there is little to learn from it; more samples "
        "or steps may help (`cdc-flower pretrain`), or models of your own ('pair.teacher', 'pair.student')."
    )


def _drifted(card: Mapping[str, Any], role: str, axes: Sequence[str]) -> float | None:
    """The mean accuracy on the axes of drift that a card says of a model; None where it says none."""
    by = card.get("scores", {}).get(role, {}).get("C", {}).get("by_domain", {})
    found = [by[axis] for axis in axes if axis in by]
    return sum(found) / len(found) if found else None


def borrow(target: Path, others: Iterable[Path]) -> None:
    """Take over the stages of other pairs that `target` has not, but for their teachers, so that tower and
    student are not trained again: a stage of another recipe or pack is not used (its fingerprint says so).
    """
    for other in others:
        for stage in sorted((other / "stages").glob("*.safetensors")):
            mine = target / "stages" / stage.name
            if other != target and stage.stem != "teacher" and not mine.exists():
                mine.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(stage, mine)


def train(
    config: Config, target: Path, recipe: Recipe | None, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """`pretrain.pretrain` on the device that the settings name; the card.

    Raises:
        ConfigError: no run would find the pair.
    """
    from cdc_flower.models import placement
    from experiments.pretrain.pretrain import pretrain

    _check_name(config, target)
    placement.choose(config.run.device)
    return pretrain(config, target, recipe, progress, say)
