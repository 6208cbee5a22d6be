"""Keys of the simulated TEE on disk: one JSON file, written once, readable by its owner only."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.types import parse_hex
from cocoon_enclave.attestation.simulated_pki import Issuer
from cocoon_enclave.attestation.simulated_vendors import DevVendors

FILE_NAME: Final = "platform.json"
FORMAT: Final = "cocoon-simulated-platform/1"


def write_platform(
    directory: Path,
    *,
    issuers: Mapping[str, Issuer],
    attestation_key: ec.EllipticCurvePrivateKey,
    ppid: bytes,
    vendors: DevVendors | None = None,
) -> None:
    """Write keys and certificates to `directory`.

    Raises:
        ConfigError: there is a platform already, or the directory cannot be written.
    """
    document: dict[str, object] = {
        "format": FORMAT,
        "ppid": ppid.hex(),
        "attestation_key": _key_pem(attestation_key),
        "issuers": {
            name: {"certificate": issuer.pem, "key": _key_pem(issuer.key)}
            for name, issuer in issuers.items()
        },
    }
    if vendors is not None:
        document["vendors"] = vendors.to_dict()
    path = directory / FILE_NAME
    temporary = directory / f".{FILE_NAME}.{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            json.dump(document, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)  # fails if there is one: a root is never silently replaced
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already", hint="load it, or use another directory") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_platform(
    directory: Path, names: tuple[str, ...]
) -> tuple[dict[str, Issuer], ec.EllipticCurvePrivateKey, bytes, DevVendors | None]:
    """Read what `write_platform` wrote: issuers by name, attestation key, PPID, other vendors if there are any.

    Raises:
        ConfigError: nothing there, or not a platform file.
    """
    path = directory / FILE_NAME
    try:
        document = json.loads(path.read_text("ascii"))
        if document["format"] != FORMAT:
            raise ValueError("another format")
        issuers = {name: _issuer(document["issuers"][name]) for name in names}
        vendors = DevVendors.from_dict(document["vendors"]) if "vendors" in document else None
        key, ppid = _key(document["attestation_key"]), parse_hex(document["ppid"], 16, "ppid")
        return issuers, key, ppid, vendors
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, MalformedError) as error:
        raise ConfigError(f"{path} is not a simulated platform") from error


def _issuer(table: Mapping[str, str]) -> Issuer:
    certificate = x509.load_pem_x509_certificate(table["certificate"].encode("ascii"))
    return Issuer(certificate=certificate, key=_key(table["key"]))


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode("ascii"), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic curve key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
