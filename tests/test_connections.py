"""A connection holds little: not many headers, not a handshake for long, and not more than there may be."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cdc_flower import connections, loopback
from tests.deploy import certificates

FIRST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = FIRST + b"transfer-encoding: chunked\r\n\r\n"


async def _size(request):
    return PlainTextResponse(str(len(await request.body())))


@contextlib.contextmanager
def opened(**how):
    app = loopback.application([Route("/", _size, methods=["POST"])])
    with loopback.served(app, loopback.listening(0), **how) as port:
        yield port


@pytest.fixture
def port():
    with opened() as on:
        yield on


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        pytest.param(FIRST, b"a: %s\r\n" % (b"x" * 8000), id="headers"),
        pytest.param(FIRST + b"a: ", b"x" * 8000, id="one header"),
        pytest.param(b"POST /", b"x" * 8000, id="first line"),
        pytest.param(CHUNKED + b"1\r\na\r\n0\r\n", b"a: %s\r\n" % (b"x" * 8000), id="trailers"),
        pytest.param(CHUNKED, b"1;%s\r\na\r\n" % (b"x" * 8000), id="what parts chunks"),
    ],
)
def test_what_is_no_body_is_bounded(begin, more, port):
    with socket.create_connection(("127.0.0.1", port), 20) as one:
        one.sendall(begin)
        assert _taken(one, more) < 2**24  # what lies in the kernel's buffers


def _taken(one, more):
    """How many bytes of many a server takes in."""
    for number in range(2**25 // len(more)):
        try:
            one.sendall(more)
        except (ConnectionResetError, BrokenPipeError):
            return number * len(more)
    return 2**25


def test_bodies_pass_and_each_request_counts_for_itself(port):
    with httpx.Client() as client:
        for _ in range(3):
            for body in (bytes(2**20), (bytes(2**14) for _ in range(64))):
                headers = {"a": "x" * 30_000}
                said = client.post(f"http://127.0.0.1:{port}/", content=body, headers=headers)
                assert said.text == str(2**20)


def _closed(one):
    one.settimeout(20)
    with contextlib.suppress(ConnectionResetError):
        assert one.recv(1) == b""


@pytest.fixture
def tls(tmp_path):
    """How a server has a certificate, and who believes it."""
    certificates.server(tmp_path, "server", certificates.authority(tmp_path, "ca"), host="127.0.0.1")
    files = {"ssl_certfile": tmp_path / "server.crt", "ssl_keyfile": tmp_path / "server.key"}
    return files, ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))


def test_who_begins_no_handshake_is_closed(tls, monkeypatch):
    monkeypatch.setattr(connections, "HANDSHAKE", 0.1)
    how, trusted = tls
    with opened(**how) as port:
        with socket.create_connection(("127.0.0.1", port), 20) as one:
            _closed(one)
        with socket.create_connection(("127.0.0.1", port), 20) as one:
            one.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while one.recv(100):
                    pass
        assert httpx.post(f"https://127.0.0.1:{port}/", content=b"abc", verify=trusted).text == "3"


def test_who_is_in_a_handshake_is_counted(tls, capfd, caplog):
    how, trusted = tls
    with opened(**how, limit_concurrency=4) as port, contextlib.ExitStack() as held:
        ask = f"https://127.0.0.1:{port}/"
        for _ in range(4):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        with socket.create_connection(("127.0.0.1", port), 20) as one:
            _closed(one)
        held.close()  # they go, and others have their places
        with httpx.Client(transport=httpx.HTTPTransport(verify=trusted, retries=5)) as client:
            assert client.post(ask, content=b"abc").text == "3"
        held.enter_context(socket.create_connection(("127.0.0.1", port), 20))  # it ends within a handshake
    gc.collect()
    assert caplog.text == "".join(capfd.readouterr()) == ""


def test_a_server_without_files_accepts_when_it_has_some(monkeypatch, port):
    real, refused = socket.socket.accept, [OSError(24, "Too many open files")] * 2

    def accept(self):
        if refused:
            raise refused.pop()
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    for _ in range(3):
        assert httpx.post(f"http://127.0.0.1:{port}/", content=b"abc").text == "3"
    assert refused == []
