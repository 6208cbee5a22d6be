"""What a verifier remembers of the newest statements it saw, so that an older one is noticed later.

While two versions of a statement are both in date, whoever supplies it can choose the older one: a TCB info
before a recovery, a revocation list without the newest entry, firmware before an update. `marks` says how
new everything was that an appraisal rested on; a verifier keeps the highest mark of each subject and refuses
what is below it. See docs/spec/endorsements.md, section 10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.evidence import Evidence, SnpEvidence, TdxEvidence
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.snp.certificates import parse_crl
from cocoon_attestation.snp.report import Product, TcbVersion, parse_snp_report, parse_tcb
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_attestation.verified import VerifiedEnclave

INTEL_SLACK_S: Final = 86_400
"""Nodes refresh collateral at different times of a day."""
AMD_SLACK_S: Final = 7 * 86_400
"""Age at which a kept revocation list of AMD must be fetched again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How new one thing was. Comparable with marks of the same subject only."""

    subject: str
    """For example ``intel/44a0196b/tcb/90c06f000000``."""
    parts: tuple[int, ...]
    """Numbers that grow; each of them counts for itself."""
    slack: tuple[int, ...]
    """How far each may lie below the highest one seen."""

    def older_than(self, seen: tuple[int, ...]) -> bool:
        """True if a part lies below the highest one seen by more than its slack."""
        if len(seen) != len(self.parts):
            return True
        return any(
            own < best - slack for own, best, slack in zip(self.parts, seen, self.slack, strict=True)
        )

    def joined(self, seen: tuple[int, ...] | None) -> tuple[int, ...]:
        """The highest of every part."""
        return self.parts if seen is None else tuple(map(max, self.parts, seen))


def marks(evidence: Evidence, verified: VerifiedEnclave, root_sha256: bytes) -> tuple[Mark, ...]:
    """The marks of evidence that was accepted, with the endorsements that it was accepted by.

    Args:
        evidence: what was appraised; own endorsements already in place.
        verified: the result.
        root_sha256: SHA-256 of the root that counts for Intel's chain; it keeps networks apart.

    Raises:
        MalformedError: never for evidence that was accepted.
    """
    root = root_sha256.hex()[:8]
    cpu = evidence.cpu
    found: list[Mark] = []
    if isinstance(cpu, TdxEvidence):
        found += _tdx(cpu, root)
    elif isinstance(cpu, SnpEvidence):
        found += _snp(cpu, verified.claims, root)
    return (*found, *_devices(verified.claims, root))


def _tdx(cpu: TdxEvidence, root: str) -> Iterable[Mark]:
    if cpu.collateral is None:
        raise MalformedError("accepted TDX evidence has collateral")
    collateral = parse_collateral(cpu.collateral)
    tcb, qe = collateral.tcb_info, collateral.qe_identity
    yield _statement(f"intel/{root}/tcb/{tcb.fmspc.hex()}", tcb.evaluation, tcb.issue_date)
    yield _statement(f"intel/{root}/qe", qe.evaluation, qe.issue_date)
    for crl in (collateral.root_crl, collateral.pck_crl):
        issuer = hashlib.sha256(crl.issuer.public_bytes()).hexdigest()[:16]
        yield Mark(subject=f"intel/{root}/crl/{issuer}", parts=(crl.this_update,), slack=(INTEL_SLACK_S,))


def _statement(subject: str, evaluation: int, issued: int) -> Mark:
    return Mark(subject=subject, parts=(evaluation, issued), slack=(0, INTEL_SLACK_S))


def _snp(cpu: SnpEvidence, claims: Mapping[str, object], root: str) -> Iterable[Mark]:
    product = Product(str(claims["product"]))
    if cpu.crl:
        issued = int(parse_crl(cpu.crl).last_update_utc.timestamp())
        yield Mark(subject=f"amd/{root}/crl/{product.value}", parts=(issued,), slack=(AMD_SLACK_S,))
    if (chip := claims.get("chip_id")) is None:
        return  # a masked chip cannot be told from another
    report = parse_snp_report(cpu.report)
    for name, raw in (("reported", report.reported_tcb), ("committed", report.committed_tcb)):
        parts = _tcb(parse_tcb(product, raw))
        yield Mark(subject=f"amd/{root}/tcb/{name}/{chip}", parts=parts, slack=(0,) * len(parts))


def _tcb(tcb: TcbVersion) -> tuple[int, ...]:
    return (tcb.fmc or 0, tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode)


def _devices(claims: Mapping[str, object], root: str) -> Iterable[Mark]:
    """Firmware of GPUs and switches, which the host can flash. The driver is part of the measured image."""
    listed = claims.get("devices", ())
    for device in listed if isinstance(listed, list) else ():
        version, serial = str(device["vbios"]), str(device["serial"])
        kind = DeviceKind(device["kind"])
        yield Mark(subject=f"nvidia/{root}/{kind.value}/{serial}", parts=(_version(version),), slack=(0,))


def _version(text: str) -> int:
    """A firmware version, bytes in hex with dots between, as one number."""
    try:
        return int.from_bytes(bytes(int(part, 16) for part in text.split(".")))
    except ValueError as error:
        raise MalformedError(f"firmware version of another form: {text[:40]}") from error
