"""Compares the measurements of one device with its signed manifests (docs/spec/gpu.md)."""

from __future__ import annotations

import datetime as dt
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Final

from cryptography import x509

from cocoon_attestation.gpu.certificates import DeviceIdentity
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.ocsp import OcspAnswer, RevocationReader
from cocoon_attestation.gpu.policy import RIM_CHECKS, DeviceKind, GpuPolicy
from cocoon_attestation.gpu.recorder import DeviceRecorder
from cocoon_attestation.gpu.report import GpuReport
from cocoon_attestation.gpu.rim import Rim, parse_rim, rim_chain_problem, verify_rim

NVDEC_INDEX: Final = 35
"""The manifest entry that may differ while the video decoder is off."""


Signer = tuple[x509.Certificate, ...]


class ManifestReader:
    """Parses and verifies each distinct manifest once, whatever the number of devices that carry it."""

    def __init__(self, policy: GpuPolicy, at: dt.datetime) -> None:
        self._policy = policy
        self._at = at
        self._seen: dict[bytes, tuple[Signer, str | None, Rim | str]] = {}

    def read(self, data: bytes) -> tuple[Signer, str | None, Rim | str]:
        """The signer's chain, what is wrong with it, and the values or what is wrong with the signature.

        Raises:
            MalformedError: it does not parse.
            UnsupportedError: the extra ``gpu`` is not installed.
        """
        seen = self._seen.get(data)
        if seen is None:
            chain, values = _read(data)
            problem = rim_chain_problem(chain, self._policy.rim_roots, self._at)
            seen = self._seen[data] = (chain, problem, values)
        return seen


@functools.lru_cache(maxsize=32)
def _read(data: bytes) -> tuple[Signer, Rim | str]:
    """The chain in a manifest, and what its first certificate signed: both follow from the bytes alone.

    Every machine with one driver sends the same manifests, so results are kept. Whether the signer is
    trusted depends on policy and time and is asked anew in every appraisal.
    """
    parsed = parse_rim(data)
    return parsed.chain, verify_rim(parsed)


def check_manifests(
    record: DeviceRecorder,
    device: GpuDevice,
    report: GpuReport,
    identity: DeviceIdentity,
    policy: GpuPolicy,
    reader: ManifestReader,
    responses: Sequence[OcspAnswer],
    revocation: RevocationReader,
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
    _check_signer_revocation(record, [chain for chain, _, _ in read], responses, policy, revocation)
    rims = [value for _, _, value in read if isinstance(value, Rim)]
    if wrong:
        for check in ("gpu.rim_version", "gpu.rim_conflict", "gpu.rim_match"):
            record.skip(check, "not made: a manifest is not signed as it stands")
        return
    _check_versions(record, rims, device.kind, report, identity)
    _check_values(record, rims, report)


def _check_signer_revocation(
    record: DeviceRecorder,
    chains: Sequence[Signer],
    responses: Sequence[OcspAnswer],
    policy: GpuPolicy,
    revocation: RevocationReader,
) -> None:
    if not responses and not policy.require_ocsp:
        record.skip("gpu.rim_ocsp", "the policy does not require revocation answers")
        return
    for chain in chains:
        problem = revocation.problem(chain, range(len(chain) - 1), responses)
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
    counts = Counter(index for rim in rims for index in rim.active)
    shared = sorted(index for index, count in counts.items() if count > 1)
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
        f"{counts.total()} active entries; different: {wrong or 'none'}; empty manifests: {empty or 'none'}",
        tuple(
            (f"index {index}", report.measurements[index].hex())
            for index in sorted(counts)
            if index < len(report.measurements)
        ),
    )


def _matches(report: GpuReport, index: int, allowed: tuple[bytes, ...]) -> bool:
    if index >= len(report.measurements):
        return False
    return report.measurements[index] in allowed
