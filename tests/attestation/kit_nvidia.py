"""Simulated GPUs and switches for tests, with a place for every fault."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from cocoon_attestation.checks import CheckList
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.gpu.report import Opaque
from cocoon_attestation.gpu.verify import GpuClaims, verify_gpu
from cocoon_enclave.attestation.simulated_gpu import SimulatedDevice, SimulatedNvidia

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)
NONCE = b"\x4e" * 32


class Machine:
    """Simulated devices; `check` verifies them, `failed` names what was refused."""

    def __init__(self, vendor: SimulatedNvidia) -> None:
        self.vendor = vendor
        self.gpu = vendor.gpu()

    def evidence(self, *devices: SimulatedDevice) -> tuple[GpuDevice, ...]:
        return self.vendor.evidence(devices or (self.gpu,), NONCE, now=NOW)

    def rules(self, **changes: Any) -> GpuPolicy:
        return dataclasses.replace(self.vendor.policy(gpu_count=1), **changes)

    def check(
        self,
        *evidence: GpuDevice,
        rules: dict[str, Any] | None = None,
        nonce: bytes = NONCE,
        at: dt.datetime = AT,
    ) -> tuple[GpuClaims, CheckList]:
        return verify_gpu(evidence or self.evidence(), self.rules(**(rules or {})), nonce, at)

    def failed(self, *evidence: GpuDevice, **arguments: Any) -> list[str]:
        _, checks = self.check(*evidence, **arguments)
        assert not checks.accepted
        return [check.id for check in checks.failed]

    def opaque(self, **changes: bytes | None) -> SimulatedDevice:
        """The GPU with opaque records replaced by name, or removed with None."""
        records = dict(self.gpu.opaque)
        for name, value in changes.items():
            if value is None:
                del records[Opaque[name]]
            else:
                records[Opaque[name]] = value
        return dataclasses.replace(self.gpu, opaque=records)


class Topology:
    """A board whose wiring can be changed."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.devices = list(machine.vendor.board())

    def failed(self) -> list[str]:
        evidence = self.machine.evidence(*self.devices)
        return self.machine.failed(*evidence, rules={"gpu_count": 8})

    def rewire(self, index: int, record: Opaque, value: bytes) -> None:
        one = self.devices[index]
        self.devices[index] = dataclasses.replace(one, opaque={**one.opaque, record: value})


def with_rims(machine: Machine, *rims: bytes, device: SimulatedDevice | None = None) -> GpuDevice:
    [evidence] = machine.evidence(device or machine.gpu)
    return dataclasses.replace(evidence, rims=rims)


def rim(machine: Machine, version: str, *indices: int, **changes: Any) -> bytes:
    values = {index: (machine.gpu.measurements[index],) for index in indices}
    return machine.vendor.rim(version, {**values, **changes.pop("values", {})}, **changes)
