"""A raw SEV-SNP report with its certificate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cocoon_attestation.appraisers.snp import snp_claims
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.report import Product
from cocoon_attestation.snp.validate import PARAVISOR
from cocoon_attestation.snp.verify import verify_snp
from cocoon_attestation.vendor.outcome import Outcome, judge

SOFTWARE_CHECKS: Final = frozenset({"snp.measurement", "snp.host_data", "snp.report_data"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpOptions:
    """What is expected of a raw report; everything may stay open."""

    report_data: bytes | None = None
    """64 bytes."""
    policy: Policy | None = None
    """Rules of a session; None: is the report genuine, and its guest closed to the host's debugger?"""


def verify_raw_snp(
    report: bytes, certificate: bytes, chain: bytes, crl: bytes | None, options: SnpOptions, now: int
) -> Outcome:
    """Judge a report at Unix time `now`.

    Args:
        report: 1184 bytes.
        certificate: VCEK or VLEK, DER.
        chain: PEM of its issuers; may be empty: AMD's published intermediates are known.
        crl: revocation list of the product, DER or PEM; None: revocation is not looked at, except under
            a policy, which demands it.
        options: what is expected.
        now: Unix time in seconds.

    Raises:
        MalformedError: an input does not parse.
    """
    rules = dataclasses.replace(_rules(options.policy), report_data=options.report_data)
    claims, checks = verify_snp(report, certificate, chain, crl, rules, datetime.fromtimestamp(now, UTC))
    warnings = []
    if claims.simulated:
        warnings.append("SIMULATED: the policy names a development root")
    if claims.product is Product.MILAN and options.policy is None:
        warnings.append("sessions refuse Milan by default: extraction of its root seed is reported")
    if any(check.id == "snp.paravisor" for check in checks.skipped):
        warnings.append(f"sessions refuse this guest: {PARAVISOR}")
    made = {check.id for check in checks} - {check.id for check in checks.skipped}
    return Outcome(
        kind="snp-report",
        verdict=judge(checks, rules.waived),
        checks=checks,
        waived=rules.waived,
        scope="hardware and software" if "snp.measurement" in made else "hardware",
        claims=snp_claims(claims),
        warnings=tuple(warnings),
        simulated=claims.simulated,
        expires_at=None if claims.valid_until is None else int(claims.valid_until.timestamp()),
        policy_digest=None if options.policy is None else options.policy.digest,
    )


def _rules(policy: Policy | None) -> SnpPolicy:
    if policy is None:
        return SnpPolicy.dangerous_genuine_only()
    base = policy.snp or open_snp_policy()
    measurements = frozenset(release.measurement for release in policy.snp_releases)
    return dataclasses.replace(base, measurements=measurements or None)
