"""FedDF (arXiv 2006.07242): FedAvg whose server distils the ensemble of its devices into their average."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
from flwr.app import MetricRecord
from pydantic.dataclasses import dataclass

from cdc_flower.cloud.ensemble import Ensemble
from cdc_flower.cloud.source import replay_pool
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.setting import STRICT, setting
from strategies.devices import wanted
from strategies.fedavg import FedAvgLora, FedAvgSettings, Lesson
from strategies.method import Setup, Traits


@dataclass(frozen=True, config=STRICT)
class FedDFSettings:
    """Beyond those of FedAvg."""

    steps: int = setting(20, "of distillation, a round; cloud.batch samples each", "cloud", ge=1, le=10**6)
    lr: float = setting(3e-4, "learning rate of Adam at the first of them", "cloud", gt=0, le=1e6)


class FedDF(FedAvgLora):
    """As `fedavg_lora`, with steps between the average and what the server makes of it.

    What is distilled is what devices sent and the server could use; the average begins.

    Attributes:
        distils: the server trains a student, for plans.
    """

    name = "feddf"
    about = "as fedavg_lora, and the server distils the devices' ensemble into the average on source samples"
    traits = Traits(labels=True, device_backprop=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings, "feddf": FedDFSettings}

    distils: ClassVar[bool] = True

    ensemble: Ensemble
    asked: int

    def bound(self, setup: Setup) -> Self:
        """The strategy, bound to what a run has."""
        super().bound(setup)
        config, shared = setup.config, setup.shared
        own, run = config.of(FedDFSettings), config.run
        pool = [item.sample for item in replay_pool(config, shared, setup.world)]
        models = twin_model(shared, config.pair), adapters.train_merged(twin_model(shared, config.pair))
        self.ensemble = Ensemble(shared, *models, pool, own.steps, config.cloud.batch, own.lr, run.seed)
        self.asked = wanted(run.devices, run.cohort)
        return self

    def cloud_work(self, samples: int) -> CloudWork:
        """Each step's samples go through every student and are answered once, beside the pass that learns,
        there and back, which is what a step is charged.
        """
        rest, own = super().cloud_work(samples), self.ensemble
        once = own.batch * (1 + (self.asked + 1) / 2)
        return CloudWork(0, own.steps, math.ceil(once + rest.steps * rest.batch / own.steps))

    def _average(self, round: int, lessons: list[Lesson]) -> tuple[np.ndarray | None, MetricRecord | None]:
        """The average after distillation."""
        averaged, said = super()._average(round, lessons)
        if averaged is not None:
            averaged = self.ensemble.distilled(round, averaged, [lesson.flat for lesson in lessons])
        return averaged, said
