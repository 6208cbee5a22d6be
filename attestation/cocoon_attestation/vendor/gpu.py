"""Raw NVIDIA evidence: a report with its chain, or lists of them, with manifests and revocation answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cocoon_attestation.appraisers.gpu import gpu_claims
from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.certificates import parse_pem_chain
from cocoon_attestation.gpu.evidence import GpuDevice, parse_evidence_list
from cocoon_attestation.gpu.ocsp import OcspAnswer, parse_ocsp
from cocoon_attestation.gpu.policy import RIM_CHECKS, DeviceKind, GpuPolicy
from cocoon_attestation.gpu.report import GPU_BLOCKS, parse_gpu_report
from cocoon_attestation.gpu.rim import UnverifiedRim, parse_rim
from cocoon_attestation.gpu.verify import verify_gpu
from cocoon_attestation.policy import Policy
from cocoon_attestation.vendor.outcome import Outcome, judge

_SWITCH_CHIP: Final = "LS"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """What is expected of raw GPU evidence."""

    nonce: bytes
    """32 bytes that every request must carry."""
    policy: Policy | None = None
    """Rules of a session; None: are the devices genuine, fresh and distinct?"""
    hardware_only: bool = False
    """Accept without manifests: the verdict then says nothing about firmware and driver."""
    ocsp_nonce: bytes | None = None
    """32-byte nonce of the OCSP requests; None: `nonce`."""


def read_devices(data: bytes, chain: bytes | None) -> tuple[GpuDevice, ...]:
    """Devices in a file: NVIDIA's JSON list, or one raw report with its `chain` in PEM.

    Raises:
        MalformedError: neither.
        ConfigError: a raw report without a chain.
    """
    if data[:64].lstrip()[:1] in (b"[", b"{"):
        return parse_evidence_list(data)
    report = parse_gpu_report(data)
    if chain is None:
        raise ConfigError("a raw report needs its certificate chain", hint="give --chain PEM")
    kind = DeviceKind.GPU if len(report.measurements) == GPU_BLOCKS else DeviceKind.SWITCH
    return (GpuDevice(kind=kind, report=data, certificate_chain=chain),)


def verify_raw_gpu(
    devices: Sequence[GpuDevice],
    rims: Sequence[bytes],
    answers: Sequence[bytes],
    options: GpuOptions,
    now: int,
) -> Outcome:
    """Judge devices at Unix time `now`.

    Args:
        devices: reports and chains.
        rims: manifests for any of the devices, XML.
        answers: OCSP responses for any of the certificates, DER.
        options: what is expected.
        now: Unix time in seconds.

    Raises:
        MalformedError: an input does not parse.
        UnsupportedError: there are manifests and the extra ``gpu`` is not installed.
        ConfigError: the policy allows no GPU, or a nonce has another length than 32 bytes.
    """
    if len(options.nonce) != 32:
        raise ConfigError("the GPU nonce has 32 bytes")
    rules = _rules(options)
    equipped = _equip(devices, rims, answers)
    claims, checks = verify_gpu(equipped, rules, options.nonce, datetime.fromtimestamp(now, UTC))
    waived = rules.waived - (frozenset() if options.hardware_only else RIM_CHECKS - {"gpu.rim_ocsp"})
    warnings = []
    if claims.simulated and not checks.failed:
        warnings.append("SIMULATED: the policy names a development root")
    skipped = {check.id for check in checks.skipped}
    return Outcome(
        kind="gpu-evidence",
        verdict=judge(checks, waived),
        checks=checks,
        waived=waived,
        scope="hardware" if "gpu.rim_match" in skipped else "hardware and firmware",
        claims=gpu_claims(claims),
        warnings=tuple(warnings),
        simulated=claims.simulated,
        policy_digest=None if options.policy is None else options.policy.digest,
    )


def _rules(options: GpuOptions) -> GpuPolicy:
    if options.policy is None:
        return dataclasses.replace(GpuPolicy.dangerous_genuine_only(), ocsp_nonce=options.ocsp_nonce)
    if options.policy.gpu is None:
        raise ConfigError("the policy allows no GPU", hint="give it a table [gpu]")
    return dataclasses.replace(
        options.policy.gpu, ocsp_nonce=options.ocsp_nonce or options.policy.gpu.ocsp_nonce
    )


def _equip(
    devices: Sequence[GpuDevice], rims: Sequence[bytes], answers: Sequence[bytes]
) -> list[GpuDevice]:
    """Give every device the manifests of its kind, and the answers about its certificates.

    Names read here are not authenticated: they only sort. Verification decides what fits.
    """
    manifests = [(data, parse_rim(data)) for data in rims]
    responses = [(data, parse_ocsp(data)) for data in answers]
    equipped = []
    for device in devices:
        own = [(data, rim) for data, rim in manifests if _is_for(rim, device.kind)]
        serials = {one.serial_number for one in parse_pem_chain(device.certificate_chain)}
        serials |= {one.serial_number for _, rim in own for one in rim.chain}
        equipped.append(
            dataclasses.replace(
                device,
                rims=(*device.rims, *(data for data, _ in own)),
                ocsp_responses=(*device.ocsp_responses, *_about(responses, serials)),
            )
        )
    if manifests and not any(device.rims for device in equipped):
        raise MalformedError("no manifest is for a device of this kind")
    return equipped


def _about(responses: Sequence[tuple[bytes, OcspAnswer]], serials: set[int]) -> tuple[bytes, ...]:
    return tuple(data for data, response in responses if response.serial in serials)


def _is_for(rim: UnverifiedRim, kind: DeviceKind) -> bool:
    switch = rim.claimed_name.startswith(_SWITCH_CHIP)
    return switch is (kind is DeviceKind.SWITCH)
