"""CDC without an uplink: the cloud distils its teacher on data of its own. Why upload at all?

The cloud has A, the labelled data that teacher and student were trained on. In each round it draws as many
samples of A as its batches have places for new ones, lets the teacher answer them, and learns as in `cdc`,
with its replay. Devices get the updates and send nothing but the version they have. With `no_uplink.pool` =
"all" A's rows of the drifted domains are drawn, too: the teacher's own training rows of what devices will
meet. That is more than a cloud has whose devices meet what nobody foresaw. "source" is what such a cloud has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic.dataclasses import dataclass

from cdc_flower.cloud.distill import pictures, round_half
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.cloud.source import all_of_a, replay_pool
from cdc_flower.config import ConfigError
from cdc_flower.downlink import update
from cdc_flower.draws import generator
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Bytes, Number
from cdc_flower.wire.reply import Form
from strategies.cdc import CDC, Came
from strategies.checks import check_unlike
from strategies.method import Setup, Traits
from strategies.received import WITHOUT_FRAME


@dataclass(frozen=True, config=STRICT)
class NoUplinkSettings:
    """What the cloud learns of."""

    pool: Literal["source", "all"] = setting(
        "all", "rows of the cloud's own data: of the source, or of the drifted domains, too", "cloud"
    )


class NoUplink(CDC):
    """As `cdc`, with samples of the cloud's own in the place of what devices send.

    Attributes:
        pool: the cloud's samples: of each domain, in the mean, as many as `cloud.source-replay`.
    """

    name = "no_uplink"
    about = "devices send nothing, the cloud distils its teacher on its own data: why upload at all?"
    traits = Traits(labels=False, device_backprop=False, takes_late=True)
    settings: ClassVar = {"no_uplink": NoUplinkSettings}
    work = "clients.no_uplink:work"

    pool: Sequence[CloudSample]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """As `cdc`, and the pool."""
        made, config = super().build(setup), setup.config
        with_own = config, setup.shared, setup.world, made.teacher.own
        if config.of(NoUplinkSettings).pool == "all":
            items = all_of_a(*with_own, config.cloud.source_replay * (1 + len(config.axes)))
        else:
            items = replay_pool(*with_own)
        made.pool = [item.sample for item in items]
        return made

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse a cloud without data."""
        check_unlike(setup.config)
        if not setup.config.cloud.source_replay:
            raise ConfigError(
                "setting 'cloud.source-replay' = 0: method 'no_uplink' learns of the cloud's own samples "
                "alone; allowed: 1 or more"
            )

    @property
    def places(self) -> int:
        """Samples that a round draws: places of all its batches that are not for replay."""
        cloud = self.config.cloud
        most = pictures(cloud)
        return min(len(self.pool), cloud.steps * (most - round_half(most * cloud.replay_share)))

    def cloud_work(self, samples: int) -> CloudWork:
        """The same in every round, whatever comes: the teacher answers what is drawn, the twin learns."""
        return replace(super().cloud_work(self.places), pictures=0)

    def form(self) -> Form:
        """Version and digest; no frame."""
        none = dict.fromkeys((keys.UPLOADED, keys.TOKENS), Number(int, 0, 0))
        metrics = {keys.VERSION: Number(int, 0, 2**32 - 1), **none, **self.fleet.computed(self.fleet.samples)}
        return Form(metrics, {keys.DIGEST: Bytes(update.DIGEST_BYTES)}, max_bytes=WITHOUT_FRAME)

    def _fresh(self, round: int, came: list[Came]) -> tuple[list[CloudSample], np.ndarray]:
        """What the round draws of the pool; each sample at most once."""
        rng = generator(self.config.run.seed, f"no uplink/{round}")
        drawn = rng.choice(len(self.pool), self.places, replace=False)
        # each with arrays of its own: lessons of one picture are told by them, and after a resume all have
        return [
            replace(one, tokens=one.tokens.copy()) for one in map(self.pool.__getitem__, drawn.tolist())
        ], np.ones(len(drawn))
