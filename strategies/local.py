"""Every device by itself: it trains an adapter of its own on true labels, and nothing is shared."""

from __future__ import annotations

from typing import Any, ClassVar

from cdc_flower.config import Config
from cdc_flower.wire import keys
from strategies.fedavg import FedAvgSettings
from strategies.method import Traits
from strategies.on_device import OnDevice


class Local(OnDevice):
    """The training of `fedavg_lora` without its average: what a federation adds is the difference."""

    name = "local"
    about = "every device trains an adapter of its own on true labels, nothing is shared"
    traits = Traits(labels=True, device_backprop=True, takes_late=True, personal=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings}
    work = "clients.local:work"

    @classmethod
    def ordered(cls, config: Config) -> tuple[dict[str, Any], int, int]:
        """Training as FedAvg's devices have it, from true labels."""
        own, samples = config.of(FedAvgSettings), config.run.samples_per_round
        training = {name: getattr(own, name) for name in ("epochs", "batch", "lr", "memory", "confidence")}
        return {keys.LABELS: keys.TRUE, keys.FULL: False, **training}, samples + own.memory, 2 + own.epochs
