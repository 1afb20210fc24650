"""A deployed round is the simulated one, and what happens on a device stays with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.fleet.engines.local_grid import LocalGrid
from clients.device import mover, start
from clients.device.agent import Agent
from strategies.run import run, run_local


@contextmanager
def running(bundles: Sequence[Path]) -> Iterator[list[Agent]]:
    """Agents of these bundles, each in a thread."""
    stop = threading.Event()
    with ExitStack() as held:
        agents = [held.enter_context(start.opened(folder)) for folder in bundles]
        threads = [threading.Thread(target=agent.run, args=(stop,)) for agent in agents]
        for thread in threads:
            thread.start()
        try:
            yield agents
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def moving(bundles: Sequence[Path]) -> ClientApp:
    """The mover of each device, as its node config names it."""
    app = ClientApp()

    def own(context: Context) -> Context:
        folder = str(bundles[int(context.node_config["partition-id"])])
        return Context(context.run_id, context.node_id, {mover.BUNDLE: folder}, context.state, {})

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return mover.query(message, own(context))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return mover.train(message, own(context))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return mover.evaluate(message, own(context))

    return app


def deployed(settings: Mapping[str, Any], bundles: Sequence[Path]) -> results.Run:
    """A run whose devices are these bundles."""
    grid = LocalGrid(moving(bundles), len(bundles), {}, roundtrip=True)
    return results.read(run(grid, Context(1, 1, {}, RecordDict(), dict(settings))))


def test_three_agents_give_the_ledger_of_a_simulated_fleet(run_settings, make_bundle, tmp_path):
    settings = run_settings(method="cdc", run_receipts=True)
    local = results.read(run_local(parse(settings), roundtrip=True))
    bundles = [make_bundle(settings, number) for number in range(3)]
    with running(bundles) as agents:
        found = deployed({**settings, "run.out-dir": str(tmp_path / "deployed")}, bundles)
        assert found.run["ledger_digest"] == local.run["ledger_digest"]
        assert found.run["accuracy"] == local.run["accuracy"]
        assert {a.adapter.version for a in agents} == {2}
        assert len({a.adapter.digest for a in agents}) == 1
        facts = [a.spool.facts() for a in agents]
        assert all(f.came == f.waiting + f.out + f.taken + f.dropped == 18 for f in facts)
        sent = local.devices.groupby("device")["uploaded_samples"].sum()
        assert [f.out + f.taken for f in facts] == sent.tolist()
