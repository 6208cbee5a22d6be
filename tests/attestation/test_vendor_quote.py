"""Raw Intel quotes, TDX and SGX: one fault fails one check, and skipped checks are visible."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.reference import Release
from cocoon_attestation.sgx.quote import parse_sgx_quote
from cocoon_attestation.sgx.verify import validate_enclave
from cocoon_attestation.tdx import platform as platform_checks
from cocoon_attestation.tdx.collateral import load_collateral
from cocoon_attestation.tdx.dcap import DcapError, dcap_verify
from cocoon_attestation.vendor.outcome import Outcome, OutcomeVerdict, judge
from cocoon_attestation.vendor.quote import CUSTOM_ROOT, verify_raw_quote
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated_statements import qe_identity_json, tcb_info_json

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.kit_intel import REPORT_DATA, Intel, collateral_json
else:
    from kit_intel import REPORT_DATA, Intel, collateral_json

ACCEPTED, REJECTED = OutcomeVerdict.ACCEPTED, OutcomeVerdict.REJECTED


@pytest.fixture(scope="module")
def intel(lab: Any) -> Intel:
    return Intel(lab)


def failed(outcome: Outcome) -> list[str]:
    return [check.id for check in outcome.checks.failed]


KINDS = pytest.mark.parametrize("kind", ["tdx", "sgx"])


def quote_of(intel: Intel, kind: str) -> bytes:
    return intel.tdx() if kind == "tdx" else intel.sgx()


# --- accepted --------------------------------------------------------------------------------------------


@KINDS
def test_good_quote_speaks_of_the_hardware_only(intel: Intel, kind: str) -> None:
    outcome = intel.judge(quote_of(intel, kind))
    assert outcome.verdict is ACCEPTED
    assert outcome.kind == f"{kind}-quote"
    assert outcome.scope == "hardware"
    assert outcome.tcb_status == "UpToDate"
    document = outcome.to_dict()
    skipped: Any = document["not_checked"]
    assert f"{kind}.report_data" in skipped
    assert f"{kind}.evaluation" in skipped
    assert ("tdx.measurement" if kind == "tdx" else "sgx.mrenclave") in skipped
    assert document["ok"] is True
    assert document["warnings"] == [CUSTOM_ROOT]
    assert outcome.claims["custom_root"] is True
    assert outcome.claims["ppid"] == intel.platform.ppid.hex()
    assert json.loads(json.dumps(document)) == document
    assert {check.id.partition(".")[0] for check in outcome.checks} == {kind}


def test_expected_values_are_compared(intel: Intel) -> None:
    mrtd = intel.platform.release().mrtd
    outcome = intel.judge(intel.tdx(), mrtd=mrtd, report_data=REPORT_DATA, min_tcb_evaluation=19)
    assert outcome.verdict is ACCEPTED
    assert outcome.scope == "hardware and software"
    assert not outcome.checks.skipped
    enclave = hashlib.sha256(b"cocoon/v1/simulated/qe").digest()
    sgx = intel.judge(intel.sgx(), mrtd=enclave, report_data=REPORT_DATA, min_tcb_evaluation=19)
    assert sgx.verdict is ACCEPTED
    assert [check.id for check in sgx.checks.skipped] == ["sgx.mrsigner"]


def test_policy_of_a_session_compares_the_release(intel: Intel, lab: Any) -> None:
    policy = lab.policy()
    good = intel.judge(intel.tdx(), policy=policy)
    assert good.verdict is ACCEPTED
    assert good.scope == "hardware and software"
    other: Release = dataclasses.replace(lab.release, mrtd=bytes(48))
    assert failed(intel.judge(intel.tdx(), policy=lab.policy(releases=(other,)))) == ["tdx.measurement"]
    old = lab.policy(max_collateral_age_s=100)
    assert failed(intel.judge(intel.tdx(), policy=old)) == ["tdx.collateral_time"]
    strict = lab.policy(min_tcb_evaluation=20)
    assert failed(intel.judge(intel.tdx(), policy=strict)) == ["tdx.evaluation"]
    platform = good.claims["platform_id"]
    denied = lab.policy(denied_platforms=frozenset({bytes.fromhex(str(platform))}))
    assert failed(intel.judge(intel.tdx(), policy=denied)) == ["tdx.platform"]


def test_root_that_contradicts_the_policy(intel: Intel, lab: Any) -> None:
    with pytest.raises(ConfigError):
        intel.judge(intel.tdx(), policy=lab.policy(), root=b"another")
    with pytest.raises(ConfigError):
        intel.judge(intel.tdx(), policy=lab.policy(dev_root=None))


# --- one fault, one check ---------------------------------------------------------------------------------


@KINDS
def test_wrong_report_data(intel: Intel, kind: str) -> None:
    outcome = intel.judge(quote_of(intel, kind), report_data=bytes(64))
    expected = {"tdx": "tdx.report_data", "sgx": "sgx.report_data"}
    assert failed(outcome) == [expected[kind]]
    assert outcome.tcb_status == "UpToDate"


@KINDS
def test_wrong_measurement(intel: Intel, kind: str) -> None:
    outcome = intel.judge(quote_of(intel, kind), mrtd=bytes(48 if kind == "tdx" else 32))
    assert failed(outcome) == ["tdx.measurement" if kind == "tdx" else "sgx.mrenclave"]


@KINDS
def test_quote_is_refused_under_intels_root(intel: Intel, kind: str) -> None:
    outcome = intel.judge(quote_of(intel, kind), root=None)
    assert failed(outcome) == ["tdx.root" if kind == "tdx" else "sgx.root"]
    assert outcome.reason.startswith(f"{kind}.root")
    assert not outcome.warnings
    assert outcome.tcb_status is None


@KINDS
@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded"])
def test_status_is_shown_and_refused_unless_it_is_allowed(intel: Intel, kind: str, status: str) -> None:
    collateral = intel.statements(kind, status=status, advisories=("INTEL-SA-00001",))
    outcome = intel.judge(quote_of(intel, kind), collateral)
    assert failed(outcome) == ["tdx.tcb" if kind == "tdx" else "sgx.tcb"]
    assert outcome.verdict is REJECTED
    assert outcome.tcb_status == status
    assert outcome.advisories == ("INTEL-SA-00001",)
    allowed = intel.judge(quote_of(intel, kind), collateral, statuses=frozenset({status}))
    assert allowed.verdict is ACCEPTED
    assert allowed.tcb_status == status
    assert f"TCB status {status} is allowed" in allowed.warnings


def test_revoked_status_can_never_be_allowed(intel: Intel) -> None:
    collateral = intel.statements("tdx", status="Revoked")
    assert failed(intel.judge(intel.tdx(), collateral)) == ["tdx.tcb"]
    for unknown in ("Revoked", "uptodate", ""):
        with pytest.raises(ConfigError):
            intel.judge(intel.tdx(), collateral, statuses=frozenset({unknown}))


@KINDS
def test_minimum_evaluation_number(intel: Intel, kind: str) -> None:
    outcome = intel.judge(quote_of(intel, kind), min_tcb_evaluation=20)
    assert failed(outcome) == ["tdx.evaluation" if kind == "tdx" else "sgx.evaluation"]


@KINDS
@pytest.mark.parametrize("later", [-86_400, 31 * 86_400])
def test_collateral_has_dates(intel: Intel, kind: str, later: int) -> None:
    collateral = intel.statements(kind)
    outcome = intel.judge(quote_of(intel, kind), collateral, now=intel.now + later)
    assert failed(outcome) == ["tdx.collateral_time" if kind == "tdx" else "sgx.collateral_time"]


@KINDS
def test_collateral_of_the_other_kind(intel: Intel, kind: str) -> None:
    other = intel.statements("sgx" if kind == "tdx" else "tdx")
    outcome = intel.judge(quote_of(intel, kind), other)
    assert "tdx.collateral" in failed(outcome) or "sgx.collateral" in failed(outcome)
    assert outcome.verdict is REJECTED


def test_collateral_of_another_platform_family(intel: Intel) -> None:
    collateral = json.loads(intel.statements("sgx"))
    text = collateral["tcb_info"].replace("c0c000000000", "c0c000000001")
    collateral["tcb_info"] = text
    collateral["tcb_info_signature"] = pki.sign_raw(intel.platform.tcb_signer.key, text.encode()).hex()
    assert failed(intel.judge(intel.sgx(), json.dumps(collateral).encode())) == ["sgx.collateral"]


def test_revoked_pck_certificate(intel: Intel) -> None:
    serial = intel.platform.pck.certificate.serial_number
    for kind, check in (("tdx", "tdx.chain"), ("sgx", "sgx.chain")):
        collateral = intel.statements(kind, revoked=(serial,))
        assert failed(intel.judge(quote_of(intel, kind), collateral)) == [check]


@pytest.mark.parametrize(
    ("first", "fault"),
    [(0x07, "DEBUG bit"), (0x04, "not initialised")],
)
def test_enclave_that_is_not_closed(intel: Intel, first: int, fault: str) -> None:
    attributes = bytes((first,)) + bytes(7) + b"\xe7" + bytes(7)
    outcome = intel.judge(intel.sgx(attributes=attributes))
    assert failed(outcome) == ["sgx.attributes"]
    assert fault in outcome.reason


def test_signer_of_an_enclave(intel: Intel) -> None:
    quote = parse_sgx_quote(intel.sgx())
    for signer, ok in ((b"\x77" * 32, True), (b"\x78" * 32, False)):
        checks = CheckList()
        validate_enclave(quote, mrenclave=None, mrsigner=frozenset({signer}), checks=checks)
        assert ([check.id for check in checks.failed] == []) is ok
        assert ok or [check.id for check in checks.failed] == ["sgx.mrsigner"]


def test_other_quoting_enclave(intel: Intel) -> None:
    values = dataclasses.replace(intel.platform.quoting_enclave, isv_prod_id=2)
    assert failed(intel.judge(intel.sgx(qe=values))) == ["sgx.qe"]


def test_changed_body_breaks_the_signature(intel: Intel) -> None:
    def flip(quote: bytes) -> bytes:
        return quote[:400] + bytes((quote[400] ^ 1,)) + quote[401:]

    assert failed(intel.judge(intel.sgx(edit=flip))) == ["sgx.sig"]


def test_attestation_key_that_nobody_certified(intel: Intel) -> None:
    """The whole quote is signed again with an own key: genuine certification, wrong key."""
    quote, key = intel.sgx(), pki.new_key(intel.lab.random)
    signed = quote[:432]
    forged = signed + quote[432:436] + pki.sign_raw(key, signed) + pki.raw_public_key(key) + quote[564:]
    assert failed(intel.judge(forged)) == ["sgx.attestation_key"]


def test_library_that_reads_something_else(intel: Intel, monkeypatch: pytest.MonkeyPatch) -> None:
    real = dcap_verify

    def lie(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        return dataclasses.replace(result, report={**result.report, "mrenclave": bytes(32)})

    monkeypatch.setattr(platform_checks, "dcap_verify", lie)
    assert failed(intel.judge(intel.sgx())) == ["sgx.consistency"]


def test_library_that_refuses(intel: Intel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise DcapError("something else")

    monkeypatch.setattr(platform_checks, "dcap_verify", refuse)
    outcome = intel.judge(intel.sgx())
    assert failed(outcome) == ["sgx.chain"]
    assert "sgx.platform" in {check.id for check in outcome.checks.skipped}


def test_platform_ids_of_sgx_and_tdx_differ(intel: Intel) -> None:
    ids = {intel.judge(quote_of(intel, kind)).claims["platform_id"] for kind in ("tdx", "sgx")}
    assert len(ids) == 2
    listed = dataclasses.replace(intel.lab.policy(), allowed_platforms=frozenset({bytes(32)}))
    assert failed(intel.judge(intel.sgx(), policy=listed)) == ["sgx.platform"]


def test_guest_under_a_paravisor_has_a_reason_of_its_own(intel: Intel) -> None:
    zero = bytes(48)
    registers = {f"rtmr{i}": zero for i in range(4)}
    half = REPORT_DATA[:32] + bytes(32)
    outcome = intel.judge(intel.tdx(report_data=half, **registers))
    assert failed(outcome) == ["tdx.paravisor"]
    assert outcome.tcb_status == "UpToDate"
    assert outcome.reason.startswith("tdx.paravisor")
    without_flag = intel.judge(intel.tdx(report_data=half, td_attributes=bytes(8), **registers))
    assert failed(without_flag) == ["tdx.attributes", "tdx.paravisor"]
    assert without_flag.reason.startswith("tdx.paravisor")
    for fine in ({"report_data": half}, {"report_data": bytes(64), **registers}, registers):
        assert intel.judge(intel.tdx(**fine)).verdict is ACCEPTED


@pytest.mark.parametrize("field", ["mrconfigid", "mrowner", "mrownerconfig"])
def test_values_of_the_host_are_shown_as_not_judged(intel: Intel, lab: Any, field: str) -> None:
    outcome = intel.judge(intel.tdx(**{field: b"\x01" * 48}))
    assert outcome.verdict is ACCEPTED
    assert "tdx.owner" in {check.id for check in outcome.checks.skipped}
    assert failed(intel.judge(intel.tdx(**{field: b"\x01" * 48}), policy=lab.policy())) == ["tdx.owner"]


# --- malformed ---------------------------------------------------------------------------------------------


@KINDS
def test_every_truncation_is_malformed(intel: Intel, kind: str) -> None:
    quote, collateral = quote_of(intel, kind), intel.statements(kind)
    for length in range(len(quote)):
        with pytest.raises(MalformedError):
            intel.judge(quote[:length] or b"\0", collateral)


@KINDS
def test_bytes_behind_the_quote_are_ignored(intel: Intel, kind: str) -> None:
    quote = quote_of(intel, kind)
    outcome = intel.judge(quote + b"\x99" * 100)
    assert outcome.verdict is ACCEPTED
    assert outcome.claims["trailing_bytes"] == 100
    assert outcome.claims["quote_sha256"] == hashlib.sha256(quote).hexdigest()


@pytest.mark.parametrize(
    ("offset", "value"),
    [(2, b"\x03"), (4, b"\x81"), (12, b"\x00"), (48 + 96, b"\x01"), (48 + 160, b"\x01")],
)
def test_sgx_header_and_reserved_bytes(intel: Intel, offset: int, value: bytes) -> None:
    with pytest.raises(MalformedError):
        intel.judge(intel.sgx(edit=lambda quote: quote[:offset] + value + quote[offset + 1 :]))


def test_sgx_certification_of_another_type(intel: Intel) -> None:
    quote = intel.sgx()
    at = quote.index(b"\x05\x00", 48 + 384 + 4 + 128 + 384 + 64 + 2 + 32)
    with pytest.raises(MalformedError):
        parse_sgx_quote(quote[:at] + b"\x03" + quote[at + 1 :])
    with pytest.raises(MalformedError):
        parse_sgx_quote(bytes(65 * 1024))


def test_version_of_no_kind(intel: Intel) -> None:
    for version in (0, 1, 2, 6, 7):
        with pytest.raises(MalformedError):
            intel.judge(bytes((version, 0)) + intel.tdx()[2:])


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"[" * 100_000,
    ],
)
def test_collateral_of_another_form(intel: Intel, document: bytes) -> None:
    with pytest.raises(MalformedError):
        verify_raw_quote(intel.tdx(), document, intel.options, intel.now)


def test_collateral_of_another_legal_form(intel: Intel) -> None:
    plain = intel.statements("tdx")
    document = json.loads(plain)
    crl = x509.load_der_x509_crl(bytes.fromhex(document["pck_crl"])).public_bytes(Encoding.PEM)
    for changes in (
        {"pck_certificate_chain": None, "version": 3},
        {"pck_crl": crl.decode()},
        {"pck_crl": crl.hex().upper()},
        {"root_ca_crl": f" {document['root_ca_crl']}\n"},
    ):
        data = b"\xef\xbb\xbf" + json.dumps(document | changes).encode()
        assert load_collateral(data) == load_collateral(plain)
        assert intel.judge(intel.tdx(), data).verdict is ACCEPTED


@pytest.mark.parametrize(
    "change",
    [
        {"pck_crl": "zz"},
        {"pck_crl": "-----BEGIN X509 CRL-----\n"},
        {"tcb_info_signature": "-----BEGIN X509 CRL-----\n"},
        {"pck_crl": "0"},
        {"pck_crl": ""},
        {"pck_crl": 5},
        {"tcb_info_signature": "00"},
        {"tcb_info": "ü"},
        {"tcb_info": ""},
        {"tcb_info": "x" * 200_000},
        {"root_ca_crl": "00" * 600_000},
    ],
)
def test_collateral_fields_are_bounded(intel: Intel, change: dict[str, Any]) -> None:
    good = intel.platform.collateral(intel.now)
    with pytest.raises(MalformedError):
        load_collateral(collateral_json(good, **change))
    missing = json.loads(collateral_json(good))
    del missing["pck_crl"]
    with pytest.raises(MalformedError):
        load_collateral(json.dumps(missing).encode())
    with pytest.raises(MalformedError):
        load_collateral(bytes(5 << 20))


# --- the verdict -------------------------------------------------------------------------------------------


def test_verdict_follows_from_the_checks() -> None:
    checks = CheckList()
    assert judge(checks, frozenset()) is OutcomeVerdict.UNDECIDED
    checks.skip("a", "not made")
    assert judge(checks, frozenset({"a"})) is OutcomeVerdict.UNDECIDED
    checks.record("b", True, "fine")
    assert judge(checks, frozenset({"a"})) is ACCEPTED
    assert judge(checks, frozenset()) is OutcomeVerdict.UNDECIDED
    checks.record("c", False, "wrong")
    assert judge(checks, frozenset({"a", "c"})) is REJECTED
    assert [verdict.exit_code for verdict in OutcomeVerdict] == [0, 10, 30, 40]


def test_statement_builders_stay_tdx_by_default(intel: Intel) -> None:
    tcb = json.loads(tcb_info_json(intel.platform.tcb, now=intel.now, days=1, evaluation=1))
    qe = json.loads(qe_identity_json(mrsigner=bytes(32), isv_svn=1, now=intel.now, days=1, evaluation=1))
    assert (tcb["id"], qe["id"]) == ("TDX", "TD_QE")


# --- grace -----------------------------------------------------------------------------------------------


def outdated(intel: Intel, kind: str, days: int) -> bytes:
    """Collateral with a level that came `days` ago and that this platform does not reach."""
    document = json.loads(intel.statements(kind, status="OutOfDate", advisories=("INTEL-SA-1",)))
    tcb = json.loads(document["tcb_info"])
    level = tcb["tcbLevels"][0]
    newer = json.loads(json.dumps(level)) | {"tcbStatus": "UpToDate", "advisoryIDs": []}
    newer["tcb"]["pcesvn"] += 1
    for one, age in ((level, days + 100), (newer, days)):
        moment = datetime.fromtimestamp(intel.now - age * 86_400, UTC)
        one["tcbDate"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    tcb["tcbLevels"] = [newer, level]
    text = json.dumps(tcb, separators=(",", ":"))
    signature = pki.sign_raw(intel.platform.tcb_signer.key, text.encode())
    return json.dumps(document | {"tcb_info": text, "tcb_info_signature": signature.hex()}).encode()


@KINDS
def test_grace_of_both_kinds_of_quote(intel: Intel, kind: str) -> None:
    grace = {"grace_s": 30 * 86_400}
    late = intel.judge(quote_of(intel, kind), outdated(intel, kind, 31), **grace)
    assert failed(late) == [f"{kind}.tcb"]
    assert "grace ended" in late.reason
    early = intel.judge(quote_of(intel, kind), outdated(intel, kind, 10), **grace)
    assert early.verdict is ACCEPTED
    assert (early.tcb_status, early.advisories) == ("OutOfDate", ("INTEL-SA-1",))
    tolerated: Any = early.claims["tcb_tolerated"]
    assert tolerated["until"] == early.expires_at == intel.now + 20 * 86_400
    assert "outdated platforms have 30 days of grace" in early.warnings
