"""What the parts of an appraisal hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cocoon_attestation.binding import (
    KeyBinding,
    gpu_digest,
    gpu_preimage,
    report_data,
    report_data_preimage,
)
from cocoon_attestation.checks import CheckList
from cocoon_attestation.evidence import Evidence
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import AnyRelease, TeeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuResult:
    """What the CPU evidence established; only used if every check passed."""

    tee: TeeKind
    release: AnyRelease
    models: tuple[bytes, ...]
    platform_id: bytes
    expires_at: int
    claims: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredGpus:
    """What the measured software says about GPUs: an event on TDX, the release on SEV-SNP."""

    payload: bytes | None = None
    """Payload of ``cocoon.gpu``; None if there is no log of the right grammar, or on SEV-SNP."""
    count: int | None = None
    """Number of GPUs that the release demands; None on TDX, or if no release was recognised."""
    by_release: bool = False
    """True on SEV-SNP."""


def report_data_inputs(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """All bytes that are hashed on the way from key binding and devices to the report data, for ``--explain``."""
    cell = evidence.binding.cell
    reports = [device.report for device in evidence.devices]
    digest = gpu_digest(reports)
    devices = (("gpu_preimage", gpu_preimage(reports).hex()),) if reports else ()
    return (
        ("binding_cell", cell.representation.hex()),
        ("binding_cell_below", cell.refs[0].representation.hex()),
        ("binding_hash", cell.hash.hex()),
        *devices,
        ("gpu_digest", digest.hex()),
        ("preimage", report_data_preimage(cell.hash, digest).hex()),
        ("expected", report_data(cell.hash, digest, evidence.challenge).hex()),
    )


def check_release(
    binding: KeyBinding, policy: Policy, matched: AnyRelease | None, checks: CheckList
) -> None:
    """The binding must name an allowed release, and the one that was measured if one was recognised."""
    named = policy.release(binding.release_id)
    same = matched is None or matched.release_id == binding.release_id
    detail = (
        f"binding names release {binding.release_id.hex()[:16]}…, which is not allowed"
        if named is None
        else f"binding names {named.name}"
        if same
        else f"binding names {named.name}, but {matched.name if matched else 'none'} was measured"
    )
    checks.record("binding.release", named is not None and same, detail)
