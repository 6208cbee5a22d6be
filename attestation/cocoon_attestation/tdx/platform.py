"""TDX platforms: certificate paths and TCB level by `dcap-qvl`, then our own gates on its answer.

The library returns normally for outdated platforms, so the status is judged here; and what it read from
the quote is compared with what our own parser read. Rules: docs/spec/appraisal.md, section 2.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

from cocoon_attestation.checks import CheckList
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.tdx.collateral import Collateral
from cocoon_attestation.tdx.dcap import DcapError, DcapResult, dcap_verify
from cocoon_attestation.tdx.grace import Grace, find_grace
from cocoon_attestation.tdx.report import EnclaveReport
from cocoon_attestation.tdx.requirements import PlatformRequirements

UP_TO_DATE: Final = "UpToDate"
LIBRARY_CHECKS: Final = ("tdx.chain", "tdx.tcb", "tdx.consistency", "tdx.platform")
"""Checks that need the library's answer."""


class SignedHeader(Protocol):
    """What is needed of a quote's header."""

    @property
    def version(self) -> int:
        """Version of the quote."""
        ...

    @property
    def tee_type(self) -> int:
        """0x81 TDX, 0 SGX."""
        ...


class SignedQuote(Protocol):
    """What authentication needs of a quote, TDX or SGX."""

    @property
    def raw(self) -> bytes:
        """The quote without trailing bytes."""
        ...

    @property
    def sha256(self) -> bytes:
        """SHA-256 of `raw`."""
        ...

    @property
    def header(self) -> SignedHeader:
        """Version and TEE type."""
        ...

    @property
    def report(self) -> object:
        """The attested report; the fields that the library names are compared with it."""
        ...

    @property
    def signed(self) -> bytes:
        """What the attestation key signed."""
        ...

    @property
    def signature(self) -> bytes:
        """64 bytes, r ‖ s."""
        ...

    @property
    def attestation_key(self) -> bytes:
        """64 bytes, x ‖ y on P-256."""
        ...

    @property
    def qe_report(self) -> EnclaveReport:
        """Report of the quoting enclave."""
        ...

    @property
    def qe_report_signature(self) -> bytes:
        """64 bytes, r ‖ s, by the PCK key."""
        ...

    @property
    def qe_auth_data(self) -> bytes:
        """Authentication data of the quoting enclave."""
        ...

    @property
    def pck_chain(self) -> bytes:
        """PEM certificates, leaf first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxPlatform:
    """What an authentic quote says about the platform."""

    platform_id: bytes
    """H("cocoon/v1/platform" ‖ tee u8 ‖ PPID), 32 bytes."""
    expires_at: int
    """Unix time in seconds at which collateral or certificates end."""
    claims: dict[str, object]
    """JSON-ready facts."""


def platform_id(tee: TeeKind | None, vendor_id: bytes) -> bytes:
    """The id of a platform in allow and deny lists: H("cocoon/v1/platform" ‖ tee u8 ‖ vendor id).

    `tee` is None for SGX, which no release can name: its byte is 0.
    """
    return hashlib.sha256(platform_preimage(tee, vendor_id)).digest()


def platform_preimage(tee: TeeKind | None, vendor_id: bytes) -> bytes:
    """The bytes whose SHA-256 is `platform_id`."""
    return b"cocoon/v1/platform" + bytes([0 if tee is None else tee.value]) + vendor_id


def check_platform(
    quote: SignedQuote, collateral: Collateral, policy: PlatformRequirements, now: int, checks: CheckList
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
    tolerated = _tcb(result, _grace(quote, collateral, result, policy), policy, now, checks)
    _consistency(quote, collateral, result, checks)
    preimage = platform_preimage(TeeKind.TDX if result.tee_type else None, result.ppid)
    identity = hashlib.sha256(preimage).digest()
    _platform(identity, preimage, policy, checks)
    return TdxPlatform(
        platform_id=identity,
        expires_at=min(
            result.expires_at,
            collateral.expires_at,
            *_age_end(collateral, policy),
            *([] if tolerated is None or tolerated.until is None else [tolerated.until]),
        ),
        claims={
            "tcb_status": result.status,
            "advisories": list(result.advisories),
            "tcb_date": result.tcb_date,
            "tcb_tolerated": None if tolerated is None else tolerated.to_dict(),
            "platform_id": identity.hex(),
            "fmspc": result.fmspc.hex(),
            "ppid": result.ppid.hex(),
            "platform_instance_id": result.instance_id.hex() if result.instance_id else None,
            "dynamic_platform": result.flags[0],
            "cached_keys": result.flags[1],
            "smt_enabled": result.flags[2],
            "tcb_evaluation": [collateral.tcb_info.evaluation, collateral.qe_identity.evaluation],
            "root_sha256": policy.root_sha256.hex(),
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tolerated:
    """A status other than UpToDate that the policy lets through."""

    read_as: str
    advisories: tuple[str, ...]
    until: int | None
    """End of grace, Unix time in seconds; None if the policy allows the status without end."""

    def to_dict(self) -> dict[str, object]:
        """As a claim."""
        return {"status_read_as": self.read_as, "advisories": list(self.advisories), "until": self.until}


def _grace(
    quote: SignedQuote, collateral: Collateral, result: DcapResult, policy: PlatformRequirements
) -> Grace | None:
    svn = getattr(quote.report, "tee_tcb_svn", None)
    return find_grace(result, svn, collateral, policy)


def _tcb(
    result: DcapResult, grace: Grace | None, policy: PlatformRequirements, now: int, checks: CheckList
) -> _Tolerated | None:
    """Record ``tdx.tcb``; return what was tolerated, if the check passed with something to tolerate."""
    advisories, faults = frozenset(result.advisories), []
    # A status that the policy allows anyway needs no grace, and then has no end.
    in_grace = grace is not None and grace.running(now) and result.status not in policy.statuses
    read_as = grace.read_as if grace is not None and in_grace else result.status
    if read_as not in policy.statuses:
        faults.append("status not allowed")
    if denied := sorted(advisories & policy.denied_advisories):
        faults.append(f"denied advisory {denied[0]}")
    tolerated = advisories if policy.allowed_advisories is None else policy.allowed_advisories
    if read_as != UP_TO_DATE and (unknown := sorted(advisories - tolerated)):
        faults.append(f"advisory {unknown[0]} not tolerated")
    notes = faults if grace is None or result.status in policy.statuses else [grace.words(now), *faults]
    checks.record(
        "tdx.tcb",
        not faults,
        f"TCB {result.status} of {result.tcb_date}{': ' if notes else ''}{'; '.join(notes)}",
        inputs=(
            ("status", result.status),
            ("advisories", " ".join(result.advisories)),
            *((("grace_since", str(grace.since)), ("grace_until", str(grace.until))) if grace else ()),
        ),
    )
    if faults or result.status == UP_TO_DATE:
        return None
    until = grace.until if grace is not None and in_grace else None
    return _Tolerated(read_as=read_as, advisories=result.advisories, until=until)


def _consistency(quote: SignedQuote, collateral: Collateral, result: DcapResult, checks: CheckList) -> None:
    differing = [name for name, value in result.report.items() if getattr(quote.report, name) != value]
    if (getattr(quote.report, "mrservicetd", None) is not None) != ("mrservicetd" in result.report):
        differing.append("body type")
    if result.tee_type != quote.header.tee_type:
        differing.append("TEE type")
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


def _platform(identity: bytes, preimage: bytes, policy: PlatformRequirements, checks: CheckList) -> None:
    allowed = policy.allowed_platforms is None or identity in policy.allowed_platforms
    denied = identity in policy.denied_platforms
    verdict = "denied" if denied else "allowed" if allowed else "not on the allow-list"
    checks.record(
        "tdx.platform",
        allowed and not denied,
        f"platform {identity.hex()[:16]}…: {verdict}",
        inputs=(("preimage", preimage.hex()), ("platform_id", identity.hex())),
    )


def _age_end(collateral: Collateral, policy: PlatformRequirements) -> tuple[int, ...]:
    """When the collateral is too old for the policy; empty if the policy has no limit."""
    if policy.max_collateral_age_s is None:
        return ()
    oldest = min(collateral.tcb_info.issue_date, collateral.qe_identity.issue_date)
    return (oldest + policy.max_collateral_age_s,)
