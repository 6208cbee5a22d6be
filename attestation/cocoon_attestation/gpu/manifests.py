"""Compares the measurements of one device with its signed manifests (docs/spec/gpu.md)."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from cryptography.x509 import ocsp

from cocoon_attestation.gpu.certificates import DeviceIdentity
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.ocsp import revocation_problem
from cocoon_attestation.gpu.policy import RIM_CHECKS, DeviceKind, GpuPolicy
from cocoon_attestation.gpu.recorder import DeviceRecorder
from cocoon_attestation.gpu.report import GpuReport
from cocoon_attestation.gpu.rim import Rim, UnverifiedRim, parse_rim, rim_chain_problem, verify_rim

NVDEC_INDEX: Final = 35
"""The manifest entry that may differ while the video decoder is off."""


class ManifestReader:
    """Parses and verifies each distinct manifest once, whatever the number of devices that carry it."""

    def __init__(self, policy: GpuPolicy, at: dt.datetime) -> None:
        self._policy = policy
        self._at = at
        self._seen: dict[bytes, tuple[UnverifiedRim, str | None, Rim | str]] = {}

    def read(self, data: bytes) -> tuple[UnverifiedRim, str | None, Rim | str]:
        """The parsed manifest, what is wrong with its chain, and its values or what is wrong with it.

        Raises:
            MalformedError: it does not parse.
            UnsupportedError: the extra ``gpu`` is not installed.
        """
        key = hashlib.sha256(data).digest()
        if key not in self._seen:
            parsed = parse_rim(data)
            problem = rim_chain_problem(parsed, self._policy.rim_roots, self._at)
            self._seen[key] = (parsed, problem, verify_rim(parsed))
        return self._seen[key]


def check_manifests(
    record: DeviceRecorder,
    device: GpuDevice,
    report: GpuReport,
    identity: DeviceIdentity,
    policy: GpuPolicy,
    reader: ManifestReader,
    responses: Sequence[ocsp.OCSPResponse],
    nonce: bytes,
    at: dt.datetime,
) -> None:
    """Append the ``gpu.rim_`` checks of one device.

    Raises:
        MalformedError: a manifest does not parse.
        UnsupportedError: the extra ``gpu`` is not installed.
    """
    if not device.rims:
        for check in sorted(RIM_CHECKS):
            if policy.require_rims:
                record(check, False, "no manifest came with the evidence")
            else:
                record.skip(check, "the policy does not require manifests")
        return
    read = [reader.read(data) for data in device.rims]
    problems = [problem for _, problem, _ in read if problem is not None]
    record("gpu.rim_chain", not problems, problems[0] if problems else f"{len(read)} trusted signers")
    wrong = [value for _, _, value in read if isinstance(value, str)]
    record("gpu.rim_sig", not wrong, wrong[0] if wrong else "the whole manifest is signed")
    _check_signer_revocation(record, [parsed for parsed, _, _ in read], responses, policy, nonce, at)
    rims = [value for _, _, value in read if isinstance(value, Rim)]
    if wrong:
        for check in ("gpu.rim_version", "gpu.rim_conflict", "gpu.rim_match"):
            record.skip(check, "not made: a manifest is not signed as it stands")
        return
    _check_versions(record, rims, device.kind, report, identity)
    _check_values(record, rims, report)


def _check_signer_revocation(
    record: DeviceRecorder,
    rims: Sequence[UnverifiedRim],
    responses: Sequence[ocsp.OCSPResponse],
    policy: GpuPolicy,
    nonce: bytes,
    at: dt.datetime,
) -> None:
    if not responses and not policy.require_ocsp:
        record.skip("gpu.rim_ocsp", "the policy does not require revocation answers")
        return
    for rim in rims:
        problem = revocation_problem(rim.chain, range(len(rim.chain) - 1), responses, nonce, at)
        if problem is not None:
            record("gpu.rim_ocsp", False, problem)
            return
    record("gpu.rim_ocsp", True, "no signer is revoked")


def _check_versions(
    record: DeviceRecorder,
    rims: Sequence[Rim],
    kind: DeviceKind,
    report: GpuReport,
    identity: DeviceIdentity,
) -> None:
    """One manifest for each signed version of the report, and all for this chip."""
    signed = (
        [report.vbios_version]
        if kind is DeviceKind.SWITCH
        else [
            report.driver_version,
            report.vbios_version,
        ]
    )
    expected = sorted((version or "?").casefold() for version in signed)
    found = sorted(rim.version.casefold() for rim in rims)
    chip = identity.chip.replace("_", "")
    same_chip = all(rim.chip.replace("_", "") == chip for rim in rims)
    if report.chip_name:
        same_chip = same_chip and report.chip_name.replace("_", "") == chip
    record(
        "gpu.rim_version",
        expected == found and same_chip,
        f"chip {identity.chip}, reported {', '.join(expected)}; manifests {', '.join(found) or 'none'}",
    )


def _check_values(record: DeviceRecorder, rims: Sequence[Rim], report: GpuReport) -> None:
    indices = [index for rim in rims for index in rim.active]
    shared = sorted({index for index in indices if indices.count(index) > 1})
    record("gpu.rim_conflict", not shared, f"indices active in two manifests: {shared or 'none'}")
    empty = [rim.version for rim in rims if not rim.active]
    wrong = sorted(
        index
        for rim in rims
        for index, allowed in rim.active.items()
        if not _matches(report, index, allowed) and not (index == NVDEC_INDEX and report.nvdec_off)
    )
    record(
        "gpu.rim_match",
        bool(rims) and not empty and not wrong,
        f"{len(indices)} active entries; different: {wrong or 'none'}; empty manifests: {empty or 'none'}",
    )


def _matches(report: GpuReport, index: int, allowed: tuple[bytes, ...]) -> bool:
    if index >= len(report.measurements):
        return False
    return any(hmac.compare_digest(report.measurements[index], value) for value in allowed)
