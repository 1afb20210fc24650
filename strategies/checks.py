"""What only pair, data and fleet can tell of the settings: refused before the first round, in one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from cdc_flower.border import no_folder
from cdc_flower.cloud import losses
from cdc_flower.config import Config, ConfigError, flat
from cdc_flower.data import packs
from cdc_flower.data.features import open_picture
from cdc_flower.data.source import longest_question
from cdc_flower.data.world import World
from cdc_flower.fleet.cost import cost_models
from cdc_flower.fleet.cost.charges import Charges, charges, cloud_profile
from cdc_flower.fleet.time import trace_files
from cdc_flower.fleet.time.availability import availability
from cdc_flower.fleet.time.traces import Trace
from cdc_flower.models import placement
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import find_pair
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import has_tower, unlike
from cdc_flower.session import kept, session
from cdc_flower.setting import MESSAGE_BYTES
from cdc_flower.tasks import TASKS, Truth, Truths
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures import picture_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS
from cdc_flower.uplink.sample import Batch, Sample
from strategies.devices import wanted
from strategies.method import Setup, method, methods

TRIED = 8  # pictures coded to see what an uplink budget must hold


def check_workers(config: Config, gpu_fraction: float) -> None:
    """Refuse Ray workers that would see no GPU where devices shall compute on one.

    Raises:
        ConfigError: says what is allowed.
    """
    if config.run.device == "cuda" and not gpu_fraction:
        raise ConfigError(
            "setting 'run.device' = 'cuda' with --gpu-fraction 0: workers see no GPU; allowed: a share above "
            "0, or auto, with the cloud on a GPU and devices on cores"
        )


def check_named(config: Config) -> None:
    """Refuse what the settings alone can tell, and what they name that is not there; nothing is loaded.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    run, rules = config.run, config.fleet
    asked = wanted(run.devices, run.cohort)
    if run.min_devices > asked:
        raise ConfigError(
            f"setting 'run.min-devices' = {run.min_devices}: a round asks {asked} devices; "
            f"allowed: up to {asked}"
        )
    for key, place in (("run.out-dir", run.out_dir), ("pair.token-cache", config.pair.token_cache)):
        if place and (wrong := no_folder(Path(place))):
            raise ConfigError(f"setting '{key}' = {place!r}: {wrong}")
    placement.on_gpu(run.device)
    packs.check_folder(config.data)
    if config.pair.folder:
        find_pair(config.pair, config.data.name)
    cloud_profile(config)  # reads the mix, too
    cost_models.load(rules.cost_model, {})
    if rules.trace not in ("", "always"):
        trace_files.check_name(rules.trace)
    _check_mode(config)
    check_needs(config)


def check_needs(config: Config) -> None:
    """Refuse settings with which a method is not what it says.

    Raises:
        ConfigError: names the first of them, and what the method needs.
    """
    given, needs = flat(config), method(config.run.method).needs
    for key, value in needs.items():
        if given[key] != value:
            every = " ".join(f"--set {k}={v}" for k, v in needs.items())
            raise ConfigError(
                f"setting '{key}' = {given[key]!r}: method '{config.run.method}' needs {value!r}; "
                f"allowed: {every}"
            )


