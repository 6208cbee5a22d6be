"""Decides whether an SEV-SNP report is genuine, then applies a policy. No network, no clock.

Order (docs/spec/snp.md): parse strictly, authenticate, and only then look at what the report says.
"""

from __future__ import annotations

import datetime as dt
import hmac
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.snp import certificates as certs
from cocoon_attestation.snp import report as layout
from cocoon_attestation.snp.certificates import Endorsement
from cocoon_attestation.snp.leaf import SnpLeaf, parse_leaf
from cocoon_attestation.snp.policy import ANY_CSP, SnpPolicy
from cocoon_attestation.snp.report import (
    Product,
    SigningKey,
    SnpReport,
    TcbVersion,
    parse_snp_report,
    parse_tcb,
)
from cocoon_attestation.snp.validate import ReportTcbs, validate

_SPEC = "docs/spec/snp.md#"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpClaims:
    """What a report says. Meaningful only if the `CheckList` beside it has no failed check."""

    report: SnpReport
    product: Product | None
    """None if the chain did not lead to a trusted root."""
    signing_key: SigningKey
    """Kind of the certificate that endorses the signing key."""
    reported_tcb: TcbVersion | None
    committed_tcb: TcbVersion | None
    csp_id: str | None
    """Cloud provider of a VLEK."""
    simulated: bool
    """True if the chain leads to a development root."""
    valid_until: dt.datetime | None
    """Earliest end of a certificate or of the revocation list."""

    @property
    def platform_id(self) -> bytes | None:
        """The 64-byte chip id, or None if the host masked it."""
        return self.report.chip_id if any(self.report.chip_id) else None


def verify_snp(
    report: bytes,
    certificate: bytes,
    chain: bytes | str,
    crl: bytes | None,
    policy: SnpPolicy,
    at: dt.datetime,
) -> tuple[SnpClaims, CheckList]:
    """Verify a report at the time `at` (timezone-aware) and apply `policy`.

    `report` has 1184 bytes, `certificate` is the VCEK or VLEK in DER form, `chain` its issuers in PEM
    (may be empty: AMD's published intermediates are known), `crl` the revocation list of the product
    in DER or PEM form, or None.

    Raises:
        MalformedError: an input does not parse. Everything else is a failed check in the list.
    """
    if at.tzinfo is None:
        raise ValueError("`at` needs a time zone")
    parsed = parse_snp_report(report)
    leaf = parse_leaf(certificate)
    issuers = certs.parse_issuers(chain)
    revocations = certs.parse_crl(crl) if crl is not None else None
    checks = CheckList()
    _record(checks, "snp.length", True, f"{layout.REPORT_SIZE} bytes, reserved fields zero")
    _record(
        checks,
        "snp.algorithm",
        parsed.signature_algorithm == layout.SIGNATURE_ECDSA_P384_SHA384,
        f"signature algorithm {parsed.signature_algorithm} (1 = ECDSA P-384 with SHA-384)",
    )
    endorsement = _check_endorsement(checks, leaf, issuers, policy, at)
    _check_crl(checks, leaf, endorsement, revocations, policy, at)
    tcbs = _check_report(checks, parsed, leaf, endorsement, policy)
    product = endorsement.product if endorsement else None
    validate(checks, parsed, product, tcbs, policy)
    claims = SnpClaims(
        report=parsed,
        product=product,
        signing_key=leaf.kind,
        reported_tcb=tcbs.reported if tcbs else None,
        committed_tcb=tcbs.committed if tcbs else None,
        csp_id=leaf.csp_id,
        simulated=endorsement is not None and endorsement.root.simulated,
        valid_until=_valid_until(leaf, endorsement, revocations),
    )
    return claims, checks


def _check_endorsement(
    checks: CheckList,
    leaf: SnpLeaf,
    issuers: tuple[x509.Certificate, ...],
    policy: SnpPolicy,
    at: dt.datetime,
) -> Endorsement | None:
    found = certs.verify_chain(leaf, issuers, policy.roots)
    if isinstance(found, str):
        _record(checks, "snp.chain", False, found)
        checks.skip("snp.dates", "the chain is not valid", spec=_SPEC + "snp.dates")
        return None
    _record(checks, "snp.chain", True, f"leads to the pinned root of {found.product}")
    problem = certs.chain_dates_problem(leaf, found, at)
    _record(checks, "snp.dates", problem is None, problem or f"all certificates valid at {at:%Y-%m-%d}")
    return found


def _check_crl(
    checks: CheckList,
    leaf: SnpLeaf,
    endorsement: Endorsement | None,
    crl: x509.CertificateRevocationList | None,
    policy: SnpPolicy,
    at: dt.datetime,
) -> None:
    if crl is None and policy.require_crl:
        _record(checks, "snp.crl", False, "no revocation list came with the evidence")
    elif crl is None or endorsement is None:
        why = "the policy does not require a revocation list" if crl is None else "the chain is not valid"
        checks.skip("snp.crl", why, spec=_SPEC + "snp.crl")
    else:
        problem = certs.crl_problem(crl, leaf, endorsement, at)
        _record(checks, "snp.crl", problem is None, problem or "neither intermediate nor leaf is revoked")


