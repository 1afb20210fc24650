"""How a deployment's cloud runs its rounds; part of `cloud.toml`, free to change from one start to the next.

Under `served.` these settings, and where the folder of the cloud is, stand in the run config of the app that
the cloud submits, beside those of the run.
"""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from cdc_flower.setting import STRICT, YEAR, setting

SECTION = "served."  # of these settings in the run config
FOLDER = "served.folder"
VARIABLE = "CDC_FLOWER_RUN_CONFIG"  # of the environment: the file with the run config
RUN = "run"  # folder of the run, in that of the cloud


@dataclass(frozen=True, config=STRICT)
class ServedConfig:
    """Rounds without end."""

    rounds: Literal["sync", "buffer"] = setting(
        "sync", "sync = a round waits for all that it asked; buffer = until enough answers have come", "cloud"
    )
    buffer: int = setting(10, "of rounds = buffer: so many answers are enough", "cloud", ge=1, le=10**7)
    period: float = setting(
        60.0, "from the begin of a round to the next, at least [s]", "cloud", ge=0, le=YEAR
    )
    round_timeout: float = setting(
        600.0, "the longest that an answer is waited for [s]", "cloud", gt=0, le=YEAR
    )
    least: int = setting(1, "devices that must be connected before a round begins", "cloud", ge=1, le=10**7)
    keep_versions: int = setting(
        20, "versions that the cloud can go back to; each takes a checkpoint's bytes", "cloud", ge=1, le=10**4
    )
    accuracy_every: int = setting(
        0, "versions between held-out accuracies, of the cloud's own data; 0 = never", "cloud", ge=0, le=10**6
    )
    last_round: int = setting(0, "after which the cloud ends; 0 = never", "cloud", ge=0, le=10**9)
    insecure: bool = setting(
        False, "without TLS and without keys: anybody who reaches the port is a device", "cloud"
    )
