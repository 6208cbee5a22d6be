"""Checks that the GPUs and switches of one machine belong together in protected PCIe mode.

Each GPU reports the id (PDI) of the switch behind each of its 18 links, in reversed byte order. Each
switch reports its own id and those of the 8 GPUs behind it. The id of a device is also the last 8
bytes of the serial number of its certificate, so a list can be tied to the very chips that signed.
NVLink traffic is NOT encrypted in this mode: whoever can touch the baseboard can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.gpu.report import PDI_SIZE, GpuReport

GPUS: Final = 8
SWITCHES: Final = 4
_ZERO: Final = bytes(PDI_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A device with the serial number of its verified certificate."""

    serial: str
    report: GpuReport

    @property
    def pdi(self) -> bytes:
        """The 8-byte id that follows from the serial number."""
        return bytes.fromhex(self.serial.zfill(2 * PDI_SIZE)[-2 * PDI_SIZE :])


def ppcie_problem(gpus: Sequence[Placed], switches: Sequence[Placed]) -> str | None:
    """Say why the devices are not one machine of 8 GPUs and 4 switches, or None."""
    if len(gpus) != GPUS or len(switches) != SWITCHES:
        return f"{len(gpus)} GPUs and {len(switches)} switches, expected {GPUS} and {SWITCHES}"
    nonces = {device.report.nonce for device in (*gpus, *switches)}
    if len(nonces) != 1:
        return "the reports do not carry one nonce"
    switch_ids: set[bytes] = set()
    for switch in switches:
        if switch.report.switch_pdis != (switch.pdi,):
            return f"switch {switch.serial} reports an id that its certificate does not have"
        switch_ids.add(switch.pdi)
    if len(switch_ids) != SWITCHES:
        return "two switches have one id"
    for gpu in gpus:
        seen = {pdi[::-1] for pdi in gpu.report.switch_pdis if pdi != _ZERO}
        if seen != switch_ids:
            return f"GPU {gpu.serial} is connected to other switches"
    gpu_ids = {gpu.pdi for gpu in gpus}
    for switch in switches:
        if len(switch.report.gpu_pdis) != GPUS or set(switch.report.gpu_pdis) != gpu_ids:
            return f"switch {switch.serial} is connected to other GPUs"
    return None
