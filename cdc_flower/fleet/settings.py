"""Settings of a fleet: which devices, when they are there, and the rules of rounds and of the asynchronous
pace.

A stage of the run config like those of `cdc_flower.config`; the defaults of over-selection and buffer are
those of the papers named beside them.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

YEAR = 366 * 86_400.0  # s; what batteries do in a round is played day by day


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class FleetConfig:
    """Virtual devices and virtual time. Seconds are simulated ones.

    With `pace = "off"` there is no virtual time: all devices are alike and always there.
    """

    pace: Literal["off", "rounds", "async"] = "off"
    mix: str = "phone-mid=30%,phone-high=15%,phone-old=15%,pi4=15%,pi5=15%,laptop=10%"  # or a .toml file
    cost_model: str = ""  # whose shapes are charged: "" = the student's own, a name, or a config.json
    cloud_profile: str = "gpu-server"  # the machine that distils between rounds; "" = it takes no time
    trace: str = ""  # a .parquet or .json file; "" = generated, "always" = everyone at all times
    trace_days: int = Field(default=2, ge=1)  # period of a generated trace
    zones: str = "0"  # offsets from UTC in hours, "-8,0,8"; each device lives in one
    need_charging: bool = False  # ask only devices on a charger
    need_idle: bool = False  # ask only devices that their owners leave alone
    min_battery: float = Field(default=0.2, ge=0, le=1)  # of the capacity; below it a device is not asked
    round_every: float = Field(default=0.0, ge=0, le=YEAR)  # s, begin to begin, at least
    deadline: float = Field(default=600.0, gt=0, le=YEAR)  # s; the end of a round or task
    over_selection: float = Field(default=1.3, ge=1)  # asked / wanted (arXiv 1902.01046, section 3.3)
    late: Literal["drop", "take"] = "drop"  # answers after the end of their round
    buffer: int = Field(default=10, ge=1)  # async: batches until the cloud distils (arXiv 2106.06639)
    in_flight: int = Field(default=100, ge=1)  # async: devices at work at a time
    staleness_power: float = Field(default=0.5, ge=0)  # weight (1 + s)^-power of a batch s versions old

    @property
    def takes_late(self) -> bool:
        """Whether an answer may come in a later round than it was asked in."""
        return self.pace == "async" or (self.pace == "rounds" and self.late == "take")

    def to_ask(self, wanted: int) -> int:
        """How many devices a round asks, so that `wanted` answer."""
        return math.ceil(wanted * self.over_selection - 1e-9)
