"""The payload of the event ``cocoon.gpu``: what the measured guest saw when it attested its own GPUs.

A signed GPU report does not say whether confidential computing is on or developer tools are off; only
code in the guest can ask the driver. The measured guest asks, refuses to serve otherwise, and extends
what it saw into RTMR3. Form and rules: docs/spec/gpu-gate.md.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import exact_bytes, uint

VERSION: Final = 1
MAX_DEVICES: Final = 16
MAX_SERIAL: Final = 40
KINDS: Final = {"gpu": 1, "switch": 2}
_HEAD: Final = 37
_SERIAL: Final = re.compile(rf"[1-9a-f][0-9a-f]{{0,{MAX_SERIAL - 1}}}", re.ASCII)


class Joined(enum.IntEnum):
    """How the driver says that the GPUs are joined."""

    ALONE = 0
    PROTECTED_PCIE = 1
    NVLINK = 2
    """Encrypted NVLink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredDevice:
    """One device as its verified certificate names it."""

    kind: str
    """``gpu`` or ``switch``."""
    serial: str
    """Serial number of the device certificate, lower-case hex without leading zeros, 1 to 40 digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSummary:
    """What the guest found. Authentic if the replay of RTMR3 is.

    Raises `MalformedError` at construction for a value that the form cannot carry.
    """

    confidential: bool
    """True if confidential computing was on."""
    devtools: bool
    """True if developer tools were on: the host can then read GPU memory."""
    joined: Joined
    evidence: bytes
    """`gpu_digest` of the reports that the guest appraised at boot, 32 bytes; for audits."""
    devices: tuple[MeasuredDevice, ...]
    """1 to 16 devices, all different, in the order in which evidence shows them."""

    def __post_init__(self) -> None:
        """Check every value."""
        exact_bytes(self.evidence, 32, "gpu evidence digest")
        if not 1 <= len(self.devices) <= MAX_DEVICES:
            raise MalformedError(f"gpu summary: 1 to {MAX_DEVICES} devices expected")
        for device in self.devices:
            if device.kind not in KINDS or _SERIAL.fullmatch(device.serial) is None:
                raise MalformedError("gpu summary: a device has another kind or form of serial number")
        if len({device.serial for device in self.devices}) != len(self.devices):
            raise MalformedError("gpu summary: a device is listed twice")

    @property
    def gpus(self) -> int:
        """Number of GPUs, switches not counted."""
        return sum(device.kind == "gpu" for device in self.devices)

    def encode(self) -> bytes:
        """The payload, at most 709 bytes."""
        head = bytes((VERSION, self.confidential, self.devtools, self.joined))
        devices = b"".join(
            bytes((KINDS[one.kind], len(one.serial))) + one.serial.encode("ascii") for one in self.devices
        )
        return head + self.evidence + uint(len(self.devices), 8, "devices").to_bytes(1) + devices


def parse_gpu_summary(payload: bytes) -> GpuSummary:
    """Read the payload of a ``cocoon.gpu`` event that is not ``none``.

    Raises:
        MalformedError: another version or form, a value out of range, or bytes left over.
    """
    if len(payload) < _HEAD or payload[0] != VERSION or max(payload[1], payload[2]) > 1:
        raise MalformedError("gpu summary: another version or form")
    if payload[3] not in {mode.value for mode in Joined}:
        raise MalformedError("gpu summary: the GPUs are joined in an unknown way")
    names = {number: kind for kind, number in KINDS.items()}
    devices: list[MeasuredDevice] = []
    offset = _HEAD
    for _ in range(payload[36]):
        head = payload[offset : offset + 2]
        serial = payload[offset + 2 : offset + 2 + (head[1] if len(head) == 2 else 0)]
        if len(head) != 2 or len(serial) != head[1] or head[0] not in names or not serial.isascii():
            raise MalformedError("gpu summary: a device has another form")
        devices.append(MeasuredDevice(kind=names[head[0]], serial=serial.decode("ascii")))
        offset += 2 + len(serial)
    if offset != len(payload):
        raise MalformedError("gpu summary: bytes follow the last device")
    return GpuSummary(
        confidential=payload[1] == 1,
        devtools=payload[2] == 1,
        joined=Joined(payload[3]),
        evidence=payload[4:36],
        devices=tuple(devices),
    )
