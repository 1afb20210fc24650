"""TENT on the device (arXiv 2006.10726): adaptation at test time by the entropy of the device's answers."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from cdc_flower.config import Config
from cdc_flower.setting import STRICT, setting
from strategies.fedavg import FedAvgSettings
from strategies.method import Traits
from strategies.on_device import OnDevice


@dataclass(frozen=True, config=STRICT)
class TentSettings:
    """Beyond `fedavg.batch`, the samples of a step."""

    lr: float = setting(1e-3, "learning rate of Adam, for the norms", "device", gt=0, le=1e6)


class Tent(OnDevice):
    """Without labels, teacher or traffic: what a device can do alone."""

    name = "tent"
    about = "every device makes its own answers surer by training norms (TENT), nothing is shared"
    traits = Traits(labels=False, device_backprop=True, takes_late=True, personal=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings, "tent": TentSettings}
    work = "clients.tent:work"

    @classmethod
    def ordered(cls, config: Config) -> tuple[dict[str, Any], int, int]:
        """One step a batch, over each sample once."""
        order = {"batch": config.of(FedAvgSettings).batch, "lr": config.of(TentSettings).lr}
        return order, config.run.samples_per_round, 2
