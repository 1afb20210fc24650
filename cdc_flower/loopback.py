"""Small HTTP servers that only this machine reaches: the agent's endpoint and the cloud's page.

They listen on 127.0.0.1. A web page that somebody opens on this machine could still send them requests (its
own host name may be made to point at 127.0.0.1: DNS rebinding), so a request must name this machine in its
`Host` header, and no answer allows another origin to read it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdc_flower.config import ConfigError
from cdc_flower.connections import Server

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
CONNECTIONS = 64  # at a time; more are closed
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_LEAVES = 5  # s, for requests that are being answered when a server is stopped
_LOOK = 0.005  # s, between looks at whether it has started


class _Headers:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)


def application(routes: Sequence[BaseRoute], host: str = HOST) -> Starlette:
    """An application that answers requests for this machine alone.

    Args:
        routes: of starlette.
        host: the address that it listens on; with another than loopback any `Host` is served, because nobody
            here knows by which names others call the machine.
    """
    names = list(NAMES) if host in NAMES else ["*"]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=names)],
    )


def listening(port: int, host: str = HOST) -> socket.socket:
    """A socket that listens.

    Args:
        port: 0 = any that is free.
        host: address.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(CONNECTIONS)
    except OSError as err:
        found.close()
        raise ConfigError(f"port {port} of {host}: {err.strerror}; allowed: one that is free") from None
    return found


def run(app: ASGIApp, on: socket.socket) -> None:
    """Serve until the process is told to end (in the main thread), or for ever."""
    _server(app, {}).run([on])


@contextmanager
def served(
    app: ASGIApp, on: socket.socket, ended: Callable[[], None] = lambda: None, **how: Any
) -> Iterator[int]:
    """Serve from a thread for the length of a `with` block; gives the port, on which it answers by then.

    Args:
        app: what answers.
        on: where it listens.
        ended: called where the server ends before the block.
        **how: of uvicorn, in place of what is said here.

    Raises:
        ConfigError: it does not start, as with a certificate that is not its key's.
    """
    port = on.getsockname()[1]
    server = _server(app, how)
    try:
        server.config.load()
    except (OSError, ValueError) as err:
        on.close()
        raise ConfigError(
            f"the server of port {port} does not start: {err}; allowed: a certificate with its own key"
        ) from None

    def serve() -> None:
        try:
            server.run([on])
        finally:
            if not server.should_exit:
                ended()

    thread = threading.Thread(target=serve, name="http", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise ConfigError(f"the server of port {port} does not start; allowed: one that does")
            time.sleep(_LOOK)
        yield port
    finally:
        server.should_exit = True
        thread.join(2 * _LEAVES)
        on.close()


def _server(app: ASGIApp, how: Mapping[str, Any]) -> Server:
    usual = {
        "loop": "asyncio",  # whatever else is installed
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": CONNECTIONS,
        "timeout_graceful_shutdown": _LEAVES,
    }
    return Server(uvicorn.Config(app, **{**usual, **how}))