def _check_report(
    checks: CheckList,
    report: SnpReport,
    leaf: SnpLeaf,
    endorsement: Endorsement | None,
    policy: SnpPolicy,
) -> ReportTcbs | None:
    """Checks 3 to 6: the report and its certificate belong together, and the signature is good."""
    _record(
        checks,
        "snp.key_kind",
        report.signing_key == leaf.kind,
        f"report signed by key {report.signing_key}, certificate is a {leaf.kind.name}",
    )
    tcbs = _check_tcb_match(checks, report, leaf, endorsement)
    _check_hwid(checks, report, leaf, endorsement, policy)
    if leaf.kind is SigningKey.VLEK:
        known = leaf.csp_id is not None and (policy.vlek_csps == ANY_CSP or leaf.csp_id in policy.vlek_csps)
        _record(checks, "snp.csp", known, f"VLEK of {leaf.csp_id or 'no provider'}")
    r, s = report.signature
    _record(
        checks,
        "snp.sig",
        _signature_valid(report, leaf),
        "ECDSA P-384 over bytes 0 to 671",
        (("signed", report.signed.hex()), ("signature", (r.to_bytes(48) + s.to_bytes(48)).hex())),
    )
    return tcbs


def _check_tcb_match(
    checks: CheckList, report: SnpReport, leaf: SnpLeaf, endorsement: Endorsement | None
) -> ReportTcbs | None:
    if endorsement is None:
        for check in ("snp.tcb_layout", "snp.tcb_match"):
            checks.skip(check, "the product is not known", spec=_SPEC + check)
        return None
    product = endorsement.product
    try:
        tcbs = ReportTcbs(
            reported=parse_tcb(product, report.reported_tcb),
            committed=parse_tcb(product, report.committed_tcb),
            launch=parse_tcb(product, report.launch_tcb),
            current=parse_tcb(product, report.current_tcb),
        )
    except MalformedError as error:
        _record(checks, "snp.tcb_layout", False, str(error))
        checks.skip("snp.tcb_match", "the TCB does not parse", spec=_SPEC + "snp.tcb_match")
        return None
    _record(checks, "snp.tcb_layout", True, f"TCB layout of {product}")
    same = tcbs.reported == leaf.tcb and leaf.has_fmc == (product is Product.TURIN)
    _record(checks, "snp.tcb_match", same, f"certificate {leaf.tcb}; reported {tcbs.reported}")
    return tcbs


def _check_hwid(
    checks: CheckList,
    report: SnpReport,
    leaf: SnpLeaf,
    endorsement: Endorsement | None,
    policy: SnpPolicy,
) -> None:
    masked = not any(report.chip_id)
    if leaf.kind is SigningKey.VLEK:
        ok = leaf.hwid is None
        _record(checks, "snp.hwid", ok, "a VLEK names no chip" if ok else "a VLEK must not name a chip")
        return
    if masked:
        ok = report.chip_key_masked and policy.allow_masked_chip_id
        _record(checks, "snp.hwid", ok, "the host masked the chip id")
        return
    if leaf.hwid is None:
        _record(checks, "snp.hwid", False, "the certificate names no chip")
        return
    same = hmac.compare_digest(leaf.hwid + bytes(64 - len(leaf.hwid)), report.chip_id)
    if same and endorsement is None:
        checks.skip("snp.hwid", "the product is not known", spec=_SPEC + "snp.hwid")
        return
    size = 8 if endorsement and endorsement.product is Product.TURIN else 64
    ok = same and len(leaf.hwid) == size
    ids = (("certificate", leaf.hwid.hex()), ("report", report.chip_id.hex()))
    _record(checks, "snp.hwid", ok, "chip id of the report against the certificate", ids)


def _signature_valid(report: SnpReport, leaf: SnpLeaf) -> bool:
    r, s = report.signature
    if r == 0 or s == 0:
        return False
    try:
        leaf.public_key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def _valid_until(
    leaf: SnpLeaf, endorsement: Endorsement | None, crl: x509.CertificateRevocationList | None
) -> dt.datetime | None:
    if endorsement is None:
        return None
    ends = [
        leaf.not_after,
        endorsement.intermediate.not_valid_after_utc,
        endorsement.ark.not_valid_after_utc,
    ]
    if crl is not None and crl.next_update_utc is not None:
        ends.append(crl.next_update_utc)
    return min(ends)


def _record(
    checks: CheckList, check: str, ok: bool, detail: str, inputs: tuple[tuple[str, str], ...] = ()
) -> None:
    checks.record(check, ok, detail, spec=_SPEC + check, inputs=inputs)
