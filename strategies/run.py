"""A run of any method over any grid, from a flat run config to a run folder, the same on every engine.

Everything that can be wrong with the settings is refused before the first round. What happens after each
round (held-out accuracy, tables, checkpoint) are callbacks; prequential accuracy comes from the answers that
devices gave, judged here, where the labels are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pandas as pd
import torch
from flwr.app import Array, ArrayRecord, Context, RecordDict
from flwr.serverapp import Grid

from cdc_flower.checkpoint import Saved
from cdc_flower.config import Config, flat, parse
from cdc_flower.data.schedule import repeats
from cdc_flower.data.source import STREAMS, files, publish
from cdc_flower.data.world import encoded, held_out, load_world
from cdc_flower.disk import DiskError
from cdc_flower.fleet.cost.charges import CloudCharges, CloudWork, cloud_charges, cloud_counts, cloud_profile
from cdc_flower.fleet.engines.local_grid import DeviceStates, HasStates, LocalGrid, quiet
from cdc_flower.fleet.time.timed_grid import TimedGrid
from cdc_flower.lock import locked
from cdc_flower.models import placement
from cdc_flower.models.folders import device_files
from cdc_flower.models.shared import load_shared
from cdc_flower.models.teacher import Teacher, load_teacher, teacher_config
from cdc_flower.results import provenance
from cdc_flower.run_folder import RunFolder
from cdc_flower.wire.messages import Client
from cdc_flower.wire.reply import Form
from strategies import transforms
from strategies.accuracy import accuracy
from strategies.answers import train_form
from strategies.callbacks import After, chosen
from strategies.checks import check, check_named, check_workers, fleet
from strategies.devices import discover, wanted
from strategies.method import Method, Setup, method
from strategies.pictures import show
from strategies.resumed import Resumed, adapters_back, earlier, identity, put_back

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`; in a run `done` and `total` are rounds."""
CLIENT_APP = "clients.client_app:app"  # found by name, as Flower does it: strategies do not import clients
STREAM_ITEMS = 300  # of a domain, that the teacher is asked of what devices meet
BUNDLE = "clients.bundle:run"


def run(grid: Grid, context: Context, progress: Progress | None = None, *, resume: bool = False) -> Path:
    """One run over any grid.

    Args:
        grid: where the devices are.
        context: its `run_config` is the flat run config.
        progress: see `Progress`.
        resume: go on after the newest checkpoint in the run folder, from the beginning where there is none.

    Returns:
        the run folder.

    Raises:
        ConfigError: a setting, the data or the pair cannot be used, or another run is in the folder; nothing
            was started.
        FleetError: too few devices.
        DiskError: the disk does not take a file; the run can be resumed.
    """
    config = parse(context.run_config)
    with locked(out_dir(config)):
        return _run(config, grid, progress, resume)


def _run(config: Config, grid: Grid, progress: Progress | None, resume: bool) -> Path:
    torch.set_num_threads(config.run.threads)  # on one the ledger is the same on every engine
    folder = RunFolder(out_dir(config))
    with folder.stage("load"):
        setup = prepare(config, progress)
        playing = method(config.run.method).build(setup)
        if config.fleet.mode != "off":
            own = config.run
            playing.fleet.nodes = discover(grid, own.devices, own.round_timeout, own.min_devices)
            grid = timed(grid, setup, playing, playing.fleet.nodes)
    folder.stream = setup.stream
    engine = grid.inner if isinstance(grid, TimedGrid) else grid
    facts: dict[str, Any] = {
        "pair_digest": setup.digest,
        "pair": setup.shared.name,
        "data_digest": setup.world.pack.digest,
        "engine": type(engine).__name__,
    }
    parts = _parts(grid, playing)
    found = earlier(folder, config, facts, bool(parts)) if resume else None
    if found is not None:
        put_back(parts, found, folder.path)
        adapters_back(playing, found, folder.path)
        facts["resumed_after"] = found.round
    own, callbacks = identity(config, facts), chosen(config)
    folder.begin(config, provenance(), facts, found and (found.round, found.parts["folder"]))
    after = After(setup, playing, grid, folder, parts, own, callbacks, progress, _counted(setup, playing))
    status = "failed"
    try:
        if found is None:
            _play(config, playing, grid, playing.initial_arrays(), after.finished)
        else:
            saved: Any = found.parts["arrays"]
            arrays = ArrayRecord({k: Array(v) for k, v in saved.items()})
            after.resumed(found, arrays)
            resumed = Resumed(playing, found.round)
            _play(config, resumed, grid, arrays, resumed.evaluation(after.finished), found.round)
        playing.fleet.close()
        status = "completed"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        with nullcontext() if status == "completed" else suppress(DiskError):  # said once is enough
            show(folder, playing, setup.shared, setup.world)
            after.end(status)
    return folder.path


