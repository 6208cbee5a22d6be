"""Parser of the confidential computing event log (CCEL) that firmware leaves for a TDX guest.

Layout: TCG PC Client Platform Firmware Profile, crypto-agile log: one TCG_PCR_EVENT header that
declares the digest algorithms, then TCG_PCR_EVENT2 records. Register numbers 1 to 4 mean RTMR0 to
RTMR3 (UEFI 2.10, 38.4.1; ACPI 6.5, CCEL table). Integers are little-endian.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError

MAX_LOG: Final = 1 << 20
MAX_EVENTS: Final = 4096
MAX_EVENT_DATA: Final = 256 * 1024
MAX_ALGORITHMS: Final = 8
TABLE_SIZE: Final = 56
CC_TYPE_TDX: Final = 2

EV_NO_ACTION: Final = 0x0000_0003
EV_SEPARATOR: Final = 0x0000_0004

_ALGORITHM_SHA384: Final = 0x000C
_DIGEST_SIZES: Final = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32}
_SIGNATURE: Final = b"Spec ID Event03\x00"
_HEADER_SIZE: Final = 32
"""Register, type, SHA-1 digest and data size of the first record."""
_END_MARK: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One extension of a register. Only `digest` can be authenticated, by replay."""

    register: int
    """RTMR number, 0 to 3."""
    type: int
    """Event type as written in the log; no digest covers it."""
    digest: bytes
    """48-byte SHA-384 digest that was extended."""
    data: bytes
    """Event data as written in the log; authentic only where `data_verified` is true."""

    @property
    def data_verified(self) -> bool:
        """True if the digest is the SHA-384 of the data, so that replay covers the data too."""
        return hashlib.sha384(self.data).digest() == self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CcelTable:
    """The ACPI table that says where the log is."""

    cc_type: int
    """2 = TDX."""
    cc_subtype: int
    log_length: int
    log_address: int


def parse_ccel_table(data: bytes) -> CcelTable:
    """Parse the 56-byte ACPI table ``CCEL``.

    Raises:
        MalformedError: wrong signature, length, checksum, reserved bytes or type.
    """
    raw = bytes(data)
    if len(raw) != TABLE_SIZE or raw[:4] != b"CCEL" or _u32(raw, 4) != TABLE_SIZE:
        raise MalformedError("not a CCEL table")
    if sum(raw) % 256 or any(raw[38:40]):
        raise MalformedError("the CCEL table has a wrong checksum or reserved byte")
    if raw[36] != CC_TYPE_TDX:
        raise MalformedError("the CCEL table is not of a TDX guest")
    return CcelTable(
        cc_type=raw[36],
        cc_subtype=raw[37],
        log_length=int.from_bytes(raw[40:48], "little"),
        log_address=int.from_bytes(raw[48:56], "little"),
    )


def parse_ccel(data: bytes) -> tuple[LogEvent, ...]:
    """Parse a log of at most 1 MiB, with or without its padding of 0xff or zero bytes.

    Records of type EV_NO_ACTION extend nothing and are left out.

    Raises:
        MalformedError: any deviation from the layout, an undeclared algorithm, no SHA-384 digest, a
            register outside RTMR0 to RTMR3, or more than 4096 events.
    """
    raw = bytes(data)
    if len(raw) > MAX_LOG:
        raise MalformedError("the event log is too long")
    sizes, offset = _parse_header(raw)
    events: list[LogEvent] = []
    while not _at_end(raw, offset):
        event, offset = _parse_event(raw, offset, sizes)
        if event is not None:
            events.append(event)
        if len(events) > MAX_EVENTS:
            raise MalformedError("the event log has too many events")
    return tuple(events)


def _parse_header(raw: bytes) -> tuple[dict[int, int], int]:
    """The declared digest sizes by algorithm, and the offset of the first event."""
    if len(raw) < _HEADER_SIZE + 28 or _u32(raw, 4) != EV_NO_ACTION or any(raw[8:28]):
        raise MalformedError("the event log has no header")
    size = _u32(raw, 28)
    body = raw[_HEADER_SIZE : _HEADER_SIZE + size]
    if len(body) != size or size < 29 or body[:16] != _SIGNATURE:
        raise MalformedError("the event log header is not of the crypto-agile form")
    count = _u32(body, 24)
    end = 28 + 4 * count
    if not 1 <= count <= MAX_ALGORITHMS or size < end + 1 or size != end + 1 + body[end]:
        raise MalformedError("the event log header has a wrong size")
    sizes: dict[int, int] = {}
    for i in range(count):
        algorithm, length = _u16(body, 28 + 4 * i), _u16(body, 30 + 4 * i)
        if algorithm in sizes or _DIGEST_SIZES.get(algorithm) != length:
            raise MalformedError("the event log declares an unknown or repeated algorithm")
        sizes[algorithm] = length
    if _ALGORITHM_SHA384 not in sizes:
        raise MalformedError("the event log has no SHA-384 digests")
    return sizes, _HEADER_SIZE + size


def _at_end(raw: bytes, offset: int) -> bool:
    """True at the end of the log; the padding must be all ones or all zeros to its last byte."""
    rest = raw[offset:]
    if not rest:
        return True
    if rest[:8] in (b"\xff" * len(rest[:8]), bytes(len(rest[:8]))):
        if rest.strip(rest[:1]):
            raise MalformedError("bytes follow the end of the event log")
        return True
    return False


def _parse_event(raw: bytes, offset: int, sizes: dict[int, int]) -> tuple[LogEvent | None, int]:
    register, kind, count = (_u32(raw, offset + 4 * i) for i in range(3))
    offset += 12
    if count != len(sizes):
        raise MalformedError("an event has another number of digests than declared")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = _u16(raw, offset)
        if algorithm not in sizes or algorithm in digests:
            raise MalformedError("an event has a digest of an undeclared algorithm")
        digests[algorithm] = _take(raw, offset + 2, sizes[algorithm])
        offset += 2 + sizes[algorithm]
    length = _u32(raw, offset)
    if length > MAX_EVENT_DATA:
        raise MalformedError("the data of an event is too long")
    data = _take(raw, offset + 4, length)
    offset += 4 + length
    if kind == EV_NO_ACTION:
        return None, offset
    if not 1 <= register <= 4:
        raise MalformedError(f"event register {register} is not RTMR0 to RTMR3")
    event = LogEvent(register=register - 1, type=kind, digest=digests[_ALGORITHM_SHA384], data=data)
    return event, offset


def _take(raw: bytes, offset: int, length: int) -> bytes:
    value = raw[offset : offset + length]
    if len(value) != length:
        raise MalformedError("the event log ends inside an event")
    return value


def _u16(raw: bytes, offset: int) -> int:
    return int.from_bytes(_take(raw, offset, 2), "little")


def _u32(raw: bytes, offset: int) -> int:
    return int.from_bytes(_take(raw, offset, 4), "little")
