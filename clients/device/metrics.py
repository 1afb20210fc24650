"""What a monitor reads of a device: Prometheus's text, made of the agent's counts when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from clients.device.agent import Agent

SECONDS = 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Counts(Collector):
    """The agent's counts."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def collect(self) -> Iterator[Metric]:
        """Each figure, now."""
        done, spool = self.agent.done, self.agent.spool.facts()
        for name, about, value in (
            ("answers", "items that were answered, of the feed and of programs", done.answered),
            ("answers_refused", "items that could not be answered", done.refused),
            ("answering_seconds", "seconds that answers took, without waiting", done.seconds),
            ("orders", "orders of the cloud that have a reply", done.orders),
            ("order_errors", "of these, error replies", done.errors),
            ("updates_refused", "updates that could not be applied", done.refused_updates),
            ("bytes_up", "bytes of replies", done.bytes_up),
            ("bytes_down", "bytes of orders", done.bytes_down),
            ("samples_came", "samples that were spooled, ever", spool.came),
            ("samples_taken", "of these, taken by the cloud", spool.taken),
            ("samples_dropped", "of these, dropped: the spool was full, or they were refused", spool.dropped),
            ("samples_refused", "of these, dropped because replies with them were refused", spool.refused),
        ):
            yield CounterMetricFamily(f"cdc_flower_{name}", about, value)
        for name, about, value in (
            ("samples_waiting", "samples that wait to be sent", spool.waiting),
            ("samples_out", "samples in the reply to the last order", spool.out),
            ("spool_bytes", "bytes of samples that wait or are out", spool.bytes),
            ("version", "of the adapter", self.agent.adapter.version),
            ("round", "of the last order", done.round),
            ("held_back", "1 = battery, heat or link kept samples back", bool(done.held_back)),
        ):
            yield GaugeMetricFamily(f"cdc_flower_{name}", about, float(value))


class Metrics:
    """The figures of one agent."""

    def __init__(self, agent: Agent) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Counts(agent))
        ProcessCollector(registry=self.registry)  # resident memory, processor seconds, open files
        self.latency = Histogram(
            "cdc_flower_answer_seconds",
            "seconds from a program's request to its answer, waiting included",
            buckets=SECONDS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
