"""Flower messages as both sides make and read them: the frame in a message, its bytes, a device's state.

The one module of `wire` that imports Flower; names of records and keys are in `wire.keys`. Private names of
Flower used: `Metadata._message_id`, `flwr.common.serde`."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from cdc_flower.disk import DiskError
from cdc_flower.wire import keys

Client = Callable[[Message, Context], Message]
"""What a device runs: a ClientApp, or a function around one."""
RAISED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION
KINDS = {keys.METRICS: MetricRecord, keys.CONFIG: ConfigRecord, keys.ARRAYS: ArrayRecord}
"""Name of a record -> its kind."""
REFUSED = 1000  # of an error reply that a grid puts in place of one whose form is wrong; Flower's end at 8


def with_id(message: Message, message_id: str) -> Message:
    """The message, with an id, which Flower gives it on its way."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def trains(message: Message) -> bool:
    """Whether it is an order to work on a round's samples; its type may name an action behind a dot."""
    return message.metadata.message_type.split(".")[0] == MessageType.TRAIN


def over_the_wire(message: Message) -> Message:
    """The message after Flower's own protobuf serialisation and back, metadata included."""
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))


def message_bytes(content: RecordDict) -> int:
    """Exact bytes of a message's content in Flower's protobuf: the yardstick of every method, both
    directions.

    Metadata (ids, times, about 100 bytes) is Flower's own and equal for all methods, and is left out.
    """
    return recorddict_to_proto(content).ByteSize()


def payload(frame: bytes) -> ArrayRecord:
    """One opaque Array for a frame; a record per tensor would cost about 200 bytes each."""
    return ArrayRecord({keys.PAYLOAD: Array("uint8", (len(frame),), keys.STYPE, frame)})


def frame_of(content: RecordDict) -> bytes:
    """The frame in a message, b"" when it carries none."""
    record = content.array_records.get(keys.ARRAYS)
    return record[keys.PAYLOAD].data if record is not None and keys.PAYLOAD in record else b""


def state_bytes(state: RecordDict) -> bytes:
    """A device's `context.state` in Flower's protobuf; b"" where it is empty."""
    return recorddict_to_proto(state).SerializeToString(deterministic=True)


def state_of(data: bytes) -> RecordDict:
    """The state `state_bytes` was given."""
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


def copied(content: RecordDict) -> RecordDict:
    """Records of one's own over the same (immutable) arrays and values."""
    return RecordDict({name: type(record)(dict(record)) for name, record in content.items()})  # type: ignore[misc]


def failed(message: Message, err: Exception) -> Message:
    """The error reply of a device that raised."""
    return Message(Error(RAISED, f"{type(err)}:<'{err}'>"), reply_to=message)


def attempt(client_app: Client, message: Message, context: Context) -> Message:
    """A client's reply; of one that raises an error reply, and its changes of state are dropped.

    Whose answer it is to which message says the engine: a client's own metadata counts for nothing.

    Raises:
        DiskError: the disk of the simulation is full or cannot be written, which no device is to blame for.
    """
    before = copied(context.state)
    try:
        reply = client_app(message, context)
        return Message(reply.error if reply.has_error() else reply.content, reply_to=message)
    except DiskError:
        raise
    except Exception as err:  # what a device raises is its own; the server sees an error reply
        context.state = before
        return failed(message, err)
