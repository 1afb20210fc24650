"""Many devices' messages in one call: what a grid runs that has more than one message for a process.

The same work as `client_app.app` does message by message, with the same bytes; devices that train are
answered together (`clients.inference`). Everything else goes to the app, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import Context, Message, MessageType

from cdc_flower.wire.messages import attempt, copied, failed
from clients.client_app import app, begin
from clients.inference import drive


def run(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
    """A reply to each message, in their order; a device that raises gets an error reply and its old state."""
    replies: dict[int, Message] = {}
    together = [i for i, m in enumerate(messages) if m.metadata.message_type == MessageType.TRAIN]
    before = {i: copied(contexts[i].state) for i in together}
    for i, content in zip(together, drive(begin(messages[i], contexts[i]) for i in together), strict=True):
        if isinstance(content, Exception):
            contexts[i].state = before[i]
            replies[i] = failed(messages[i], content)
        else:
            replies[i] = Message(content, reply_to=messages[i])
    for i, message in enumerate(messages):
        if i not in replies:
            replies[i] = attempt(app, message, contexts[i])
    return [replies[i] for i in range(len(messages))]
