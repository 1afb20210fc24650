"""Authorities, certificates with any dates and hosts, and keys, good ones and bad ones."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

AGES = (-1000, 1000)  # days


@dataclass(frozen=True)
class Authority:
    """Who signs certificates."""

    key: ec.EllipticCurvePrivateKey
    subject: x509.Name


def _begun(
    subject: str, issuer: x509.Name | None, key: ec.EllipticCurvePublicKey, days: tuple[int, int], signs: bool
) -> x509.CertificateBuilder:
    now, name = datetime.datetime.now(datetime.UTC), _name(subject)
    first, last = (now + datetime.timedelta(days=d) for d in days)
    return (
        x509.CertificateBuilder(issuer or name, name, key, x509.random_serial_number(), first, last)
        .add_extension(x509.BasicConstraints(signs, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(subject: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])


def authority(folder: Path, name: str) -> Authority:
    """An authority; its certificate is `<name>.crt`."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed = _begun(name, None, key.public_key(), AGES, True).sign(key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(signed.public_bytes(Encoding.PEM))
    return Authority(key, signed.subject)


def server(folder: Path, name: str, by: Authority, days: tuple[int, int] = (-1, 30), host="127.0.0.1"):
    """A certificate `<name>.crt` of a server, good between two days from now, and its `<name>.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
    begun = _begun(name, by.subject, key.public_key(), days, False)
    signed = begun.add_extension(names, False).add_extension(issuer, False).sign(by.key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(signed.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.key").write_bytes(pem)


def device_key(folder: Path, name: str):
    """A device's key pair, `<name>` and `<name>.pub`, as OpenSSH writes them."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = folder / name
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (folder / f"{name}.pub").write_bytes(public)
