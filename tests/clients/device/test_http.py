"""Claims about the agent's endpoint: it answers programs of this machine, bounded, and says how it is."""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from dataclasses import replace

import httpx
import pytest

from cdc_flower.config import ConfigError, RunError
from clients.device import asked, http
from clients.device.ask import ask as ask_agent
from clients.device.http import Endpoint, endpoint
from clients.device.mailbox import Order, Reply
from tests.asking import ask


@pytest.fixture
def agent(begin):
    """An agent that was just started."""
    return begin()


def _json(picture, question="what shape?", **more):
    return {"json": {"question": question, "image": base64.b64encode(picture).decode(), **more}}


async def _parts(data, count):
    for _ in range(count):
        yield data


def test_an_answer_is_the_agents_and_becomes_a_sample_unless_told_otherwise(agent, picture):
    app = Endpoint(agent).application
    bare = agent.ask("what shape?", picture, spool=False)
    found = ask(app, "/answer", "POST", **_json(picture))
    assert found.status_code == 200
    assert found.json() == {"answer": bare.text, "uncertainty": bare.entropy, "version": 0}
    assert agent.spool.facts().waiting == 1
    form = {"data": {"question": "what shape?", "keep": "false"}, "files": {"image": picture}}
    assert ask(app, "/answer", "POST", **form).json() == found.json()
    assert agent.spool.facts().waiting == 1


def test_bad_requests_are_refused_in_a_line(agent, picture, monkeypatch):
    app = Endpoint(agent).application
    monkeypatch.setattr(asked, "MOST_BODY", 100_000)

    def code(**more):
        found = ask(app, "/answer", "POST", **more)
        assert "\n" not in found.json()["error"]
        return found.status_code

    assert code(content=b"{}") == 400
    assert code(**_json(b"no picture")) == 400
    assert code(**_json(picture, "<image>")) == 400
    assert code(content=b"x" * 100_001) == 413
    assert code(content=_parts(b"x" * 60_000, 2)) == 413  # no length is said
    assert code(headers={"origin": "http://evil.example"}, **_json(picture)) == 403
    assert ask(app, "/answer").status_code == 405
    assert ask(app, "/answer", "POST", host="evil.example", **_json(picture)).status_code == 400
    assert agent.done.answered == 0


def test_who_comes_while_enough_wait_is_told_to_come_again(agent, picture, monkeypatch):
    own, go = Endpoint(agent), threading.Event()
    monkeypatch.setattr(agent, "ask", lambda *_, **__: go.wait(30) and None)

    async def many():
        transport = httpx.ASGITransport(own.application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            waiting = [
                asyncio.create_task(client.post("/answer", **_json(picture))) for _ in range(http.WAITING)
            ]
            while own.open < http.WAITING:
                await asyncio.sleep(0.005)
            refused = await client.post("/answer", **_json(picture))
            health = await client.get("/health")  # is answered meanwhile
            go.set()
            await asyncio.gather(*waiting)
            return refused, health

    refused, health = asyncio.run(many())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert health.status_code == 200
    assert own.open == 0


def test_health_says_what_is_wrong(agent, picture, monkeypatch):
    own = Endpoint(agent)
    found = ask(own.application, "/health")
    assert (found.status_code, found.json()["ok"], found.json()["version"]) == (200, True, 0)
    agent.mailbox.put(Order(3, b"x"))
    agent.mailbox.answer(3, Reply(b"", "OrderError: no\norder"))
    agent.done.round = 3
    found = ask(own.application, "/health")
    assert (found.status_code, found.json()["problem"]) == (503, "OrderError: no order")
    agent.done.round = 0

    def full(*_, **__):
        raise RunError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(agent, "ask", full)
        assert ask(own.application, "/answer", "POST", **_json(picture)).status_code == 503
    assert ask(own.application, "/health").json()["problem"] == "disk is full"
    assert ask(own.application, "/answer", "POST", **_json(picture)).status_code == 200
    assert ask(own.application, "/health").status_code == 200


def test_it_listens_on_the_port_of_the_settings_where_that_is_free(agent, picture, tmp_path, caplog):
    with endpoint(agent) as port:
        assert port == 0
    taken = http.loopback.listening(0)
    port = taken.getsockname()[1]
    own = replace(agent.bundle, device=replace(agent.bundle.device, http_port=port))
    agent.bundle = own
    with caplog.at_level(logging.WARNING), endpoint(agent) as on:
        assert on == 0
    assert f"port {port} of 127.0.0.1" in caplog.text
    taken.close()
    with endpoint(agent) as on:
        assert httpx.get(f"http://127.0.0.1:{on}/health").status_code == 200
        (tmp_path / "x.png").write_bytes(picture)
        assert ask_agent(own, [tmp_path / "x.png"], "what?")["version"] == 0
        with pytest.raises(ConfigError, match="the frames of a clip, and the student reads pictures"):
            ask_agent(own, [tmp_path / "x.png"] * 2, "what?")
        with pytest.raises(ConfigError, match="the agent says"):
            ask_agent(own, [tmp_path / "x.png"], "<image>")
        other = replace(own, device=replace(own.device, number=7))
        with pytest.raises(RunError, match="is not the agent of device 7"):
            ask_agent(other, [tmp_path / "x.png"], "what?")
    with pytest.raises(RunError, match="is not running"):
        ask_agent(own, [tmp_path / "x.png"], "what?")
