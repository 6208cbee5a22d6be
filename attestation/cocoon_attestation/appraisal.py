"""`appraise`: from untrusted evidence bytes to a `VerifiedEnclave`, or an error that names every fault.

Order: parse strictly, authenticate, then apply policy. All checks that are safe to make are made, so a
refusal lists every fault at once; one failed or skipped check is a refusal. The checks, their ids and
rules stand in docs/spec/appraisal.md.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cocoon_attestation.binding import MAX_LIFETIME_S, KeyBinding, gpu_digest, report_data
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.evidence import Evidence, SnpEvidence, TdxEvidence, parse_evidence
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.rtmr3 import NO_GPU, check_runtime_log
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_attestation.tdx.quote import Quote, parse_quote
from cocoon_attestation.tdx.validate import validate_td_report
from cocoon_attestation.tdx.verify import verify_quote
from cocoon_attestation.verified import VerifiedEnclave, _issue

CHALLENGE_SIZE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _CpuResult:
    """What the CPU evidence established; only used if every check passed."""

    tee: TeeKind
    release: Release
    models: tuple[bytes, ...]
    platform_id: bytes
    expires_at: int
    claims: Mapping[str, object]


def appraise(evidence: bytes, *, policy: Policy, challenge: bytes, now: datetime | int) -> VerifiedEnclave:
    """Decide whether the keys in `evidence` belong to an allowed release on genuine hardware.

    Args:
        evidence: serialized `cocoon.v1.Evidence`, as received.
        policy: what is acceptable; read from the registry, perhaps tightened.
        challenge: 32 bytes: the caller's own random nonce, or the beacon digest of a block that the
            caller has verified. Never a value that came with the evidence.
        now: time to appraise at, an aware datetime or Unix seconds.

    Raises:
        MalformedError: the evidence, or the quote or collateral inside it, does not parse.
        EvidenceRejectedError: a check failed or could not be made; `checks` has them all.
        ConfigError: the challenge is not 32 bytes or all zero, or `now` has no time zone.
    """
    moment = _unix_time(now)
    _require_challenge(challenge)
    parsed = parse_evidence(evidence)
    checks = CheckList()
    _check_policy_time(policy, moment, checks)
    _check_challenge(parsed, challenge, checks)
    _check_binding(parsed, policy, moment, checks)
    result = _appraise_cpu(parsed, policy, moment, checks)
    _check_devices(parsed, checks)
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
        claims=result.claims,
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
        inputs=(("expected", challenge.hex()), ("evidence", evidence.challenge.hex())),
    )


def _check_binding(evidence: Evidence, policy: Policy, now: int, checks: CheckList) -> None:
    binding = evidence.binding
    digest = hashlib.sha256(evidence.seal_public_key).digest()
    checks.record(
        "binding.seal_key",
        hmac.compare_digest(digest, binding.seal_key_hash),
        f"seal key has hash {digest.hex()[:16]}…, binding says {binding.seal_key_hash.hex()[:16]}…",
        inputs=(("seal_key_sha256", digest.hex()), ("binding", binding.seal_key_hash.hex())),
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


def _check_release(
    binding: KeyBinding, named: Release | None, matched: Release | None, checks: CheckList
) -> None:
    """The binding must name an allowed release, and the one that was measured if one was recognised."""
    same = matched is None or matched.release_id == binding.release_id
    detail = (
        f"binding names release {binding.release_id.hex()[:16]}…, which is not allowed"
        if named is None
        else f"binding names {named.name}"
        if same
        else f"binding names {named.name}, but {matched.name if matched else 'none'} was measured"
    )
    checks.record("binding.release", named is not None and same, detail)


def _appraise_cpu(evidence: Evidence, policy: Policy, now: int, checks: CheckList) -> _CpuResult | None:
    """Dispatch on the kind of TEE; a kind without an appraiser here is a failed check, never a pass."""
    cpu = evidence.cpu
    if cpu is None:
        checks.record("tee.kind", False, "the evidence names no trusted execution environment")
        return None
    tee = TeeKind.TDX if isinstance(cpu, TdxEvidence) else TeeKind.SEV_SNP
    allowed = tee in policy.tee_kinds
    checks.record("tee.kind", allowed, f"{tee.label} is {'allowed' if allowed else 'not allowed'}")
    if isinstance(cpu, SnpEvidence):
        checks.record("snp.supported", False, "SEV-SNP evidence is not supported by this version")
        return None
    return _appraise_tdx(evidence, cpu, policy, now, checks)


def _appraise_tdx(
    evidence: Evidence, cpu: TdxEvidence, policy: Policy, now: int, checks: CheckList
) -> _CpuResult | None:
    quote = parse_quote(cpu.quote)
    collateral = None if cpu.collateral is None else parse_collateral(cpu.collateral)
    named = policy.release(evidence.binding.release_id)
    matched = validate_td_report(quote.report, policy=policy, named=named, checks=checks)
    platform = verify_quote(quote, collateral, policy=policy, now=now, checks=checks)
    _check_release(evidence.binding, named, matched, checks)
    _check_report_data(evidence, quote, checks)
    log = check_runtime_log(
        cpu.runtime_events,
        register=quote.report.rtmr3,
        config_hash=evidence.binding.config_hash,
        allowed_models=policy.models,
        checks=checks,
    )
    if log is None:
        checks.skip("rtmr3.gpu", "not made: the log has the wrong grammar")
    else:
        _check_gpu_event(evidence, log.gpu, checks)
    if matched is None or platform is None or log is None:
        return None
    return _CpuResult(
        tee=TeeKind.TDX,
        release=matched,
        models=log.models,
        platform_id=platform.platform_id,
        expires_at=platform.expires_at,
        claims={**_tdx_claims(quote, matched), **platform.claims},
    )


def _tdx_claims(quote: Quote, release: Release) -> dict[str, object]:
    report = quote.report
    measured = (
        "mrtd",
        "rtmr0",
        "rtmr1",
        "rtmr2",
        "rtmr3",
        "td_attributes",
        "xfam",
        "mrseam",
        "tee_tcb_svn",
    )
    return {
        "quote_version": quote.header.version,
        "quote_sha256": quote.sha256.hex(),
        "release_name": release.name,
        **{name: getattr(report, name).hex() for name in measured},
    }


def _check_report_data(evidence: Evidence, quote: Quote, checks: CheckList) -> None:
    devices = gpu_digest([device.report for device in evidence.devices])
    expected = report_data(evidence.binding.hash, devices, evidence.challenge)
    checks.record(
        "binding.report_data",
        hmac.compare_digest(expected, quote.report.report_data),
        "the hardware signed exactly this key binding and challenge, 64 bytes compared",
        inputs=(
            ("binding_hash", evidence.binding.hash.hex()),
            ("gpu_digest", devices.hex()),
            ("expected", expected.hex()),
            ("quoted", quote.report.report_data.hex()),
        ),
    )


def _check_gpu_event(evidence: Evidence, payload: bytes, checks: CheckList) -> None:
    """Without devices the guest must have measured that it has none."""
    alone = payload == NO_GPU
    checks.record(
        "rtmr3.gpu",
        alone == (not evidence.devices),
        "the guest measured that it has no GPU" if alone else "the guest measured a GPU",
        inputs=(("payload", payload.hex()), ("devices", str(len(evidence.devices)))),
    )


def _check_devices(evidence: Evidence, checks: CheckList) -> None:
    if evidence.devices:
        checks.record("gpu.supported", False, "GPU evidence is not supported by this version")


def _expiry(binding: KeyBinding, result: _CpuResult, policy: Policy, now: int) -> int:
    limits = [binding.not_after, result.expires_at, now + policy.session_limit_s]
    if policy.not_after is not None:
        limits.append(policy.not_after)
    return min(limits)