def _counted(setup: Setup, playing: Method) -> CloudCharges | None:
    """Who counts what the cloud of a method computes; None where that is nothing."""
    if playing.cloud_work(1) == CloudWork():
        return None
    teacher = teacher_config(setup.config.pair, setup.config.data.name)
    return cloud_counts(setup.config, setup.shared, setup.world, teacher)


def _play(
    config: Config, strategy: Any, grid: Grid, arrays: ArrayRecord, evaluate: Any, done: int = 0
) -> None:
    """All rounds from `arrays` on, but for the first `done`."""
    rounds, timeout = config.run.rounds - done, config.run.round_timeout
    strategy.start(grid, arrays, num_rounds=rounds, timeout=timeout, evaluate_fn=evaluate)


def timed(grid: Grid, setup: Setup, playing: Method, nodes: Mapping[int, int]) -> TimedGrid:
    """The grid in virtual time.

    Raises:
        ConfigError: a mix, cost model or trace that cannot be used, or a fleet in which no device can ever be
            asked.
    """
    config = setup.config
    charged, trace = fleet(config, setup.shared, setup.world)
    on = cloud_profile(config)
    seconds = []
    if on is not None and playing.cloud_work(1) != CloudWork():
        teacher = teacher_config(config.pair, config.data.name)
        cloud = cloud_charges(on, charged, teacher, setup.shared.max_answer_tokens)
        seconds = [lambda samples: cloud.seconds(playing.cloud_work(samples))]
    enough = wanted(config.run.devices, config.run.cohort)

    def form() -> Form:
        return train_form(playing.form())

    return TimedGrid(grid, nodes, config.fleet, charged, trace, enough, form, *seconds)


def _parts(grid: Grid, playing: Method) -> dict[str, Saved]:
    """Who has a part in a checkpoint, beside the arrays and the run folder: everything that lives from round
    to round. {} on a grid that keeps its devices' states to itself: no checkpoints there.
    """
    engine, clock = (grid.inner, {"clock": grid}) if isinstance(grid, TimedGrid) else (grid, {})
    if not isinstance(engine, HasStates):
        return {}
    return {**playing.parts(), **clock, "devices": DeviceStates(engine)}


def publish_streams(setup: Setup) -> dict[str, float]:
    """Write what devices read, where every client process of the run finds it; how often rows come again."""
    config, shared, world = setup.config, setup.shared, setup.world
    auto = config.pair.compression == "auto"
    compression = fleet(config, shared, world)[0].compression if auto else ()
    labels = method(config.run.method).traits.labels
    folder = publish(config, shared, world, compression=compression, labels=labels)
    return repeats(np.load(folder / STREAMS, mmap_mode="r", allow_pickle=False))


def read_by_devices(config: Config) -> dict[str, tuple[str, dict[str, Path]]]:
    """The files that devices read, of the pair and of what was published: setting that says where they are ->
    name of the folder, and name in it -> file.
    """
    shared = load_shared(config.pair, config.data.name, config.data.frames)
    streams = files(config, shared, labels=method(config.run.method).traits.labels)
    pair = device_files(config.pair, config.data.name)
    return {**pair, "pair.token-cache": ("cache", streams)}


def out_dir(config: Config) -> Path:
    """The run folder: the setting, else results/<method>-<seed>."""
    named = config.run.out_dir or f"results/{config.run.method}-{config.run.seed}"
    return Path(named).expanduser().absolute()


