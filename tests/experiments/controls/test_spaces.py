"""A namespace reaches this machine, and nothing faster than its rate."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from experiments.controls.spaces import possible, spaces

SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as to:
    to.sendall(bytes(int(sys.argv[3])))
    to.shutdown(socket.SHUT_WR)
    to.recv(1)
"""


@pytest.mark.slow
def test_bytes_leave_a_namespace_at_its_rate():
    if why := possible():
        pytest.skip(f"no network namespaces here: {why}")
    rate, size = 100_000, 300_000
    with spaces(2, rate, rate) as found, socket.create_server(("0.0.0.0", 0)) as server:
        came = []

        def receive():
            with server.accept()[0] as one:
                while data := one.recv(65536):
                    came.append(len(data))
                one.sendall(b".")

        thread = threading.Thread(target=receive)
        thread.start()
        begun = time.monotonic()
        to = [found[1].here, str(server.getsockname()[1]), str(size)]
        done = subprocess.run(found[1].inside([sys.executable, "-c", SEND, *to]), timeout=120, check=False)
        seconds = time.monotonic() - begun
        thread.join(10)
    assert done.returncode == 0
    assert sum(came) == size
    assert seconds > 0.9 * size / rate
    assert found[0].here != found[1].here
