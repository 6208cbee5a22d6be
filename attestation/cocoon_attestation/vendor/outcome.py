"""The outcome of looking at one piece of raw evidence: stable form, docs/spec/verify-vendor.md."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from cocoon_attestation.checks import Check, CheckList
from cocoon_attestation.ear import Result


class OutcomeVerdict(enum.StrEnum):
    """What is decided. Only `ACCEPTED` is good news."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    MALFORMED = "malformed"
    UNDECIDED = "undecided"

    @property
    def exit_code(self) -> int:
        """Exit code of the command that says so."""
        return {"accepted": 0, "rejected": 10, "malformed": 30, "undecided": 40}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Verdict on one piece of evidence with all checks."""

    kind: str
    """What was looked at: ``tdx-quote``, ``sgx-quote``, ``snp-report``, ``gpu-evidence``, ``event-log``."""
    verdict: OutcomeVerdict
    checks: CheckList
    waived: frozenset[str]
    """Checks that may stay undone without changing the verdict."""
    scope: str = "hardware"
    """What an accepted verdict speaks of."""
    tcb_status: str | None = None
    advisories: tuple[str, ...] = ()
    claims: Mapping[str, object] = field(default_factory=dict)
    """What the evidence says; means something only if the verdict is accepted."""
    warnings: tuple[str, ...] = ()
    simulated: bool = False
    """True under any root that is not a vendor's."""
    expires_at: int | None = None
    """End of what an accepted verdict rests on, Unix time in seconds; None if not known."""
    policy_digest: bytes | None = None
    """Digest of the policy, 32 bytes; None without one."""

    @property
    def reason(self) -> str:
        """One sentence: the first fault, or what is missing, or that nothing is."""
        if self.checks.failed:
            first = min(self.checks.failed, key=_weight)
            return f"{first.id}: {first.detail}"
        missing = [check for check in self.checks.skipped if check.id not in self.waived]
        if missing:
            return f"{missing[0].id} was not made: {missing[0].detail}"
        return f"every check of the {self.scope} passed"

    def to_dict(self) -> dict[str, object]:
        """The outcome as a JSON-ready object."""
        return {
            "ok": self.verdict is OutcomeVerdict.ACCEPTED,
            "kind": self.kind,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "scope": self.scope,
            "tcb_status": self.tcb_status,
            "advisories": list(self.advisories),
            "claims": dict(self.claims),
            "checks": [check.to_dict() for check in self.checks],
            "not_checked": sorted({check.id for check in self.checks.skipped}),
            "warnings": list(self.warnings),
        }

    def to_result(self, issued_at: int) -> Result:
        """The outcome as the claims set of an EAR needs it."""
        return Result(
            checks=self.checks.checks,
            accepted=self.verdict is OutcomeVerdict.ACCEPTED,
            simulated=self.simulated,
            issued_at=issued_at,
            expires_at=self.expires_at,
            policy_digest=self.policy_digest,
            tolerated=self.claims.get("tcb_tolerated") is not None,
        )


def _weight(check: Check) -> int:
    """Order of reasons: who vouches for it, what it is, then everything else in the order it was made."""
    return {"root": 0, "chain": 0, "paravisor": 1}.get(check.id.rpartition(".")[2], 2)


def judge(checks: CheckList, waived: frozenset[str]) -> OutcomeVerdict:
    """The verdict that follows from checks: a skipped one counts unless it is in `waived`."""
    if checks.failed:
        return OutcomeVerdict.REJECTED
    if len(checks) == len(checks.skipped) or any(check.id not in waived for check in checks.skipped):
        return OutcomeVerdict.UNDECIDED
    return OutcomeVerdict.ACCEPTED
