"""A raw SEV-SNP report with its certificate."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cocoon_attestation.appraisers.snp import snp_claims
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.report import Product
from cocoon_attestation.snp.validate import PARAVISOR
from cocoon_attestation.snp.verify import verify_snp
from cocoon_attestation.vendor.outcome import Outcome, judge

_PEM: Final = re.compile(b"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
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
        certificate: VCEK or VLEK, DER or PEM.
        chain: PEM of its issuers, the certificate itself may be among them; may be empty: AMD's published
            intermediates are known.
        crl: revocation list of the product, DER or PEM; None: revocation is not looked at, except under
            a policy, which demands it.
        options: what is expected.
        now: Unix time in seconds.

    Raises:
        MalformedError: an input does not parse.
    """
    rules = dataclasses.replace(_rules(options.policy), report_data=options.report_data)
    leaf = _der(certificate)
    at = datetime.fromtimestamp(now, UTC)
    claims, checks = verify_snp(report, leaf, _without(leaf, chain), crl, rules, at)
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


def _der(certificate: bytes) -> bytes:
    """A certificate in DER form, also if it came as PEM. What is neither is for the parser to refuse."""
    if not certificate.lstrip().startswith(b"-----BEGIN"):
        return certificate
    found = _PEM.search(certificate)
    try:
        return base64.b64decode(b"".join(found[1].split()), validate=True) if found else certificate
    except binascii.Error as error:
        raise MalformedError("the SNP certificate is not PEM") from error


def _without(leaf: bytes, chain: bytes) -> bytes:
    """A PEM chain without the leaf, which some tools put in front of its issuers."""
    own = [block[0] for block in _PEM.finditer(chain) if _der(block[0]) == leaf]
    return chain.replace(own[0], b"", 1) if own else chain


def _rules(policy: Policy | None) -> SnpPolicy:
    if policy is None:
        return SnpPolicy.dangerous_genuine_only()
    base = policy.snp or open_snp_policy()
    measurements = frozenset(release.measurement for release in policy.snp_releases)
    return dataclasses.replace(base, measurements=measurements or None)
