"""Decides whether NVIDIA GPUs and switches are genuine, fresh, current and of one machine.

No network, no clock: revocation answers and manifests come with the evidence, the time is given.
Order (docs/spec/gpu.md): parse, authenticate, then compare what the devices signed with the policy.
Confidential-computing mode itself is not a field of the signed report: only measured code in the guest
can tell it (event ``cocoon.gpu`` in RTMR3).
"""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu import certificates as certs
from cocoon_attestation.gpu.certificates import DeviceIdentity
from cocoon_attestation.gpu.evidence import MAX_DEVICES, MAX_RIMS, GpuDevice
from cocoon_attestation.gpu.manifests import ManifestReader, check_manifests
from cocoon_attestation.gpu.ocsp import MAX_RESPONSES, OcspAnswer, RevocationReader
from cocoon_attestation.gpu.policy import DeviceKind, GpuPolicy
from cocoon_attestation.gpu.recorder import DeviceRecorder
from cocoon_attestation.gpu.report import (
    GPU_BLOCKS,
    NONCE_SIZE,
    FeatureFlag,
    GpuReport,
    Opaque,
    parse_gpu_report,
)
from cocoon_attestation.gpu.topology import Placed, ppcie_problem
from cocoon_attestation.gpu.versions import driver_at_least, vbios_at_least
from cocoon_attestation.roots.nvidia import DEVICE_ROOT_SHA256

_SWITCH_CHIP: Final = "LS"
_GENUINE: Final = bytes.fromhex(DEVICE_ROOT_SHA256)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClaims:
    """What one device says, in the order of the evidence."""

    kind: DeviceKind
    chip: str
    serial: str
    """Identity of the chip: hex serial number of its certificate."""
    driver_version: str | None
    vbios_version: str | None
    project: str | None
    mode: FeatureFlag | None
    """None for a switch, or for a flag that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuClaims:
    """What the evidence says. Meaningful only if the `CheckList` beside it has no failed check."""

    devices: tuple[DeviceClaims, ...]
    simulated: bool
    """True if a chain does not lead to NVIDIA's own root."""

    @property
    def gpus(self) -> tuple[DeviceClaims, ...]:
        """The GPUs without the switches."""
        return tuple(device for device in self.devices if device.kind is DeviceKind.GPU)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    device: GpuDevice
    report: GpuReport
    chain: tuple[x509.Certificate, ...]
    identity: DeviceIdentity
    responses: tuple[OcspAnswer, ...]

    @property
    def placed(self) -> Placed:
        return Placed(serial=self.identity.serial, report=self.report)


def verify_gpu(
    devices: Sequence[GpuDevice], policy: GpuPolicy, nonce: bytes, at: dt.datetime
) -> tuple[GpuClaims, CheckList]:
    """Verify the evidence of all devices of one machine at the time `at` (timezone-aware).

    `nonce` are the 32 bytes the verifier expects in every request.

    Raises:
        MalformedError: an input does not parse. Everything else is a failed check in the list.
        UnsupportedError: manifests are present and the extra ``gpu`` is not installed.
    """
    if at.tzinfo is None:
        raise ValueError("`at` needs a time zone")
    if len(nonce) != NONCE_SIZE:
        raise ValueError("the GPU nonce has 32 bytes")
    if len(devices) > MAX_DEVICES:
        raise MalformedError(f"more than {MAX_DEVICES} devices")
    revocation = RevocationReader(policy.ocsp_nonce or nonce, at)
    parsed = [_parse(device, revocation) for device in devices]
    checks = CheckList()
    reader = ManifestReader(policy, at)
    for number, one in enumerate(parsed):
        record = DeviceRecorder(checks=checks, device=f"{one.device.kind} {number}")
        _check_identity(record, one, policy, at)
        _check_revocation(record, one, policy, revocation)
        _check_report(record, one, nonce)
        _check_firmware(record, one, policy)
        check_manifests(
            record,
            one.device,
            one.report,
            one.identity,
            policy,
            reader,
            one.responses,
            revocation,
        )
    _check_machine(checks, parsed, policy)
    return _claims(parsed), checks


