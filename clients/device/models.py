"""What models a device may load: `models.json`, signed by its cloud, and the files that it names.

A device trusts one thing, the certificate `ca.crt` that it was provisioned with. `models.json` names every
file by size and sha256 and carries a signature, and the certificate of the key that made it, which must be
from that authority and for signing alone: the server's certificate, say, does not do. Dates are not looked
at, because the clock of a device that was just switched on may be years off. No torch here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cdc_flower.setting import STRICT, ConfigError

FILE, FOLDER, CA = "models.json", "models", "ca.crt"
FORMAT = 1
MOST_BYTES = 2**24  # of models.json
MOST_FILES = 10**4
_PURPOSE = b"cdc_flower models.json\n"  # a signature of this key that is for something else is none


class ModelsError(ConfigError):
    """Models that a device must not load; the message names the file and says what to do."""


@dataclass(frozen=True, config=STRICT)
class File:
    """A file that a device reads of the pair.

    Attributes:
        setting: the setting that says where its folder is.
        name: in that folder, with `/`.
        bytes: its size.
        sha256: in hexadecimal.
    """

    setting: str = Field(max_length=64)
    name: str = Field(min_length=1, max_length=512)
    bytes: int = Field(ge=0, lt=2**50)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True, config=STRICT)
class Models:
    """What is signed.

    Attributes:
        format: of this file.
        folders: setting -> the name of the folder below `models/` that it says.
        files: all that are in these folders.
    """

    format: int
    folders: dict[str, str]
    files: tuple[File, ...] = Field(max_length=MOST_FILES)


def signed_bytes(about: Mapping[str, Any]) -> bytes:
    """What the signature is over: the description in one form, whatever the order of its keys."""
    return _PURPOSE + json.dumps(about, sort_keys=True, separators=(",", ":")).encode()


def described(parts: Mapping[str, tuple[str, Mapping[str, Path]]]) -> dict[str, Any]:
    """The description of files, to be signed.

    Args:
        parts: setting -> the name of its folder, and name in it -> file.
    """
    return {
        "format": FORMAT,
        "folders": {setting: name for setting, (name, _) in parts.items()},
        "files": [
            {"setting": setting, "name": name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
            for setting, (_, files) in parts.items()
            for name, path in sorted(files.items())
        ],
    }


def verify(bundle: Path) -> dict[str, Path]:
    """Setting -> the folder that it says on this device, after every file in it was checked.

    Raises:
        ModelsError: not signed by the cloud of this bundle, a file that is missing or another, or a file that
            is not in the list.
    """
    models = _signed(bundle)
    for file in models.files:
        _check(_place(bundle, models, file), file)
    listed = {_place(bundle, models, file) for file in models.files}
    for path in sorted((bundle / FOLDER).rglob("*")):
        if path.is_dir() and path.is_symlink():
            raise ModelsError(f"'{path}' is a link to a folder; allowed: a folder itself")
        if not path.is_dir() and path not in listed:
            raise ModelsError(
                f"'{path}' is not in {FILE}; allowed: the files that the cloud signed, and no other"
            )
    return _folders(bundle, models)


def folders(bundle: Path) -> dict[str, Path]:
    """As `verify` gives them, without a look at the files.

    Raises:
        ModelsError: not signed by the cloud of this bundle.
    """
    return _folders(bundle, _signed(bundle))


def _folders(bundle: Path, models: Models) -> dict[str, Path]:
    return {setting: bundle / FOLDER / folder for setting, folder in models.folders.items()}


def _signed(bundle: Path) -> Models:
    """What `models.json` says, if the cloud of this bundle signed it."""
    path = bundle / FILE
    try:
        with path.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        found: Any = json.loads(data) if len(data) <= MOST_BYTES else None
        certificate = x509.load_pem_x509_certificate(found.pop("certificate").encode())
        signature = base64.b64decode(found.pop("signature"), validate=True)
        authority = x509.load_pem_x509_certificate((bundle / CA).read_bytes())
    except OSError as err:
        raise ModelsError(
            f"'{err.filename}': {err.strerror}; allowed: a bundle as it was provisioned"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelsError(f"'{path}' is no list of models; allowed: the one that the cloud signed") from None
    try:
        certificate.verify_directly_issued_by(authority)
        use = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        key = certificate.public_key()
        if list(use) != [ExtendedKeyUsageOID.CODE_SIGNING] or not isinstance(key, ed25519.Ed25519PublicKey):
            raise ValueError("a certificate for something else")
        key.verify(signature, signed_bytes(found))
        models = TypeAdapter(Models).validate_python(found)
    except ValidationError as err:  # before ValueError, of which it is one
        raise ModelsError(
            f"'{path}': {err.errors()[0]['msg']}; allowed: the one that the cloud signed"
        ) from None
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise ModelsError(
            f"'{path}' is not signed by the cloud of '{bundle / CA}'; allowed: the one that the cloud signed"
        ) from None
    if models.format != FORMAT:
        raise ModelsError(f"'{path}' is of format {models.format}; this version reads {FORMAT}")
    return models


def _place(bundle: Path, models: Models, file: File) -> Path:
    folder = models.folders.get(file.setting, "")
    for name in (folder, file.name):
        parts = PurePosixPath(name).parts
        if not parts or name != "/".join(parts) or ".." in parts or name.startswith("/") or "\0" in name:
            raise ModelsError(f"'{bundle / FILE}': name {name!r}; allowed: a name below '{bundle / FOLDER}'")
    return bundle / FOLDER / folder / file.name


def _check(path: Path, file: File) -> None:
    try:
        same = path.is_file() and path.stat().st_size == file.bytes and _sha256(path) == file.sha256
    except OSError as err:
        raise ModelsError(f"'{path}': {err.strerror}; allowed: a file that can be read") from None
    if not same:
        wrong = "is another file" if path.is_file() else "is missing"
        raise ModelsError(
            f"'{path}' {wrong}; allowed: the {file.bytes} bytes of sha256 {file.sha256}, put there"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
