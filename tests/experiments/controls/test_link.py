"""Bytes pass a link whole and in order, at its rate, after its delay, and not while it is dark."""

import asyncio
import contextlib

import pytest
import typer

from cdc_flower.programs import free_port
from experiments.controls.link import Line, Link, address


def test_a_line_sends_one_after_another_and_delays_all_alike():
    line = Line(rate=100.0, delay=2.0)
    assert line.arrival(10.0, 50) == 12.5
    assert line.arrival(10.1, 100) == 13.5  # it waits for the first
    assert line.arrival(20.0, 100) == 23.0
    assert Line().arrival(5.0, 10**9) == 5.0


def test_an_address_is_a_host_and_a_port():
    assert address("10.0.0.1:80") == ("10.0.0.1", 80)
    for bad in ("", "80", ":80", "a:", "a:b", "a:0", "a:65536"):
        with pytest.raises(typer.BadParameter, match="HOST:PORT"):
            address(bad)


@contextlib.asynccontextmanager
async def linked(tmp_path, up=None, down=None):
    """A link to a server that gives back what it gets; its port and its switch."""

    async def echo(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    switch, port = tmp_path / "switch", free_port()
    there = server.sockets[0].getsockname()[:2]
    link = Link(there, up or Line(), down or Line(), switch, tmp_path)
    serving = asyncio.ensure_future(link.serve("127.0.0.1", port))
    await asyncio.sleep(0.1)
    try:
        yield port, switch
    finally:
        serving.cancel()
        server.close()
        await asyncio.sleep(0.1)


def test_bytes_pass_whole_and_are_kept_where_that_is_asked(tmp_path):
    said = bytes(range(256)) * 1000

    async def play():
        async with linked(tmp_path) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            writer.write_eof()
            heard = await asyncio.wait_for(reader.read(-1), 30)
            writer.close()
            return heard

    assert asyncio.run(play()) == said
    assert (tmp_path / "000000.up").read_bytes() == said
    assert (tmp_path / "000000.down").read_bytes() == said


def test_rate_and_delay_hold_bytes_back(tmp_path):
    async def play():
        async with linked(tmp_path, Line(100_000, 0.05), Line(0, 0.05)) as (port, _):
            loop = asyncio.get_running_loop()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            begun = loop.time()
            writer.write(bytes(30_000))
            await asyncio.wait_for(reader.readexactly(30_000), 30)
            writer.close()
            return loop.time() - begun

    assert asyncio.run(play()) >= 0.3 + 0.1


def test_a_dark_link_loses_nothing_and_a_cut_one_refuses(tmp_path):
    async def play():
        async with linked(tmp_path) as (port, switch):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            switch.write_text("dark")
            writer.write(b"later")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(first := asyncio.ensure_future(reader.read(5))), 0.3)
            switch.write_text("up")
            assert await asyncio.wait_for(first, 30) == b"later"
            switch.write_text("cut")
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 30)
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 30)
            writer.close()

    asyncio.run(play())
