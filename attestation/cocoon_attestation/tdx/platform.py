"""TDX platforms: certificate paths and TCB level by `dcap-qvl`, then our own gates on its answer.

The library returns normally for outdated platforms, so the status is judged here; and what it read from
the quote is compared with what our own parser read. Rules: docs/spec/appraisal.md, section 2.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.policy import UP_TO_DATE, Policy
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.tdx.collateral import Collateral, SignedStatement
from cocoon_attestation.tdx.dcap import DcapError, DcapResult, dcap_verify
from cocoon_attestation.tdx.quote import Quote

LIBRARY_CHECKS: Final = ("tdx.chain", "tdx.tcb", "tdx.consistency", "tdx.platform")
"""Checks that need the library's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxPlatform:
    """What an authentic quote says about the platform."""

    platform_id: bytes
    """H("cocoon/v1/platform" ‖ tee u8 ‖ PPID), 32 bytes."""
    expires_at: int
    """Unix time in seconds at which collateral or certificates end."""
    claims: dict[str, object]
    """JSON-ready facts."""


def platform_id(tee: TeeKind, vendor_id: bytes) -> bytes:
    """The id of a platform in allow and deny lists: H("cocoon/v1/platform" ‖ tee u8 ‖ vendor id)."""
    return hashlib.sha256(b"cocoon/v1/platform" + bytes([tee.value]) + vendor_id).digest()


def check_platform(
    quote: Quote, collateral: Collateral, policy: Policy, now: int, checks: CheckList
) -> TdxPlatform | None:
    """Record the checks named in `LIBRARY_CHECKS`; return the facts if the library accepted the quote.

    Args:
        quote: parsed quote.
        collateral: parsed collateral.
        policy: gives the root, the TCB rules and the platform lists.
        now: Unix time in seconds to verify at.
        checks: where the verdicts go.
    """
    try:
        result = dcap_verify(quote.raw, collateral.source, root=policy.root, now=now)
    except DcapError as error:
        failed = "tdx.tcb" if error.about_tcb else "tdx.chain"
        for id in LIBRARY_CHECKS:
            if id == failed:
                checks.record(id, False, str(error))
            else:
                checks.skip(id, f"not made: {failed} failed")
        return None
    checks.record(
        "tdx.chain", True, "certificate paths, revocation, QE level and FMSPC accepted by dcap-qvl"
    )
    _tcb(result, policy, checks)
    _consistency(quote, collateral, result, checks)
    identity = platform_id(TeeKind.TDX, result.ppid)
    _platform(identity, policy, checks)
    return TdxPlatform(
        platform_id=identity,
        expires_at=min(
            result.expires_at,
            collateral.expires_at,
            _oldest(collateral.tcb_info, collateral.qe_identity) + policy.max_collateral_age_s,
        ),
        claims={
            "tcb_status": result.status,
            "advisories": list(result.advisories),
            "tcb_date": result.tcb_date,
            "fmspc": result.fmspc.hex(),
            "ppid": result.ppid.hex(),
            "tcb_evaluation": [collateral.tcb_info.evaluation, collateral.qe_identity.evaluation],
            "root_sha256": policy.root_sha256.hex(),
        },
    )


def _tcb(result: DcapResult, policy: Policy, checks: CheckList) -> None:
    advisories, faults = frozenset(result.advisories), []
    if result.status not in policy.statuses:
        faults.append("status not allowed")
    if denied := sorted(advisories & policy.denied_advisories):
        faults.append(f"denied advisory {denied[0]}")
    if result.status != UP_TO_DATE and (unknown := sorted(advisories - policy.allowed_advisories)):
        faults.append(f"advisory {unknown[0]} not tolerated")
    checks.record(
        "tdx.tcb",
        not faults,
        f"TCB {result.status} of {result.tcb_date}{': ' if faults else ''}{'; '.join(faults)}",
        inputs=(("status", result.status), ("advisories", " ".join(result.advisories))),
    )


def _consistency(quote: Quote, collateral: Collateral, result: DcapResult, checks: CheckList) -> None:
    differing = [name for name, value in result.report.items() if getattr(quote.report, name) != value]
    if quote.report.is_td15 != ("mrservicetd" in result.report):
        differing.append("body type")
    if result.version != quote.header.version:
        differing.append("version")
    if (result.fmspc, result.pce_id) != (collateral.tcb_info.fmspc, collateral.tcb_info.pce_id):
        differing.append("platform family")
    if result.evaluation != min(collateral.tcb_info.evaluation, collateral.qe_identity.evaluation):
        differing.append("evaluation number")
    checks.record(
        "tdx.consistency",
        not differing,
        f"the two parsers differ in {', '.join(differing)}"
        if differing
        else "both parsers read the same quote and collateral",
    )


def _platform(identity: bytes, policy: Policy, checks: CheckList) -> None:
    allowed = policy.allowed_platforms is None or identity in policy.allowed_platforms
    denied = identity in policy.denied_platforms
    verdict = "denied" if denied else "allowed" if allowed else "not on the allow-list"
    checks.record(
        "tdx.platform",
        allowed and not denied,
        f"platform {identity.hex()[:16]}…: {verdict}",
        inputs=(("platform_id", identity.hex()),),
    )


def _oldest(*statements: SignedStatement) -> int:
    return min(statement.issue_date for statement in statements)