def check(setup: Setup) -> None:
    """Refuse settings of a run that do not fit models, data or fleet, whatever the method.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    width = setup.shared.config.get_text_config().hidden_size
    rank = setup.config.pair.rank
    if rank > width:
        raise ConfigError(
            f"setting 'pair.lora-rank' = {rank}: the student's layers are {width} wide; "
            f"allowed: up to {width}"
        )
    if method(setup.config.run.method).traits.clips and not setup.shared.frames:
        raise ConfigError(
            f"setting 'run.method' = '{setup.config.run.method}': it works on clips, and data "
            f"'{setup.world.pack.name}' are pictures; allowed: another method, or data of clips, such as "
            "--data clips"
        )
    check_fleet(setup)
    check_answers(setup.config, setup.shared, setup.world)


def _check_mode(config: Config) -> None:
    rules, name = config.fleet, config.run.method
    if rules.mode == "off":
        if config.pair.compression == "auto":
            raise ConfigError(
                "setting 'pair.compression' = 'auto': devices have no RAM without virtual time; allowed: "
                "nf4, int4, int8, none, or 'fleet.mode' = 'sync' or 'async'"
            )
        return
    for key, value in (("fleet.mode", rules.mode), ("fleet.late", rules.late)):
        if value in ("async", "take") and not method(name).traits.takes_late:
            able = [other for other, found in methods().items() if found.traits.takes_late]
            raise ConfigError(
                f"setting '{key}' = '{value}': method '{name}' averages the answers of one round; "
                f"allowed: methods {', '.join(able)}"
            )


def check_answers(config: Config, shared: Shared, world: World) -> None:
    """Refuse a longest answer within which what the data wants to hear can never be said.

    A share of the questions (`Task.cut`) may have longer ones: half of captions, whose parts have worth.

    Raises:
        ConfigError: names the longest one.
    """
    limit, task = config.pair.max_answer_tokens, TASKS[config.data.task]

    @cache
    def tokens(answer: str) -> int:
        return len(shared.text.answer_ids(answer))

    def shortest(truth: Truth) -> tuple[int, str]:
        if tokens(truth.answer) <= limit or "answers" not in world.train:
            return tokens(truth.answer), truth.answer
        return min((tokens(answer), answer) for answer in truth.answers)

    needed = [shortest(truth) for split in (world.train, world.test) for truth in Truths(split)]
    longer = [one for one in needed if one[0] > limit]
    if len(longer) > task.cut * len(needed):
        most, answer = max(longer)
        raise ConfigError(
            f"setting 'pair.max-answer-tokens' = {limit}: {len(longer)} of {len(needed)} questions have no "
            f"answer that short, e.g. {answer[:60]!r}; allowed: {most} or more"
        )


def check_uplink(config: Config, shared: Shared, world: World) -> None:
    """Refuse uplink settings that fit neither the models nor the pictures.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    up = config.uplink
    if shared.text.grid and up.tokens_kept > shared.n_tokens:  # of a smaller picture all are kept
        raise ConfigError(
            f"setting 'uplink.tokens-kept' = {up.tokens_kept}: a picture has {shared.n_tokens} tokens; "
            f"allowed: 0 (all) to {shared.n_tokens}"
        )
    if up.transform == "pca" and shared.transform is None:
        raise ConfigError(
            f"setting 'uplink.transform' = 'pca': pair '{shared.name}' has no transform of its vision "
            "tower, and none could be estimated; allowed: auto, none"
        )
    least, what = LEAST[up.unit](config, shared, world)
    if 0 < up.budget < least:
        raise ConfigError(
            f"setting 'uplink.budget' = {up.budget}: {what} {least} bytes; "
            f"allowed: 0 (no limit), or at least {least}"
        )


def check_teacher(setup: Setup) -> None:
    """Refuse what devices send or the loss needs, where the teacher differs from the student.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    config = setup.config
    check_unlike(config)
    if config.uplink.unit == "tokens" and not has_tower(config.pair, setup.shared, config.data.name):
        _refuse_tokens("of one shape, with other weights", setup.shared.family)


def check_unlike(config: Config) -> str:
    """Refuse what configurations and tokenizers of teacher and student do not allow; no weights are opened.

    Returns:
        what is said of terms of the loss that are left out, "" where there are none.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    differ = unlike(config.pair, config.data.name)
    if config.uplink.unit == "tokens" and differ.tower:
        _refuse_tokens(differ.tower, differ.family)
    return losses.possible(config.cloud.losses, not differ.words, not (differ.tower or differ.words))[1]


def _refuse_tokens(how: str, family: str) -> None:
    raise ConfigError(
        f"setting 'uplink.unit' = 'tokens': teacher and student have different vision towers ({how}), and "
        f"tokens of one mean nothing to the other; allowed: {', '.join(units(family)[1:])}, by which the "
        "cloud sees pictures (docs/threat-model.md)"
    )


def units(family: str) -> list[str]:
    """Values of `uplink.unit` that a student's family allows."""
    return [unit for unit in LEAST if unit != "patches" or FAMILIES[family].raster]


