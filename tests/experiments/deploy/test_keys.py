"""Claims about keys and certificates: who is vouched for by whom, and who may read what."""

from __future__ import annotations

import ipaddress
import re
import shutil
import ssl
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cdc_flower.config import ConfigError
from experiments.deploy import keys


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_server_is_vouched_for_under_every_name_that_devices_call_it_by(cloud):
    authority, server = certificate(cloud / "ca" / "ca.crt"), certificate(cloud / "server.crt")
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.2")]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    days = {(c.not_valid_after_utc - c.not_valid_before_utc).days for c in (authority, server)}
    assert days == {3654, 366}  # with a day's slack for clocks


def shake_hands(cloud, authority, name):
    """TLS between a server with the cloud's certificate and a client that trusts `authority`, in memory."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cloud / "server.crt", cloud / "server.key")
    trusting = ssl.create_default_context(cafile=str(authority))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by default
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [trusting.wrap_bio(down, up, server_hostname=name), serving.wrap_bio(up, down, server_side=True)]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass


def test_a_client_that_trusts_the_authority_takes_the_server_and_no_other_does(cloud, tmp_path):
    shake_hands(cloud, cloud / "ca" / "ca.crt", "localhost")
    shake_hands(cloud, cloud / "ca" / "ca.crt", "10.0.0.2")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(cloud, cloud / "ca" / "ca.crt", "elsewhere.example")
    (tmp_path / "other").mkdir()
    keys.authority(tmp_path / "other")  # of the same name
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(cloud, tmp_path / "other" / "ca" / "ca.crt", "localhost")


def test_every_file_with_a_private_key_is_its_owners_alone(cloud):
    private = [p for p in cloud.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert {p.name for p in private} == {"ca.key", "models.key", "server.key"}
    assert {p.stat().st_mode & 0o777 for p in private} == {0o600}
    assert (cloud / "ca").stat().st_mode & 0o777 == 0o700


def test_a_device_has_a_key_in_the_form_that_flower_reads(tmp_path):
    line = keys.device(tmp_path, "device-0")
    key = serialization.load_ssh_private_key((tmp_path / "device.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    public = serialization.load_ssh_public_key((tmp_path / "device.key.pub").read_bytes())
    assert public == key.public_key()
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600
    assert line.endswith(" device-0")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")
def test_a_fingerprint_is_that_of_ssh_keygen(tmp_path):
    line = keys.device(tmp_path, "device-0")
    command = ["ssh-keygen", "-l", "-f", str(tmp_path / "device.key.pub")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert keys.fingerprint(line) == re.search(r"SHA256:\S+", said)[0]


def test_no_key_is_written_over(tmp_path):
    keys.device(tmp_path, "device-0")
    before = (tmp_path / "device.key").read_bytes()
    with pytest.raises(ConfigError, match="are not written over"):
        keys.device(tmp_path, "device-0")
    assert (tmp_path / "device.key").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["device.key", "device.key.pub"]


@pytest.mark.parametrize("host", ["", "a b", "-a", "a..b", "a/b", "*", "é.example", "x" * 64, "1.2.3.4:80"])
def test_what_is_no_host_is_refused(host):
    with pytest.raises(ConfigError, match="host"):
        keys.checked_hosts([host])


def test_a_host_twice_is_there_once_and_none_is_refused():
    assert keys.checked_hosts(["a.example", "::1", "a.example"]) == ("a.example", "::1")
    with pytest.raises(ConfigError, match="no host"):
        keys.checked_hosts([])


def test_a_certificate_is_said_to_end_in_its_last_month_and_to_have_ended(cloud, tmp_path):
    end = keys.until(cloud)
    assert keys.ending(cloud, end - timedelta(days=31)) == ""
    soon = keys.ending(cloud, end - timedelta(days=29))
    assert soon.startswith(f"the server's certificate ends {end:%Y-%m-%d}")
    assert f"`cdc-flower provision rotate {cloud} server`" in soon
    assert "\n" not in soon
    assert "certificate ended" in keys.ending(cloud, end + timedelta(days=1))
    assert keys.ending(tmp_path / "absent") == ""
    (cloud / "server.crt").write_text("no certificate")
    assert keys.ending(cloud) == ""


def test_a_certificate_of_another_key_is_refused_with_what_to_type(cloud, tmp_path):
    keys.check_server(cloud)
    shutil.copytree(cloud / "ca", tmp_path / "other" / "ca")
    keys.server(tmp_path / "other", ["localhost"])
    (tmp_path / "other" / "server.key").replace(cloud / "server.key")
    with pytest.raises(
        ConfigError, match=r"no certificate of .*server\.key'; allowed: a pair, which `cdc-fl"
    ):
        keys.check_server(cloud)
    (cloud / "server.key").write_bytes(b"")
    with pytest.raises(ConfigError, match="allowed: a pair"):
        keys.check_server(cloud)
    (cloud / "server.key").unlink()
    with pytest.raises(ConfigError, match="is not there"):
        keys.check_server(cloud)
