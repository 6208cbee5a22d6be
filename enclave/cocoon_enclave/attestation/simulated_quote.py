"""The quoting enclave of the simulated TEE: encodes and signs TDX quotes of version 4 and 5.

The layout is the one that `cocoon_attestation.tdx.quote` parses; docs/spec/evidence.md, section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from cocoon_attestation.tdx.quote import (
    BODY_TD15,
    CERT_TYPE_PCK_CHAIN,
    CERT_TYPE_QE_REPORT,
    ECDSA_P256,
    QE_VENDOR_INTEL,
    TEE_TYPE_TDX,
)
from cocoon_attestation.tdx.report import TdReport
from cocoon_enclave.attestation.simulated_pki import Issuer, raw_public_key, sign_raw

AUTH_DATA: Final = b"SIMULATED quoting enclave".ljust(32, b"\0")
"""Authentication data of the quoting enclave, 32 bytes."""

_USER_DATA: Final = b"SIMULATED".ljust(20, b"\0")
_ATTRIBUTES: Final = bytes.fromhex("15") + bytes(7) + bytes.fromhex("e7") + bytes(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentityValues:
    """What the report of a quoting enclave says about it."""

    mrsigner: bytes
    """32 bytes."""
    cpu_svn: bytes
    """16 bytes."""
    attributes: bytes = _ATTRIBUTES
    """16 bytes; not debuggable."""
    isv_prod_id: int = 2
    """2: quoting enclave for TDX."""
    isv_svn: int = 6


def encode_quote(
    report: TdReport, *, attestation_key: ec.EllipticCurvePrivateKey, certification: bytes
) -> bytes:
    """Sign `report`: version 4, or version 5 if it is a TD 1.5 report.

    Args:
        report: what the guest is said to be.
        attestation_key: signs header and body; its public key goes into the quote.
        certification: from `certify`, the statement that the key belongs to a quoting enclave.
    """
    body = report.to_bytes()
    version = 4
    if report.is_td15:
        version = 5
        body = _u16(BODY_TD15) + _u32(len(body)) + body
    header = _u16(version) + _u16(ECDSA_P256) + _u32(TEE_TYPE_TDX) + bytes(4) + QE_VENDOR_INTEL + _USER_DATA
    signed = header + body
    section = sign_raw(attestation_key, signed) + raw_public_key(attestation_key)
    section += _framed(CERT_TYPE_QE_REPORT, certification)
    return signed + _u32(len(section)) + section


def certify(
    *,
    attestation_key: ec.EllipticCurvePrivateKey,
    chain: Sequence[Issuer],
    identity: QeIdentityValues,
) -> bytes:
    """The quoting enclave's report on `attestation_key`, signed by the first of `chain`, with the chain.

    Args:
        attestation_key: the key to certify.
        chain: PCK certificate, platform CA, root.
        identity: how the quoting enclave describes itself.
    """
    digest = hashlib.sha256(raw_public_key(attestation_key) + AUTH_DATA).digest()
    report = enclave_report(identity, digest.ljust(64, b"\0"))
    pem = "".join(issuer.pem for issuer in chain).encode("ascii") + b"\0"
    return b"".join(
        (
            report,
            sign_raw(chain[0].key, report),
            _u16(len(AUTH_DATA)),
            AUTH_DATA,
            _framed(CERT_TYPE_PCK_CHAIN, pem),
        )
    )


def enclave_report(identity: QeIdentityValues, report_data: bytes) -> bytes:
    """SGX report of a quoting enclave, 384 bytes, over 64 bytes of report data."""
    return b"".join(
        (
            identity.cpu_svn,
            bytes(32),
            identity.attributes,
            hashlib.sha256(b"cocoon/v1/simulated/qe").digest(),
            bytes(32),
            identity.mrsigner,
            bytes(96),
            _u16(identity.isv_prod_id),
            _u16(identity.isv_svn),
            bytes(60),
            report_data,
        )
    )


def _framed(kind: int, content: bytes) -> bytes:
    return _u16(kind) + _u32(len(content)) + content


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
