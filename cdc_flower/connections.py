"""Connections within bounds, for servers that whoever reaches their port could otherwise fill.

uvicorn counts a connection once its TLS handshake is done, and of a request's bytes those of the body alone:
who begins handshakes and ends none, or sends headers without end, holds what he likes of files and memory.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HANDSHAKE = 5.0  # s, for TLS to begin
HEAD = 2**16  # bytes of a request that are no body: its first line, headers, trailers, what parts chunks
PATIENCE = 60.0  # s, for a request to come in
LOOKS = 10  # times that, for who takes his answer in slowly
_AGAIN = 0.1  # s, until one more is let in after there was no file for one


class Bounded(HttpToolsProtocol):
    """A connection that is closed when nothing was asked on it for a while, when one request lasts too long,
    or when more of it than `HEAD` is no body.
    """

    _looks, _before, _head = 0, None, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A peer has come."""
        super().connection_made(transport)
        self._later = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._later.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes, of which `on_body` takes those that are the body's off again."""
        self._head += len(data)
        super().data_received(data)
        if self._head > HEAD:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """A part of a request's body; less than nothing is counted of one that follows another at once."""
        self._head = max(0, self._head - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come in."""
        self._head = 0
        super().on_message_complete()

    def _look(self) -> None:
        now = self.cycle
        self._looks = self._looks + 1 if now is self._before else 0
        idle = now is None or now.response_complete
        if self._looks >= LOOKS or (idle and now is self._before):
            self.transport.abort()
            return
        self._before = now
        self._later = self.loop.call_later(PATIENCE, self._look)


class Server(uvicorn.Server):
    """uvicorn's, which closes a connection that is one too many (`limit_concurrency`) when it is accepted."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        self.servers = []
        self._beginning: set[asyncio.Task[None]] = set()
        self._accepting = [asyncio.create_task(self._accept(on)) for on in sockets or ()]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and end what is open."""
        tasks = [*self._accepting, *self._beginning]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().shutdown(sockets)

    async def _accept(self, on: socket.socket) -> None:
        on.setblocking(False)
        on.listen(self.config.backlog)
        loop, most = asyncio.get_running_loop(), self.config.limit_concurrency
        while True:
            try:
                one, _ = await loop.sock_accept(on)
            except OSError:  # no file is left, or who came has gone
                await asyncio.sleep(_AGAIN)
                continue
            if most is not None and len(self._beginning) + len(self.server_state.connections) >= most:
                one.close()
            else:
                task = loop.create_task(self._begin(one))
                self._beginning.add(task)
                task.add_done_callback(self._beginning.discard)
            await asyncio.sleep(0)  # others have their turn, however many come

    async def _begin(self, one: socket.socket) -> None:
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        patience = HANDSHAKE if tls else None
        with suppress(OSError):  # he speaks no TLS, takes too long, or has gone
            await loop.connect_accepted_socket(self._protocol, one, ssl=tls, ssl_handshake_timeout=patience)

    def _protocol(self) -> Bounded:
        return Bounded(self.config, self.server_state, self.lifespan.state)
