"""Fine-tuning on the device (what arXiv 2406.01601 sets itself against): labels of a few samples, no cloud.

The paper says that such adaptation needs costly annotation and overfits; it was not to be had how its
baseline is trained. Here a device labels the first `finetune.samples` of each kind of question that it meets,
and goes on training its own adapter on them in every round, for `fedavg.epochs` epochs: its accuracy over
rounds is that over epochs, which shows where it begins to learn by heart. With all samples and many epochs it
is the bound that methods without labels are set against: what an adapter of a device's own can reach.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from cdc_flower.config import Config
from cdc_flower.setting import STRICT, setting
from strategies.local import Local


@dataclass(frozen=True, config=STRICT)
class FinetuneSettings:
    """Beyond those of `fedavg`."""

    samples: int = setting(
        5, "samples of each kind of question that a device has labels of; 0 = all", "device", ge=0, le=10**6
    )


class Finetune(Local):
    """As `local`, from a few samples of each kind of question."""

    name = "finetune"
    about = "every device trains an adapter of its own on a few true labels of each kind of question"
    settings: ClassVar = {**Local.settings, "finetune": FinetuneSettings}
    work = "clients.finetune:work"

    @classmethod
    def ordered(cls, config: Config) -> tuple[dict[str, Any], int, int]:
        """As of `local`, and the samples of a kind."""
        order, most, reads = super().ordered(config)
        return {**order, "samples": config.of(FinetuneSettings).samples}, most, reads
