"""CoTTA on the device (arXiv 2203.13591): a student that learns from the running mean of itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from cdc_flower.config import Config
from cdc_flower.setting import STRICT, setting
from strategies.fedavg import FedAvgSettings
from strategies.method import Traits
from strategies.on_device import OnDevice


@dataclass(frozen=True, config=STRICT)
class CottaSettings:
    """Beyond `fedavg.batch`, the samples of a step."""

    lr: float = setting(1e-3, "learning rate of Adam, for the student's adapter", "device", gt=0, le=1e6)
    ema: float = setting(0.999, "share of the running mean that stays at a step", "device", ge=0, le=1)
    threshold: float = setting(
        0.9, "the shipped student is unsure below this mean probability", "device", ge=0, le=1
    )
    views: int = setting(8, "passes with random tokens, where it is unsure", "device", ge=1, le=1000)


class Cotta(OnDevice):
    """Without labels, the cloud's teacher or traffic: what a device can do alone, for long."""

    name = "cotta"
    about = "every device learns from the running mean of its own student (CoTTA), nothing is shared"
    traits = Traits(labels=False, device_backprop=True, takes_late=True, personal=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings, "cotta": CottaSettings}
    work = "clients.cotta:work"

    @classmethod
    def ordered(cls, config: Config) -> tuple[dict[str, Any], int, int]:
        """One step a batch; a sample is read by student, mean and shipped student, and in its views."""
        own = config.of(CottaSettings)
        order = {"batch": config.of(FedAvgSettings).batch, **asdict(own)}
        return order, config.run.samples_per_round, 4 + own.views
