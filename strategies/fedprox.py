"""FedProx (arXiv 1812.06127) through Flower's own strategy: FedAvg whose clients are told `proximal-mu`."""

from __future__ import annotations

from flwr.serverapp.strategy import FedProx

from cdc_flower.config import Config
from cdc_flower.data.world import World
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from strategies.base import Fleet
from strategies.fedavg import SeededFedAvg
from strategies.traits import Traits

TRAITS = Traits(labels=True, device_backprop=True)


class SeededFedProx(FedProx, SeededFedAvg):
    """Flower's FedProx, which puts `proximal-mu` into the config and leaves the rest to `SeededFedAvg`."""


def build(config: Config, shared: Shared, world: World) -> SeededFedProx:
    strategy = SeededFedProx(proximal_mu=config.fedprox.mu)
    return strategy.bind(Fleet.of(config), twin_model(shared, config.pair), labels="true", full=False)
