"""What runs in an actor of a FleetGrid: the client, found by name, over bundles of messages and states."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Context, Message
from flwr.supercore.task_identity import TaskIdentity

from cdc_flower.fleet.engines.depot import Guest, node
from cdc_flower.fleet.engines.local_grid import identify, node_config
from cdc_flower.wire.messages import attempt, state_bytes, state_of

Bundle = Callable[[Sequence[Message], Sequence[Context]], Sequence[Message]]
"""Messages and the contexts of their devices -> replies in that order; contexts are changed in place."""
Sent = tuple[int, bytes, Message]
"""Device, its serialised state (b"" where empty), message."""


def _named(name: str) -> Any:
    """What "module:attribute" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


class FleetWorker:
    """What runs in an actor."""

    def __init__(
        self,
        client_app: str,
        bundle: str,
        devices: int,
        run_config: dict[str, Any],
        paths: Sequence[str],
        gpu: bool,
    ) -> None:
        self.names, self.devices, self.run_config = (client_app, bundle), devices, run_config
        sys.path += [p for p in paths if p not in sys.path]
        if not gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.run: Bundle | None = None
        self.guest: Guest | None = None

    def load(self) -> str:
        """Import the client; returns Ray's name of this machine, "" where no Ray runs this."""
        identify()
        client_app, bundle = self.names
        if bundle:
            self.run = _named(bundle)
        else:
            app = _named(client_app)
            self.run = lambda messages, contexts: [
                attempt(app, m, c) for m, c in zip(messages, contexts, strict=True)
            ]
        gc.freeze()  # what is imported stays: it need not be looked through for garbage
        return node()

    def work(
        self, tasks: Sequence[Sent], depot: tuple[Any, str] | None = None
    ) -> tuple[list[tuple[Message, bytes]], float]:
        """Replies and new states, and the seconds it took.

        Args:
            tasks: the bundle.
            depot: of a cluster, and which machine it is on; see `depot`.
        """
        began = time.perf_counter()
        assert self.run is not None
        if self.guest is None and depot is not None and depot[1] != node():
            self.guest = Guest(depot[0], self.run_config)
        settings = self.guest.settings if self.guest else self.run_config
        contexts = [
            Context(
                TaskIdentity.run_id,
                message.metadata.dst_node_id,
                node_config(device, self.devices),
                state_of(state),
                dict(settings),
            )
            for device, state, message in tasks
        ]
        if self.guest:
            self.guest.enter([context.state for context in contexts])
        replies = self.run([message for *_, message in tasks], contexts)
        if self.guest:
            self.guest.leave([context.state for context in contexts])
        found = [(r, state_bytes(c.state)) for r, c in zip(replies, contexts, strict=True)]
        return found, time.perf_counter() - began
