"""TDX quotes, versions 4 and 5: a strict, bounded parser, and the encoder of report bodies.

Offsets and names follow Intel's "TDX DCAP Quoting Library API" and the TDX module specification; the
tables stand in docs/spec/evidence.md, section 3. Bytes behind the signature section are unsigned: they
are counted and never read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import exact_bytes

MAX_QUOTE: Final = 64 * 1024
HEADER_SIZE: Final = 48
TD10_SIZE: Final = 584
TD15_SIZE: Final = 648
ENCLAVE_REPORT_SIZE: Final = 384

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
class TdReport:
    """The TD report inside a quote. Measurements and flags are raw bytes as the module wrote them.

    Raises `MalformedError` at construction if a field has the wrong length.
    """

    tee_tcb_svn: bytes
    """16 bytes: [0] module ISVSVN, [1] module major version, [2] SEAM loader SVN."""
    mrseam: bytes
    """48 bytes: digest of the TDX module."""
    mrsignerseam: bytes
    """48 bytes, zero for a module of Intel."""
    seam_attributes: bytes
    """8 bytes, zero for a production module."""
    td_attributes: bytes
    """8 bytes, little-endian flags."""
    xfam: bytes
    """8 bytes, little-endian flags of extended CPU features."""
    mrtd: bytes
    """48 bytes: digest of the initial memory."""
    mrconfigid: bytes
    """48 bytes chosen by the host at creation; unused here."""
    mrowner: bytes
    """48 bytes chosen by the host at creation; unused here."""
    mrownerconfig: bytes
    """48 bytes chosen by the host at creation; unused here."""
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    """64 bytes chosen by the guest."""
    tee_tcb_svn_2: bytes | None = None
    """16 bytes, TD 1.5 only: TCB of the module that runs now."""
    mrservicetd: bytes | None = None
    """48 bytes, TD 1.5 only: digest of bound service TDs, zero without."""

    def __post_init__(self) -> None:
        """Check every length."""
        for name, length in _TD10_FIELDS:
            exact_bytes(getattr(self, name), length, f"TD report {name}")
        if (self.tee_tcb_svn_2 is None) != (self.mrservicetd is None):
            raise MalformedError("TD report: the two fields of TD 1.5 come together")
        if self.is_td15:
            for name, length in _TD15_FIELDS:
                exact_bytes(getattr(self, name), length, f"TD report {name}")

    @property
    def is_td15(self) -> bool:
        """True for a TD 1.5 report."""
        return self.tee_tcb_svn_2 is not None

    def to_bytes(self) -> bytes:
        """The report as it stands in a quote: 584 bytes, 648 for TD 1.5."""
        fields = _TD10_FIELDS + (_TD15_FIELDS if self.is_td15 else ())
        return b"".join(getattr(self, name) for name, _ in fields)


_TD10_FIELDS: Final = (
    ("tee_tcb_svn", 16),
    ("mrseam", 48),
    ("mrsignerseam", 48),
    ("seam_attributes", 8),
    ("td_attributes", 8),
    ("xfam", 8),
    ("mrtd", 48),
    ("mrconfigid", 48),
    ("mrowner", 48),
    ("mrownerconfig", 48),
    ("rtmr0", 48),
    ("rtmr1", 48),
    ("rtmr2", 48),
    ("rtmr3", 48),
    ("report_data", 64),
)
_TD15_FIELDS: Final = (("tee_tcb_svn_2", 16), ("mrservicetd", 48))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """SGX report of the quoting enclave, 384 bytes."""

    raw: bytes
    """All 384 bytes: what the PCK key signed."""
    cpu_svn: bytes
    misc_select: int
    attributes: bytes
    """16 bytes; bit 1 of the first is DEBUG."""
    mrenclave: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes
    """64 bytes: SHA-256(attestation key ‖ authentication data), then 32 zero bytes."""

    @property
    def debug(self) -> bool:
        """True if the enclave can be debugged."""
        return bool(self.attributes[0] & 2)


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
    stream = _Reader(data, "quote")
    header = _header(stream)
    body_type = BODY_TD10
    if header.version == 5:
        body_type, size = stream.uint(2), stream.uint(4)
        if _BODY_SIZE.get(body_type) != size:
            raise MalformedError(f"quote: body type {body_type} of {size} bytes is not supported")
    report = parse_td_report(stream.take(_BODY_SIZE[body_type]))
    signed = data[: stream.at]
    section = _Reader(stream.take(stream.uint(4)), "quote signature section")
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


def parse_td_report(data: bytes) -> TdReport:
    """Read a TD report: 584 bytes (TD 1.0) or 648 bytes (TD 1.5).

    Raises:
        MalformedError: another length.
    """
    if len(data) not in (TD10_SIZE, TD15_SIZE):
        raise MalformedError("TD report: 584 or 648 bytes expected")
    stream = _Reader(data, "TD report")
    values = {name: stream.take(length) for name, length in _TD10_FIELDS}
    if stream.left:
        values |= {name: stream.take(length) for name, length in _TD15_FIELDS}
    stream.end()
    return TdReport(**values)


def parse_enclave_report(data: bytes) -> EnclaveReport:
    """Read the SGX report of a quoting enclave.

    Raises:
        MalformedError: not 384 bytes.
    """
    exact_bytes(data, ENCLAVE_REPORT_SIZE, "enclave report")
    return EnclaveReport(
        raw=data,
        cpu_svn=data[0:16],
        misc_select=int.from_bytes(data[16:20], "little"),
        attributes=data[48:64],
        mrenclave=data[64:96],
        mrsigner=data[128:160],
        isv_prod_id=int.from_bytes(data[256:258], "little"),
        isv_svn=int.from_bytes(data[258:260], "little"),
        report_data=data[320:384],
    )


def _header(stream: _Reader) -> QuoteHeader:
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


def _framed(stream: _Reader, expected: int) -> _Reader:
    """Certification data: type u16, length u32, content."""
    kind, length = stream.uint(2), stream.uint(4)
    if kind != expected:
        raise MalformedError(f"quote: certification data of type {kind} is not supported")
    return _Reader(stream.take(length), "quote certification data")


class _Reader:
    """A cursor over bytes; integers are little-endian. Raises `MalformedError` at the end."""

    __slots__ = ("_data", "_what", "at")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self.at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self.at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise MalformedError(f"{self._what}: truncated")
        self.at += length
        return self._data[self.at - length : self.at]

    def uint(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little")

    def end(self) -> None:
        if self.left:
            raise MalformedError(f"{self._what}: bytes left over")
