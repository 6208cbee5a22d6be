"""The certificate table that an SEV-SNP host hands to its guest, and the file that a host refreshes.

Source: AMD publication 56421 (GHCB), section "SNP Extended Guest Request": entries of GUID, offset and
length, ended by an entry of zeros. All of it comes from the host and is untrusted.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cocoon_attestation.errors import ConfigError, MalformedError, UnavailableError
from cocoon_attestation.strict_json import members, parse_object

MAX_TABLE: Final = 64 * 1024
MAX_ENTRIES: Final = 16
MAX_FILE: Final = 2 * 1024 * 1024
_ENTRY: Final = struct.Struct("<16sII")
VCEK: Final = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK: Final = uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK: Final = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
"""The intermediate; beside a VLEK it is the ASVK."""
ARK: Final = uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
CRL: Final = uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEndorsements:
    """What vouches for reports of this machine, as the host says. Untrusted."""

    certificates: tuple[bytes, ...] = ()
    """Candidates for VCEK or VLEK, DER."""
    issuers: tuple[bytes, ...] = ()
    """Intermediate and root, DER; from the table only."""
    issuer_chain: str = ""
    """The same in PEM; from the file only."""
    crl: bytes = b""
    """Revocation list, DER; empty if there is none."""


def parse_table(blob: bytes) -> HostEndorsements:
    """Read the certificate table; an empty blob is an empty table.

    Raises:
        MalformedError: too long, an entry outside of it, a name twice, or no end.
    """
    if len(blob) > MAX_TABLE:
        raise MalformedError("the certificate table is too long")
    found: dict[uuid.UUID, bytes] = {}
    offset = 0
    while blob:
        if offset + _ENTRY.size > len(blob) or len(found) > MAX_ENTRIES:
            raise MalformedError("the certificate table has no end")
        name, start, length = _ENTRY.unpack_from(blob, offset)
        offset += _ENTRY.size
        if not any(name) and not start and not length:
            break
        data = blob[start : start + length]
        key = _known(name)
        if len(data) != length or not length or key in found:
            raise MalformedError("the certificate table has a bad entry")
        found[key] = data
    return HostEndorsements(
        certificates=tuple(found[key] for key in (VCEK, VLEK) if key in found),
        issuers=tuple(found[key] for key in (ASK, ARK) if key in found),
        crl=found.get(CRL, b""),
    )


def read_endorsements(path: Path) -> HostEndorsements:
    """Read the JSON file with ``certificate`` and ``crl`` in hex and ``issuer_chain`` in PEM.

    Raises:
        UnavailableError: it cannot be read.
        ConfigError: it is not of that form.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE + 1)
        document = members(
            parse_object(raw, limit=MAX_FILE, what="endorsements"),
            required=frozenset({"certificate", "issuer_chain", "crl"}),
            what="endorsements",
        )
        return HostEndorsements(
            certificates=(bytes.fromhex(str(document["certificate"])),),
            issuer_chain=str(document["issuer_chain"]),
            crl=bytes.fromhex(str(document["crl"])),
        )
    except OSError as error:
        raise UnavailableError(
            f"endorsements {path}: {error.strerror}", hint="on the host: cocoon endorsements fetch snp"
        ) from error
    except (ValueError, MalformedError) as error:
        raise ConfigError(f"endorsements {path}: not in the expected form") from error


def _known(name: bytes) -> uuid.UUID:
    """The name of an entry. EFI writes GUIDs with swapped parts, and some hosts do not: both are read."""
    swapped, plain = uuid.UUID(bytes_le=name), uuid.UUID(bytes=name)
    return plain if plain in (VCEK, VLEK, ASK, ARK, CRL) else swapped
