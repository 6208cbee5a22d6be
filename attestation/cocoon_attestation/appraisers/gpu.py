"""Appraisal of device evidence, and of what the measured software says about devices.

The nonce of every device is derived from the key binding and the challenge, the digest of all device
evidence is in the report data of the CPU, and the measured software names the same devices.
"""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime
from typing import Final

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisers.result import MeasuredGpus
from cocoon_attestation.binding import gpu_nonce, gpu_nonce_preimage
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.evidence import Evidence
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import DeviceKind, GpuPolicy
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.gpu.verify import DeviceClaims, GpuClaims, verify_gpu
from cocoon_attestation.gpu_summary import GpuSummary, Joined, MeasuredDevice, parse_gpu_summary
from cocoon_attestation.policy import Policy
from cocoon_attestation.rtmr3 import NO_GPU

_KINDS: Final = {
    evidence_pb2.DEVICE_KIND_GPU: DeviceKind.GPU,
    evidence_pb2.DEVICE_KIND_SWITCH: DeviceKind.SWITCH,
}

_DEVICE: Final = 0x10
"""Stands where a kind of TEE stands in the id of a machine."""

_JOINED: Final = {
    FeatureFlag.SINGLE: Joined.ALONE,
    FeatureFlag.PPCIE: Joined.PROTECTED_PCIE,
    FeatureFlag.MULTI: Joined.NVLINK,
}


def appraise_devices(
    evidence: Evidence,
    policy: Policy,
    measured: MeasuredGpus,
    now: int,
    checks: CheckList,
    *,
    ocsp_nonce: bytes | None = None,
) -> dict[str, object]:
    """Record the checks on devices and return claims on them; empty without devices.

    `ocsp_nonce` is the one that the verifier asked for the revocation answers with, if it asked itself.

    Raises:
        MalformedError: evidence of a device does not parse.
        UnsupportedError: the extra ``gpu`` is not installed.
    """
    summary = _summary(measured.payload)
    rules = policy.gpu
    if rules is not None:
        count = rules.gpu_count or (summary.gpus if summary else measured.count) or None
        rules = dataclasses.replace(
            rules, gpu_count=count, ocsp_nonce=rules.ocsp_nonce if ocsp_nonce is None else ocsp_nonce
        )
    found = _verify(evidence, policy, rules, now, checks)
    if measured.by_release:
        _check_by_release(evidence, measured, checks)
    else:
        _check_by_event(evidence, measured, summary, found, checks)
    return gpu_claims(found) if found is not None else {}


def gpu_claims(claims: GpuClaims) -> dict[str, object]:
    """The claims of devices as a JSON-ready object."""
    modes = {device.mode for device in claims.gpus}
    return {
        "devices": [_device_claims(device) for device in claims.devices],
        "gpu_count": len(claims.gpus),
        "gpu_simulated": claims.simulated,
        "nvlink_encrypted": None
        if FeatureFlag.SINGLE in modes or not modes
        else FeatureFlag.PPCIE not in modes,
    }


def _device_claims(device: DeviceClaims) -> dict[str, object]:
    return {
        "kind": device.kind.value,
        "chip": device.chip,
        "serial": device.serial,
        "platform_id": device_id(device.serial).hex(),
        "driver": device.driver_version,
        "vbios": device.vbios_version,
        "project": device.project,
        "mode": None if device.mode is None else device.mode.name.lower(),
    }


def measured_devices(claims: GpuClaims) -> tuple[MeasuredDevice, ...]:
    """The devices as a summary lists them."""
    return tuple(MeasuredDevice(kind=device.kind.value, serial=device.serial) for device in claims.devices)


def joined(claims: GpuClaims) -> Joined | None:
    """How the GPUs themselves sign that they are joined; None if they do not agree."""
    modes = {device.mode for device in claims.gpus}
    mode = modes.pop() if len(modes) == 1 else None
    return None if mode is None else _JOINED[mode]


