"""Claims about metrics: a monitor can read them, and they are the agent's own counts."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clients.device.http import Endpoint
from tests.asking import ask


@pytest.fixture
def agent(begin):
    """An agent that was just started."""
    return begin()


def test_figures_are_those_of_the_agent(agent, picture):
    own = Endpoint(agent)
    files = {"image": picture}
    assert ask(own.application, "/answer", "POST", data={"question": "what?"}, files=files).status_code == 200
    agent.done.bytes_up, agent.done.bytes_down, agent.done.held_back = 12, 34, "the link is metered"
    found = ask(own.application, "/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    known = {
        sample.name: sample.value
        for family in text_string_to_metric_families(found.text)
        for sample in family.samples
    }
    spool = agent.spool.facts()
    assert known["cdc_flower_answers_total"] == known["cdc_flower_answer_seconds_count"] == 1
    assert known["cdc_flower_samples_came_total"] == known["cdc_flower_samples_waiting"] == 1
    assert known["cdc_flower_spool_bytes"] == spool.bytes > 0
    assert known["cdc_flower_bytes_up_total"] == 12
    assert known["cdc_flower_bytes_down_total"] == 34
    assert known["cdc_flower_updates_refused_total"] == 0
    assert known["cdc_flower_version"] == 0
    assert known["cdc_flower_held_back"] == 1
    assert known["process_resident_memory_bytes"] > 10**7
