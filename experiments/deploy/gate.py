"""What devices reach of the SuperLink: the calls of SuperNodes, and nothing else.

Flower 1.41 serves one port. On it SuperNodes ask for messages, and on it an operator registers keys and
starts runs, that is, runs code of his own on this machine; of an operator it asks no key. Whoever reached the
port could register a key of his own. So the SuperLink listens on loopback, and on the port that devices know
stands this gate, with the server's certificate: it passes on `/v1/fleet/`, where every call is signed with
the device's key, within a bound of bytes, and answers all else with 404. While the SuperLink is started again
it answers 503, after which a SuperNode tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cdc_flower.loopback import listening

CALLS = (
    "register-node",
    "activate-node",
    "deactivate-node",
    "unregister-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
"""Of a SuperNode of Flower 1.41, under /v1/fleet/."""
MOST_BYTES = 16 * 2**20  # of a call; Flower cuts arrays into objects of 5 MiB
MOST_HELD = 2**28  # bytes of all calls that are being read
CONNECTIONS = 4096  # at a time
PATIENCE = 60.0  # s, for a call to come in, and for the SuperLink's answer
_ASKED = {b"host", b"connection", b"content-length", b"transfer-encoding", b"expect", b"keep-alive"}
_SAID = {"connection", "transfer-encoding", "keep-alive", "server", "date"}


class _Refused(Exception):
    """A call that is not read to its end: the code of the answer, and why."""


def application(inner: str, ca: Path | None, most: int = MOST_BYTES) -> Starlette:
    """The gate to a SuperLink.

    Args:
        inner: URL of the SuperLink, on loopback.
        ca: the certificate of the authority that signed the SuperLink's; None where it speaks plain HTTP.
        most: bytes of a call.
    """
    verify: ssl.SSLContext | bool = False
    if ca is not None:
        verify = ssl.create_default_context(cafile=str(ca))
        verify.check_hostname = False  # its certificate is for the names that devices call it by

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        client = httpx.AsyncClient(base_url=inner, verify=verify, limits=limits, timeout=PATIENCE)
        async with client:
            app.state.client = client
            yield

    held = 0

    async def body(request: Request) -> bytes:
        nonlocal held
        size, found = 0, []
        try:
            async for chunk in request.stream():
                size, held = size + len(chunk), held + len(chunk)
                if size > most:
                    raise _Refused(413, f"more than {most} bytes")
                if held > MOST_HELD:
                    raise _Refused(503, "too many calls at a time")
                found.append(chunk)
            return b"".join(found)
        finally:
            held -= size

    async def call(request: Request) -> Response:
        client: httpx.AsyncClient = request.app.state.client
        headers = [(k, v) for k, v in request.headers.raw if k.lower() not in _ASKED]
        try:
            content = await asyncio.wait_for(body(request), PATIENCE)
            asked = client.build_request("POST", request.url.path, headers=headers, content=content)
            answer = await client.send(asked, stream=True)
        except _Refused as err:
            return PlainTextResponse(err.args[1], err.args[0])
        except TimeoutError:
            return PlainTextResponse("too slow", 408)
        except httpx.HTTPError:
            return PlainTextResponse("the SuperLink does not answer", 503)
        own = {k: v for k, v in answer.headers.items() if k not in _SAID}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, own, background=BackgroundTask(answer.aclose)
        )

    routes = [Route(f"/v1/fleet/{name}", call, methods=["POST"]) for name in CALLS]
    return Starlette(routes=routes, lifespan=life)


@contextmanager
def opened(
    inner: str,
    port: int,
    host: str = "127.0.0.1",
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    ca: Path | None = None,
) -> Iterator[int]:
    """Open the gate for the length of a `with` block; gives its port.

    Args:
        inner: URL of the SuperLink.
        port, host: where devices come; port 0 = any that is free.
        certificate, key: of the server; None = plain HTTP.
        ca: see `application`.

    Raises:
        ConfigError: the port is taken.
    """
    on = listening(port, host)
    how = uvicorn.Config(
        application(inner, ca),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(how)
    thread = threading.Thread(target=server.run, args=([on],), name="gate", daemon=True)
    thread.start()
    try:
        yield on.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        with contextlib.suppress(OSError):
            on.close()
