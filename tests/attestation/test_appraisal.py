"""`appraise`: good evidence passes, and for every check there is evidence that fails only that check."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import cocoon_attestation
from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import beacon_challenge, gpu_digest, report_data
from cocoon_attestation.checks import Verdict
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError, MalformedError
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.rtmr3 import RuntimeEvent, replay
from cocoon_attestation.tdx import platform as platform_checks
from cocoon_attestation.tdx.dcap import DcapError, DcapResult, dcap_verify
from cocoon_attestation.verified import VerifiedEnclave
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_quote import certify, encode_quote
from cocoon_enclave.attestation.simulated_statements import qe_identity_json, tcb_info_json

EXPECTED_CHECKS = {
    "policy.validity",
    "challenge",
    "binding.seal_key",
    "binding.validity",
    "binding.network",
    "binding.node",
    "binding.release",
    "binding.report_data",
    "tee.kind",
    "tdx.measurement",
    "tdx.attributes",
    "tdx.xfam",
    "tdx.module",
    "tdx.service_td",
    "tdx.owner",
    "tdx.paravisor",
    "tdx.root",
    "tdx.collateral",
    "tdx.collateral_time",
    "tdx.evaluation",
    "tdx.attestation_key",
    "tdx.qe",
    "tdx.sig",
    "tdx.chain",
    "tdx.tcb",
    "tdx.consistency",
    "tdx.platform",
    "rtmr3.replay",
    "rtmr3.grammar",
    "rtmr3.config",
    "rtmr3.models",
    "rtmr3.gpu",
}


# --- acceptance ---------------------------------------------------------------------------------------


def test_good_evidence_is_accepted(lab: Any) -> None:
    enclave = lab.appraise()
    assert {check.id for check in enclave.checks} == EXPECTED_CHECKS
    assert all(check.verdict is Verdict.PASS for check in enclave.checks)
    assert enclave.binding == lab.binding()
    assert enclave.binding_hash == lab.binding().hash
    assert enclave.models == (lab.model,)
    assert enclave.release == lab.release
    assert enclave.release_id == lab.release.release_id
    assert enclave.seal_public_key == lab.seal_public_key
    assert enclave.tee is TeeKind.TDX
    assert enclave.simulated is True
    assert enclave.policy_digest == lab.policy().digest
    assert enclave.claims["tcb_status"] == "UpToDate"
    assert enclave.platform_id == platform_checks.platform_id(TeeKind.TDX, lab.platform.ppid)


def test_td15_quote_of_version_5_is_accepted(lab: Any) -> None:
    tcb = bytes(lab.platform.tcb.tee_tcb_svn)
    evidence = lab.evidence(report={"tee_tcb_svn_2": tcb, "mrservicetd": bytes(48)})
    assert lab.appraise(evidence).claims["quote_version"] == 5


def test_trailing_bytes_of_the_quote_are_not_read(lab: Any) -> None:
    plain = lab.evidence()
    padded = edited(plain, lambda m: setattr(m.tdx, "quote", m.tdx.quote + b"\xff" * 100))
    assert lab.appraise(padded).claims["quote_sha256"] == lab.appraise(plain).claims["quote_sha256"]


def test_published_evidence_answers_a_beacon(lab: Any) -> None:
    challenge = beacon_challenge(7, b"\x05" * 32)

    def add_beacon(message: evidence_pb2.Evidence) -> None:
        message.beacon.seqno, message.beacon.root_hash = 7, b"\x05" * 32

    evidence = lab.evidence(challenge=challenge, edit=add_beacon)
    assert lab.appraise(evidence, challenge=challenge).simulated


def test_now_may_be_a_datetime(lab: Any) -> None:
    moment = datetime.fromtimestamp(lab.now, UTC)
    assert lab.appraise(now=moment).appraised_at == lab.now


@pytest.mark.parametrize(
    ("binding", "policy", "expiry"),
    [
        ({}, {}, 600),
        ({}, {"session_limit_s": 10**6}, 3600),
        ({"not_after": 1_800_000_000 + 60}, {}, 60),
        ({}, {"not_after": 1_800_000_000 + 30}, 30),
        (
            {"not_after": 1_800_000_000 + 80_000},
            {"session_limit_s": 10**6, "max_collateral_age_s": 1000},
            700,
        ),
    ],
    ids=["session", "binding", "short-binding", "policy", "collateral-age"],
)
def test_expiry_is_the_earliest_limit(
    lab: Any, binding: dict[str, int], policy: dict[str, int], expiry: int
) -> None:
    enclave = lab.appraise(lab.evidence(binding=lab.binding(**binding)), policy=lab.policy(**policy))
    assert enclave.expires_at == lab.now + expiry
    assert enclave.is_current(lab.now)
    assert enclave.is_current(lab.now + expiry - 1)
    assert not enclave.is_current(lab.now + expiry)
    assert not enclave.is_current(lab.now - 1)


def test_expiry_follows_the_collateral(lab: Any) -> None:
    collateral = lab.platform.collateral(lab.now - 86_400 + 500, days=1)
    evidence = lab.evidence(collateral=collateral)
    enclave = lab.appraise(evidence, policy=lab.policy(session_limit_s=10**6))
    assert enclave.expires_at == lab.now + 200  # collateral is issued 300 s in the past


# --- one fault, one check -----------------------------------------------------------------------------


def edited(evidence: bytes, change: Callable[[Any], object]) -> bytes:
    message = evidence_pb2.Evidence.FromString(evidence)
    change(message)
    return message.SerializeToString(deterministic=True)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def attributes(value: int) -> dict[str, bytes]:
    return {"td_attributes": value.to_bytes(8, "little")}


SEPT_VE = 1 << 28
ZERO_48 = bytes(48)

REPORT_FAULTS = [
    ("tdx.measurement", {"mrtd": b"\x01" * 48}),
    ("tdx.measurement", {"rtmr0": b"\x01" * 48}),
    ("tdx.measurement", {"rtmr1": b"\x01" * 48}),
    ("tdx.measurement", {"rtmr2": b"\x01" * 48}),
    ("tdx.attributes", attributes(SEPT_VE | 1)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 4)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 5)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 6)),
    ("tdx.attributes", attributes(0)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 29)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 8)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 40)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 30)),
    ("tdx.attributes", attributes(SEPT_VE | 1 << 63)),
    ("tdx.xfam", {"xfam": bytes.fromhex("e718060000000000")}),
    ("tdx.xfam", {"xfam": bytes(8)}),
    ("tdx.module", {"mrsignerseam": b"\x01" * 48}),
    ("tdx.module", {"seam_attributes": b"\x01" + bytes(7)}),
    ("tdx.module", {"mrseam": ZERO_48}),
    (
        "tdx.service_td",
        {"tee_tcb_svn_2": bytes.fromhex("0501040000") + bytes(11), "mrservicetd": b"\x01" * 48},
    ),
    ("tdx.owner", {"mrconfigid": b"\x01" * 48}),
    ("tdx.owner", {"mrowner": b"\x01" * 48}),
    ("tdx.owner", {"mrownerconfig": b"\x01" * 48}),
    ("rtmr3.replay", {"rtmr3": b"\x01" * 48}),
    ("binding.report_data", {"report_data": b"\x01" * 64}),
    ("binding.report_data", {"report_data": bytes(64)}),
]


@pytest.mark.parametrize(("check", "report"), REPORT_FAULTS)
def test_fault_in_the_td_report(lab: Any, check: str, report: dict[str, bytes]) -> None:
    assert lab.failures(lab.evidence(report=report)) == (check,)


@pytest.mark.parametrize("at", [*range(0, 64, 9), 31, 32, 63])
def test_every_byte_of_report_data_counts(lab: Any, at: int) -> None:
    def change(message: evidence_pb2.Evidence) -> None:
        # The challenge and the binding stay; only the signed bytes differ.
        message.tdx.quote = lab.platform.quote(altered)

    good = lab.platform.td_report(_report_data(lab), _rtmr3(lab))
    altered = dataclasses.replace(good, report_data=flip(good.report_data, at))
    assert lab.failures(lab.evidence(edit=change)) == ("binding.report_data",)


def _report_data(lab: Any) -> bytes:
    return report_data(lab.binding().hash, bytes(32), lab.challenge)


def _rtmr3(lab: Any) -> bytes:
    return replay(lab.events())


BINDING_FAULTS = [
    ("binding.validity", {"not_before": 1_800_000_000 + 61}),
    ("binding.validity", {"not_after": 1_800_000_000}),
    ("binding.validity", {"not_before": 1_800_000_000 - 3600, "not_after": 1_800_000_000 - 1}),
    ("binding.validity", {"not_before": 1_800_000_000 - 3600, "not_after": 1_800_000_000 + 82_801}),
    ("binding.validity", {"not_before": 1_800_000_010, "not_after": 1_800_000_010}),
    ("binding.network", {"global_id": -239}),
    ("binding.release", {"release_id": b"\x01" * 32}),
    ("binding.seal_key", {"seal_key_hash": b"\x01" * 32}),
    ("rtmr3.config", {"config_hash": b"\x01" * 32}),
]


@pytest.mark.parametrize(("check", "binding"), BINDING_FAULTS)
def test_fault_in_the_binding(lab: Any, check: str, binding: dict[str, Any]) -> None:
    assert lab.failures(lab.evidence(binding=lab.binding(**binding))) == (check,)


def test_binding_may_start_within_the_clock_skew(lab: Any) -> None:
    evidence = lab.evidence(binding=lab.binding(not_before=lab.now + 60))
    assert lab.appraise(evidence).simulated


def test_binding_names_another_allowed_release_than_was_measured(lab: Any) -> None:
    other = dataclasses.replace(lab.release, name="other", mrtd=b"\x01" * 48)
    evidence = lab.evidence(binding=lab.binding(release_id=other.release_id))
    policy = lab.policy(releases=(lab.release, other))
    assert lab.failures(evidence, policy=policy) == ("binding.release",)


POLICY_FAULTS = [
    ("policy.validity", {"not_after": 1_800_000_000}),
    ("binding.node", {"node": b"\x09" * 32}),
    ("tee.kind", {"tee_kinds": frozenset({TeeKind.SEV_SNP})}),
    ("tdx.module", {"allowed_modules": frozenset({b"\x01" * 48})}),
    ("tdx.evaluation", {"min_tcb_evaluation": 20}),
    ("tdx.collateral_time", {"max_collateral_age_s": 299}),
    ("tdx.platform", {"allowed_platforms": frozenset({b"\x01" * 32})}),
    ("rtmr3.models", {"models": frozenset({b"\x01" * 32})}),
]


@pytest.mark.parametrize(("check", "policy"), POLICY_FAULTS)
def test_policy_refuses(lab: Any, check: str, policy: dict[str, Any]) -> None:
    assert lab.failures(policy=lab.policy(**policy)) == (check,)


def test_denied_platform(lab: Any) -> None:
    identity = lab.appraise().platform_id
    assert lab.failures(policy=lab.policy(denied_platforms=frozenset({identity}))) == ("tdx.platform",)
    sibling = lab.platform.sibling(lab.now - 1000, lab.random)
    policy = lab.policy(denied_platforms=frozenset({identity}))
    assert lab.appraise(lab.evidence(platform=sibling), policy=policy).platform_id != identity


def test_policy_node_and_module_that_fit(lab: Any) -> None:
    good = lab.appraise()
    policy = lab.policy(
        node=good.binding.node,
        allowed_modules=frozenset({bytes.fromhex(good.claims["mrseam"])}),
        allowed_platforms=frozenset({good.platform_id}),
    )
    assert lab.appraise(policy=policy).policy_digest != good.policy_digest


# --- collateral ---------------------------------------------------------------------------------------


def collateral_with(lab: Any, **fields: Any) -> evidence_pb2.TdxCollateral:
    collateral: evidence_pb2.TdxCollateral = lab.platform.collateral(lab.now)
    for name, value in fields.items():
        setattr(collateral, name, value)
    return collateral


def signed_tcb_info(lab: Any, **arguments: Any) -> evidence_pb2.TdxCollateral:
    values = {"now": lab.now - 300, "days": 30, "evaluation": 19, **arguments}
    text = tcb_info_json(values.pop("tcb", lab.platform.tcb), **values)
    signature = pki.sign_raw(lab.platform.tcb_signer.key, text.encode())
    return collateral_with(lab, tcb_info=text, tcb_info_signature=signature)


def signed_qe_identity(lab: Any, **arguments: Any) -> evidence_pb2.TdxCollateral:
    values = {"now": lab.now - 300, "days": 30, "evaluation": 19, "isv_svn": 6, **arguments}
    text = qe_identity_json(**{"mrsigner": lab.platform.qe_mrsigner, **values})
    signature = pki.sign_raw(lab.platform.tcb_signer.key, text.encode())
    return collateral_with(lab, qe_identity=text, qe_identity_signature=signature)


def _of_another_family(lab: Any) -> evidence_pb2.TdxCollateral:
    return signed_tcb_info(lab, tcb=dataclasses.replace(lab.platform.tcb, fmspc=b"\x01" * 6))


def _sgx_form(lab: Any) -> evidence_pb2.TdxCollateral:
    text = lab.platform.collateral(lab.now).tcb_info.replace('"id":"TDX"', '"id":"SGX"')
    signature = pki.sign_raw(lab.platform.tcb_signer.key, text.encode())
    return collateral_with(lab, tcb_info=text, tcb_info_signature=signature)


def _pck_crl_of_root(lab: Any) -> evidence_pb2.TdxCollateral:
    good = lab.platform.collateral(lab.now)
    return collateral_with(lab, pck_crl=good.root_ca_crl)


def _pck_crl_chain(lab: Any, *, of_another: bool) -> evidence_pb2.TdxCollateral:
    """The issuer of the list is missing, or is not certified by the root that stands behind it."""
    other = DevPlatform.create(lab.now - 86_400, lab.random)
    chain = [other.platform_ca, lab.platform.root] if of_another else [lab.platform.root]
    pem = b"".join(one.certificate.public_bytes(Encoding.PEM) for one in chain).decode()
    return collateral_with(lab, pck_crl_issuer_chain=pem)


def _root_crl_of_ca(lab: Any) -> evidence_pb2.TdxCollateral:
    good = lab.platform.collateral(lab.now)
    return collateral_with(lab, root_ca_crl=good.pck_crl)


def _forged_crl(lab: Any) -> evidence_pb2.TdxCollateral:
    """A CRL with the right issuer name, signed by somebody else."""
    forger = pki.Issuer(certificate=lab.platform.platform_ca.certificate, key=pki.new_key(lab.random))
    return collateral_with(lab, pck_crl=pki.make_crl(forger, now=lab.now - 300, days=30))


COLLATERAL_FAULTS: list[tuple[str, Callable[[Any], evidence_pb2.TdxCollateral]]] = [
    ("tdx.collateral", lambda lab: collateral_with(lab, tcb_info_signature=b"\x01" * 64)),
    ("tdx.collateral", lambda lab: collateral_with(lab, qe_identity_signature=bytes(64))),
    ("tdx.collateral", _of_another_family),
    ("tdx.collateral", _sgx_form),
    ("tdx.collateral", _pck_crl_of_root),
    ("tdx.collateral", _root_crl_of_ca),
    ("tdx.collateral", lambda lab: _pck_crl_chain(lab, of_another=False)),
    ("tdx.collateral", lambda lab: _pck_crl_chain(lab, of_another=True)),
    ("tdx.chain", _forged_crl),
    (
        "tdx.chain",
        lambda lab: lab.platform.collateral(lab.now, revoked=(lab.platform.pck.certificate.serial_number,)),
    ),
    ("tdx.collateral_time", lambda lab: lab.platform.collateral(lab.now + 301)),
    ("tdx.collateral_time", lambda lab: lab.platform.collateral(lab.now - 86_400, days=1)),
    ("tdx.collateral_time", lambda lab: lab.platform.collateral(lab.now - 8 * 86_400)),
    ("tdx.evaluation", lambda lab: lab.platform.collateral(lab.now, evaluation=18)),
    ("tdx.evaluation", lambda lab: signed_tcb_info(lab, evaluation=18)),
    ("tdx.evaluation", lambda lab: signed_qe_identity(lab, evaluation=18)),
    ("tdx.qe", lambda lab: signed_qe_identity(lab, mrsigner=b"\x01" * 32)),
    ("tdx.tcb", lambda lab: lab.platform.collateral(lab.now, status="SWHardeningNeeded")),
    ("tdx.tcb", lambda lab: lab.platform.collateral(lab.now, status="ConfigurationNeeded")),
    ("tdx.tcb", lambda lab: lab.platform.collateral(lab.now, status="OutOfDate")),
    ("tdx.tcb", lambda lab: lab.platform.collateral(lab.now, status="Revoked")),
    ("tdx.tcb", lambda lab: signed_qe_identity(lab, status="OutOfDate")),
    ("tdx.tcb", lambda lab: signed_tcb_info(lab, tcb=dataclasses.replace(lab.platform.tcb, pce_svn=14))),
]


@pytest.mark.parametrize(("check", "make"), COLLATERAL_FAULTS)
def test_fault_in_the_collateral(
    lab: Any, check: str, make: Callable[[Any], evidence_pb2.TdxCollateral]
) -> None:
    assert lab.failures(lab.evidence(collateral=make(lab))) == (check,)


def test_missing_collateral(lab: Any) -> None:
    evidence = lab.evidence(edit=lambda message: message.tdx.ClearField("collateral"))
    assert lab.failures(evidence) == ("tdx.collateral",)


def test_statuses_and_advisories(lab: Any) -> None:
    advisory = "INTEL-SA-00001"
    collateral = lab.platform.collateral(lab.now, status="SWHardeningNeeded", advisories=(advisory,))
    evidence = lab.evidence(collateral=collateral)
    opted_in = {"statuses": frozenset({"UpToDate", "SWHardeningNeeded"})}
    assert lab.failures(evidence, policy=lab.policy(**opted_in)) == ("tdx.tcb",)
    tolerant = lab.policy(**opted_in, allowed_advisories=frozenset({advisory}))
    assert lab.appraise(evidence, policy=tolerant).claims["tcb_status"] == "SWHardeningNeeded"
    denying = lab.policy(
        **opted_in,
        allowed_advisories=frozenset({advisory}),
        denied_advisories=frozenset({advisory}),
    )
    assert lab.failures(evidence, policy=denying) == ("tdx.tcb",)


def test_denied_advisory_counts_even_if_up_to_date(lab: Any) -> None:
    collateral = lab.platform.collateral(lab.now, advisories=("INTEL-SA-00002",))
    evidence = lab.evidence(collateral=collateral)
    assert lab.appraise(evidence).claims["advisories"] == ["INTEL-SA-00002"]
    policy = lab.policy(denied_advisories=frozenset({"INTEL-SA-00002"}))
    assert lab.failures(evidence, policy=policy) == ("tdx.tcb",)


# --- quote signatures ---------------------------------------------------------------------------------


def test_quote_signature(lab: Any) -> None:
    assert lab.failures(lab.evidence(quote=lambda quote: flip(quote, 640))) == ("tdx.sig",)


def test_attestation_key_that_no_quoting_enclave_certified(lab: Any) -> None:
    own = pki.new_key(lab.random)
    platform = lab.platform
    certification = certify(
        attestation_key=platform.attestation_key,
        chain=(platform.pck, platform.platform_ca, platform.root),
        identity=platform.quoting_enclave,
    )
    report = platform.td_report(_report_data(lab), _rtmr3(lab))
    forged = encode_quote(report, attestation_key=own, certification=certification)
    assert lab.failures(lab.evidence(quote=lambda _: forged)) == ("tdx.attestation_key",)


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": bytes.fromhex("17") + bytes(7) + bytes.fromhex("e7") + bytes(7)},
        {"attributes": bytes.fromhex("35") + bytes(7) + bytes.fromhex("e7") + bytes(7)},
        {"mrsigner": b"\x01" * 32},
        {"isv_prod_id": 1},
    ],
    ids=["debug", "attributes", "mrsigner", "sgx-qe"],
)
def test_quoting_enclave_of_another_identity(lab: Any, change: dict[str, Any]) -> None:
    platform = lab.platform
    identity = dataclasses.replace(platform.quoting_enclave, **change)
    forged = encode_quote(
        platform.td_report(_report_data(lab), _rtmr3(lab)),
        attestation_key=platform.attestation_key,
        certification=certify(
            attestation_key=platform.attestation_key,
            chain=(platform.pck, platform.platform_ca, platform.root),
            identity=identity,
        ),
    )
    assert lab.failures(lab.evidence(quote=lambda _: forged)) == ("tdx.qe",)


def test_qe_report_not_signed_by_the_pck_key(lab: Any) -> None:
    offset = 48 + 584 + 4 + 128 + 6 + 384  # first byte of the QE report signature
    assert lab.failures(lab.evidence(quote=lambda quote: flip(quote, offset))) == ("tdx.qe",)


def test_old_quoting_enclave(lab: Any) -> None:
    collateral = signed_qe_identity(lab, isv_svn=7)
    assert lab.failures(lab.evidence(collateral=collateral)) == ("tdx.tcb",)


def test_disagreement_of_the_two_parsers(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lying(*args: Any, **kwargs: Any) -> DcapResult:
        result = dcap_verify(*args, **kwargs)
        return dataclasses.replace(result, report={**result.report, "mrtd": bytes(48)})

    monkeypatch.setattr(platform_checks, "dcap_verify", lying)
    assert lab.failures() == ("tdx.consistency",)


@pytest.mark.parametrize(
    "change", [{"version": 5}, {"fmspc": bytes(6)}, {"evaluation": 20}, {"pce_id": b"\1\1"}]
)
def test_disagreement_on_other_facts(
    lab: Any, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr(
        platform_checks, "dcap_verify", lambda *a, **k: dataclasses.replace(dcap_verify(*a, **k), **change)
    )
    assert lab.failures() == ("tdx.consistency",)


def test_failure_of_the_library_is_a_failed_check(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> DcapResult:
        raise DcapError("dcap-qvl: internal failure")

    monkeypatch.setattr(platform_checks, "dcap_verify", broken)
    assert lab.failures() == ("tdx.chain",)


def test_root_of_another_development_network(lab: Any) -> None:
    other = DevPlatform.create(lab.now - 86_400, lab.random)
    assert lab.failures(policy=lab.policy(dev_root=other.root_der)) == ("tdx.root",)
    assert lab.failures(policy=lab.policy(dev_root=None)) == ("tdx.root",)
    assert lab.failures(lab.evidence(platform=other)) == ("tdx.root",)


# --- challenge, events, kinds -------------------------------------------------------------------------


def test_answer_to_another_challenge(lab: Any) -> None:
    assert lab.failures(lab.evidence(challenge=b"\x01" * 32)) == ("challenge",)


def test_beacon_that_does_not_give_the_challenge(lab: Any) -> None:
    def add_beacon(message: evidence_pb2.Evidence) -> None:
        message.beacon.seqno, message.beacon.root_hash = 7, b"\x05" * 32

    assert lab.failures(lab.evidence(edit=add_beacon)) == ("challenge",)


def test_runtime_events(lab: Any) -> None:
    wrong_order = [lab.events()[i] for i in (1, 0, 2, 3)]
    assert lab.failures(lab.evidence(events=wrong_order)) == ("rtmr3.grammar",)
    assert lab.failures(lab.evidence(events=lab.events(config=b"\x01" * 32))) == ("rtmr3.config",)
    assert lab.failures(lab.evidence(events=lab.events(model=b"\x01" * 32))) == ("rtmr3.models",)
    assert lab.failures(lab.evidence(events=lab.events(gpu=b"H100"))) == ("rtmr3.gpu",)


def test_one_foreign_model_among_allowed_ones_rejects(lab: Any) -> None:
    events = lab.events()
    events.insert(2, RuntimeEvent(name="cocoon.model", payload=b"\x01" * 32))
    evidence = lab.evidence(events=events)
    assert lab.failures(evidence) == ("rtmr3.models",)
    both = lab.policy(models=frozenset({lab.model, b"\x01" * 32}))
    assert lab.appraise(evidence, policy=both).models == (lab.model, b"\x01" * 32)


def test_log_that_was_edited_after_measuring(lab: Any) -> None:
    def swap(message: evidence_pb2.Evidence) -> None:
        message.tdx.runtime_events[1].payload = b"\x07" * 32

    policy = lab.policy(models=frozenset({lab.model, b"\x07" * 32}))
    assert lab.failures(lab.evidence(edit=swap), policy=policy) == ("rtmr3.replay",)


def test_devices_need_rules_in_the_policy(lab: Any) -> None:
    """Their evidence is not even looked at; see test_appraisal_vendors.py for devices that are allowed."""
    report = b"report"

    def add_device(message: evidence_pb2.Evidence) -> None:
        message.devices.add(kind=evidence_pb2.DEVICE_KIND_GPU, report=report, certificate_chain="x")

    evidence = lab.evidence(
        events=lab.events(gpu=b"H100"), gpu_digest=gpu_digest([report]), edit=add_device
    )
    assert lab.failures(evidence) == ("gpu.allowed", "rtmr3.gpu")


def test_snp_evidence_needs_a_root_and_permission(lab: Any) -> None:
    def to_snp(message: evidence_pb2.Evidence) -> None:
        message.snp.report = bytes(1184)
        message.snp.certificate = b"x"
        message.snp.issuer_chain = "x"
        message.snp.crl = b"x"

    evidence = lab.evidence(edit=to_snp)
    policy = lab.policy(tee_kinds=frozenset({TeeKind.SEV_SNP}))
    assert lab.failures(evidence, policy=policy) == ("snp.chain",)
    assert lab.failures(evidence) == ("tee.kind", "snp.chain")
    with pytest.raises(MalformedError):
        lab.appraise(evidence, policy=dataclasses.replace(policy, dev_root=None))


def test_every_fault_is_reported_at_once(lab: Any) -> None:
    binding = lab.binding(global_id=-239, not_after=lab.now)
    evidence = lab.evidence(binding=binding, report={"mrtd": b"\x01" * 48, **attributes(SEPT_VE | 1)})
    with pytest.raises(EvidenceRejectedError) as caught:
        lab.appraise(evidence)
    assert caught.value.details["failed"] == [
        "binding.validity",
        "binding.network",
        "tdx.measurement",
        "tdx.attributes",
    ]
    assert "binding.validity" in str(caught.value)
    assert caught.value.hint


# --- malformed input and wrong use ---------------------------------------------------------------------


def test_malformed_quote_or_collateral(lab: Any) -> None:
    with pytest.raises(MalformedError):
        lab.appraise(lab.evidence(quote=lambda quote: quote[:-1]))
    with pytest.raises(MalformedError):
        lab.appraise(lab.evidence(collateral=collateral_with(lab, tcb_info="{}")))
    with pytest.raises(MalformedError):
        lab.appraise(b"")


@pytest.mark.parametrize("challenge", [b"", bytes(31), bytes(32), b"\x01" * 33])
def test_challenge_must_be_a_nonce(lab: Any, challenge: bytes) -> None:
    with pytest.raises(ConfigError):
        appraise(lab.evidence(), policy=lab.policy(), challenge=challenge, now=lab.now)


def test_time_needs_a_zone(lab: Any) -> None:
    with pytest.raises(ConfigError):
        lab.appraise(now=datetime(2027, 1, 1))


# --- the result cannot be forged ------------------------------------------------------------------------


def test_only_appraisal_makes_a_verified_enclave(lab: Any) -> None:
    enclave = lab.appraise()
    fields = {f.name: getattr(enclave, f.name) for f in dataclasses.fields(enclave)}
    with pytest.raises(TypeError):
        VerifiedEnclave(issuer=object(), **fields)
    with pytest.raises(TypeError):
        VerifiedEnclave(**fields)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(enclave, seal_public_key=b"\x01" * 1216)
    with pytest.raises(TypeError):
        pickle.dumps(enclave)
    with pytest.raises(TypeError):
        copy.copy(enclave)
    with pytest.raises(TypeError):
        type("Forged", (VerifiedEnclave,), {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        enclave.seal_public_key = b""


def test_no_other_module_reaches_for_the_issuer() -> None:
    package = Path(cocoon_attestation.__file__).parent
    root = package.parent.parent
    users = set()
    for folder in ("attestation", "enclave", "proxy", "cli", "ton_contracts/cocoon_ton", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                attribute = node.attr if isinstance(node, ast.Attribute) else ""
                if {"_issue", "_ISSUER"} & {*names, attribute}:
                    users.add(path.relative_to(root).as_posix())
    assert users == {"attestation/cocoon_attestation/appraisal.py"}


def test_result_is_json_ready(lab: Any) -> None:
    document = json.loads(json.dumps(lab.appraise().to_dict()))
    assert document["simulated"] is True
    assert len(document["checks"]) == len(EXPECTED_CHECKS)
