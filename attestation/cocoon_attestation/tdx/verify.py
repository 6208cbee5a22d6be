"""TDX authenticity: did genuine, current hardware under the policy's root sign this quote?

Two implementations look at every quote. The `dcap-qvl` library builds certificate paths, applies
revocation lists and matches TCB levels; the checks here repeat what an attacker would most like to see
skipped (root, collateral signatures and dates, attestation key, quoting enclave, quote signature) and
compare the library's reading of the quote with ours. Rules: docs/spec/appraisal.md, section 2.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.checks import CheckList, Verdict
from cocoon_attestation.tdx.collateral import Collateral, QeIdentity, parse_chain
from cocoon_attestation.tdx.dcap import DcapError, pck_family
from cocoon_attestation.tdx.platform import LIBRARY_CHECKS, SignedQuote, TdxPlatform, check_platform
from cocoon_attestation.tdx.requirements import PlatformRequirements

TCB_INFO_FORM: Final = ("TDX", 3)
QE_IDENTITY_FORM: Final = ("TD_QE", 2)
Form = tuple[str, int]
"""Id and version of a signed statement."""

_STOPS_LIBRARY: Final = frozenset(
    {
        "tdx.root",
        "tdx.collateral",
        "tdx.collateral_time",
        "tdx.attestation_key",
        "tdx.qe",
        "tdx.sig",
        "tdx.attributes",
        "tdx.module",
        "tdx.service_td",
    }
)
"""Failures that the library would stop at too; it is then not asked, so one fault is reported once."""


def verify_quote(
    quote: SignedQuote,
    collateral: Collateral | None,
    *,
    policy: PlatformRequirements,
    now: int,
    checks: CheckList,
    forms: tuple[Form, Form] = (TCB_INFO_FORM, QE_IDENTITY_FORM),
) -> TdxPlatform | None:
    """Record the authenticity checks; return facts on the platform if the library accepted the quote.

    Args:
        quote: parsed quote.
        collateral: parsed collateral, or None if the node stapled none.
        policy: gives the root, the TCB rules and the platform lists.
        now: Unix time in seconds to verify at.
        checks: where the verdicts go; failures already in it decide whether the library is asked.
        forms: ids and versions that TCB info and QE identity must have.

    Raises:
        MalformedError: the certificate chain inside the quote does not decode.
    """
    pck_chain = parse_chain(quote.pck_chain, "PCK chain")
    _root(pck_chain, collateral, policy, checks)
    if collateral is None:
        checks.record("tdx.collateral", False, "the node sent no collateral")
        checks.skip("tdx.collateral_time", "not made: no collateral")
        checks.skip("tdx.evaluation", "not made: no collateral")
    else:
        _collateral(collateral, forms, quote.pck_chain, pck_chain[0], checks)
        _collateral_time(collateral, policy, now, checks)
        _evaluation(collateral, policy, checks)
    _attestation_key(quote, checks)
    _quoting_enclave(quote, pck_chain[0], collateral.qe_identity if collateral else None, checks)
    _quote_signature(quote, checks)
    stopped = [c.id for c in checks if c.verdict is not Verdict.PASS and c.id in _STOPS_LIBRARY]
    if stopped or collateral is None:
        for id in LIBRARY_CHECKS:
            checks.skip(id, f"not made: {stopped[0]} failed")
        return None
    return check_platform(quote, collateral, policy, now, checks)


def _root(
    pck_chain: tuple[x509.Certificate, ...],
    collateral: Collateral | None,
    policy: PlatformRequirements,
    checks: CheckList,
) -> None:
    chains = {"PCK": pck_chain}
    if collateral is not None:
        chains["PCK CRL"] = collateral.pck_crl_chain
        chains["TCB info"] = collateral.tcb_info.chain
        chains["QE identity"] = collateral.qe_identity.chain
    foreign = [
        name
        for name, chain in chains.items()
        if not hmac.compare_digest(chain[-1].public_bytes(Encoding.DER), policy.root)
    ]
    kind = "development root" if policy.simulated else "Intel SGX Root CA"
    checks.record(
        "tdx.root",
        not foreign,
        f"{' and '.join(foreign)} chain: does not end in the {kind} {policy.root_sha256.hex()[:16]}…"
        if foreign
        else f"every chain ends in the {kind} {policy.root_sha256.hex()[:16]}…",
        inputs=(("root_sha256", policy.root_sha256.hex()),),
    )


def _collateral(
    collateral: Collateral,
    forms: tuple[Form, Form],
    pck_pem: bytes,
    leaf: x509.Certificate,
    checks: CheckList,
) -> None:
    faults = []
    for name, statement, form in (
        ("TCB info", collateral.tcb_info, forms[0]),
        ("QE identity", collateral.qe_identity, forms[1]),
    ):
        if (statement.id, statement.version) != form:
            faults.append(f"{name} is {statement.id} version {statement.version}")
        if not _p256_valid(statement.chain[0].public_key(), statement.signature, statement.text):
            faults.append(f"{name}: wrong signature")
    try:
        family = pck_family(pck_pem)
    except DcapError:
        faults.append("the PCK certificate names no platform family")
    else:
        if family != (collateral.tcb_info.fmspc, collateral.tcb_info.pce_id):
            faults.append("TCB info is for another platform family (FMSPC or PCE-ID)")
    root = collateral.tcb_info.chain[-1]
    if collateral.root_crl.issuer != root.subject:
        faults.append("root CRL of another issuer")
    if collateral.pck_crl.issuer != leaf.issuer:
        faults.append("PCK CRL of another CA than the issuer of the PCK certificate")
    # The library takes the issuer of the PCK CRL from the quote and never looks at this chain.
    chain = collateral.pck_crl_chain
    if chain[0].subject != collateral.pck_crl.issuer or not all(map(_issued, chain, chain[1:])):
        faults.append("PCK CRL chain: not of the list's issuer, or a certificate not signed by the next")
    checks.record(
        "tdx.collateral",
        not faults,
        "; ".join(faults)
        or "TCB info, QE identity and CRLs are signed, for this platform, of the right issuers",
        inputs=(
            ("tcb_info", collateral.source.tcb_info),
            ("tcb_info_signature", collateral.tcb_info.signature.hex()),
            ("qe_identity", collateral.source.qe_identity),
            ("qe_identity_signature", collateral.qe_identity.signature.hex()),
        ),
    )


def _collateral_time(
    collateral: Collateral, policy: PlatformRequirements, now: int, checks: CheckList
) -> None:
    windows = (
        ("TCB info", collateral.tcb_info.issue_date, collateral.tcb_info.next_update),
        ("QE identity", collateral.qe_identity.issue_date, collateral.qe_identity.next_update),
        ("root CRL", collateral.root_crl.this_update, collateral.root_crl.next_update),
        ("PCK CRL", collateral.pck_crl.this_update, collateral.pck_crl.next_update),
    )
    faults = [f"{name} is not valid yet" for name, start, _ in windows if now < start]
    faults += [f"{name} is expired" for name, _, end in windows if now > end]
    oldest = min(collateral.tcb_info.issue_date, collateral.qe_identity.issue_date)
    if policy.max_collateral_age_s is not None and now - oldest > policy.max_collateral_age_s:
        faults.append(f"issued {now - oldest} s ago, at most {policy.max_collateral_age_s} s allowed")
    checks.record(
        "tdx.collateral_time",
        not faults,
        "; ".join(faults) or f"in date, issued {now - oldest} s ago",
        inputs=(("now", str(now)), *((name, f"{start}..{end}") for name, start, end in windows)),
    )


def _evaluation(collateral: Collateral, policy: PlatformRequirements, checks: CheckList) -> None:
    numbers = (collateral.tcb_info.evaluation, collateral.qe_identity.evaluation)
    if not policy.min_tcb_evaluation:
        checks.skip("tdx.evaluation", f"no minimum is given; the numbers are {numbers[0]} and {numbers[1]}")
        return
    checks.record(
        "tdx.evaluation",
        min(numbers) >= policy.min_tcb_evaluation,
        f"tcbEvaluationDataNumber {numbers[0]} (TCB info) and {numbers[1]} (QE identity), "
        f"at least {policy.min_tcb_evaluation} expected",
    )


def _attestation_key(quote: SignedQuote, checks: CheckList) -> None:
    """The quoting enclave must have certified exactly this key; skipping this makes forging trivial."""
    digest = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    checks.record(
        "tdx.attestation_key",
        hmac.compare_digest(digest + bytes(32), quote.qe_report.report_data),
        "report data of the quoting enclave against H(attestation key ‖ authentication data)",
        inputs=(
            ("preimage", (quote.attestation_key + quote.qe_auth_data).hex()),
            ("digest", digest.hex()),
            ("qe_report_data", quote.qe_report.report_data.hex()),
        ),
    )


def _quoting_enclave(
    quote: SignedQuote, leaf: x509.Certificate, identity: QeIdentity | None, checks: CheckList
) -> None:
    report, faults = quote.qe_report, []
    if not _p256_valid(leaf.public_key(), quote.qe_report_signature, report.raw):
        faults.append("report is not signed by the PCK key")
    if report.debug:
        faults.append("debuggable")
    if identity is not None:
        mask = identity.miscselect_mask
        if report.misc_select & mask != identity.miscselect & mask:
            faults.append("MISCSELECT differs from the QE identity")
        if _masked(report.attributes, identity.attributes_mask) != _masked(
            identity.attributes, identity.attributes_mask
        ):
            faults.append("ATTRIBUTES differ from the QE identity")
        if not hmac.compare_digest(report.mrsigner, identity.mrsigner):
            faults.append("MRSIGNER differs from the QE identity")
        if report.isv_prod_id != identity.isv_prod_id:
            faults.append("ISVPRODID differs from the QE identity")
    checks.record(
        "tdx.qe",
        not faults,
        f"quoting enclave: {'; '.join(faults) or 'signed by the PCK key, identity as published'}",
        inputs=(
            ("signed", report.raw.hex()),
            ("signature", quote.qe_report_signature.hex()),
            ("mrsigner", report.mrsigner.hex()),
            ("isv_svn", str(report.isv_svn)),
        ),
    )


def _quote_signature(quote: SignedQuote, checks: CheckList) -> None:
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key)
        valid = _p256_valid(key, quote.signature, quote.signed)
    except ValueError:  # not a point of the curve
        valid = False
    checks.record(
        "tdx.sig",
        valid,
        f"attestation key over header and body ({len(quote.signed)} bytes)",
        inputs=(
            ("signed", quote.signed.hex()),
            ("signature", quote.signature.hex()),
            ("attestation_key", quote.attestation_key.hex()),
            ("quote_sha256", quote.sha256.hex()),
        ),
    )


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(a & b for a, b in zip(value, mask, strict=True))


def _issued(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):  # wrong signature, other name, key of another kind
        return False
    return True


def _p256_valid(key: object, signature: bytes, message: bytes) -> bool:
    """Verify a raw r ‖ s signature of ECDSA P-256 with SHA-256."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return False
    encoded = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    try:
        key.verify(encoded, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
