"""Parser of NVIDIA's SPDM attestation report for GPUs and NVLink switches.

The report is an SPDM 1.1 GET_MEASUREMENTS request (37 bytes) followed by the MEASUREMENTS response
(DMTF DSP0274). NVIDIA puts its own fields as type-length-value records into the opaque data. All of it
except the signature is signed by the device. Integers are little-endian.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cocoon_attestation.errors import MalformedError

MAX_REPORT: Final = 64 * 1024
REQUEST_SIZE: Final = 37
SIGNATURE_SIZE: Final = 96
NONCE_SIZE: Final = 32
GPU_BLOCKS: Final = 64
SWITCH_BLOCKS: Final = 31
MEASUREMENT_SIZE: Final = 48
PDI_SIZE: Final = 8

STATUS_ON: Final = 0xAA
STATUS_OFF: Final = 0x55

_REQUEST_PREFIX: Final = bytes((0x11, 0xE0, 0x01, 0xFF))
_RESPONSE_PREFIX: Final = bytes((0x11, 0x60))
_BLOCK: Final = struct.Struct(f"<BBHBH{MEASUREMENT_SIZE}s")


class Opaque(enum.IntEnum):
    """Ids of the opaque records that are read here. Others are kept and never interpreted."""

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    CHIP_SKU = 15
    PROJECT = 17
    PROJECT_SKU = 18
    FWID = 20
    PPCIE_STATUS = 21
    SWITCH_PDI = 22
    SWITCH_GPU_PDIS = 26
    OPAQUE_VERSION = 34
    CHIP_NAME = 35
    FEATURE_FLAG = 36


_FIXED_SIZES: Final = {
    Opaque.NVDEC0_STATUS: (1,),
    Opaque.FWID: (MEASUREMENT_SIZE,),
    Opaque.PPCIE_STATUS: (1,),
    Opaque.SWITCH_PDI: (PDI_SIZE, 18 * PDI_SIZE),
    Opaque.SWITCH_GPU_PDIS: (2 * 8 * PDI_SIZE,),
    Opaque.OPAQUE_VERSION: (2,),
    Opaque.FEATURE_FLAG: (2,),
}


class FeatureFlag(enum.IntEnum):
    """How the GPU takes part in confidential computing (opaque record 36)."""

    SINGLE = 0
    """One GPU for one guest (SPT)."""
    MULTI = 1
    """Several GPUs for one guest with encrypted NVLink (MPT, Blackwell)."""
    PPCIE = 2
    """Eight GPUs and their switches for one guest; NVLink is not encrypted (Hopper)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """The fields of a report as the device wrote them. Nothing in it is authenticated yet."""

    nonce: bytes
    """32 bytes of the request: the verifier's nonce."""
    response_nonce: bytes
    """32 bytes chosen by the device; no proof of freshness."""
    slot: int
    measurements: tuple[bytes, ...]
    """Values by SPDM block, block 1 first; a block that is not used holds zeros."""
    opaque: Mapping[int, bytes]
    """Opaque records by id."""
    signature: bytes
    """r ‖ s, 48 bytes each, big-endian, ECDSA P-384 with SHA-384 over `signed`."""
    signed: bytes

    @property
    def driver_version(self) -> str | None:
        """Driver version such as ``570.172.08``; None in a switch report."""
        return self._text(Opaque.DRIVER_VERSION)

    @property
    def vbios_version(self) -> str | None:
        """VBIOS version such as ``96.00.A5.00.01``; of a switch its BIOS version."""
        raw = self.opaque.get(Opaque.VBIOS_VERSION)
        if raw is None:
            return None
        if len(raw) == 8:
            return ".".join(f"{raw[i]:02X}" for i in (3, 2, 1, 0, 4))
        return self._text(Opaque.VBIOS_VERSION)

    @property
    def project(self) -> str | None:
        """Board project such as ``G520``."""
        return self._text(Opaque.PROJECT)

    @property
    def project_sku(self) -> str | None:
        """Board variant such as ``0200``."""
        return self._text(Opaque.PROJECT_SKU)

    @property
    def chip_sku(self) -> str | None:
        """Chip variant such as ``885``."""
        return self._text(Opaque.CHIP_SKU)

    @property
    def chip_name(self) -> str | None:
        """Chip name; Blackwell only."""
        return self._text(Opaque.CHIP_NAME)

    @property
    def fwid(self) -> bytes | None:
        """48-byte digest of the firmware that holds the signing key; None in old firmware."""
        return self.opaque.get(Opaque.FWID)

    @property
    def nvdec_off(self) -> bool:
        """True if the report says that the video decoder 0 is off."""
        return self.opaque.get(Opaque.NVDEC0_STATUS) == bytes((STATUS_OFF,))

    @property
    def ppcie(self) -> bool:
        """True if the report says that protected PCIe mode is on."""
        return self.opaque.get(Opaque.PPCIE_STATUS) == bytes((STATUS_ON,))

    @property
    def opaque_version(self) -> int | None:
        """Version of the opaque records; None in old firmware."""
        raw = self.opaque.get(Opaque.OPAQUE_VERSION)
        return None if raw is None else int.from_bytes(raw, "little")

    @property
    def feature_flag(self) -> int | None:
        """See `FeatureFlag`; None in old firmware."""
        raw = self.opaque.get(Opaque.FEATURE_FLAG)
        return None if raw is None else int.from_bytes(raw, "little")

    @property
    def switch_pdis(self) -> tuple[bytes, ...]:
        """GPU: the switch behind each of 18 links. Switch: its own id, as one entry. 8 bytes each."""
        return _split_pdis(self.opaque.get(Opaque.SWITCH_PDI, b""))

    @property
    def gpu_pdis(self) -> tuple[bytes, ...]:
        """Switch: the GPUs behind its ports, 8 entries of 8 bytes; empty in a GPU report."""
        return _split_pdis(self.opaque.get(Opaque.SWITCH_GPU_PDIS, b"")[: 8 * PDI_SIZE])

    def _text(self, record: Opaque) -> str | None:
        raw = self.opaque.get(record)
        return None if raw is None else _text(raw, record)


