"""What a device answered in a round, for whoever counts which answers are right.

The device does not know: what is true lies on the simulator's side (`cdc_flower.data.prequential`), and
nothing made from it is in any message that teaches."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from cdc_flower.wire import keys
from clients.store import Adapter, Store

NOTHING = Adapter.of(np.zeros(0, np.float32), 0)


def evaluate(message: Message, context: Context) -> RecordDict:
    """The texts that the device answered in the round that the message names, in the order of its stream;
    none where it did not work in it. Where the message asks for it, also the first values of what the device
    keeps: held-out accuracy of an adapter that never leaves its device is measured with them, in simulation.
    """
    order, store = message.content.config_records[keys.CONFIG], Store.of(context)
    round, wanted = int(order[keys.ROUND]), int(order.get(keys.HELD, 0))  # type: ignore[arg-type]
    records = RecordDict(
        {
            keys.METRICS: MetricRecord({keys.ROUND: round}),
            keys.CONFIG: ConfigRecord({keys.ANSWERS: store.said(round)}),
        }
    )
    if wanted > 0 and len(flat := store.held(NOTHING).flat) >= wanted:
        records[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(flat[:wanted])})
    return records
