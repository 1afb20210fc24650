"""Who is not let in: a SuperNode without the right key, certificate, protocol or clock says why, and ends.

Flower ends a refused SuperNode with code 1 and prints its own number, 305.
"""

from pathlib import Path

import pytest

from cdc_flower.programs import free_port
from experiments.deploy import gate
from experiments.run.processes import until
from tests.deploy import certificates

pytestmark = pytest.mark.slow
REFUSED = "Exit Code: 305"
LIBRARIES = [
    Path(folder) / "faketime/libfaketime.so.1"
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
]


@pytest.fixture(scope="module")
def fleet(secured):
    """A SuperLink with one device that is in."""
    secured.superlink()
    node = secured.key("good")
    good = secured.supernode("good", key="good")
    until(lambda: node in good.said(), 60, "the good device is in", secured.programs)
    return secured


def ends_refused(node, *reasons):
    until(lambda: not node.runs, 60, f"{node.name} ends", [node])
    assert node.code == 1
    assert REFUSED in node.said()
    assert all(reason in node.said() for reason in reasons), node.said()


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [("stranger", "stranger", "[code: 2004]"), ("keyless", None, "All SuperNodes must be registered")],
)
def test_a_key_that_nobody_registered_is_refused(fleet, name, key, reason):
    if key:
        fleet.key(key, registered=False)
    ends_refused(fleet.supernode(name, key=key), reason)


def test_the_cloud_of_another_authority_is_not_believed(fleet):
    certificates.authority(fleet.folder, "other")
    node = fleet.supernode("astray", key="good", ca="other.crt")
    ends_refused(node, "CERTIFICATE_VERIFY_FAILED", "unable to get local issuer certificate")


@pytest.mark.parametrize(
    ("name", "days", "host", "reason"),
    [
        ("expired", (-30, -1), "127.0.0.1", "certificate has expired"),
        ("early", (1, 30), "127.0.0.1", "certificate is not yet valid"),
        ("elsewhere", (-1, 30), "10.9.8.7", "certificate is not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_that_is_not_good_now_and_here_is_not_believed(fleet, name, days, host, reason):
    port = free_port()
    certificates.server(fleet.folder, name, fleet.authority, days, host)
    fleet.superlink(name, port)
    ends_refused(fleet.supernode(f"to-{name}", key="good", port=port), "CERTIFICATE_VERIFY_FAILED", reason)


@pytest.mark.parametrize(("by", "reason"), [("+366d", "expired"), ("-366d", "not yet valid")])
def test_a_device_whose_clock_is_off_by_a_year_says_so_by_the_certificate(fleet, by, reason):
    library = next((str(path) for path in LIBRARIES if path.exists()), None)
    if library is None:
        pytest.skip("needs libfaketime (apt-get install faketime)")
    wrong = {"LD_PRELOAD": library, "FAKETIME": by}
    ends_refused(fleet.supernode(f"clock{by}", key="good", more=wrong), "CERTIFICATE_VERIFY_FAILED", reason)


def test_plain_http_at_the_port_of_tls_is_no_connection(fleet):
    node = fleet.supernode("plain", key=None, ca=None)
    until(lambda: node.said().count("Connection attempt failed") >= 3, 60, "it tries in vain", [node])
    assert "SuperNode ID" not in node.said()
    node.kill()


def test_through_the_gate_a_device_is_in_and_nobody_can_register_a_key(fleet):
    """Flower itself takes a registration from whoever reaches its port."""
    id, folder = fleet.key("inside"), fleet.folder
    files = {"certificate": folder / "server.crt", "key": folder / "server.key", "ca": folder / "ca.crt"}
    with gate.opened(f"https://127.0.0.1:{fleet.port}", 0, **files) as port:
        node = fleet.supernode("inside", key="inside", port=port)
        until(lambda: id in node.said(), 60, "it is in", [node])
        until(lambda: id in fleet.online(), 60, "it is online", fleet.programs)
        fleet.key("intruder", registered=False)
        settings = folder / "config.toml"
        inner = settings.read_text()
        settings.write_text(inner.replace(f":{fleet.port}", f":{port}"))
        try:
            for command in (["register", str(folder / "intruder.pub"), "fleet"], ["ls", "fleet"]):
                with pytest.raises(AssertionError, match="404"):
                    fleet.flwr("supernode", *command)
        finally:
            settings.write_text(inner)
        assert node.runs
        node.kill()


def test_a_revoked_device_is_put_out_and_does_not_come_back(fleet):
    id = fleet.key("revoked")
    node = fleet.supernode("revoked", key="revoked")
    until(lambda: id in fleet.online(), 60, "it is online", fleet.programs)
    before = fleet.online()
    fleet.flwr("supernode", "unregister", id, "fleet")
    until(lambda: not node.runs or "retrying" in node.said(), 60, "it is put out", [node])
    assert fleet.online() == before - {id}
    node.kill()
    ends_refused(node.start(), "[code: 2004]")
