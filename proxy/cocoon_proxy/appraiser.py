"""Appraisal in a session: with the best endorsements there are, and against what was seen before.

What the node stapled is preferred. Collateral that is not from the last day, and manifests, answers and
certificates that an appraisal refused, are replaced by the client's own, and the whole evidence is appraised
again: the last appraisal decides. If they cannot be had, the session is not made.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from cocoon_attestation.appraisal import appraise
from cocoon_attestation.checks import CheckList
from cocoon_attestation.endorsements import OwnEndorsements
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.evidence import Evidence, SnpEvidence, TdxEvidence, parse_evidence
from cocoon_attestation.policy import Policy
from cocoon_attestation.rollback import marks
from cocoon_attestation.verified import VerifiedEnclave
from cocoon_proxy.endorsements.desk import EndorsementDesk
from cocoon_proxy.exchange import durable
from cocoon_proxy.memory import SeenStatements

ROLLBACK: Final = "endorsements.rollback"
_SPEC: Final = f"docs/spec/client.md#{ROLLBACK}"
_AMD: Final = frozenset(
    {"snp.chain", "snp.dates", "snp.crl", "snp.tcb_match", "snp.hwid", "snp.sig", "snp.key_kind"}
)
_NVIDIA: Final = frozenset(
    {
        "gpu.ocsp",
        "gpu.rim_chain",
        "gpu.rim_conflict",
        "gpu.rim_match",
        "gpu.rim_ocsp",
        "gpu.rim_sig",
        "gpu.rim_version",
    }
)
REPLACEABLE: Final = _AMD | _NVIDIA | {ROLLBACK}
"""Checks that other endorsements could satisfy. If any other one failed, asking would be in vain."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Appraised:
    """A successful appraisal."""

    verified: VerifiedEnclave
    checks: CheckList
    """All checks: those of the appraisal, and the comparison with what was seen before."""
    endorsements: OwnEndorsements | None
    """What the client got itself; None if all was stapled."""


class SessionAppraiser:
    """Appraises the evidence of nodes for one client."""

    def __init__(self, desk: EndorsementDesk, seen: SeenStatements) -> None:
        """Get endorsements from `desk` and remember in `seen`."""
        self._desk = desk
        self._seen = seen

    async def appraise(self, evidence: bytes, *, policy: Policy, challenge: bytes, now: int) -> Appraised:
        """`appraise`, with endorsements of our own where they are needed.

        Raises:
            MalformedError: the evidence, or something inside it, does not parse.
            EvidenceRejectedError: a check failed or could not be made; or it rests on statements that are
                older than what this client has seen (check ``endorsements.rollback``).
            EndorsementUnavailableError: endorsements are needed and cannot be had.
            UnsupportedError: there is GPU evidence and the extra ``gpu`` is not installed.
            UnavailableError: the memory of what was seen cannot be used.
        """
        parsed = parse_evidence(evidence)
        own = await self._first(parsed, policy, now)
        try:
            return await self._once(evidence, parsed, policy, challenge, now, own)
        except EvidenceRejectedError as error:
            better = await self._better(parsed, policy, now, own, _failed(error))
            if better is None:
                raise
        return await self._once(evidence, parsed, policy, challenge, now, better)

    async def _once(
        self,
        evidence: bytes,
        parsed: Evidence,
        policy: Policy,
        challenge: bytes,
        now: int,
        own: OwnEndorsements | None,
    ) -> Appraised:
        """Appraise, then compare with what was seen."""

        def work() -> Appraised:
            verified = appraise(evidence, policy=policy, challenge=challenge, now=now, endorsements=own)
            checks = CheckList(list(verified.checks))
            judged = parsed if own is None else own.applied(parsed)
            found = marks(judged, verified, policy.root_sha256)
            older = self._seen.observe(found, now)
            checks.record(
                ROLLBACK,
                not older,
                f"older than this client has seen: {', '.join(older)}"
                if older
                else f"{len(found)} statements and versions, none older than seen before",
                spec=_SPEC,
            )
            if older:
                raise EvidenceRejectedError(
                    f"evidence rejected: {ROLLBACK}: {older[0]} is older than this client has seen",
                    checks=checks,
                    hint="the node's host must fetch current endorsements",
                    details={"failed": [ROLLBACK], "older": list(older)},
                )
            return Appraised(verified=verified, checks=checks, endorsements=own)

        return await durable(work)

    async def _first(self, parsed: Evidence, policy: Policy, now: int) -> OwnEndorsements | None:
        """Collateral of our own, if the stapled one is missing, not from the last day, or behind."""
        root = policy.root_sha256.hex()[:8]

        async def highest(fmspc: bytes) -> int:
            seen = await durable(lambda: self._seen.seen(f"intel/{root}/tcb/{fmspc.hex()}"))
            return 0 if seen is None else seen[0]

        collateral = await self._desk.collateral(parsed, policy, now=now, min_evaluation=highest)
        return None if collateral is None else OwnEndorsements(collateral=collateral)

    async def _better(
        self,
        parsed: Evidence,
        policy: Policy,
        now: int,
        own: OwnEndorsements | None,
        failed: frozenset[str],
    ) -> OwnEndorsements | None:
        """Endorsements of our own for what was refused; None if they could not help, or nobody may be asked."""
        if not failed or not failed <= REPLACEABLE:
            return None
        before = own or OwnEndorsements()
        better = before
        if isinstance(parsed.cpu, TdxEvidence) and ROLLBACK in failed and before.collateral is None:
            collateral = await self._desk.collateral(parsed, policy, now=now)
            better = dataclasses.replace(better, collateral=collateral)
        if isinstance(parsed.cpu, SnpEvidence) and failed & (_AMD | {ROLLBACK}):
            try:
                better = dataclasses.replace(better, snp=await self._desk.snp(parsed, policy))
            except ConfigError:
                return None  # a kind of report that no service can help with: the refusal stands
        if failed & _NVIDIA:
            devices = await self._desk.devices(parsed, policy, now=now)
            if devices is not None:
                better = dataclasses.replace(better, devices=devices.devices, ocsp_nonce=devices.ocsp_nonce)
        return None if better == before else better


def _failed(error: EvidenceRejectedError) -> frozenset[str]:
    return frozenset(check.id for check in error.checks.failed) if error.checks is not None else frozenset()
