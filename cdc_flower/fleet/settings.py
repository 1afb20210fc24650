"""Settings of a fleet: which devices, when they are there, and the rules of rounds and of the asynchronous
pace.

A stage of the run config like those of `cdc_flower.config`; the defaults of over-selection and buffer are
those of the papers named beside them.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic.dataclasses import dataclass

from cdc_flower.setting import STRICT, YEAR, setting  # what batteries do in a round is played day by day


@dataclass(frozen=True, config=STRICT)
class FleetConfig:
    """Virtual devices and virtual time. Seconds are simulated ones.

    With `mode = "off"` there is no virtual time: all devices are alike and always there.
    """

    mode: Literal["off", "sync", "async"] = setting(
        "off", "virtual time: none, in rounds, or asynchronous (arXiv 2106.06639)", "simulator"
    )
    mix: str = setting(
        "phone-mid=30%,phone-high=15%,phone-old=15%,pi4=15%,pi5=15%,laptop=10%",
        "profiles of the devices and their shares, or a .toml file",
        "simulator",
    )
    cost_model: str = setting(
        "", "whose shapes are charged: '' = the student's own, a name, or a config.json", "simulator"
    )
    cloud_profile: str = setting(
        "gpu-server", "the machine that distils between rounds; '' = it takes no time", "simulator"
    )
    trace: str = setting(
        "", "a .parquet or .json file; '' = generated, always = everyone is there", "simulator"
    )
    trace_days: int = setting(2, "period of a generated trace [days]", "simulator", ge=1, le=366)
    zones: str = setting("0", "offsets from UTC, '-8,0,8'; each device lives in one [hours]", "simulator")
    need_charging: bool = setting(False, "ask only devices on a charger", "cloud")
    need_idle: bool = setting(False, "ask only devices that their owners leave alone", "cloud")
    min_battery: float = setting(0.2, "share of the capacity below which none is asked", "cloud", ge=0, le=1)
    round_every: float = setting(
        0.0, "from the begin of a round to the next, at least [s]", "cloud", ge=0, le=YEAR
    )
    deadline: float = setting(600.0, "the end of a round or task [s]", "cloud", gt=0, le=YEAR)
    over_selection: float = setting(
        1.3, "devices asked / wanted (arXiv 1902.01046, 3.3)", "cloud", ge=1, le=1e6
    )
    late: Literal["drop", "take"] = setting("drop", "answers after the end of their round", "cloud")
    buffer: int = setting(
        10, "async: answers until the cloud distils (arXiv 2106.06639)", "cloud", ge=1, le=10**7
    )
    in_flight: int = setting(100, "async: devices at work at a time", "cloud", ge=1, le=10**7)
    staleness_power: float = setting(
        0.5, "a batch s versions old weighs (1 + s)^-power", "cloud", ge=0, le=100
    )

    @property
    def takes_late(self) -> bool:
        """Whether an answer may come in a later round than it was asked in."""
        return self.mode == "async" or (self.mode == "sync" and self.late == "take")

    def to_ask(self, wanted: int) -> int:
        """How many devices a round asks, so that `wanted` answer."""
        return math.ceil(wanted * self.over_selection - 1e-9)