def _verify(
    evidence: Evidence, policy: Policy, rules: GpuPolicy | None, now: int, checks: CheckList
) -> GpuClaims | None:
    if not evidence.devices:
        if policy.gpu is not None and policy.gpu.gpu_count is not None:
            checks.record("gpu.count", False, f"no GPU is shown, {policy.gpu.gpu_count} expected")
        return None
    checks.record(
        "gpu.allowed",
        rules is not None,
        f"{len(evidence.devices)} devices; the policy {'has rules for' if rules else 'allows no'} GPUs",
        inputs=(("nonce_preimage", gpu_nonce_preimage(evidence.binding.hash, evidence.challenge).hex()),),
    )
    if rules is None:
        return None
    devices = [
        GpuDevice(
            kind=_KINDS[evidence_pb2.DeviceKind.ValueType(device.kind)],
            report=device.report,
            certificate_chain=device.certificate_chain.encode("ascii"),
            rims=device.rims,
            ocsp_responses=device.ocsp_responses,
        )
        for device in evidence.devices
    ]
    claims, found = verify_gpu(
        devices,
        rules,
        gpu_nonce(evidence.binding.hash, evidence.challenge),
        datetime.fromtimestamp(now, UTC),
    )
    checks.extend(found)
    _check_devices(claims, policy, checks)
    return claims


def device_id(serial: str) -> bytes:
    """The id of a device in deny lists of platforms: H("cocoon/v1/platform" ‖ 0x10 ‖ serial number).

    `serial` is the one of the device certificate, lower-case hex without leading zeros, hashed as text.
    """
    return hashlib.sha256(_device_preimage(serial)).digest()


def _device_preimage(serial: str) -> bytes:
    return b"cocoon/v1/platform" + bytes([_DEVICE]) + serial.encode("ascii")


def _check_devices(claims: GpuClaims, policy: Policy, checks: CheckList) -> None:
    """A registry denies GPUs and switches by the same list as machines."""
    denied = [d.serial for d in claims.devices if device_id(d.serial) in policy.denied_platforms]
    checks.record(
        "policy.device",
        not denied,
        f"device {denied[0]} is denied" if denied else f"{len(claims.devices)} devices, none denied",
        inputs=tuple(
            (f"preimage {index}", _device_preimage(device.serial).hex())
            for index, device in enumerate(claims.devices)
        ),
    )


def _summary(payload: bytes | None) -> GpuSummary | None:
    if payload is None or payload == NO_GPU:
        return None
    try:
        return parse_gpu_summary(payload)
    except MalformedError:
        return None


def _check_by_release(evidence: Evidence, measured: MeasuredGpus, checks: CheckList) -> None:
    """On SEV-SNP the launch digest stands for an image that demands a number of GPUs."""
    if measured.count is None:
        checks.skip("release.gpu", "not made: no release was recognised")
        return
    shown = sum(device.kind == evidence_pb2.DEVICE_KIND_GPU for device in evidence.devices)
    checks.record(
        "release.gpu",
        shown == measured.count and bool(shown) == bool(evidence.devices),
        f"the release demands {measured.count} GPUs, the evidence shows {shown}",
    )


def _check_by_event(
    evidence: Evidence,
    measured: MeasuredGpus,
    summary: GpuSummary | None,
    found: GpuClaims | None,
    checks: CheckList,
) -> None:
    """On TDX the event ``cocoon.gpu`` must name exactly the devices that the evidence shows."""
    payload = measured.payload
    if payload is None:
        checks.skip("rtmr3.gpu", "not made: the log has the wrong grammar")
        return
    shown = measured_devices(found) if found is not None else None
    if payload == NO_GPU:
        same, detail = not evidence.devices, "the guest measured that it has no GPU"
    elif summary is None:
        same, detail = False, "the guest measured a GPU event of another form"
    else:
        same = summary.devices == shown
        detail = (
            f"the guest measured {len(summary.devices)} devices, the evidence shows {len(evidence.devices)}"
        )
    checks.record(
        "rtmr3.gpu",
        same,
        detail,
        inputs=(("payload", payload.hex()), ("devices", str(len(evidence.devices)))),
    )
    if summary is not None:
        agrees = found is None or joined(found) is summary.joined
        checks.record(
            "rtmr3.gpu_mode",
            summary.confidential and not summary.devtools and agrees,
            f"the guest found confidential computing {'on' if summary.confidential else 'off'}, developer tools "
            f"{'on' if summary.devtools else 'off'}, GPUs joined as {summary.joined.name.lower()}"
            f"{'' if agrees else ', which is not what they signed'}",
        )
