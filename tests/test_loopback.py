"""Claims about servers on loopback: they answer this machine by its own names alone, and end when told."""

from __future__ import annotations

import threading

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cdc_flower import loopback
from cdc_flower.config import ConfigError
from tests.asking import ask

ROUTES = [Route("/", lambda request: PlainTextResponse("here"))]


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1", 200),
        ("localhost:9480", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ],
)
def test_a_request_must_name_this_machine(host, code):
    answer = ask(loopback.application(ROUTES), "/", host=host)
    assert answer.status_code == code
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_who_listens_on_another_address_serves_any_name():
    app = loopback.application(ROUTES, "0.0.0.0")
    assert ask(app, "/", host="cloud.example").status_code == 200


def test_a_server_answers_from_a_thread_and_ends_with_its_block():
    before = {thread for thread in threading.enumerate() if thread.name == "http"}
    with loopback.served(loopback.application(ROUTES), loopback.listening(0)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/").text == "here"
        assert {thread for thread in threading.enumerate() if thread.name == "http"} > before
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1"):
            loopback.listening(port)
    assert {thread for thread in threading.enumerate() if thread.name == "http"} == before
    loopback.listening(port).close()


def test_a_server_that_does_not_start_is_one_line():
    on = loopback.listening(0)
    with (
        pytest.raises(ConfigError, match=r"does not start: .*No such file.*; allowed: a certificate"),
        loopback.served(loopback.application(ROUTES), on, ssl_certfile="absent"),
    ):
        raise AssertionError
    assert on.fileno() == -1

    async def broken(scope, receive, send):
        raise RuntimeError

    on = loopback.listening(0)
    with (
        pytest.raises(ConfigError, match="does not start; allowed"),
        loopback.served(broken, on, lifespan="on", log_level="critical"),
    ):
        raise AssertionError
    assert on.fileno() == -1


def test_a_server_that_ends_before_its_block_is_told(monkeypatch):
    async def ends(self):
        return None

    told = threading.Event()
    with monkeypatch.context() as during:
        during.setattr(loopback.Server, "main_loop", ends)
        with loopback.served(loopback.application(ROUTES), loopback.listening(0), told.set):
            assert told.wait(20)
    told.clear()
    with loopback.served(loopback.application(ROUTES), loopback.listening(0), told.set):
        pass
    assert not told.is_set()
