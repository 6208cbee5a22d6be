"""Parser of the SEV-SNP attestation report, versions 2 to 5 (AMD publication 56860, ATTESTATION_REPORT).

The parser checks layout only: length, version, and that every reserved byte and bit is zero. It
raises `MalformedError` and decides nothing about trust. Integers are little-endian.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError

REPORT_SIZE: Final = 1184
SIGNED_SIZE: Final = 0x2A0
"""The signature covers bytes 0 to 0x29f."""
VERSIONS: Final = (2, 3, 4, 5)
SIGNATURE_ECDSA_P384_SHA384: Final = 1
HOST_VMPL: Final = 0xFFFF_FFFF
"""VMPL of a report that the host asked for: it says nothing about who runs in the guest."""

POLICY_SMT: Final = 1 << 16
POLICY_RESERVED_ONE: Final = 1 << 17
POLICY_MIGRATE_MA: Final = 1 << 18
POLICY_DEBUG: Final = 1 << 19
POLICY_SINGLE_SOCKET: Final = 1 << 20
POLICY_CIPHERTEXT_HIDING: Final = 1 << 24

PLATFORM_SMT: Final = 1 << 0
PLATFORM_TSME: Final = 1 << 1
PLATFORM_ECC: Final = 1 << 2
PLATFORM_RAPL_DISABLED: Final = 1 << 3
PLATFORM_CIPHERTEXT_HIDING: Final = 1 << 4
PLATFORM_ALIAS_CHECK: Final = 1 << 5
PLATFORM_TIO: Final = 1 << 7

_POLICY_KNOWN_BITS: Final = (1 << 26) - 1
_KEY_INFO_KNOWN_BITS: Final = 0b1_1111
_ALWAYS_ZERO: Final = (
    (0x04C, 0x050),
    (0x18B, 0x1A0),
    (0x1EB, 0x1EC),
    (0x1EF, 0x1F0),
    (0x208, 0x2A0),
    (0x2A0 + 48, 0x2A0 + 72),
    (0x2E8 + 48, 0x2E8 + 72),
    (0x330, 0x4A0),
)
_ZERO_BEFORE_V3: Final = (0x188, 0x18B)
_ZERO_BEFORE_V5: Final = (0x1F8, 0x208)


class Product(enum.StrEnum):
    """A processor family with a root key and a TCB layout of its own."""

    MILAN = "milan"
    GENOA = "genoa"
    TURIN = "turin"


class SigningKey(enum.IntEnum):
    """Which key signed the report (key info bits 4 to 2)."""

    VCEK = 0
    VLEK = 1


@dataclass(frozen=True, slots=True, kw_only=True, order=False)
class TcbVersion:
    """Security version of each firmware part of a platform. `fmc` exists on Turin only."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int = 0

    def covers(self, other: TcbVersion) -> bool:
        """True if no part of `self` is older than in `other`."""
        return all(mine >= theirs for mine, theirs in zip(self._parts, other._parts, strict=True))

    @property
    def _parts(self) -> tuple[int, ...]:
        return (self.fmc, self.boot_loader, self.tee, self.snp, self.microcode)

    def __str__(self) -> str:
        return f"fmc={self.fmc} bl={self.boot_loader} tee={self.tee} snp={self.snp} ucode={self.microcode}"


