"""SGX quotes, version 3: a strict, bounded parser.

Layout: Intel "SGX ECDSA Quote Library Reference". Signature section and certification data are those of
a TDX quote without the outer type-6 wrapper. Bytes behind the section are unsigned and never read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.tdx.quote import (
    CERT_TYPE_PCK_CHAIN,
    ECDSA_P256,
    MAX_QUOTE,
    QE_VENDOR_INTEL,
    QuoteHeader,
)
from cocoon_attestation.tdx.report import ENCLAVE_REPORT_SIZE, EnclaveReport, Reader, parse_enclave_report

VERSION: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxQuote:
    """A parsed SGX quote. Field meanings as in `cocoon_attestation.tdx.quote.Quote`."""

    raw: bytes
    """The quote without trailing bytes."""
    header: QuoteHeader
    """`reserved` holds the SVN of quoting and certification enclave; `tee_type` is 0."""
    report: EnclaveReport
    """Report of the attested enclave."""
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    pck_chain: bytes
    trailing: int
    """Number of unsigned bytes that followed in the input."""

    @property
    def sha256(self) -> bytes:
        """SHA-256 of `raw`."""
        return hashlib.sha256(self.raw).digest()


def parse_sgx_quote(data: bytes) -> SgxQuote:
    """Read an SGX quote of version 3.

    Raises:
        MalformedError: another format, version or key type; reserved bytes of the report that are not
            zero; a length that leaves its frame.
    """
    if len(data) > MAX_QUOTE:
        raise MalformedError(f"quote: at most {MAX_QUOTE} bytes expected")
    stream = Reader(data, "quote")
    header = _header(stream)
    report = parse_enclave_report(stream.take(ENCLAVE_REPORT_SIZE))
    _require_reserved_zero(report.raw)
    signed = data[: stream.at]
    section = Reader(stream.take(stream.uint(4)), "quote signature section")
    signature, attestation_key = section.take(64), section.take(64)
    qe_report = parse_enclave_report(section.take(ENCLAVE_REPORT_SIZE))
    qe_report_signature = section.take(64)
    qe_auth_data = section.take(section.uint(2))
    kind = section.uint(2)
    if kind != CERT_TYPE_PCK_CHAIN:
        raise MalformedError(f"quote: certification data of type {kind} is not supported")
    chain = section.take(section.uint(4))
    section.end()
    return SgxQuote(
        raw=data[: stream.at],
        header=header,
        report=report,
        signed=signed,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        pck_chain=chain.rstrip(b"\0"),
        trailing=stream.left,
    )


def _header(stream: Reader) -> QuoteHeader:
    version, key_type, tee_type = stream.uint(2), stream.uint(2), stream.uint(4)
    header = QuoteHeader(
        version=version,
        attestation_key_type=key_type,
        tee_type=0,
        # In version 3 the four bytes in front of the SVNs are reserved, not a TEE type.
        reserved=stream.take(4),
        qe_vendor_id=stream.take(16),
        user_data=stream.take(20),
    )
    if version != VERSION or tee_type != 0:
        raise MalformedError(f"quote: version {version} of TEE type {tee_type:#x} is not an SGX quote")
    if key_type != ECDSA_P256:
        raise MalformedError(f"quote: attestation key type {key_type} is not supported")
    if header.qe_vendor_id != QE_VENDOR_INTEL:
        raise MalformedError("quote: quoting enclave of an unknown vendor")
    return header


def _require_reserved_zero(report: bytes) -> None:
    """Reserved bytes of an attested enclave's report that every SGX version leaves at zero."""
    for start, end in ((96, 128), (160, 192)):
        if any(report[start:end]):
            raise MalformedError(f"enclave report: reserved bytes {start} to {end} are not zero")
