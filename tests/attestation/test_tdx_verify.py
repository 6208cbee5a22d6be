"""Our own authenticity checks alone: `dcap-qvl` would refuse most of these too, and must not be needed for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cocoon_attestation.checks import Check, CheckList, Verdict
from cocoon_attestation.evidence import TdxCollateralBytes
from cocoon_attestation.policy import Policy
from cocoon_attestation.tdx import verify
from cocoon_attestation.tdx.collateral import Collateral, QeIdentity, parse_chain, parse_collateral
from cocoon_attestation.tdx.dcap import DcapError
from cocoon_attestation.tdx.quote import Quote, parse_quote

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def quote(lab: Any) -> Quote:
    return parse_quote(lab.platform.quote(lab.platform.td_report(bytes(64), bytes(48))))


@pytest.fixture(scope="module")
def collateral(lab: Any) -> Collateral:
    message = lab.platform.collateral(lab.now)
    fields = {field.name: value for field, value in message.ListFields()}
    return parse_collateral(TdxCollateralBytes(**fields))


@pytest.fixture(scope="module")
def policy(lab: Any) -> Policy:
    made: Policy = lab.policy()
    return made


def only(checks: CheckList) -> Check:
    (check,) = checks
    return check


def enclave(quote: Quote, identity: QeIdentity | None, **changes: Any) -> Check:
    """The check on a quoting enclave whose parsed report differs; its signed bytes stay genuine."""
    report = dataclasses.replace(quote.qe_report, **changes)
    checks = CheckList()
    leaf = parse_chain(quote.pck_chain, "chain")[0]
    verify._quoting_enclave(dataclasses.replace(quote, qe_report=report), leaf, identity, checks)
    return only(checks)


def test_quoting_enclave_as_published(quote: Quote, collateral: Collateral) -> None:
    assert enclave(quote, collateral.qe_identity).verdict is Verdict.PASS
    assert enclave(quote, None).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("field", "words"),
    [("misc_select", "MISCSELECT"), ("mrsigner", "MRSIGNER"), ("isv_prod_id", "ISVPRODID")],
)
def test_each_field_of_the_quoting_enclave(
    quote: Quote, collateral: Collateral, field: str, words: str
) -> None:
    value = getattr(quote.qe_report, field)
    other = value ^ 1 if isinstance(value, int) else bytes((value[0] ^ 1,)) + value[1:]
    check = enclave(quote, collateral.qe_identity, **{field: other})
    assert check.verdict is Verdict.FAIL
    assert check.detail == f"quoting enclave: {words} differs from the QE identity"


def test_bits_outside_of_the_mask_are_free(quote: Quote, collateral: Collateral) -> None:
    identity = dataclasses.replace(collateral.qe_identity, miscselect_mask=0xFFFF_FFFE)
    assert enclave(quote, identity, misc_select=quote.qe_report.misc_select ^ 1).verdict is Verdict.PASS
    assert enclave(quote, identity, misc_select=quote.qe_report.misc_select ^ 2).verdict is Verdict.FAIL
    free = dataclasses.replace(collateral.qe_identity, attributes_mask=bytes(16))
    attributes = quote.qe_report.attributes[:8] + b"\xff" * 8
    assert enclave(quote, free, attributes=attributes).verdict is Verdict.PASS
    whole = dataclasses.replace(collateral.qe_identity, attributes_mask=b"\xff" * 16)
    assert "ATTRIBUTES" in enclave(quote, whole, attributes=attributes).detail


def test_debuggable_quoting_enclave(quote: Quote, collateral: Collateral) -> None:
    first = bytes((quote.qe_report.attributes[0] | 2,))
    attributes = first + quote.qe_report.attributes[1:]
    identity = dataclasses.replace(collateral.qe_identity, attributes=attributes)
    check = enclave(quote, identity, attributes=attributes)
    assert check.verdict is Verdict.FAIL
    assert check.detail == "quoting enclave: debuggable"


def signature(quote: Quote, **changes: Any) -> Verdict:
    checks = CheckList()
    verify._quote_signature(dataclasses.replace(quote, **changes), checks)
    return only(checks).verdict


def test_signature_of_the_quote(quote: Quote) -> None:
    assert signature(quote) is Verdict.PASS
    assert signature(quote, signed=quote.signed + b"\0") is Verdict.FAIL
    assert signature(quote, signature=bytes(64)) is Verdict.FAIL
    for key in (bytes(64), b"\xff" * 64, quote.attestation_key[:63] + bytes(1)):
        assert signature(quote, attestation_key=key) is Verdict.FAIL


def test_only_p256_keys_count(quote: Quote) -> None:
    strange = ec.generate_private_key(ec.SECP384R1()).public_key()
    for key in (strange, None, b"key"):
        assert verify._p256_valid(key, quote.signature, quote.signed) is False
    own = parse_chain(quote.pck_chain, "chain")[0].public_key()
    assert verify._p256_valid(own, quote.qe_report_signature, quote.qe_report.raw) is True
    assert verify._p256_valid(own, quote.qe_report_signature, quote.signed) is False


@pytest.mark.parametrize(
    ("start", "end", "good"),
    [(0, 0, True), (-5, 0, True), (0, 5, True), (1, 5, False), (-5, -1, False)],
)
@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_crl", "pck_crl"])
def test_edges_of_the_life_of_each_statement(
    collateral: Collateral, policy: Policy, part: str, start: int, end: int, good: bool
) -> None:
    statement = getattr(collateral, part)
    first = "issue_date" if part in ("tcb_info", "qe_identity") else "this_update"
    dated = dataclasses.replace(statement, **{first: NOW + start, "next_update": NOW + end})
    checks = CheckList()
    changed = dataclasses.replace(collateral, **{part: dated})
    verify._collateral_time(changed, policy, NOW, checks)
    assert (only(checks).verdict is Verdict.PASS) is good


@pytest.mark.parametrize(("age", "good"), [(100, True), (101, False)])
def test_age_of_collateral(collateral: Collateral, policy: Policy, age: int, good: bool) -> None:
    rules = dataclasses.replace(policy, max_collateral_age_s=100)
    dated = dataclasses.replace(collateral.tcb_info, issue_date=NOW - age, next_update=NOW + 10)
    fresh = dataclasses.replace(collateral.qe_identity, issue_date=NOW, next_update=NOW + 10)
    checks = CheckList()
    changed = dataclasses.replace(collateral, tcb_info=dated, qe_identity=fresh)
    verify._collateral_time(changed, rules, NOW, checks)
    assert (only(checks).verdict is Verdict.PASS) is good


def test_every_check_shows_without_collateral(quote: Quote, policy: Policy) -> None:
    checks = CheckList()
    assert verify.verify_quote(quote, None, policy=policy, now=NOW, checks=checks) is None
    assert {check.id: check.verdict.value for check in checks} == {
        "tdx.root": "pass",
        "tdx.collateral": "fail",
        "tdx.collateral_time": "skip",
        "tdx.evaluation": "skip",
        "tdx.attestation_key": "pass",
        "tdx.qe": "pass",
        "tdx.sig": "pass",
        "tdx.chain": "skip",
        "tdx.tcb": "skip",
        "tdx.consistency": "skip",
        "tdx.platform": "skip",
    }


def test_pck_certificate_without_a_platform_family(
    quote: Quote, collateral: Collateral, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(chain: bytes) -> tuple[bytes, bytes]:
        raise DcapError("no extension")

    monkeypatch.setattr(verify, "pck_family", refuse)
    checks = CheckList()
    leaf = parse_chain(quote.pck_chain, "chain")[0]
    forms = (verify.TCB_INFO_FORM, verify.QE_IDENTITY_FORM)
    verify._collateral(collateral, forms, quote.pck_chain, leaf, checks)
    assert only(checks).verdict is Verdict.FAIL
    assert only(checks).detail == "the PCK certificate names no platform family"
