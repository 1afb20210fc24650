"""Python imports this at its start where its folder is on the path: every ClientApp of the process lies."""

import functools

from flwr.clientapp import ClientApp

from experiments.controls.lies import REFUSED, Liars

SEED = 0
_honest = ClientApp.__call__


def _lie(self, message, context):
    app = functools.partial(_honest, self)
    return Liars(app, [int(context.node_config["partition-id"])], SEED, REFUSED)(message, context)


ClientApp.__call__ = _lie  # type: ignore[method-assign]