def prepare(
    config: Config,
    progress: Progress | None = None,
    say: transforms.Say = transforms.note,
    *,
    streams: bool = True,
) -> Setup:
    """Load models and data, compute the vision tokens and a transform of them where there are none yet,
    check what only these can tell, and publish what devices read, unless they have `streams` of their own.

    Raises:
        ConfigError: see `check`, `load_shared`, `load_teacher`, `load_world`.
    """
    check_named(config)
    placement.choose(config.run.device)
    shared = load_shared(config.pair, config.data.name, config.data.frames)
    world = load_world(config, shared, progress)
    shared = transforms.provided(config, shared, world, say, progress)

    @lru_cache(maxsize=1)
    def teacher() -> Teacher:
        return load_teacher(config.pair, shared, config.data.name)

    setup = Setup(config, shared, world, teacher, tell=progress)
    check(setup)
    method(config.run.method).check(setup)
    met = publish_streams(setup) if streams else {}
    if met.get("repeating_devices"):
        say(
            f"note: {met['repeating_devices']} devices meet rows again: each is asked {met['questions']} "
            f"questions about {met['distinct_rows']:g} rows (the fewest {met['fewest_distinct_rows']})"
        )
    return replace(setup, stream=met)


def run_local(
    config: Config,
    progress: Progress | None = None,
    *,
    roundtrip: bool = False,
    resume: bool = False,
    app: Client | None = None,
) -> Path:
    """One run in this process, devices one after another; the run folder.

    Args:
        config: of the run.
        progress: see `Progress`.
        roundtrip: see `LocalGrid`.
        resume: see `run`.
        app: what devices run; None = the ClientApp of this project. A function around that one sees every
            message and every reply.
    """
    settings = {**flat(config), "run.out-dir": str(out_dir(config))}  # devices' adapters stay for a resume
    with quiet():
        grid = LocalGrid(app or resolve_name(CLIENT_APP), config.run.devices, settings, roundtrip=roundtrip)
        return run(grid, Context(1, 1, {}, RecordDict(), settings), progress, resume=resume)


def run_fleet(
    config: Config,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    workers: int = 0,
    ray_address: str = "",
    gpu_fraction: float = 0.0,
) -> Path:
    """One run on Ray workers: arguments as in `FleetGrid`; returns the run folder, as `run_local` does."""
    from cdc_flower.fleet.engines.fleet_grid import FleetGrid

    check_workers(config, gpu_fraction)
    settings = {**flat(config), "run.out-dir": str(out_dir(config))}  # workers have folders of their own
    with (
        quiet(),
        FleetGrid(
            CLIENT_APP,
            config.run.devices,
            settings,
            bundle=BUNDLE,
            workers=workers,
            ray_address=ray_address,
            gpu_fraction=gpu_fraction,
            files=lambda: read_by_devices(config),
        ) as grid,
    ):
        return run(grid, Context(1, 1, {}, RecordDict(), settings), progress, resume=resume)


def teacher_accuracy(
    config: Config, progress: Progress | None = None, part: str = "test"
) -> dict[str, float]:
    """Accuracy of the teacher by domain: on the held-out items ("test"), the ceiling; or ("stream") on up to
    `STREAM_ITEMS` rows a domain of those that devices meet, the same whatever the seed.
    """
    setup, rows = prepare(config, progress, lambda line: None, streams=False), None
    if part == "stream":
        world = setup.world
        rows = held_out(world.train, tuple(sorted(set(world.domains))), STREAM_ITEMS)
    return teacher_on(setup, rows, progress)


def teacher_on(setup: Setup, rows: pd.DataFrame | None, progress: Progress | None = None) -> dict[str, float]:
    """Accuracy of the teacher by domain: on rows of `World.train`, or (None) on the held-out items."""
    config, teacher, reads, world = setup.config, setup.teacher(), setup.shared, setup.world
    of = world.tested
    if rows is not None:
        world, of = replace(world, test=rows, test_tokens=world.train_tokens), (world.pack, "train")
    if teacher.own is not None:
        reads = teacher.own
        world = replace(world, test_tokens=encoded(config, reads, *of, progress))
    return accuracy(teacher.model, reads, world, progress)
