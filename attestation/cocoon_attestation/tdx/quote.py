"""TDX quotes, versions 4 and 5: a strict, bounded parser.

Offsets and names follow Intel's "TDX DCAP Quoting Library API" and the TDX module specification; the
tables stand in docs/spec/evidence.md, section 3. Bytes behind the signature section are unsigned: they
are counted and never read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.tdx.report import (
    ENCLAVE_REPORT_SIZE,
    TD10_SIZE,
    TD15_SIZE,
    EnclaveReport,
    Reader,
    TdReport,
    parse_enclave_report,
    parse_td_report,
)

MAX_QUOTE: Final = 64 * 1024
HEADER_SIZE: Final = 48

TEE_TYPE_TDX: Final = 0x81
ECDSA_P256: Final = 2
QE_VENDOR_INTEL: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
BODY_TD10: Final = 2
BODY_TD15: Final = 3
CERT_TYPE_PCK_CHAIN: Final = 5
CERT_TYPE_QE_REPORT: Final = 6

_BODY_SIZE: Final = {BODY_TD10: TD10_SIZE, BODY_TD15: TD15_SIZE}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteHeader:
    """The 48 bytes in front of every quote."""

    version: int
    """4 or 5."""
    attestation_key_type: int
    """2: ECDSA on P-256."""
    tee_type: int
    """0x81: TDX."""
    reserved: bytes
    """4 bytes; QE and PCE SVN in quotes of version 3, informative."""
    qe_vendor_id: bytes
    """16 bytes."""
    user_data: bytes
    """20 bytes written by the quoting enclave; never policy input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed TDX quote."""

    raw: bytes
    """The quote without trailing bytes: hash or log this, never the input."""
    header: QuoteHeader
    body_type: int
    """2 for TD 1.0, 3 for TD 1.5; fixed to 2 in version 4."""
    report: TdReport
    signed: bytes
    """What the attestation key signed: header and body."""
    signature: bytes
    """64 bytes, r ‖ s."""
    attestation_key: bytes
    """64 bytes, x ‖ y on P-256."""
    qe_report: EnclaveReport
    qe_report_signature: bytes
    """64 bytes, r ‖ s, by the PCK key."""
    qe_auth_data: bytes
    pck_chain: bytes
    """PEM certificates, leaf first, without the NUL that often ends them."""
    trailing: int
    """Number of unsigned bytes that followed in the input."""

    @property
    def sha256(self) -> bytes:
        """SHA-256 of `raw`."""
        return hashlib.sha256(self.raw).digest()


def parse_quote(data: bytes) -> Quote:
    """Read a TDX quote of version 4 or 5.

    Raises:
        MalformedError: another format, version, TEE or key type; a length that leaves its frame.
    """
    if len(data) > MAX_QUOTE:
        raise MalformedError(f"quote: at most {MAX_QUOTE} bytes expected")
    stream = Reader(data, "quote")
    header = _header(stream)
    body_type = BODY_TD10
    if header.version == 5:
        body_type, size = stream.uint(2), stream.uint(4)
        if _BODY_SIZE.get(body_type) != size:
            raise MalformedError(f"quote: body type {body_type} of {size} bytes is not supported")
    report = parse_td_report(stream.take(_BODY_SIZE[body_type]))
    signed = data[: stream.at]
    section = Reader(stream.take(stream.uint(4)), "quote signature section")
    signature, attestation_key = section.take(64), section.take(64)
    certification = _framed(section, CERT_TYPE_QE_REPORT)
    section.end()
    qe_report = parse_enclave_report(certification.take(ENCLAVE_REPORT_SIZE))
    qe_report_signature = certification.take(64)
    qe_auth_data = certification.take(certification.uint(2))
    chain = _framed(certification, CERT_TYPE_PCK_CHAIN)
    certification.end()
    return Quote(
        raw=data[: stream.at],
        header=header,
        body_type=body_type,
        report=report,
        signed=signed,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        pck_chain=chain.take(chain.left).rstrip(b"\0"),
        trailing=stream.left,
    )


def _header(stream: Reader) -> QuoteHeader:
    header = QuoteHeader(
        version=stream.uint(2),
        attestation_key_type=stream.uint(2),
        tee_type=stream.uint(4),
        reserved=stream.take(4),
        qe_vendor_id=stream.take(16),
        user_data=stream.take(20),
    )
    if header.version not in (4, 5):
        raise MalformedError(f"quote: version {header.version} is not supported")
    if header.tee_type != TEE_TYPE_TDX:
        raise MalformedError(f"quote: TEE type {header.tee_type:#x} is not TDX")
    if header.attestation_key_type != ECDSA_P256:
        raise MalformedError(f"quote: attestation key type {header.attestation_key_type} is not supported")
    if header.qe_vendor_id != QE_VENDOR_INTEL:
        raise MalformedError("quote: quoting enclave of an unknown vendor")
    return header


def _framed(stream: Reader, expected: int) -> Reader:
    """Certification data: type u16, length u32, content."""
    kind, length = stream.uint(2), stream.uint(4)
    if kind != expected:
        raise MalformedError(f"quote: certification data of type {kind} is not supported")
    return Reader(stream.take(length), "quote certification data")
