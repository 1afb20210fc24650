"""What a device answered in a round, for whoever counts which answers are right.

The device does not know: what is true lies on the simulator's side (`cdc_flower.data.prequential`), and
nothing made from it is in any message that teaches."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from cdc_flower.wire import keys
from clients.store import Store


def evaluate(message: Message, context: Context) -> RecordDict:
    """The texts that the device answered in the round that the message names, in the order of its stream;
    none where it did not work in it.
    """
    round = int(message.content.config_records[keys.CONFIG][keys.ROUND])  # type: ignore[arg-type]
    said = ConfigRecord({keys.ANSWERS: Store.of(context).said(round)})
    return RecordDict({keys.METRICS: MetricRecord({keys.ROUND: round}), keys.CONFIG: said})
