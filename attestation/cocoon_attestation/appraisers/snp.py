"""Appraisal of SEV-SNP evidence.

The launch digest covers kernel, initial file system and command line, and the command line names the
models: so the release says which models an image loads. The configuration digest is HOST_DATA.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

from cocoon_attestation.appraisers.result import CpuResult, MeasuredGpus, check_release, report_data_inputs
from cocoon_attestation.binding import gpu_digest, report_data
from cocoon_attestation.checks import CheckList
from cocoon_attestation.evidence import Evidence, SnpEvidence
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.verify import SnpClaims, verify_snp
from cocoon_attestation.tdx.platform import platform_id, platform_preimage


def appraise_snp(
    evidence: Evidence, cpu: SnpEvidence, policy: Policy, now: int, checks: CheckList
) -> tuple[CpuResult | None, MeasuredGpus]:
    """Record the checks on SEV-SNP evidence.

    Raises:
        MalformedError: report, certificate, chain or revocation list do not parse.
    """
    if policy.simulated and policy.snp is None:
        # Genuine chips have no place under a development root, and no other root is named.
        checks.record("snp.chain", False, "the policy names no development root for SEV-SNP")
        return None, MeasuredGpus(by_release=True)
    if not cpu.certificate:
        checks.record("snp.chain", False, "the node sent no certificate of the key that signed the report")
        return None, MeasuredGpus(by_release=True)
    rules = snp_rules(evidence, policy)
    if not policy.snp_releases:
        checks.record("snp.measurement", False, "the policy allows no SEV-SNP release")
    claims, found = verify_snp(
        cpu.report,
        cpu.certificate,
        cpu.issuer_chain,
        cpu.crl or None,
        rules,
        datetime.fromtimestamp(now, UTC),
    )
    for check in found:
        more = report_data_inputs(evidence) if check.id == "snp.report_data" else ()
        checks.checks.append(dataclasses.replace(check, inputs=(*check.inputs, *more)) if more else check)
    measurement = claims.report.measurement
    matched = next((r for r in policy.snp_releases if r.measurement == measurement), None)
    check_release(evidence.binding, policy, matched, checks)
    _check_models(matched, policy, checks)
    identity = platform_id(TeeKind.SEV_SNP, claims.report.chip_id)
    _check_platform(claims, identity, policy, checks)
    measured = MeasuredGpus(count=None if matched is None else matched.gpus, by_release=True)
    if matched is None or claims.valid_until is None:
        return None, measured
    result = CpuResult(
        tee=TeeKind.SEV_SNP,
        release=matched,
        models=matched.models,
        platform_id=identity,
        expires_at=int(claims.valid_until.timestamp()),
        claims={"release_name": matched.name, **snp_claims(claims)},
    )
    return result, measured


def snp_rules(evidence: Evidence, policy: Policy) -> SnpPolicy:
    """The policy's rules for SEV-SNP, completed with what this evidence must say."""
    devices = gpu_digest([device.report for device in evidence.devices])
    return dataclasses.replace(
        policy.snp or open_snp_policy(),
        measurements=frozenset(r.measurement for r in policy.snp_releases) or None,
        report_data=report_data(evidence.binding.hash, devices, evidence.challenge),
        host_data=evidence.binding.config_hash,
    )


def snp_claims(claims: SnpClaims) -> dict[str, object]:
    """The claims of a report as a JSON-ready object."""
    report = claims.report
    return {
        "report_version": report.version,
        "product": claims.product.value if claims.product else None,
        "signing_key": claims.signing_key.name,
        "csp_id": claims.csp_id,
        "simulated": claims.simulated,
        "guest_svn": report.guest_svn,
        "policy": f"0x{report.policy:x}",
        "platform_info": f"0x{report.platform_info:x}",
        "vmpl": report.vmpl,
        "measurement": report.measurement.hex(),
        "host_data": report.host_data.hex(),
        "report_data": report.report_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "platform_id": None
        if claims.platform_id is None
        else platform_id(TeeKind.SEV_SNP, claims.platform_id).hex(),
        "chip_id": None if claims.platform_id is None else claims.platform_id.hex(),
        "reported_tcb": None if claims.reported_tcb is None else str(claims.reported_tcb),
        "committed_tcb": None if claims.committed_tcb is None else str(claims.committed_tcb),
        "current_firmware": ".".join(map(str, report.current_firmware)),
        "valid_until": None if claims.valid_until is None else int(claims.valid_until.timestamp()),
    }


def _check_models(release: SnpRelease | None, policy: Policy, checks: CheckList) -> None:
    if release is None:
        checks.skip("release.models", "not made: no release was recognised")
        return
    foreign = [model.hex() for model in release.models if model not in policy.models]
    checks.record(
        "release.models",
        not foreign,
        f"model {foreign[0]} is not allowed" if foreign else f"{len(release.models)} models, all allowed",
        inputs=tuple((f"model {index}", model.hex()) for index, model in enumerate(release.models)),
    )


def _check_platform(claims: SnpClaims, identity: bytes, policy: Policy, checks: CheckList) -> None:
    """A chip that the host masked cannot be on a list: it is refused where a list is kept."""
    masked = claims.platform_id is None
    lists = policy.allowed_platforms is not None or bool(policy.denied_platforms)
    allowed = policy.allowed_platforms is None or identity in policy.allowed_platforms
    denied = identity in policy.denied_platforms or (masked and lists)
    verdict = "denied" if denied else "allowed" if allowed else "not on the allow-list"
    checks.record(
        "policy.platform",
        allowed and not denied,
        f"platform {'masked' if masked else identity.hex()[:16] + '…'}: {verdict}",
        inputs=(
            ("preimage", platform_preimage(TeeKind.SEV_SNP, claims.report.chip_id).hex()),
            ("platform_id", identity.hex()),
        ),
    )
