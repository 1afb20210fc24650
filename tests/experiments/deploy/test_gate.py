"""A SuperNode's calls pass the gate whole, within a bound; an operator's do not pass."""

import contextlib
import resource
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from flwr.superlink.routers.control.router import router as control
from flwr.superlink.routers.fleet.router import router as fleet

from cdc_flower import connections
from cdc_flower.config import ConfigError
from cdc_flower.programs import free_port
from experiments.deploy import gate
from tests.deploy import certificates


class SuperLink(BaseHTTPRequestHandler):
    """Says what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.reached.set()
        self.server.go_on.wait(20)
        body = self.rfile.read(int(self.headers["content-length"]))
        said = f"{self.path} {self.headers['signature']} ".encode() + body
        self.server.asked.append(self.path)
        self.send_response(412 if self.headers["signature"] == "bad" else 200)
        self.send_header("content-length", str(len(said)))
        self.send_header("content-type", "application/protobuf")
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def listens(certificate=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), SuperLink)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.asked, server.daemon_threads = [], True
    server.reached, server.go_on = threading.Event(), threading.Event()
    server.go_on.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def superlink():
    with listens() as server:
        yield server


@pytest.fixture
def asking(superlink):
    """`ask(path, body)` through a gate in plain HTTP."""
    with gate.opened(f"http://127.0.0.1:{superlink.server_address[1]}", 0) as port, httpx.Client() as client:
        yield lambda path, body=b"", **headers: client.post(
            f"http://127.0.0.1:{port}{path}", content=body, headers=headers
        )


def test_the_gate_knows_the_calls_of_a_supernode_of_this_flower():
    assert {f"/v1/fleet/{name}" for name in gate.CALLS} == {r.path for r in fleet.routes}


def test_a_supernodes_call_passes_whole_both_ways(asking):
    body = bytes(range(256)) * 40_000
    said = asking("/v1/fleet/push-object", body, signature="good")
    assert (said.status_code, said.headers["content-type"]) == (200, "application/protobuf")
    assert said.content == b"/v1/fleet/push-object good " + body
    assert asking("/v1/fleet/activate-node", b"", signature="bad").status_code == 412


def test_what_an_operator_calls_is_not_there(asking, superlink):
    operators = {r.path for r in control.routes}
    assert "/v1/control/start-run" in operators
    odd = ["/", "/health", "/docs", "/v1/fleet/", "/v1/fleet/../control/start-run", "/v1/runtime/get-run"]
    odd += ["/v1/fleet/%2e%2e/control/start-run", "//v1/control/start-run", "/v1/fleet/get-run/../start-run"]
    assert {asking(path).status_code for path in sorted(operators | {*odd})} == {404}
    assert superlink.asked == []


def test_a_call_beyond_the_bound_does_not_reach_the_superlink(asking, superlink):
    many = (bytes(2**20) for _ in range(17))  # without a length
    assert asking("/v1/fleet/push-object", many).status_code == 413
    assert asking("/v1/fleet/push-object", bytes(gate.MOST_BYTES + 1)).status_code == 413
    assert superlink.asked == []


def test_without_a_superlink_one_is_told_to_come_again():
    with gate.opened(f"http://127.0.0.1:{free_port()}", 0) as port:
        assert httpx.post(f"http://127.0.0.1:{port}/v1/fleet/pull-messages").status_code == 503


def test_before_the_cloud_has_said_whose_keys_are_good_one_is_told_to_come_again(superlink):
    known = threading.Event()
    inner = f"http://127.0.0.1:{superlink.server_address[1]}"
    with gate.opened(inner, 0, ready=known.is_set) as port:
        assert httpx.post(f"http://127.0.0.1:{port}/v1/fleet/activate-node").status_code == 503
        known.set()
        assert httpx.post(f"http://127.0.0.1:{port}/v1/fleet/activate-node").status_code == 200
    assert superlink.asked == ["/v1/fleet/activate-node"]


def test_all_calls_together_are_bounded_too(asking, superlink, monkeypatch):
    monkeypatch.setattr(gate, "MOST_HELD", 1000)
    assert asking("/v1/fleet/push-object", bytes(1001)).status_code == 503
    assert asking("/v1/fleet/push-object", bytes(900)).status_code == 200
    assert asking("/v1/fleet/push-object", bytes(900)).status_code == 200


def test_a_call_counts_until_the_superlink_has_answered_it(asking, superlink, monkeypatch):
    monkeypatch.setattr(gate, "MOST_HELD", 1000)
    superlink.go_on.clear()
    first = threading.Thread(target=asking, args=("/v1/fleet/push-object", bytes(900)))
    first.start()
    assert superlink.reached.wait(20)
    code = asking("/v1/fleet/push-object", bytes(200)).status_code
    superlink.go_on.set()
    first.join()
    assert code == 503
    assert asking("/v1/fleet/push-object", bytes(200)).status_code == 200


def _sent(port, data):
    """A connection on which this was sent, and no more."""
    one = socket.create_connection(("127.0.0.1", port), 20)
    one.sendall(data)
    return one


@pytest.mark.parametrize("data", [b"", b"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\ncontent-le"])
def test_a_connection_on_which_nothing_is_asked_is_closed(data, superlink, monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.05)
    with (
        gate.opened(f"http://127.0.0.1:{superlink.server_address[1]}", 0) as port,
        _sent(port, data) as one,
        contextlib.suppress(ConnectionResetError),
    ):
        assert one.recv(1) == b""


def test_one_connection_too_many_is_closed_and_the_others_go_on(superlink, monkeypatch):
    monkeypatch.setattr(gate, "CONNECTIONS", 3)
    inner = f"http://127.0.0.1:{superlink.server_address[1]}"
    with gate.opened(inner, 0) as port, httpx.Client() as client, contextlib.ExitStack() as held:
        ask = f"http://127.0.0.1:{port}/v1/fleet/get-run"
        assert client.post(ask).status_code == 200
        for _ in range(2):
            held.enter_context(_sent(port, b""))
        one = held.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""


def test_who_leaves_or_talks_nonsense_leaves_no_line(superlink, capfd, caplog):
    with gate.opened(f"http://127.0.0.1:{superlink.server_address[1]}", 0) as port:
        _sent(port, b"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nxx").close()
        with _sent(port, b"\0\1\2 nonsense\r\n\r\n") as one:
            one.recv(100)
        assert httpx.post(f"http://127.0.0.1:{port}/v1/fleet/get-run").status_code == 200
    assert caplog.text == "".join(capfd.readouterr()) == ""


def test_there_are_files_for_the_connections():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        most = gate._connections()
        assert 4 * most <= resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert most == min(gate.CONNECTIONS, before[1] // 4 if before[1] > 0 else gate.CONNECTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("inner", "code"), [("server", 200), ("false", 503)])
def test_both_sides_are_encrypted_and_the_superlink_is_of_the_authority(inner, code, tmp_path):
    certificates.server(tmp_path, "server", certificates.authority(tmp_path, "ca"), host="127.0.0.1")
    certificates.server(tmp_path, "false", certificates.authority(tmp_path, "other"))
    files = {
        "certificate": tmp_path / "server.crt",
        "key": tmp_path / "server.key",
        "ca": tmp_path / "ca.crt",
    }
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with (
        listens(tmp_path / f"{inner}.crt") as superlink,
        gate.opened(f"https://127.0.0.1:{superlink.server_address[1]}", 0, **files) as port,
    ):
        said = httpx.post(f"https://127.0.0.1:{port}/v1/fleet/get-run", content=b"x", verify=trusted)
    assert said.status_code == code


def test_a_certificate_of_another_key_opens_no_gate(tmp_path):
    authority = certificates.authority(tmp_path, "ca")
    for name in ("one", "other"):
        certificates.server(tmp_path, name, authority)
    files = {"certificate": tmp_path / "one.crt", "key": tmp_path / "other.key"}
    with (
        pytest.raises(ConfigError, match="does not start: .*allowed: a certificate with its own key"),
        gate.opened("http://127.0.0.1:9", 0, **files),
    ):
        raise AssertionError
