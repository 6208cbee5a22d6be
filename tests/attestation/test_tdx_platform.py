"""Facts about the platform that an accepted quote gives, and edges of the binding's life."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, cast

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import MAX_LIFETIME_S
from cocoon_attestation.checks import CheckList, Verdict
from cocoon_attestation.errors import EvidenceRejectedError
from cocoon_attestation.evidence import TdxCollateralBytes
from cocoon_attestation.policy import DEFAULT_CLOCK_SKEW_S
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.tdx import platform as platform_checks
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_attestation.tdx.dcap import DcapResult, dcap_verify
from cocoon_attestation.tdx.platform import platform_id
from cocoon_attestation.tdx.quote import parse_quote


def test_claims_name_the_platform_and_its_instance(lab: Any) -> None:
    enclave = lab.appraise()
    claims = enclave.claims
    ppid = bytes.fromhex(str(claims["ppid"]))
    assert len(ppid) == 16
    assert enclave.key_id == hashlib.sha256(enclave.seal_public_key).digest()
    assert enclave.platform_id == platform_id(TeeKind.TDX, ppid)
    assert len(bytes.fromhex(str(claims["platform_instance_id"]))) == 16
    assert len(bytes.fromhex(str(claims["fmspc"]))) == 6
    assert claims["root_sha256"] == lab.policy().root_sha256.hex()


def test_platform_ids_of_different_kinds_never_meet() -> None:
    ids = {platform_id(kind, bytes(16)) for kind in (TeeKind.TDX, TeeKind.SEV_SNP, None)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("start", "end", "accepted"),
    [
        (0, 1, True),  # one second is a life
        (-1, 0, False),  # over at its last second
        (DEFAULT_CLOCK_SKEW_S, 3600, True),
        (DEFAULT_CLOCK_SKEW_S + 1, 3600, False),
        (30, 10, False),  # ends before it starts, both within the allowed skew
        (30, 30, False),
        (0, MAX_LIFETIME_S, True),
        (-1, MAX_LIFETIME_S - 1, True),
        (0, MAX_LIFETIME_S + 1, False),
    ],
)
def test_edges_of_the_life_of_a_binding(lab: Any, start: int, end: int, accepted: bool) -> None:
    binding = lab.binding(not_before=lab.now + start, not_after=lab.now + end)
    evidence = lab.evidence(binding=binding)
    if accepted:
        assert lab.appraise(evidence).expires_at <= lab.now + end
    else:
        assert lab.failures(evidence) == ("binding.validity",)


# --- what the library says against what was parsed here --------------------------------------------------


def with_answer(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let the library's answer differ in some members."""
    genuine = dcap_verify

    def answer(*arguments: Any, **options: Any) -> DcapResult:
        return dataclasses.replace(genuine(*arguments, **options), **changes)

    monkeypatch.setattr(platform_checks, "dcap_verify", answer)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tee_type": 0}, "TEE type"),
        ({"version": 5}, "version"),
        ({"fmspc": bytes(6)}, "platform family"),
        ({"pce_id": b"\xff\xff"}, "platform family"),
        ({"evaluation": 1}, "evaluation number"),
        ({"report": {"mrtd": bytes(48)}}, "mrtd"),
    ],
)
def test_each_difference_between_the_parsers_is_named(
    lab: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    with_answer(monkeypatch, **changes)
    with pytest.raises(EvidenceRejectedError) as caught:
        lab.appraise()
    assert caught.value.checks is not None
    (check,) = caught.value.checks.failed
    assert check.id == "tdx.consistency"
    assert check.detail == f"the two parsers differ in {words}"


def test_reports_of_different_forms_are_a_difference(lab: Any) -> None:
    """The library read a TD 1.5 report where the quote has none of its fields, or the other way round."""
    quote = parse_quote(lab.platform.quote(lab.platform.td_report(bytes(64), bytes(48))))
    collateral = parse_collateral(_bytes(lab.platform.collateral(lab.now)))
    genuine = dcap_verify(quote.raw, collateral.source, root=lab.platform.root_der, now=lab.now)
    older = dataclasses.replace(quote.report, mrservicetd=None, tee_tcb_svn_2=None)
    newer = dataclasses.replace(quote.report, mrservicetd=bytes(48), tee_tcb_svn_2=bytes(16))
    names = {"mrservicetd", "tee_tcb_svn_2"}
    short = {name: value for name, value in genuine.report.items() if name not in names}
    for report, said, differs in (
        (older, short, False),
        (newer, short, True),
        (newer, short | {"mrservicetd": bytes(48)}, False),
        (older, short | {"mrservicetd": None}, True),
    ):
        checks = CheckList()
        platform_checks._consistency(
            dataclasses.replace(quote, report=report),
            collateral,
            dataclasses.replace(genuine, report=cast("dict[str, bytes]", said)),
            checks,
        )
        (check,) = checks
        assert (check.verdict is Verdict.FAIL) is differs
        assert ("body type" in check.detail) is differs


def _bytes(message: evidence_pb2.TdxCollateral) -> TdxCollateralBytes:
    return TdxCollateralBytes(**{field.name: value for field, value in message.ListFields()})


def test_claims_keep_the_flags_apart(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_answer(monkeypatch, flags=("True", "False", "Undefined"))
    claims = lab.appraise().claims
    assert (claims["dynamic_platform"], claims["cached_keys"], claims["smt_enabled"]) == (
        "True",
        "False",
        "Undefined",
    )
    with_answer(monkeypatch, instance_id=None)
    assert lab.appraise().claims["platform_instance_id"] is None


def test_flags_are_judged_by_the_named_release_when_no_measurement_matches(lab: Any) -> None:
    """Protection keys are a feature that the release does not have: both faults are listed."""
    flags = int.from_bytes(lab.release.td_attributes, "little") | 1 << 30
    evidence = lab.evidence(report={"mrtd": b"\x02" * 48, "td_attributes": flags.to_bytes(8, "little")})
    assert set(lab.failures(evidence)) == {"tdx.measurement", "tdx.attributes"}
