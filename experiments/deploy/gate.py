"""What devices reach of the SuperLink: the calls of SuperNodes, and nothing else.

Flower 1.41 serves one port. On it SuperNodes ask for messages, and on it an operator registers keys and
starts runs, that is, runs code of his own on this machine; of an operator it asks no key. Whoever reached the
port could register a key of his own. So the SuperLink listens on loopback, and on the port that devices know
stands this gate, with the server's certificate: it passes on `/v1/fleet/`, where every call is signed with
the device's key, within a bound of bytes, and answers all else with 404. While the SuperLink is started
again, or was not yet told whose keys are good, it answers 503, after which a SuperNode tries again.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cdc_flower.connections import PATIENCE
from cdc_flower.loopback import listening, served

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
FILES = 4 * CONNECTIONS  # that this process may have open: a call takes two
_ASKED = {b"host", b"connection", b"content-length", b"transfer-encoding", b"expect", b"keep-alive"}
_SAID = {"connection", "transfer-encoding", "keep-alive", "server", "date"}


def application(
    inner: str, ca: Path | None, most: int = MOST_BYTES, ready: Callable[[], bool] = lambda: True
) -> Starlette:
    """The gate to a SuperLink.

    Args:
        inner: URL of the SuperLink, on loopback.
        ca: the certificate of the authority that signed the SuperLink's; None where it speaks plain HTTP.
        most: bytes of a call.
        ready: whether calls may pass now.
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

    held = 0  # bytes of calls that are not answered

    async def call(request: Request) -> Response:
        nonlocal held
        if not ready():
            return PlainTextResponse("the cloud is not ready", 503)
        client: httpx.AsyncClient = request.app.state.client
        headers = [(k, v) for k, v in request.headers.raw if k.lower() not in _ASKED]
        size, parts = 0, []
        try:
            async with asyncio.timeout(PATIENCE):
                async for part in request.stream():
                    size, held = size + len(part), held + len(part)
                    if size > most:
                        return PlainTextResponse(f"more than {most} bytes", 413)
                    if held > MOST_HELD:
                        return PlainTextResponse("too many calls at a time", 503)
                    parts.append(part)
            content = b"".join(parts)
            parts.clear()
            asked = client.build_request("POST", request.url.path, headers=headers, content=content)
            answer = await client.send(asked, stream=True)
        except ClientDisconnect:
            return Response(status_code=400)
        except TimeoutError:
            return PlainTextResponse("too slow", 408)
        except httpx.HTTPError:
            return PlainTextResponse("the SuperLink does not answer", 503)
        finally:
            held -= size
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
    ready: Callable[[], bool] = lambda: True,
    ended: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Open the gate for the length of a `with` block; gives its port.

    Args:
        inner: URL of the SuperLink.
        port, host: where devices come; port 0 = any that is free.
        certificate, key: of the server; None = plain HTTP.
        ca, ready: see `application`.
        ended: called where it ends before the block.

    Raises:
        ConfigError: the port is taken, or the certificate is not the key's.
    """
    how = {
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
        "lifespan": "auto",
        "log_level": "error",  # not a line for whatever is sent here
        "limit_concurrency": _connections(),
    }
    with served(application(inner, ca, ready=ready), listening(port, host), ended, **how) as on:
        yield on


def _connections() -> int:
    """How many connections there may be, once this process may have as many open files as it needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        soft = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft // 4)
