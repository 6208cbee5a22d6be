"""Single faults in the evidence of GPUs and switches."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cryptography.x509 import ocsp

from cocoon_attestation.checks import CheckList
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.gpu.report import FeatureFlag, Opaque
from cocoon_enclave.attestation.simulated_gpu import (
    DRIVER_INDICES,
    DRIVER_VERSION,
    VBIOS_INDICES,
    SimulatedDevice,
)
from cocoon_enclave.attestation.simulated_gpu_pki import make_ocsp_response

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.fault_case import Build, Case, World
    from tests.attestation.kit_nvidia import AT, NONCE, Topology, rim, with_rims
else:
    from fault_case import Build, Case, World
    from kit_nvidia import AT, NONCE, Topology, rim, with_rims


def ruled(**rules: Any) -> Build:
    """The healthy GPU under other rules."""
    return lambda world: world.machine.check(rules=rules)[1]


def healthy(world: World) -> CheckList:
    return world.machine.check()[1]


def rule(**rules: Any) -> Case:
    """A case about one rule."""
    return Case(good=healthy, bad=ruled(**rules))


def record(**records: bytes | None) -> Case:
    """A case about what the GPU signs in its opaque records."""

    def bad(world: World) -> CheckList:
        return world.machine.check(*world.machine.evidence(world.machine.opaque(**records)))[1]

    return Case(good=healthy, bad=bad)


def shown(change: Callable[[World, GpuDevice], GpuDevice], **arguments: Any) -> Build:
    """The evidence of the healthy GPU, changed."""

    def build(world: World) -> CheckList:
        [evidence] = world.machine.evidence()
        return world.machine.check(change(world, evidence), **arguments)[1]

    return build


def devices(choose: Callable[[World], list[SimulatedDevice]], **rules: Any) -> Build:
    return lambda world: world.machine.check(*world.machine.evidence(*choose(world)), rules=rules)[1]


def serials(*, own: bool) -> Build:
    def build(world: World) -> CheckList:
        serial = world.machine.check()[0].gpus[0].serial
        return world.machine.check(rules={"serials": frozenset({serial if own else "00"})})[1]

    return build


def other_signature(world: World, evidence: GpuDevice) -> GpuDevice:
    forger = dataclasses.replace(world.machine.gpu, chain=world.nvidia.gpu().chain)
    return dataclasses.replace(evidence, report=forger.report(NONCE))


def old_report(world: World, evidence: GpuDevice) -> GpuDevice:
    return dataclasses.replace(evidence, report=world.machine.gpu.report(b"\x01" * 32))


def revoked(chain: str, at: int) -> Callable[[World, GpuDevice], GpuDevice]:
    """One more answer: the certificate at a place of a chain is revoked."""

    def change(world: World, evidence: GpuDevice) -> GpuDevice:
        certificate, issuer = getattr(world.machine.gpu, chain)[at : at + 2]
        answer = make_ocsp_response(
            certificate.certificate,
            issuer,
            world.nvidia.responder(issuer),
            nonce=NONCE,
            at=AT,
            status=ocsp.OCSPCertStatus.REVOKED,
        )
        return dataclasses.replace(evidence, ocsp_responses=(*evidence.ocsp_responses, answer))

    return change


def manifests(change: Callable[[World, bytes], bytes]) -> Case:
    """A case about the manifest of the driver."""

    def bad(world: World) -> CheckList:
        driver, vbios = world.nvidia.gpu_rims
        return world.machine.check(with_rims(world.machine, change(world, driver), vbios))[1]

    return Case(good=healthy, bad=bad)


def edited_manifest(world: World, driver: bytes) -> bytes:
    return driver.replace(world.machine.gpu.measurements[9].hex().encode(), b"01" * 48)


def other_version(world: World, driver: bytes) -> bytes:
    return rim(world.machine, "590.13", *DRIVER_INDICES)


def second_speaker(world: World, driver: bytes) -> bytes:
    return rim(world.machine, DRIVER_VERSION, *DRIVER_INDICES, VBIOS_INDICES[0])


def other_value(world: World, driver: bytes) -> bytes:
    return rim(world.machine, DRIVER_VERSION, *DRIVER_INDICES, values={9: (b"\x01" * 48,)})


def bare(world: World, evidence: GpuDevice) -> GpuDevice:
    return dataclasses.replace(evidence, rims=(), ocsp_responses=())


def board(*, rewired: bool) -> Build:
    def build(world: World) -> CheckList:
        one = Topology(world.machine)
        if rewired:
            links = one.devices[3].opaque[Opaque.SWITCH_PDI]
            one.rewire(3, Opaque.SWITCH_PDI, b"\x99" * 8 + links[8:])
        return world.machine.check(*world.machine.evidence(*one.devices), rules={"gpu_count": 8})[1]

    return build


def two(world: World) -> list[SimulatedDevice]:
    return [world.machine.gpu, world.nvidia.gpu()]


USUAL = GpuPolicy(gpu_count=1)
LOOSE = {"require_ocsp": False, "require_rims": False}
CASES: dict[str, Case] = {
    "gpu.chain": rule(device_roots=USUAL.device_roots),
    # Answers and manifests would be out of date as well: there are none, and the policy asks for none.
    "gpu.dates": Case(good=healthy, bad=shown(bare, at=AT - dt.timedelta(days=2), rules=LOOSE)),
    "gpu.kind": rule(chips=frozenset({"GB100"})),
    "gpu.serial": Case(good=serials(own=True), bad=serials(own=False)),
    "gpu.fwid": record(FWID=b"\x01" * 48),
    "gpu.ocsp": Case(good=healthy, bad=shown(revoked("chain", 1))),
    "gpu.sig": Case(good=healthy, bad=shown(other_signature)),
    "gpu.nonce": Case(good=healthy, bad=shown(old_report)),
    "gpu.driver": rule(minimum_driver=MappingProxyType({"GH100": "590.13"})),
    "gpu.vbios": rule(minimum_vbios=MappingProxyType({"G520": "96.00.A5.00.02"})),
    "gpu.feature": record(OPAQUE_VERSION=b"\x02\x00"),
    "gpu.rim_chain": rule(rim_roots=USUAL.rim_roots),
    "gpu.rim_sig": manifests(edited_manifest),
    "gpu.rim_ocsp": Case(good=healthy, bad=shown(revoked("rim_chain", 0))),
    "gpu.rim_version": manifests(other_version),
    "gpu.rim_conflict": manifests(second_speaker),
    "gpu.rim_match": manifests(other_value),
    "gpu.count": rule(gpu_count=2),
    "gpu.distinct": Case(
        good=devices(two, gpu_count=2),
        bad=devices(lambda world: [world.machine.gpu] * 2, gpu_count=2),
    ),
    "gpu.mode": Case(
        good=devices(two, gpu_count=2),
        bad=devices(
            lambda world: [world.machine.gpu, world.nvidia.gpu(mode=FeatureFlag.MULTI)], gpu_count=2
        ),
    ),
    "gpu.topology": Case(good=board(rewired=False), bad=board(rewired=True)),
}
