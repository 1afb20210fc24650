"""A device whose cloud is away, killed or gone for minutes comes back by itself; one that is refused ends.

`cdc-flower device node` with a SuperLink, without an app.
"""

from __future__ import annotations

import shutil

import pytest

from cdc_flower.programs import free_port
from cdc_flower.setting import written
from clients.device.settings import DeviceConfig
from experiments.controls import deployed
from experiments.run.processes import Program, until
from tests.deploy import certificates

pytestmark = pytest.mark.slow
AWAY, IN, AGAIN = "does not answer; it is asked until", "lets this device in", "answers again"
UNKNOWN = "does not let this device in: it does not know its key"


@pytest.fixture(scope="module")
def link(secured):
    """The SuperLink, which knows the key `roof`."""
    found = secured.superlink()
    secured.node = secured.key("roof")
    return found


@pytest.fixture
def device(secured, link, tmp_path):
    """`device(key, ca)`: its program, not started."""
    made = []

    def make(key="roof", ca="ca.crt", port=0):
        folder = tmp_path / key
        folder.mkdir()
        place = f"127.0.0.1:{port or secured.port}"
        (folder / "device.toml").write_text(written(DeviceConfig(number=len(made), superlink=place)))
        shutil.copy(secured.folder / ca, folder / "ca.crt")
        shutil.copy(secured.folder / key, folder / "device.key")
        (folder / "device.key").chmod(0o600)
        command = deployed.command("device", "node", str(folder))
        made.append(Program(key, command, deployed.environment(), folder / "node.log"))
        return made[-1]

    yield make
    for program in made:
        program.kill()


def test_a_device_waits_for_its_cloud_and_comes_back_whatever_died(device, link, secured):
    """The cloud is away, is there, the device is killed, the cloud is killed, the key is revoked."""
    node, others = device(), secured.programs
    link.kill()
    node.start()
    until(lambda: AWAY in node.said(), 60, "it says that the cloud is away", [node])
    link.start()
    until(lambda: node.said().count(IN) == 1, 120, "it is let in", [node, *others])
    assert node.said().count(AWAY) == 1
    node.kill()
    node.start()
    until(lambda: "still counts on the SuperNode that was killed" in node.said(), 60, "it waits", [node])
    until(lambda: node.said().count(IN) == 2, 180, "it is let in again", [node, *others])
    link.kill()
    until(lambda: node.said().count(AWAY) == 2, 60, "it says that the cloud is away", [node])
    link.start()
    until(lambda: AGAIN in node.said() or node.said().count(IN) == 3, 120, "it is back", [node, *others])
    assert node.stop() == 0
    assert "SuperNode terminated gracefully" in node.said()
    before = node.said().count(IN)
    node.start()
    until(lambda: node.said().count(IN) == before + 1, 60, "it said goodbye and is let in", [node, *others])
    secured.flwr("supernode", "unregister", secured.node, "fleet")
    until(lambda: not node.runs, 120, "it ends", [node, *others])
    assert node.code == 1
    assert node.said().strip().splitlines()[-1].count(UNKNOWN) == 1


def test_who_is_refused_ends_at_once_with_one_line(device, link, secured):
    certificates.authority(secured.folder, "other")
    certificates.device_key(secured.folder, "stranger")
    certificates.device_key(secured.folder, "astray")
    for node, why in (
        (device("stranger"), UNKNOWN),
        (device("astray", ca="other.crt"), "its certificate is not believed (unable to get local issuer"),
    ):
        node.start()
        until(lambda node=node: not node.runs, 60, f"{node.name} ends", [node])
        assert node.code == 1
        (line,) = node.said().strip().splitlines()
        assert why in line


def test_a_port_without_tls_is_no_cloud(device, secured):
    certificates.device_key(secured.folder, "plain")
    port = free_port()
    plain = secured._program("plain-link", ["flower-superlink", "--insecure", "--port", str(port)], {})
    until(lambda: "startup complete" in plain.said(), 60, "it listens", [plain])
    node = device("plain", port=port).start()
    until(lambda: not node.runs, 60, "it ends", [node])
    assert node.code == 1
    assert "speaks no TLS at this port" in node.said()
