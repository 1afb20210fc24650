"""The agent's endpoint on loopback, for programs of the same machine.

    POST /answer    a question and a picture or clip -> {"answer", "uncertainty", "version"}
    GET /health     200 when the device answers and the cloud's last order was done, else 503
    GET /metrics    for Prometheus

Answers are given one at a time by one thread of the model's; few requests wait for it, the others are told to
come again (503). A picture is decoded once, where the student reads it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cdc_flower import loopback
from cdc_flower.border import one_line
from cdc_flower.config import ConfigError, RunError
from clients.device import asked
from clients.device.answering import ItemError
from clients.device.asked import Asked, BadRequest
from clients.device.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from clients.device.agent import Agent

WAITING = 4  # requests that are read, wait or are answered, at a time; each holds its pictures
SLOW = 30.0  # s, that a request may take to come
_log = logging.getLogger(__name__)


class _Refused(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Endpoint:
    """The application of an agent."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.metrics = agent, Metrics(agent)
        self.model = ThreadPoolExecutor(1, "answers")
        self.open = 0
        self.problem = ""  # of the last answer

    @property
    def application(self) -> Starlette:
        """Its routes."""
        return loopback.application(
            [
                Route("/answer", self.answer, methods=["POST"]),
                Route("/health", self.health),
                Route("/metrics", self.figures),
            ]
        )

    async def answer(self, request: Request) -> Response:
        """Answer a question about a picture or a clip."""
        began = time.perf_counter()
        if self.open >= WAITING:
            return _error(503, f"{WAITING} questions wait already; ask again")
        self.open += 1
        try:
            what = await _read(request)
            found = await asyncio.get_running_loop().run_in_executor(
                self.model, partial(self.agent.ask, what.question, what.picture, spool=what.keep)
            )
        except _Refused as err:
            return _error(err.code, str(err))
        except (BadRequest, ItemError) as err:
            return _error(400, str(err))
        except ClientDisconnect:
            return Response(status_code=400)
        except RunError as err:  # the spool's disk
            self.problem = one_line(str(err))
            return _error(503, self.problem)
        except Exception as err:
            _log.exception("a question could not be answered")
            self.problem = one_line(f"{type(err).__name__}: {err}")
            return _error(500, self.problem)
        finally:
            self.open -= 1
        self.problem = ""
        self.metrics.latency.observe(time.perf_counter() - began)
        return JSONResponse({"answer": found.text, "uncertainty": found.entropy, "version": found.version})

    def health(self, request: Request) -> Response:
        """Whether the device does what it is for."""
        try:
            said = self._state()
        except RunError as err:
            said = {"ok": False, "problem": one_line(str(err))}
        return JSONResponse(said, 200 if said["ok"] else 503)

    def _state(self) -> dict[str, Any]:
        agent, done = self.agent, self.agent.done
        last = agent.mailbox.reply(done.round) if done.round else None
        problem = self.problem or (last.error if last else "")
        return {
            "ok": not problem,
            "problem": one_line(problem) if problem else None,
            "device": agent.bundle.device.number,
            "version": agent.adapter.version,
            "round": done.round or None,
            "samples": agent.spool.facts().waiting,
            "held_back": done.held_back or None,
        }

    def figures(self, request: Request) -> Response:
        """For a monitor."""
        try:
            return Response(self.metrics.text(), media_type=CONTENT_TYPE)
        except RunError as err:
            return _error(503, one_line(str(err)))


async def _read(request: Request) -> Asked:
    """What a request asks; no more of it is read than is allowed.

    Raises:
        _Refused, BadRequest, ClientDisconnect: see there.
    """
    if "origin" in request.headers:  # browsers say which page asks: none is allowed to
        raise _Refused(403, "a web page asks; allowed: programs of this machine")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or len(length) > 18 or int(length) > asked.MOST_BODY:
        raise _Refused(413, f"a request of {length[:20]} bytes; allowed: {asked.MOST_BODY}")
    body = bytearray()
    try:
        async with asyncio.timeout(SLOW):
            async for part in request.stream():
                body += part
                if len(body) > asked.MOST_BODY:
                    raise _Refused(413, f"a request of more than {asked.MOST_BODY} bytes")
    except TimeoutError:
        raise _Refused(408, f"the request took more than {SLOW:g} s to come") from None
    return asked.read(request.headers.get("content-type", ""), bytes(body))


def _error(code: int, why: str) -> Response:
    again = {"retry-after": "1"} if code == 503 else {}
    return JSONResponse({"error": one_line(why)}, code, again)


@contextmanager
def endpoint(agent: Agent) -> Iterator[int]:
    """Serve an agent's endpoint, on the port of its settings, for the length of a `with` block; gives the
    port. It is 0 where the settings want none, or, with a warning, where the port is taken: the device goes
    on without.
    """
    port = agent.bundle.device.http_port
    try:
        listens = loopback.listening(port) if port else None
    except ConfigError as err:
        _log.warning("no endpoint: %s (setting 'http-port')", err)
        listens = None
    if listens is None:
        yield 0
        return
    own = Endpoint(agent)
    try:
        with loopback.served(own.application, listens) as on:
            yield on
    finally:
        own.model.shutdown(wait=False, cancel_futures=True)
