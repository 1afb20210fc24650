"""FedProx (arXiv 1812.06127) through Flower's own strategy: FedAvg whose clients are told `proximal-mu`."""

from __future__ import annotations

from typing import ClassVar, Self

from flwr.serverapp.strategy import FedProx
from pydantic.dataclasses import dataclass

from cdc_flower.setting import STRICT, setting
from strategies.fedavg import FedAvgLora, FedAvgSettings
from strategies.method import Setup, Traits


@dataclass(frozen=True, config=STRICT)
class FedProxSettings:
    """Beyond those of FedAvg."""

    mu: float = setting(0.01, "of the proximal term", "device", ge=0, le=1e6)


class FedProxLora(FedProx, FedAvgLora):
    """Flower's FedProx, which puts `proximal-mu` into the config and leaves the rest to `FedAvgLora`."""

    name = "fedprox_lora"
    about = "as fedavg_lora, devices held near the server's weights by a proximal term"
    traits = Traits(labels=True, device_backprop=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings, "fedprox": FedProxSettings}

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        return cls(proximal_mu=setup.config.of(FedProxSettings).mu).bound(setup)