def parse_gpu_report(data: bytes) -> GpuReport:
    """Parse a report of at most 64 KiB. One zero byte after the signature is allowed, nothing else.

    Raises:
        MalformedError: any deviation from the layout, a repeated opaque record, or a record of a
            wrong size or form.
    """
    raw = bytes(data)
    if len(raw) > MAX_REPORT:
        raise MalformedError("the GPU report is too long")
    if raw[:4] != _REQUEST_PREFIX or raw[REQUEST_SIZE : REQUEST_SIZE + 2] != _RESPONSE_PREFIX:
        raise MalformedError("not an SPDM 1.1 measurement request and response")
    record_at = REQUEST_SIZE + 8
    header = _take(raw, REQUEST_SIZE, 8)
    record = _take(raw, record_at, int.from_bytes(header[5:8], "little"))
    nonce_at = record_at + len(record)
    response_nonce = _take(raw, nonce_at, NONCE_SIZE)
    opaque_at = nonce_at + NONCE_SIZE + 2
    opaque = _take(raw, opaque_at, int.from_bytes(_take(raw, opaque_at - 2, 2), "little"))
    signature_at = opaque_at + len(opaque)
    signature = _take(raw, signature_at, SIGNATURE_SIZE)
    if raw[signature_at + SIGNATURE_SIZE :] not in (b"", b"\x00"):
        raise MalformedError("bytes follow the signature of the GPU report")
    return GpuReport(
        nonce=raw[4:36],
        response_nonce=response_nonce,
        slot=raw[36],
        measurements=_parse_blocks(record, header[4]),
        opaque=MappingProxyType(_parse_opaque(opaque)),
        signature=signature,
        signed=raw[:signature_at],
    )


def _parse_blocks(record: bytes, count: int) -> tuple[bytes, ...]:
    if count not in (GPU_BLOCKS, SWITCH_BLOCKS):
        raise MalformedError(f"{count} measurement blocks are neither a GPU's nor a switch's")
    if len(record) != count * _BLOCK.size:
        raise MalformedError("the measurement record has another length than its blocks")
    values: list[bytes] = []
    for number, (index, spec, size, _, value_size, value) in enumerate(_BLOCK.iter_unpack(record), 1):
        if index != number or spec != 1 or value_size != MEASUREMENT_SIZE or size != value_size + 3:
            raise MalformedError(f"measurement block {number} has a wrong form")
        values.append(value)
    return tuple(values)


def _parse_opaque(opaque: bytes) -> dict[int, bytes]:
    records: dict[int, bytes] = {}
    offset = 0
    while offset < len(opaque):
        record, size = struct.unpack("<HH", _take(opaque, offset, 4))
        if record in records:
            raise MalformedError(f"opaque record {record} is repeated")
        records[record] = _take(opaque, offset + 4, size)
        offset += 4 + size
    for known, sizes in _FIXED_SIZES.items():
        if known in records and len(records[known]) not in sizes:
            raise MalformedError(f"opaque record {known.value} has a wrong size")
    for record in (Opaque.DRIVER_VERSION, Opaque.CHIP_SKU, Opaque.PROJECT, Opaque.PROJECT_SKU):
        _text(records.get(record, b""), record)
    _text(records.get(Opaque.CHIP_NAME, b""), Opaque.CHIP_NAME)
    vbios = records.get(Opaque.VBIOS_VERSION, b"")
    if len(vbios) != 8:
        _text(vbios, Opaque.VBIOS_VERSION)
    for record in (Opaque.NVDEC0_STATUS, Opaque.PPCIE_STATUS):
        if records.get(record, b"\xaa") not in (b"\xaa", b"\x55"):
            raise MalformedError(f"opaque record {record.value} is neither on nor off")
    return records


def _text(raw: bytes, record: Opaque) -> str:
    """ASCII without its NUL padding; only characters that occur in versions and names."""
    text = raw.rstrip(b"\x00")
    if len(text) > 64 or text.translate(None, _TEXT_BYTES):
        raise MalformedError(f"opaque record {record.value} is not a short text")
    return text.decode("ascii")


_TEXT_BYTES: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._- "


def _split_pdis(raw: bytes) -> tuple[bytes, ...]:
    return tuple(raw[i : i + PDI_SIZE] for i in range(0, len(raw), PDI_SIZE))


def _take(raw: bytes, offset: int, length: int) -> bytes:
    value = raw[offset : offset + length]
    if len(value) != length:
        raise MalformedError("the GPU report ends too early")
    return value
