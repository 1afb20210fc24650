"""A link between devices and cloud with a rate, a delay, and a switch.

`python -m experiments.controls.link --listen 127.0.0.1:9000 --to 127.0.0.1:8000 --rate 1e6 --delay 0.05`
forwards TCP connections. Rate and delay are those of a line that all connections share, one each way. What a
line does to packets (loss, reordering) can be seen behind TCP in the rate alone. The file `--switch` says how
the link is: "up", "dark" (nothing passes and nothing is lost, as when radio fails and TCP sends again) or
"cut" (connections are reset and new ones refused). With `--record FOLDER` the bytes of each connection are
kept, for a test that looks at what went over the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from pathlib import Path
from typing import Annotated

import typer

CHUNK = 16_384  # bytes that are sent at once
QUEUE = 64  # chunks on the way, at most: what a line holds
POLL = 0.05  # s, of the switch
STATES = ("up", "dark", "cut")


class Line:
    """One direction of the link: bytes leave it one after another at its rate, and arrive after its delay.

    Args:
        rate: bytes/s; 0 = as fast as they come.
        delay: s.
    """

    def __init__(self, rate: float = 0.0, delay: float = 0.0) -> None:
        self.rate, self.delay, self._free = rate, delay, 0.0

    def arrival(self, now: float, size: int) -> float:
        """When the last of `size` bytes that are sent now arrives."""
        self._free = max(self._free, now) + (size / self.rate if self.rate else 0.0)
        return self._free + self.delay


class Link:
    """The forwarding server.

    Args:
        to: host and port of the cloud.
        up, down: the lines to it and from it.
        switch: a file with one of `STATES`; None or absent = up.
        record: a folder; None = bytes are not kept.
    """

    def __init__(
        self,
        to: tuple[str, int],
        up: Line,
        down: Line,
        switch: Path | None = None,
        record: Path | None = None,
    ) -> None:
        self.to, self.up, self.down, self.switch, self.record = to, up, down, switch, record
        self._count, self._open = itertools.count(), set[asyncio.StreamWriter]()

    def state(self) -> str:
        """What the switch says."""
        with contextlib.suppress(OSError):
            if self.switch is not None and (said := self.switch.read_text().strip()) in STATES:
                return said
        return "up"

    async def serve(self, host: str, port: int) -> None:
        """Forward until cancelled."""
        server = await asyncio.start_server(self._connected, host, port)
        async with server:
            await asyncio.gather(server.serve_forever(), self._cutting())

    async def _cutting(self) -> None:
        while True:
            if self.state() == "cut":
                for writer in list(self._open):
                    writer.transport.abort()
            await asyncio.sleep(POLL)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, ends = next(self._count), [writer]
        self._open.add(writer)
        try:
            await self._lit()
            loop = asyncio.get_running_loop()
            await asyncio.sleep(self.up.delay + self.down.delay)  # the handshake
            there, back = await asyncio.open_connection(*self.to)
            ends.append(back)
            self._open.add(back)
            for end in ends:
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(loop, reader, back, self.up, f"{number:06d}.up"))
                both.create_task(self._pass(loop, there, writer, self.down, f"{number:06d}.down"))
        except* OSError:
            pass
        finally:
            for end in ends:
                self._open.discard(end)
                end.transport.abort() if self.state() == "cut" else end.close()

    async def _lit(self) -> None:
        while (now := self.state()) != "up":
            if now == "cut":
                raise ConnectionResetError
            await asyncio.sleep(POLL)

    async def _pass(
        self,
        loop: asyncio.AbstractEventLoop,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        line: Line,
        name: str,
    ) -> None:
        """One direction of a connection: a queue is what is on the way."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE)

        async def deliver() -> None:
            while True:
                at, data = await queue.get()
                await asyncio.sleep(at - loop.time())
                await self._lit()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            with contextlib.suppress(OSError):
                writer.write_eof() if writer.can_write_eof() else writer.close()

        delivering = asyncio.ensure_future(deliver())
        try:
            while True:
                data = await reader.read(CHUNK)
                self._keep(name, data)
                await queue.put((line.arrival(loop.time(), len(data)), data))
                if not data:
                    break
            await delivering
        finally:
            delivering.cancel()

    def _keep(self, name: str, data: bytes) -> None:
        if self.record is not None and data:
            with (self.record / name).open("ab") as file:
                file.write(data)


def address(text: str) -> tuple[str, int]:
    """Host and port of "host:port".

    Raises:
        typer.BadParameter: it has another form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise typer.BadParameter(f"{text!r}; allowed: HOST:PORT")
    return host, int(port)


def main(
    listen: Annotated[str, typer.Option(help="HOST:PORT of the devices' side.")],
    to: Annotated[str, typer.Option(help="HOST:PORT of the cloud.")],
    rate: Annotated[float, typer.Option(min=0, help="Bytes/s up; 0 = no limit.")] = 0.0,
    down_rate: Annotated[float, typer.Option(min=0, help="Bytes/s down; 0 = no limit.")] = 0.0,
    delay: Annotated[float, typer.Option(min=0, max=60, help="Of each direction, s.")] = 0.0,
    switch: Annotated[Path | None, typer.Option(help="File that says up, dark or cut.")] = None,
    record: Annotated[Path | None, typer.Option(help="Folder for the bytes that pass.")] = None,
) -> None:
    """Forward TCP connections over a link."""
    if record is not None:
        record.mkdir(parents=True, exist_ok=True)
    here = address(listen)
    link = Link(address(to), Line(rate, delay), Line(down_rate, delay), switch, record)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(link.serve(*here))


if __name__ == "__main__":
    typer.run(main)
