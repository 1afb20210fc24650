"""The keys of a deployment: one authority, whom every device trusts, and whom it vouches for.

`ca/ca.key` signs three kinds of certificate or key, and nothing else: the server's (TLS), and that of the
cloud's signing key, with which it signs what models a device may load (`clients.device.models`). A device's
own key is no certificate: Flower knows a device by its public key, in the form of OpenSSH. A file with a
private key is made with mode 0600 and is never written over.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import secrets
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cdc_flower.config import ConfigError
from cdc_flower.disk import writing
from clients.device.models import signed_bytes

CA_DAYS, SERVER_DAYS = 3653, 365
SOON = timedelta(days=30)  # before the server's certificate ends it is said
SLACK = timedelta(days=1)  # a clock that is that much behind still takes a new certificate
CA_KEY, CA_CERT = Path("ca", "ca.key"), Path("ca", "ca.crt")
SIGNING_KEY, SIGNING_CERT = Path("ca", "models.key"), Path("ca", "models.crt")
SERVER_KEY, SERVER_CERT = Path("server.key"), Path("server.crt")
DEVICE_KEY, DEVICE_PUBLIC = Path("device.key"), Path("device.key.pub")
HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def authority(cloud: Path) -> None:
    """Make the authority of a cloud, and the signing key of its models."""
    (cloud / "ca").mkdir(mode=0o700)
    key, name = ec.generate_private_key(ec.SECP384R1()), _name("cdc_flower CA")
    made = _certificate(name, name, key.public_key(), CA_DAYS)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = made.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    secret(cloud / CA_KEY, _pem(key))
    public(cloud / CA_CERT, made.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM))
    signing = ed25519.Ed25519PrivateKey.generate()
    secret(cloud / SIGNING_KEY, _pem(signing))
    signs = _issued(
        cloud, "cdc_flower models", signing.public_key(), CA_DAYS, ExtendedKeyUsageOID.CODE_SIGNING
    )
    public(cloud / SIGNING_CERT, signs)


def server(cloud: Path, hosts: Sequence[str], days: int = SERVER_DAYS) -> None:
    """Make the server's key and its certificate, for the names and addresses that devices call it by.

    Raises:
        ConfigError: no such name can be, or there is a key.
    """
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    key = ec.generate_private_key(ec.SECP384R1())
    made = _issued(cloud, hosts[0], key.public_key(), days, ExtendedKeyUsageOID.SERVER_AUTH, names)
    secret(cloud / SERVER_KEY, _pem(key))
    public(cloud / SERVER_CERT, made)


def device(folder: Path, comment: str) -> str:
    """Make a device's key; the public one, a line as OpenSSH writes it.

    Raises:
        ConfigError: there is a key.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    secret(folder / DEVICE_KEY, key.private_bytes(serialization.Encoding.PEM, form, _PLAIN))
    encoding = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    line = f"{key.public_key().public_bytes(*encoding).decode()} {comment}"
    public(folder / DEVICE_PUBLIC, f"{line}\n".encode())
    return line


def fingerprint(line: str) -> str:
    """Of a public key, as `ssh-keygen -l` shows it."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(base64.b64decode(line.split()[1]))
    return f"SHA256:{base64.b64encode(digest.finalize()).decode().rstrip('=')}"


def signed(cloud: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What `models.json` holds: a description of models, signed by the cloud.

    Raises:
        ConfigError: the cloud's keys cannot be read.
    """
    key = _key(cloud / SIGNING_KEY)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    signature = base64.b64encode(key.sign(signed_bytes(about))).decode()
    return {**about, "certificate": _read(cloud / SIGNING_CERT).decode(), "signature": signature}


def until(cloud: Path) -> datetime:
    """When the server's certificate ends."""
    return x509.load_pem_x509_certificate(_read(cloud / SERVER_CERT)).not_valid_after_utc


def ending(cloud: Path, now: datetime | None = None) -> str:
    """What to do because the server's certificate ends soon, or has; "" = nothing, or there is none."""
    try:
        end = until(cloud)
    except (ConfigError, ValueError):
        return ""
    now = now or datetime.now(UTC)
    if end - now > SOON:
        return ""
    how = "ends" if end > now else "ended"
    return (
        f"the server's certificate {how} {end:%Y-%m-%d}, and then no device comes in; "
        f"`cdc-flower provision rotate {cloud} server` makes another, which the next start of the cloud uses"
    )


def check_server(cloud: Path) -> None:
    """Refuse a server's certificate and key that are not there, or not of each other, as after a rotation
    that was interrupted between the two.

    Raises:
        ConfigError: they are not.
    """
    for file in (SERVER_CERT, SERVER_KEY):
        if not (cloud / file).is_file():
            raise ConfigError(f"'{cloud / file}' is not there; allowed: a cloud with its server's key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cloud / SERVER_CERT, cloud / SERVER_KEY)
    except (OSError, ValueError):
        raise ConfigError(
            f"'{cloud / SERVER_CERT}' is no certificate of '{cloud / SERVER_KEY}'; allowed: a pair, which "
            f"`cdc-flower provision rotate {cloud} server` makes"
        ) from None


def checked_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """Names and addresses that a certificate can be for.

    Raises:
        ConfigError: none, or one that is neither.
    """
    for host in hosts:
        _host(host)
    if not hosts:
        raise ConfigError("no host; allowed: a name or an address that devices call the cloud by")
    return tuple(dict.fromkeys(hosts))


def secret(path: Path, data: bytes) -> None:
    """Write a private file: mode 0600 from the start, whole or not at all, and never over another.

    Raises:
        ConfigError: there is one.
    """
    _made(path, data, 0o600)


def public(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, whole or not at all, and never over another.

    Raises:
        ConfigError: there is one.
    """
    _made(path, data, 0o644)


def _made(path: Path, data: bytes, mode: int) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with writing(path):
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(part, path)  # unlike a rename, not over another
        except FileExistsError:
            raise ConfigError(
                f"'{path}' is there; allowed: no such file, because keys are not written over"
            ) from None
        finally:
            part.unlink(missing_ok=True)


_PLAIN = serialization.NoEncryption()


def _pem(key: Any) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _PLAIN)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise ConfigError(f"'{path}': {err.strerror}; allowed: a cloud with its keys") from None


def _key(path: Path) -> Any:
    try:
        return serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError):
        raise ConfigError(
            f"'{path}' is no private key; allowed: the one that `provision init` made"
        ) from None


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not HOST.fullmatch(host):
            raise ConfigError(
                f"host {host!r}; allowed: a name such as cloud.example.org, or an address such as 10.0.0.2"
            ) from None
        return x509.DNSName(host)


def _usage(**on: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{use: on.get(use, False) for use in every.split()})


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    made = made.not_valid_before(now - SLACK).not_valid_after(now + timedelta(days=days))
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _issued(
    cloud: Path, common: str, key: Any, days: int, use: Any, names: x509.SubjectAlternativeName | None = None
) -> bytes:
    """A certificate of the authority, as PEM."""
    issuer, signer = x509.load_pem_x509_certificate(_read(cloud / CA_CERT)), _key(cloud / CA_KEY)
    made = _certificate(_name(common), issuer.subject, key, days)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(_usage(digital_signature=True), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    whose = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    made = made.add_extension(whose, critical=False)
    made = made if names is None else made.add_extension(names, critical=False)
    return made.sign(signer, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)
