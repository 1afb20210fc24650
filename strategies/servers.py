"""What the server makes of the average of a round: Flower's own server optimisers by name.

The average of the devices is a step from the weights they were sent. FedAvgM (arXiv 1909.06335) keeps a sum
of past steps, FedAdam and FedYogi (arXiv 2003.00295) scale each weight's step by its past size. Flower's
strategies of these names do the arithmetic; each is given one reply, the average, so that every rule of
`strategies.averages` can stand before every optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedYogi
from numpy.typing import NDArray

from cdc_flower.wire import keys

MOMENTUM = 0.9  # of FedAvgM


@dataclass(frozen=True)
class Rule:
    """An optimiser of the server.

    Attributes:
        make: server rate -> the strategy of Flower's.
        rate: where the setting `fedavg.server-rate` is 0.
        moments: its attributes that live from round to round.
    """

    make: Callable[[float], FedAvg]
    rate: float
    moments: tuple[str, ...] = ()


SERVERS: dict[str, Rule] = {
    "mean": Rule(lambda rate: FedAvgM(server_learning_rate=rate), 1.0),
    "momentum": Rule(
        lambda rate: FedAvgM(server_learning_rate=rate, server_momentum=MOMENTUM), 0.3, ("momentum_vector",)
    ),
    "adam": Rule(lambda rate: FedAdam(eta=rate), 0.01, ("m_t", "v_t")),
    "yogi": Rule(lambda rate: FedYogi(eta=rate), 0.01, ("m_t", "v_t")),
}
"""Values of the setting `fedavg.server`."""


class Server:
    """One optimiser and its moments.

    Args:
        name: key of `SERVERS`.
        rate: of the server; 0 = that of the rule.
    """

    def __init__(self, name: str = "mean", rate: float = 0.0) -> None:
        self.rule = SERVERS[name]
        self.rate = rate or self.rule.rate
        self._flower: Any = self.rule.make(self.rate)

    @property
    def plain(self) -> bool:
        """Whether the next weights are the average itself."""
        return not self.rule.moments and self.rate == 1

    def step(
        self, round: int, now: NDArray[np.float32], averaged: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The next weights (P,).

        Args:
            round: from 1.
            now: weights that the devices' changes are counted from.
            averaged: `now` and the average of the changes.
        """
        if self.plain:
            return averaged
        held = ArrayRecord({keys.PAYLOAD: Array(now)})
        momentum = isinstance(self._flower, FedAvgM)
        self._flower.current_arrays = held if momentum else {keys.PAYLOAD: now}
        said = {
            keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(averaged)}),
            keys.METRICS: MetricRecord({keys.EXAMPLES: 1}),
        }
        one = Message(RecordDict(said), dst_node_id=0, message_type=MessageType.TRAIN)
        made, _ = self._flower.aggregate_train(round, [one])
        return made[keys.PAYLOAD].numpy().astype(np.float32)

    def state(self) -> dict[str, Any]:
        """The moments (P,), none before the first step."""
        found = {name: getattr(self._flower, name) for name in self.rule.moments}
        return {name: _only(moment) for name, moment in found.items() if moment}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken.

        Raises:
            KeyError: moments of another optimiser.
        """
        self._flower = self.rule.make(self.rate)
        if state:
            for name in self.rule.moments:
                moment = np.asarray(state[name])
                listed = isinstance(self._flower, FedAvgM)
                setattr(self._flower, name, [moment] if listed else {keys.PAYLOAD: moment})


def _only(moment: Any) -> NDArray[Any]:
    """The one array of a list or dict of Flower's."""
    (array,) = moment.values() if isinstance(moment, dict) else moment
    return np.asarray(array)