def _parse(device: GpuDevice, revocation: RevocationReader) -> _Parsed:
    if len(device.rims) > MAX_RIMS or len(device.ocsp_responses) > MAX_RESPONSES:
        raise MalformedError("a device has too many manifests or OCSP responses")
    report = parse_gpu_report(device.report)
    is_gpu = len(report.measurements) == GPU_BLOCKS
    if is_gpu is not (device.kind is DeviceKind.GPU) or Opaque.VBIOS_VERSION not in report.opaque:
        raise MalformedError(f"the report is not one of a {device.kind}")
    if is_gpu and (report.driver_version is None or report.project is None):
        raise MalformedError("the GPU report names no driver or no board")
    chain = certs.parse_pem_chain(device.certificate_chain)
    return _Parsed(
        device=device,
        report=report,
        chain=chain,
        identity=certs.device_identity(chain),
        responses=tuple(revocation.parse(data) for data in device.ocsp_responses),
    )


def _check_identity(record: DeviceRecorder, one: _Parsed, policy: GpuPolicy, at: dt.datetime) -> None:
    identity = one.identity
    problem = certs.chain_problem(one.chain, policy.device_roots)
    record("gpu.chain", problem is None, problem or f"{identity.chip} {identity.serial}")
    problem = certs.dates_problem(one.chain, at)
    record("gpu.dates", problem is None, problem or f"all certificates valid at {at:%Y-%m-%d}")
    is_switch = identity.chip.startswith(_SWITCH_CHIP)
    right_kind = is_switch is (one.device.kind is DeviceKind.SWITCH)
    record("gpu.kind", right_kind and identity.chip in policy.chips, f"chip {identity.chip}")
    if policy.serials or policy.denied_serials:
        listed = not policy.serials or identity.serial in policy.serials
        record("gpu.serial", listed and identity.serial not in policy.denied_serials, identity.serial)
    reported = one.report.fwid
    if reported is None:
        # LS10 firmware reports none at all; its certified one is the same for every switch.
        allowed = one.device.kind is DeviceKind.SWITCH or policy.allow_missing_fwid
        record("gpu.fwid", allowed, "the report names no firmware id")
    else:
        same = identity.fwid is not None and hmac.compare_digest(reported, identity.fwid)
        record("gpu.fwid", same, f"reported firmware id {reported.hex()}")


def _check_revocation(
    record: DeviceRecorder, one: _Parsed, policy: GpuPolicy, revocation: RevocationReader
) -> None:
    if not one.responses and not policy.require_ocsp:
        record.skip("gpu.ocsp", "the policy does not require revocation answers")
        return
    # The leaf is made by the device itself and the root is pinned: nobody can speak about those.
    positions = range(1, len(one.chain) - 1)
    problem = revocation.problem(one.chain, positions, one.responses)
    record("gpu.ocsp", problem is None, problem or "no certificate is revoked")


def _check_report(record: DeviceRecorder, one: _Parsed, nonce: bytes) -> None:
    record(
        "gpu.sig",
        _signature_valid(one),
        "ECDSA P-384 over request and response",
        (("signed", one.report.signed.hex()), ("signature", one.report.signature.hex())),
    )
    fresh = hmac.compare_digest(one.report.nonce, nonce)
    record("gpu.nonce", fresh, f"request nonce {one.report.nonce.hex()}", (("expected", nonce.hex()),))


