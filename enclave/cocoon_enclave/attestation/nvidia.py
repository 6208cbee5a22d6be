"""NVIDIA GPUs of a real node: the gate at boot, and evidence for every challenge.

The driver's word about confidential-computing mode and developer tools is not in any signed report, so
the measured guest asks, appraises its own devices, refuses what a client would refuse, and only then lets
the GPUs take work. What it found goes into RTMR3 (docs/spec/gpu-gate.md).
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisers.gpu import joined, measured_devices
from cocoon_attestation.binding import gpu_digest
from cocoon_attestation.errors import (
    EvidenceRejectedError,
    MalformedError,
    UnavailableError,
    UnsupportedError,
)
from cocoon_attestation.gpu.certificates import device_identity, parse_pem_chain
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import DeviceKind, GpuPolicy
from cocoon_attestation.gpu.report import NONCE_SIZE, parse_gpu_report
from cocoon_attestation.gpu.verify import GpuClaims, verify_gpu
from cocoon_attestation.gpu_summary import GpuSummary, Joined
from cocoon_attestation.types import exact_bytes
from cocoon_enclave.attestation.gpu_endorsements import GpuEndorser
from cocoon_enclave.attestation.nvml import (
    NO_GPU_HINT,
    DriverState,
    Nvml,
    RawDevice,
    SwitchReader,
)

_LOG: Final = logging.getLogger(__name__)
_KINDS: Final = {
    DeviceKind.GPU: evidence_pb2.DEVICE_KIND_GPU,
    DeviceKind.SWITCH: evidence_pb2.DEVICE_KIND_SWITCH,
}


class NvidiaGpus:
    """The GPUs and switches of this node. Pass the gate once with `summary`, then ask `evidence`."""

    def __init__(
        self,
        nvml: Nvml,
        *,
        policy: GpuPolicy,
        endorser: GpuEndorser,
        clock: Callable[[], float],
        switches: SwitchReader | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            nvml: the driver.
            policy: rules for the guest's own check, with the exact number of GPUs; as strict as clients are.
            endorser: manifests and revocation answers.
            clock: Unix time in seconds.
            switches: reads NVLink switches; needed in protected PCIe mode.

        Raises:
            UnsupportedError: the policy leaves checks out: a gate that does not look is none.
        """
        if policy.waived:
            raise UnsupportedError(
                f"the GPU gate must make every check, {sorted(policy.waived)[0]} is left out"
            )
        self._nvml = nvml
        self._policy = policy
        self._endorser = endorser
        self._clock = clock
        self._switches = switches
        self._passed: tuple[DriverState, tuple[str, ...]] | None = None

    def summary(self, boot_nonce: bytes) -> bytes:
        """Pass the gate: appraise all devices, let them take work, and say what was found.

        Args:
            boot_nonce: 32 random bytes of the guest's own.

        Returns:
            The payload of the event ``cocoon.gpu``.

        Raises:
            UnsupportedError: a mode is not acceptable, or the driver cannot do this.
            EvidenceRejectedError: a device does not pass; `checks` say why.
            UnavailableError: driver, manifests or revocation answers cannot be had.
        """
        nonce = exact_bytes(boot_nonce, NONCE_SIZE, "boot nonce")
        self._passed = None
        self._nvml.set_ready(False)
        state = self._state()
        shown = self._endorser.endorse(self._read(state, nonce), nonce)
        claims = self._appraise(shown, nonce)
        _check_mode(state, claims)
        self._nvml.set_ready(True)
        if not self._nvml.is_ready():
            raise UnavailableError("the driver does not let the GPUs take work", hint=NO_GPU_HINT)
        self._passed = (state, tuple(device.serial for device in claims.devices))
        return GpuSummary(
            confidential=state.protected,
            devtools=state.devtools,
            joined=state.joined,
            evidence=gpu_digest([device.report for device in shown]),
            devices=measured_devices(claims),
        ).encode()

    def evidence(self, nonce: bytes, *, complete: bool = True) -> list[evidence_pb2.DeviceEvidence]:
        """Evidence of every device for a nonce of 32 bytes; a `DeviceSource`.

        If mode or devices changed, the GPUs take no more work.

        Args:
            nonce: 32 bytes that every device signs.
            complete: if false, and manifests or revocation answers cannot be had, none are stapled: the
                client that asks can get its own.

        Raises:
            UnsupportedError: the gate was not passed, or mode or devices changed since.
            UnavailableError: the driver did not answer, or manifests or answers cannot be had.
        """
        if self._passed is None:
            raise UnsupportedError("the GPUs have not passed the gate", hint=NO_GPU_HINT)
        wanted = exact_bytes(nonce, NONCE_SIZE, "GPU nonce")
        try:
            state = self._state()
            read = self._read(state, wanted)
            if (state, tuple(_serial(device) for device in read)) != self._passed:
                raise UnsupportedError(
                    "mode or devices changed since the guest measured them: no client would accept this node",
                    hint="start the guest again",
                )
        except UnsupportedError:
            self._passed = None
            self._nvml.set_ready(False)
            raise
        try:
            shown: Sequence[GpuDevice] = self._endorser.endorse(read, wanted)
        except UnavailableError as error:
            if complete:
                raise
            _LOG.warning("GPU evidence goes out without endorsements: %s", error)
            shown = read
        return [
            evidence_pb2.DeviceEvidence(
                kind=_KINDS[device.kind],
                report=device.report,
                certificate_chain=device.certificate_chain.decode("ascii"),
                rims=device.rims,
                ocsp_responses=device.ocsp_responses,
            )
            for device in shown
        ]

    def _state(self) -> DriverState:
        state = self._nvml.state()
        problem = (
            "CPU or GPUs cannot do confidential computing"
            if not state.capable
            else "the environment is not production"
            if not state.production
            else "confidential-computing mode is off"
            if not state.protected
            else "developer tools are on"
            if state.devtools
            else None
        )
        if problem is not None:
            raise UnsupportedError(f"the GPUs are not protected: {problem}", hint=NO_GPU_HINT)
        if state.joined is Joined.PROTECTED_PCIE and self._switches is None:
            raise UnsupportedError(
                "protected PCIe mode needs the evidence of the switches, which cannot be read here"
            )
        return state

    def _read(self, state: DriverState, nonce: bytes) -> list[GpuDevice]:
        devices = [_device(DeviceKind.GPU, raw, nonce) for raw in self._nvml.gpus(nonce)]
        if state.joined is Joined.PROTECTED_PCIE and self._switches is not None:
            devices += [_device(DeviceKind.SWITCH, raw, nonce) for raw in self._switches.switches(nonce)]
        return devices

    def _appraise(self, devices: Sequence[GpuDevice], nonce: bytes) -> GpuClaims:
        at = datetime.fromtimestamp(self._clock(), UTC)
        try:
            claims, checks = verify_gpu(devices, self._policy, nonce, at)
        except MalformedError as error:
            raise UnavailableError(f"a device gave no usable evidence: {error}") from error
        if not checks.accepted:
            fault = (*checks.failed, *checks.skipped)[0]
            raise EvidenceRejectedError(
                f"the GPUs do not pass this node's own check: {fault.id}: {fault.detail}",
                checks=checks,
                hint="no client would accept them either; update driver, firmware or manifests",
            )
        return claims


def _device(kind: DeviceKind, raw: RawDevice, nonce: bytes) -> GpuDevice:
    """A device whose report answers our nonce."""
    try:
        report = parse_gpu_report(raw.report)
    except MalformedError as error:
        raise UnavailableError(f"a device gave no usable report: {error}") from error
    if not hmac.compare_digest(report.nonce, nonce):
        raise UnavailableError("a device answered another request", hint="try again")
    return GpuDevice(kind=kind, report=raw.report, certificate_chain=raw.certificate_chain)


def _serial(device: GpuDevice) -> str:
    return device_identity(parse_pem_chain(device.certificate_chain)).serial


def _check_mode(state: DriverState, claims: GpuClaims) -> None:
    """What the GPUs signed must be the mode that the driver reports."""
    signed = joined(claims)
    if signed is not state.joined:
        shown = "several" if signed is None else signed.name
        raise UnsupportedError(
            f"the driver reports {state.joined.name}, the GPUs sign {shown}: how they are joined is not clear"
        )
