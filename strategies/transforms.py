"""The transform of tokens of a pair that came without one: estimated when the pair is first used."""

from __future__ import annotations

from collections.abc import Callable
from logging import WARNING

from flwr.supercore import log

from cdc_flower.cloud.source import source_tokens
from cdc_flower.config import Config
from cdc_flower.data.features import Progress
from cdc_flower.data.world import World
from cdc_flower.models import transform
from cdc_flower.models.folders import paths
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.session import session

Say = Callable[[str], None]


def note(line: str) -> None:
    """Say a line in Flower's log."""
    log(WARNING, line)


def wanted(config: Config) -> bool:
    """Whether the settings let tokens be sent in axes of their own."""
    up = config.uplink
    return up.unit == "tokens" and up.transform != "none" and up.token_bits < 16


def provided(
    config: Config, shared: Shared, world: World, say: Say = note, progress: Progress | None = None
) -> Shared:
    """`shared` with a transform, where the settings want one and the pair has none; kept beside the student.

    It is estimated from source pictures that are the cloud's, without labels; the same pictures give the same
    bits. Every later run with this student finds it, whatever its data are. Where it cannot be had, a line
    says why, and tokens are sent as they are.
    """
    if shared.transform is not None or not wanted(config):
        return shared
    folder = paths(config.pair, config.data.name).transforms
    size = 4 * shared.width * (shared.width + 2)
    why = ""
    if config.uplink.transform == "auto" and shared.width > transform.WIDEST:
        why = f"tokens of width {shared.width} need one of {size:,} bytes (uplink.transform=pca)"
    else:
        try:
            made = transform.estimate(source_tokens(config, shared, world, progress))
            if transform.load(folder, shared.width, shared.tower_digest) is None:
                transform.save(made, folder, shared.tower_digest)
        except (ValueError, OSError) as err:
            why = str(err)
    if why:
        say(f"note: pair '{shared.name}' has no transform of its tokens ({why}): they are sent as they are")
        return shared
    say(
        f"note: pair '{shared.name}' had no transform of its tokens; estimated from source pictures, kept in "
        f"{folder / transform.FILE}: {size:,} bytes that a device gets with its model"
    )
    session().forget(load_shared)
    return load_shared(config.pair, config.data.name, config.data.frames)