def parse_tcb(product: Product, raw: bytes) -> TcbVersion:
    """Read 8 TCB bytes in the layout of `product`.

    Raises:
        MalformedError: not 8 bytes, or a reserved byte is not zero.
    """
    if len(raw) != 8:
        raise MalformedError("a TCB version has 8 bytes")
    if product is Product.TURIN:
        if any(raw[4:7]):
            raise MalformedError("reserved bytes of a TCB version are not zero")
        return TcbVersion(fmc=raw[0], boot_loader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7])
    if any(raw[2:6]):
        raise MalformedError("reserved bytes of a TCB version are not zero")
    return TcbVersion(boot_loader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReport:
    """The fields of a report as the chip wrote them. Nothing in it is authenticated yet."""

    version: int
    guest_svn: int
    policy: int
    """Guest policy: bits 0-7 minor and 8-15 major ABI version, then flags (``POLICY_*``)."""
    family_id: bytes
    image_id: bytes
    vmpl: int
    """Privilege level the report was asked from, 0 to 3, or `HOST_VMPL`."""
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    """Flags ``PLATFORM_*``."""
    key_info: int
    report_data: bytes
    """64 bytes chosen by the guest."""
    measurement: bytes
    """48-byte launch digest."""
    host_data: bytes
    """32 bytes chosen by the host at launch, fixed for the life of the guest."""
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    """Report id of the migration agent; 32 bytes of 0xff without one."""
    reported_tcb: bytes
    """The TCB version that the signing key was derived from."""
    cpuid: tuple[int, int, int] | None
    """Family, model and stepping; None before version 3."""
    chip_id: bytes
    """64 bytes; all zero if masked; on Turin 8 bytes and zeros."""
    committed_tcb: bytes
    """The host cannot go back below this one."""
    current_firmware: tuple[int, int, int]
    """Major, minor, build."""
    committed_firmware: tuple[int, int, int]
    launch_tcb: bytes
    launch_mitigations: int | None
    """Mitigation vector; None before version 5."""
    current_mitigations: int | None
    signature: tuple[int, int]
    """r and s of the ECDSA P-384 signature over `signed`."""
    signed: bytes

    @property
    def abi(self) -> tuple[int, int]:
        """Lowest ABI version (major, minor) the guest policy asks for."""
        return (self.policy >> 8) & 0xFF, self.policy & 0xFF

    @property
    def signing_key(self) -> int:
        """Signing key selector, see `SigningKey`; other values are refused by verification."""
        return (self.key_info >> 2) & 0b111

    @property
    def chip_key_masked(self) -> bool:
        """True if the host masked the chip id (MASK_CHIP_KEY)."""
        return bool(self.key_info & 0b10)


def parse_snp_report(data: bytes) -> SnpReport:
    """Parse a report of exactly 1184 bytes.

    Raises:
        MalformedError: wrong length, unknown version, or a reserved byte or bit that is not zero.
    """
    raw = bytes(data)
    if len(raw) != REPORT_SIZE:
        raise MalformedError(f"an SNP report has {REPORT_SIZE} bytes, {len(raw)} found")
    version = _u32(raw, 0x000)
    if version not in VERSIONS:
        raise MalformedError(f"SNP report version {version} is not known")
    _require_reserved_zero(raw, version)
    return SnpReport(
        version=version,
        guest_svn=_u32(raw, 0x004),
        policy=_u64(raw, 0x008),
        family_id=raw[0x010:0x020],
        image_id=raw[0x020:0x030],
        vmpl=_u32(raw, 0x030),
        signature_algorithm=_u32(raw, 0x034),
        current_tcb=raw[0x038:0x040],
        platform_info=_u64(raw, 0x040),
        key_info=_u32(raw, 0x048),
        report_data=raw[0x050:0x090],
        measurement=raw[0x090:0x0C0],
        host_data=raw[0x0C0:0x0E0],
        id_key_digest=raw[0x0E0:0x110],
        author_key_digest=raw[0x110:0x140],
        report_id=raw[0x140:0x160],
        report_id_ma=raw[0x160:0x180],
        reported_tcb=raw[0x180:0x188],
        cpuid=(raw[0x188], raw[0x189], raw[0x18A]) if version >= 3 else None,
        chip_id=raw[0x1A0:0x1E0],
        committed_tcb=raw[0x1E0:0x1E8],
        current_firmware=(raw[0x1EA], raw[0x1E9], raw[0x1E8]),
        committed_firmware=(raw[0x1EE], raw[0x1ED], raw[0x1EC]),
        launch_tcb=raw[0x1F0:0x1F8],
        launch_mitigations=_u64(raw, 0x1F8) if version >= 5 else None,
        current_mitigations=_u64(raw, 0x200) if version >= 5 else None,
        signature=(_u384(raw, 0x2A0), _u384(raw, 0x2E8)),
        signed=raw[:SIGNED_SIZE],
    )


def _require_reserved_zero(raw: bytes, version: int) -> None:
    ranges = list(_ALWAYS_ZERO)
    if version < 3:
        ranges.append(_ZERO_BEFORE_V3)
    if version < 5:
        ranges.append(_ZERO_BEFORE_V5)
    for start, end in ranges:
        if any(raw[start:end]):
            raise MalformedError(f"reserved bytes 0x{start:x} to 0x{end:x} are not zero")
    policy = _u64(raw, 0x008)
    if policy & ~_POLICY_KNOWN_BITS or not policy & POLICY_RESERVED_ONE:
        raise MalformedError("reserved bits of the guest policy have wrong values")
    if _u32(raw, 0x048) & ~_KEY_INFO_KNOWN_BITS:
        raise MalformedError("reserved bits of the key information are not zero")


def _u32(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 4], "little")


def _u64(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 8], "little")


def _u384(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 48], "little")
