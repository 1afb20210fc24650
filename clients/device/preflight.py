"""What a device tries before it loads anything: one product of compressed weights, its memory and its clock.

On some machines a library imports and its first kernel fails, or gives another result. So a layer is
quantised and multiplied first, and where that goes wrong one line names what this machine can multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil
from cryptography import x509

from cdc_flower.config import Config, ConfigError, parse_stages
from cdc_flower.models import compressions
from clients.device import models
from clients.device.settings import Bundle

DAY = "%Y-%m-%d"


def compression(bundle: Bundle) -> str:
    """Of the student on this device."""
    return bundle.device.compression or parse_stages(bundle.run_config()).pair.compression


def arithmetic(bundle: Bundle) -> None:
    """Quantise a layer, multiply, compare.

    Raises:
        ConfigError: this processor cannot; names the compressions that it can.
    """
    try:
        compressions.preflight(compression(bundle))
    except ConfigError as err:
        raise ConfigError(f"{err} (setting 'compression' in '{bundle.folder / 'device.toml'}')") from None


def frames(bundle: Bundle) -> int:
    """Of a clip, that the student reads; 0 = it reads pictures."""
    from cdc_flower.models.folders import paths  # what an agent does not need, and would hold
    from cdc_flower.models.shared import card_frames

    config = _config(bundle, models.folders(bundle.folder))
    card = paths(config.pair, config.data.name).card
    return card_frames(card) if card else config.data.frames


def _config(bundle: Bundle, folders: Mapping[str, Path]) -> Config:
    """The settings of a bundle, with the folders of its models."""
    return parse_stages({**bundle.run_config(), **{key: str(folder) for key, folder in folders.items()}})


def packed(bundle: Bundle) -> float:
    """Bytes of the student as it is kept in memory, with tower and adapter, from the headers of its files."""
    from cdc_flower.models.folders import paths
    from cdc_flower.models.room import FLOAT
    from cdc_flower.plan.checkpoints import open_checkpoint

    config = _config(bundle, models.verify(bundle.folder))
    student = paths(config.pair, config.data.name).student
    parts = open_checkpoint(student, "student", config.pair.adapter, config.pair.lora_rank).parts
    return parts.stored(compression(bundle)) + FLOAT * (parts.tower + parts.added + 2 * parts.adapter)


def memory(bundle: Bundle) -> str:
    """Why the student does not fit into the memory that is free now; "" where it does."""
    from cdc_flower.plan.memory import LIBRARIES

    takes, free = packed(bundle), psutil.virtual_memory().available
    if free >= takes + LIBRARIES:
        return ""
    return (
        f"{free / 1e6:,.0f} MB are free, the student takes {takes / 1e6:,.0f} MB packed and its libraries "
        f"{LIBRARIES / 1e6:,.0f} MB; allowed: less else that runs, or 'compression' = 'nf4'"
    )


def clock(bundle: Bundle, now: datetime | None = None) -> str:
    """Why TLS will fail for the time that this machine believes in; "" where it will not."""
    now = now or datetime.now(UTC)
    try:
        authority = x509.load_pem_x509_certificate((bundle.folder / models.CA).read_bytes())
    except (OSError, ValueError) as err:
        return f"'{bundle.folder / models.CA}' cannot be read: {err}"
    first, last = authority.not_valid_before_utc, authority.not_valid_after_utc
    if now < first:
        return f"the clock says {now:{DAY}}, before the cloud's certificate of {first:{DAY}}: set the clock"
    if now > last:
        return f"the clock says {now:{DAY}}, the cloud's certificate ended {last:{DAY}}: provision anew"
    return ""
