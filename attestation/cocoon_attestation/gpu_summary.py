"""The payload of the event ``cocoon.gpu``: what the measured guest saw when it attested its own GPUs.

A signed GPU report does not say whether confidential computing is on or developer tools are off; only
code in the guest can ask the driver. The measured guest asks, refuses to serve otherwise, and extends
what it saw into RTMR3. See docs/spec/appraisal.md, section 6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import exact_bytes

MAX_SUMMARY: Final = 4096
_HEAD: Final = re.compile(r"cocoon-gpu/1 cc=(on|off) devtools=(on|off) evidence=([0-9a-f]{64})", re.ASCII)
_DEVICE: Final = re.compile(
    r"(gpu|switch) ([A-Z0-9_]{2,12}) ([1-9a-f][0-9a-f]{0,63}) ([0-9.]{1,32}|-) ([0-9A-Fa-f.]{1,32}|-)", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLine:
    """One device as its verified report and certificate name it."""

    kind: str
    """``gpu`` or ``switch``."""
    chip: str
    """For example ``GH100``."""
    serial: str
    """Serial number of the device certificate, lower-case hex without leading zeros."""
    driver: str | None
    """Driver version; None for a switch."""
    vbios: str | None
    """VBIOS version, of a switch its BIOS version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSummary:
    """What the guest found. Authentic if the replay of RTMR3 is."""

    confidential: bool
    """True if confidential computing (or protected PCIe) was on for every GPU."""
    devtools: bool
    """True if developer tools were on: the host can then read GPU memory."""
    evidence: bytes
    """SHA-256 over the GPU evidence that the guest checked at boot, 32 bytes; for audits."""
    devices: tuple[DeviceLine, ...]
    """Devices in the order in which evidence shows them."""

    @property
    def gpus(self) -> int:
        """Number of GPUs, switches not counted."""
        return sum(device.kind == "gpu" for device in self.devices)

    def encode(self) -> bytes:
        """The payload: ASCII lines, each with LF at its end.

        Raises:
            MalformedError: a value does not fit the form.
        """
        digest = exact_bytes(self.evidence, 32, "gpu evidence digest").hex()
        onoff = {True: "on", False: "off"}
        lines = [
            f"cocoon-gpu/1 cc={onoff[self.confidential]} devtools={onoff[self.devtools]} evidence={digest}"
        ]
        lines += [
            f"{one.kind} {one.chip} {one.serial} {one.driver or '-'} {one.vbios or '-'}" for one in self.devices
        ]
        payload = "".join(f"{line}\n" for line in lines).encode("ascii", "replace")
        if parse_gpu_summary(payload) != self:
            raise MalformedError("gpu summary: a value does not fit the form")
        return payload


def parse_gpu_summary(payload: bytes) -> GpuSummary:
    """Read the payload of a ``cocoon.gpu`` event that is not ``none``.

    Raises:
        MalformedError: another form, no device, a device listed twice, or more than 4096 bytes.
    """
    if len(payload) > MAX_SUMMARY or not payload.endswith(b"\n") or not payload.isascii():
        raise MalformedError("gpu summary: ASCII lines expected")
    first, *rest = payload[:-1].decode("ascii").split("\n")
    head = _HEAD.fullmatch(first)
    found = [_DEVICE.fullmatch(line) for line in rest]
    if head is None or not found or None in found:
        raise MalformedError("gpu summary: a line has another form")
    devices = tuple(
        DeviceLine(kind=m[1], chip=m[2], serial=m[3], driver=_value(m[4]), vbios=_value(m[5]))
        for m in found
        if m is not None
    )
    if len({device.serial for device in devices}) != len(devices):
        raise MalformedError("gpu summary: a device is listed twice")
    return GpuSummary(
        confidential=head[1] == "on",
        devtools=head[2] == "on",
        evidence=bytes.fromhex(head[3]),
        devices=devices,
    )


def _value(text: str) -> str | None:
    return None if text == "-" else text
