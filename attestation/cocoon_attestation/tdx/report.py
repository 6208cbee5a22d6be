"""The reports inside a quote: the TD report (TDX module) and the SGX report of the quoting enclave.

Field names and offsets follow Intel's TDX module specification; docs/spec/evidence.md, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import exact_bytes

TD10_SIZE: Final = 584
TD15_SIZE: Final = 648
ENCLAVE_REPORT_SIZE: Final = 384


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


def parse_td_report(data: bytes) -> TdReport:
    """Read a TD report: 584 bytes (TD 1.0) or 648 bytes (TD 1.5).

    Raises:
        MalformedError: another length.
    """
    if len(data) not in (TD10_SIZE, TD15_SIZE):
        raise MalformedError("TD report: 584 or 648 bytes expected")
    stream = Reader(data, "TD report")
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


class Reader:
    """A cursor over bytes; integers are little-endian. Every read may raise `MalformedError`."""

    __slots__ = ("_data", "_what", "at")

    def __init__(self, data: bytes, what: str) -> None:
        """Read `data` from the start; `what` names it in messages."""
        self._data = data
        self._what = what
        self.at = 0

    @property
    def left(self) -> int:
        """Number of bytes not read yet."""
        return len(self._data) - self.at

    def take(self, length: int) -> bytes:
        """Read exactly `length` bytes."""
        if length > self.left:
            raise MalformedError(f"{self._what}: truncated")
        self.at += length
        return self._data[self.at - length : self.at]

    def uint(self, length: int) -> int:
        """Read an unsigned integer of `length` bytes."""
        return int.from_bytes(self.take(length), "little")

    def end(self) -> None:
        """Require that nothing is left."""
        if self.left:
            raise MalformedError(f"{self._what}: bytes left over")
