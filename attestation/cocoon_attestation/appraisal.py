"""`appraise`: from untrusted evidence bytes to a `VerifiedEnclave`, or an error that names every fault.

Order: parse strictly, authenticate, then apply policy. All checks that are safe to make are made, so a
refusal lists every fault at once; one failed or skipped check is a refusal. The checks, their ids and
rules stand in docs/spec/appraisal.md.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import Final

from cocoon_attestation.appraisers.gpu import appraise_devices
from cocoon_attestation.appraisers.result import CpuResult, MeasuredGpus
from cocoon_attestation.appraisers.snp import appraise_snp
from cocoon_attestation.appraisers.tdx import appraise_tdx
from cocoon_attestation.binding import MAX_LIFETIME_S, KeyBinding
from cocoon_attestation.checks import CheckList
from cocoon_attestation.endorsements import OwnEndorsements
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.evidence import Evidence, TdxEvidence, parse_evidence
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.verified import VerifiedEnclave, _issue

CHALLENGE_SIZE: Final = 32


def appraise(
    evidence: bytes,
    *,
    policy: Policy,
    challenge: bytes,
    now: datetime | int,
    endorsements: OwnEndorsements | None = None,
) -> VerifiedEnclave:
    """Decide whether the keys in `evidence` belong to an allowed release on genuine hardware.

    Args:
        evidence: serialized `cocoon.v1.Evidence`, as received.
        policy: what is acceptable; read from the registry, perhaps tightened.
        challenge: 32 bytes: the caller's own random nonce, or the beacon digest of a block that the
            caller has verified. Never a value that came with the evidence.
        now: time to appraise at, an aware datetime or Unix seconds.
        endorsements: what the caller got itself, in place of what the node stapled; the claim
            ``endorsements_sha256`` names their bytes.

    Raises:
        MalformedError: the evidence, or something inside it, does not parse.
        EvidenceRejectedError: a check failed or could not be made; `checks` has them all.
        UnsupportedError: there is GPU evidence and the extra ``gpu`` is not installed.
        ConfigError: the challenge is not 32 bytes or all zero, `now` has no time zone, or `endorsements` are
            for other evidence.
    """
    moment = _unix_time(now)
    _require_challenge(challenge)
    parsed = parse_evidence(evidence)
    own = {} if endorsements is None else {"endorsements_sha256": endorsements.digest.hex()}
    if endorsements is not None:
        parsed = endorsements.applied(parsed)
    checks = CheckList()
    _check_policy_time(policy, moment, checks)
    _check_challenge(parsed, challenge, checks)
    _check_binding(parsed, policy, moment, checks)
    result, measured = _appraise_cpu(parsed, policy, moment, checks)
    nonce = None if endorsements is None else endorsements.ocsp_nonce
    devices = appraise_devices(parsed, policy, measured, moment, checks, ocsp_nonce=nonce)
    if result is None or not checks.accepted:
        raise _rejection(checks)
    return _issue(
        binding=parsed.binding,
        seal_public_key=parsed.seal_public_key,
        models=result.models,
        release=result.release,
        tee=result.tee,
        simulated=policy.simulated,
        platform_id=result.platform_id,
        checks=checks,
        policy_digest=policy.digest,
        evidence_digest=parsed.digest,
        appraised_at=moment,
        expires_at=_expiry(parsed.binding, result, policy, moment),
        claims={**result.claims, **devices, **own},
    )


def _unix_time(now: datetime | int) -> int:
    if isinstance(now, datetime):
        if now.tzinfo is None:
            raise ConfigError("the time to appraise at must have a time zone")
        return int(now.timestamp())
    return now


def _require_challenge(challenge: bytes) -> None:
    if len(challenge) != CHALLENGE_SIZE or not any(challenge):
        raise ConfigError("the challenge must be 32 bytes and not all zero")


def _rejection(checks: CheckList) -> EvidenceRejectedError:
    faults = [*checks.failed, *checks.skipped]
    summary = f"{faults[0].id}: {faults[0].detail}" if faults else "no evidence"
    more = f" (and {len(checks.failed) - 1} more)" if len(checks.failed) > 1 else ""
    return EvidenceRejectedError(
        f"evidence rejected: {summary}{more}",
        checks=checks,
        details={"failed": [check.id for check in checks.failed]},
    )


def _check_policy_time(policy: Policy, now: int, checks: CheckList) -> None:
    fresh = policy.not_after is None or now < policy.not_after
    checks.record("policy.validity", fresh, "the policy is current" if fresh else "the policy is stale")


def _check_challenge(evidence: Evidence, challenge: bytes, checks: CheckList) -> None:
    own = hmac.compare_digest(evidence.challenge, challenge)
    beacon_fits = evidence.beacon is None or hmac.compare_digest(evidence.beacon.challenge, challenge)
    detail = (
        "answers another challenge than the caller's"
        if not own
        else "the beacon it names does not give its challenge"
        if not beacon_fits
        else "answers the caller's challenge"
    )
    checks.record(
        "challenge",
        own and beacon_fits,
        detail,
        inputs=(
            ("expected", challenge.hex()),
            ("evidence", evidence.challenge.hex()),
            *(() if evidence.beacon is None else (("beacon_preimage", evidence.beacon.preimage.hex()),)),
        ),
    )


def _check_binding(evidence: Evidence, policy: Policy, now: int, checks: CheckList) -> None:
    binding = evidence.binding
    digest = hashlib.sha256(evidence.seal_public_key).digest()
    checks.record(
        "binding.seal_key",
        hmac.compare_digest(digest, binding.seal_key_hash),
        f"seal key has hash {digest.hex()[:16]}…, binding says {binding.seal_key_hash.hex()[:16]}…",
        inputs=(
            ("preimage", evidence.seal_public_key.hex()),
            ("seal_key_sha256", digest.hex()),
            ("binding", binding.seal_key_hash.hex()),
        ),
    )
    lifetime = binding.not_after - binding.not_before
    in_time = binding.not_before <= now + policy.clock_skew_s and now < binding.not_after
    checks.record(
        "binding.validity",
        in_time and 0 < lifetime <= MAX_LIFETIME_S,
        f"valid {binding.not_before}..{binding.not_after}, now {now}, at most {MAX_LIFETIME_S} s allowed",
    )
    checks.record(
        "binding.network",
        binding.global_id == policy.global_id,
        f"binding is for TON network {binding.global_id}, policy for {policy.global_id}",
    )
    node_fits = policy.node is None or hmac.compare_digest(policy.node, binding.node)
    wanted = "any" if policy.node is None else policy.node.hex()[:16] + "…"
    checks.record(
        "binding.node", node_fits, f"binding names node {binding.node.hex()[:16]}…, policy: {wanted}"
    )


def _appraise_cpu(
    evidence: Evidence, policy: Policy, now: int, checks: CheckList
) -> tuple[CpuResult | None, MeasuredGpus]:
    """Dispatch on the kind of TEE; a kind without an appraiser here is a failed check, never a pass."""
    cpu = evidence.cpu
    if cpu is None:
        checks.record("tee.kind", False, "the evidence names no trusted execution environment")
        return None, MeasuredGpus()
    tee = TeeKind.TDX if isinstance(cpu, TdxEvidence) else TeeKind.SEV_SNP
    allowed = tee in policy.tee_kinds
    checks.record("tee.kind", allowed, f"{tee.label} is {'allowed' if allowed else 'not allowed'}")
    if isinstance(cpu, TdxEvidence):
        return appraise_tdx(evidence, cpu, policy, now, checks)
    return appraise_snp(evidence, cpu, policy, now, checks)


def _expiry(binding: KeyBinding, result: CpuResult, policy: Policy, now: int) -> int:
    limits = [binding.not_after, result.expires_at, now + policy.session_limit_s]
    if policy.not_after is not None:
        limits.append(policy.not_after)
    return min(limits)