def _signature_valid(one: _Parsed) -> bool:
    key = certs.p384_key(one.chain[0])
    r = int.from_bytes(one.report.signature[:48], "big")
    s = int.from_bytes(one.report.signature[48:], "big")
    if key is None or r == 0 or s == 0:
        return False
    try:
        key.verify(encode_dss_signature(r, s), one.report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def _check_firmware(record: DeviceRecorder, one: _Parsed, policy: GpuPolicy) -> None:
    report, vbios = one.report, one.report.vbios_version
    if one.device.kind is DeviceKind.SWITCH:
        if policy.minimum_switch:
            ok = vbios_at_least(vbios, policy.minimum_switch)
            record("gpu.vbios", ok, f"switch BIOS {vbios}, minimum {policy.minimum_switch}")
        else:
            record.skip("gpu.vbios", "the policy sets no minimum")
        return
    if policy.minimum_driver:
        minimum = policy.minimum_driver.get(one.identity.chip)
        ok = minimum is not None and driver_at_least(report.driver_version, minimum)
        record("gpu.driver", ok, f"driver {report.driver_version}, minimum {minimum or 'not set'}")
    else:
        record.skip("gpu.driver", "the policy sets no minimum")
    if policy.minimum_vbios:
        minimum = policy.minimum_vbios.get(report.project or "")
        ok = minimum is not None and vbios_at_least(vbios, minimum)
        record(
            "gpu.vbios", ok, f"VBIOS {vbios} of project {report.project}, minimum {minimum or 'not set'}"
        )
    else:
        record.skip("gpu.vbios", "the policy sets no minimum")
    mode = _mode(report)
    known = report.opaque_version is None or report.opaque_version in policy.opaque_versions
    consistent = (
        report.feature_flag is None
        or Opaque.PPCIE_STATUS not in report.opaque
        or (report.feature_flag == FeatureFlag.PPCIE) is report.ppcie
    )
    record(
        "gpu.feature",
        known and consistent and mode is not None and mode in policy.modes,
        f"opaque version {report.opaque_version}, feature flag {report.feature_flag}, "
        f"protected PCIe {'on' if report.ppcie else 'off'}",
    )


def _mode(report: GpuReport) -> FeatureFlag | None:
    """The feature flag; older firmware has none and shows only the protected PCIe status."""
    if report.feature_flag is None:
        return FeatureFlag.PPCIE if report.ppcie else FeatureFlag.SINGLE
    try:
        return FeatureFlag(report.feature_flag)
    except ValueError:
        return None


def _check_machine(checks: CheckList, parsed: Sequence[_Parsed], policy: GpuPolicy) -> None:
    record = DeviceRecorder(checks=checks, device="machine")
    gpus = [one for one in parsed if one.device.kind is DeviceKind.GPU]
    switches = [one for one in parsed if one.device.kind is DeviceKind.SWITCH]
    if policy.gpu_count is None:
        record.skip("gpu.count", f"{len(gpus)} GPUs, the policy names no number")
    else:
        record("gpu.count", len(gpus) == policy.gpu_count, f"{len(gpus)} GPUs of {policy.gpu_count}")
    serials = {one.identity.serial for one in parsed}
    record("gpu.distinct", bool(parsed) and len(serials) == len(parsed), f"{len(serials)} distinct chips")
    modes = {_mode(one.report) for one in gpus}
    record(
        "gpu.mode",
        len(modes) <= 1,
        "modes: " + ", ".join(sorted(m.name if m is not None else "unknown" for m in modes)),
    )
    if FeatureFlag.PPCIE not in modes and not switches:
        return
    if not (gpus and switches) and not policy.require_switches:
        record.skip("gpu.topology", "the policy does not require the evidence of both GPUs and switches")
        return
    problem = ppcie_problem([one.placed for one in gpus], [one.placed for one in switches])
    record("gpu.topology", problem is None, problem or "8 GPUs behind 4 switches")


def _claims(parsed: Sequence[_Parsed]) -> GpuClaims:
    return GpuClaims(
        devices=tuple(
            DeviceClaims(
                kind=one.device.kind,
                chip=one.identity.chip,
                serial=one.identity.serial,
                driver_version=one.report.driver_version,
                vbios_version=one.report.vbios_version,
                project=one.report.project,
                mode=_mode(one.report) if one.device.kind is DeviceKind.GPU else None,
            )
            for one in parsed
        ),
        simulated=any(one.chain[-1].fingerprint(hashes.SHA256()) != _GENUINE for one in parsed),
    )
