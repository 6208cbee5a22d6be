"""The GPU gate: what the guest measured about its GPUs before it served (payload of ``cocoon.gpu``).

Confidential-computing mode and developer tools are no fields of a device's signed report. So measured
code in the guest asks the driver, appraises the devices itself, and extends the outcome into RTMR3 once.
The enclave makes the payload with `GpuGate.encode`; a verifier reads it with `parse_gpu_gate` and compares
it with the devices of the session by `gate_problem`. Byte layout: docs/spec/gpu-gate.md.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.types import digest32

GATE_VERSION: Final = 1
MAX_GATE_DEVICES: Final = 16
MAX_SERIAL: Final = 40
"""Longest serial number in hex digits: X.509 allows 20 bytes."""
_HEADER: Final = 37
_KINDS: Final = {DeviceKind.GPU: 1, DeviceKind.SWITCH: 2}


class MultiGpu(enum.IntEnum):
    """How the driver joins several GPUs; the number is NVML's ``multiGpuMode``."""

    NONE = 0
    """GPUs that stand alone."""
    PROTECTED_PCIE = 1
    """Hopper: eight GPUs and their switches. NVLink is not encrypted."""
    NVLE = 2
    """Blackwell: several GPUs with encrypted NVLink."""


FEATURE_OF_MODE: Final = {
    MultiGpu.NONE: FeatureFlag.SINGLE,
    MultiGpu.PROTECTED_PCIE: FeatureFlag.PPCIE,
    MultiGpu.NVLE: FeatureFlag.MULTI,
}
"""The feature flag that GPUs sign in each mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDevice:
    """One device that passed the local appraisal."""

    kind: DeviceKind
    serial: str
    """Serial number of the device certificate: 1 to 40 lower-case hex digits."""

    def __post_init__(self) -> None:
        """Check the serial number; raises `MalformedError`."""
        if not 1 <= len(self.serial) <= MAX_SERIAL or self.serial.strip("0123456789abcdef"):
            raise MalformedError(f"gpu gate: serial of 1 to {MAX_SERIAL} lower-case hex digits expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuGate:
    """What the guest found. Authenticated only by the register that its event leads to."""

    confidential: bool
    """Confidential-computing mode is on."""
    developer_tools: bool
    """Developer tools can look inside: must be off."""
    mode: MultiGpu
    evidence_hash: bytes
    """`binding.gpu_digest` of the reports that the guest appraised, 32 bytes; for audits."""
    devices: tuple[GateDevice, ...]
    """1 to 16 devices in the order of the evidence, all different."""

    def __post_init__(self) -> None:
        """Check lengths and counts; raises `MalformedError`."""
        digest32(self.evidence_hash, "gpu gate evidence hash")
        if not 1 <= len(self.devices) <= MAX_GATE_DEVICES:
            raise MalformedError(f"gpu gate: 1 to {MAX_GATE_DEVICES} devices expected")
        if len({device.serial for device in self.devices}) != len(self.devices):
            raise MalformedError("gpu gate: a serial number is listed twice")

    @property
    def gpus(self) -> int:
        """Number of GPUs, without switches."""
        return sum(device.kind is DeviceKind.GPU for device in self.devices)

    def encode(self) -> bytes:
        """The payload of the event ``cocoon.gpu``."""
        head = bytes((GATE_VERSION, self.confidential, self.developer_tools, self.mode))
        entries = (
            bytes((_KINDS[device.kind], len(device.serial))) + device.serial.encode("ascii")
            for device in self.devices
        )
        return head + self.evidence_hash + bytes((len(self.devices),)) + b"".join(entries)


def parse_gpu_gate(payload: bytes) -> GpuGate:
    """Read the payload of ``cocoon.gpu`` of a node with GPUs.

    Raises:
        MalformedError: another version, a value out of range, or bytes missing or left over.
    """
    data = bytes(payload)
    if len(data) < _HEADER or data[0] != GATE_VERSION:
        raise MalformedError("gpu gate: too short, or of an unknown version")
    if data[1] > 1 or data[2] > 1 or data[3] not in {mode.value for mode in MultiGpu}:
        raise MalformedError("gpu gate: a mode is out of range")
    devices, offset = [], _HEADER
    for _ in range(data[36]):
        device, offset = _device(data, offset)
        devices.append(device)
    if offset != len(data):
        raise MalformedError("gpu gate: bytes left over")
    return GpuGate(
        confidential=bool(data[1]),
        developer_tools=bool(data[2]),
        mode=MultiGpu(data[3]),
        evidence_hash=data[4:36],
        devices=tuple(devices),
    )


def gate_problem(
    gate: GpuGate, devices: Sequence[tuple[DeviceKind, str]], feature: FeatureFlag | None
) -> str | None:
    """Say why what was measured at boot does not vouch for the devices of a session, or None.

    Args:
        gate: the measured gate.
        devices: kind and serial number of each device that `gpu.verify.verify_gpu` accepted, in order.
        feature: feature flag that all GPUs of the session signed; None if unknown.
    """
    if not gate.confidential:
        return "confidential-computing mode was off"
    if gate.developer_tools:
        return "developer tools were on"
    if [(device.kind, device.serial) for device in gate.devices] != list(devices):
        return "the session shows other devices than the guest measured"
    if feature is not FEATURE_OF_MODE[gate.mode]:
        return f"the GPUs sign another mode than the measured {gate.mode.name}"
    return None


def _device(data: bytes, offset: int) -> tuple[GateDevice, int]:
    if len(data) < offset + 2:
        raise MalformedError("gpu gate: it ends too early")
    number, size = data[offset], data[offset + 1]
    kind = next((kind for kind, value in _KINDS.items() if value == number), None)
    raw = data[offset + 2 : offset + 2 + size]
    if kind is None or len(raw) != size or not raw.isascii():
        raise MalformedError("gpu gate: unknown kind of device, or it ends too early")
    return GateDevice(kind=kind, serial=raw.decode("ascii")), offset + 2 + size