@kept(1)  # the check and the grid ask for the same
def fleet(config: Config, shared: Shared, world: World) -> tuple[Charges, Trace]:
    """What work costs on each device of a virtual fleet, and when each is there.

    Raises:
        ConfigError: a mix, cost model or trace that cannot be used.
    """
    charged = charges(config, shared, world)
    return charged, availability(config.fleet, charged.devices.classes, config.run.seed)


def check_fleet(setup: Setup) -> None:
    """Refuse a virtual fleet that cannot run.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    config = setup.config
    rules = config.fleet
    if rules.mode == "off":
        return
    session().forget(fleet)  # files may have changed since the last run
    _, trace = fleet(config, setup.shared, setup.world)
    cloud_profile(config)
    if not trace.ever(rules.need_charging, rules.need_idle):
        raise ConfigError(
            f"setting 'fleet.trace' = '{rules.trace}': no device is ever online and, where asked for, "
            "charging and idle; allowed: another trace, or without need-charging and need-idle"
        )


def _least_tokens(config: Config, shared: Shared, world: World) -> tuple[int, str]:
    """With a transform real frames are half of the bound; a sample that does not fit is not sent."""
    up, transformed = config.uplink, shared.transform_for(config.uplink) is not None
    bound = token_batch.sample_bytes(
        up.tokens_kept or shared.n_tokens,
        shared.width,
        up.token_bits,
        longest_question(shared, world) + shared.max_answer_tokens,
        transformed,
    )
    least = MESSAGE_BYTES + (bound // 2 if transformed else bound)
    return least, f"one sample of {up.tokens_kept or shared.n_tokens} tokens needs"


def _least_picture(config: Config, shared: Shared, world: World) -> tuple[int, str]:
    """No bound, as for tokens, which would be that of the raw pixels: some real pictures are coded instead.

    Raises:
        ConfigError: patches where the pair's tokens are not one a patch, or a processor that gives another
            size than its tower reads.
    """
    up, grid = config.uplink, shared.grid
    whole = FORMS[up.unit].whole
    if not whole and not shared.raster:
        raise ConfigError(
            f"setting 'uplink.unit' = '{up.unit}': in models of family '{shared.family}' a token is no patch "
            f"of one square; allowed: {', '.join(units(shared.family))}"
        )
    if not whole and grid[0] != grid[1] * grid[2]:
        raise ConfigError(
            f"setting 'uplink.unit' = '{up.unit}': pair '{shared.name}' has {shared.n_tokens} tokens "
            f"in {grid[1]} x {grid[2]} patches, not one a patch; allowed: tokens, jpeg"
        )
    rows = world.train.drop_duplicates("image_id").iloc[:TRIED]
    kept = np.arange(0 if whole else up.tokens_kept or shared.n_tokens, dtype=np.uint16)
    sizes = []
    for name, row in zip(rows["image_id"].astype(str), rows["image_row"].tolist(), strict=True):
        grid = world.train_tokens.grid(row)
        pixels = shared.to_send(open_picture(world.pack.train_images[name]), grid)
        wanted = grid.rows * shared.patch, grid.cols * shared.patch
        if pixels.shape[:2] != wanted:
            raise ConfigError(
                f"setting 'uplink.unit' = '{up.unit}': the processor makes pictures of "
                f"{pixels.shape[1]}x{pixels.shape[0]} pixels, the tower reads {wanted[1]}x{wanted[0]}"
            )
        try:
            data = picture_batch.coded(pixels, kept, up.unit, shared.patch, up.picture_quality)
        except ValueError as err:
            raise ConfigError(f"setting 'uplink.unit' = '{up.unit}': {err}") from None
        batch = Batch(0, 1, 0, (Sample(0, grid, kept, [0], [0], 0.0, picture=data),))
        sizes.append(MESSAGE_BYTES + len(picture_batch.encode(batch, up.unit, shared.patch)))
    return min(sizes), f"the smallest of {len(sizes)} pictures in quality {up.picture_quality} needs"


LEAST: dict[str, Callable[[Config, Shared, World], tuple[int, str]]] = {
    "tokens": _least_tokens,
    "jpeg": _least_picture,
    "patches": _least_picture,
}
"""Values of the setting `uplink.unit` -> bytes that an uplink budget must have, and of what."""
