"""Python imports this at its start where its folder is on the path: a device lies in its TRAIN replies.

In two rounds it sends what no honest device sends: 32 MiB in place of its frame, and its reply
of the round before, again. In the others it tells a lie that no method may take.
"""

import functools
import os
from pathlib import Path

from flwr.app import Array, ArrayRecord, Message
from flwr.clientapp import ClientApp

from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes, state_of
from experiments.controls.lies import REFUSED, Liars

HUGE, AGAIN = 2, 3  # rounds
BYTES = 32 * 2**20
_honest = ClientApp.__call__


def _lie(self, message, context):
    if message.metadata.message_type != "train":
        return _honest(self, message, context)
    round = int(message.content.config_records[keys.CONFIG][keys.ROUND])
    kept = Path(context.node_config["bundle"]) / "state" / "said before"
    if round == HUGE:
        reply = _honest(self, message, context)
        kept.write_bytes(state_bytes(reply.content))
        data = os.urandom(BYTES)
        reply.content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array("uint8", (BYTES,), keys.STYPE, data)})
        return reply
    if round == AGAIN:
        _honest(self, message, context)
        return Message(state_of(kept.read_bytes()), reply_to=message)
    context.node_config[keys.DEVICE] = 2
    return Liars(functools.partial(_honest, self), [2], 0, REFUSED)(message, context)


ClientApp.__call__ = _lie  # type: ignore[method-assign]
