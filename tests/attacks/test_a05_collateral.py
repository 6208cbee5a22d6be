"""A5: the node staples Intel's statements itself, so it chooses which genuine ones to show.

Old, expired, of another platform family, of another authority; and a verifier whose clock was set back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.evidence import parse_evidence
from cocoon_attestation.rollback import marks
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import COLLATERAL_DAYS, EVALUATION_NUMBER, DevPlatform
from cocoon_proxy.memory import SeenStatements

DAY = 86_400


def statement(platform: DevPlatform, text: str) -> bytes:
    """The vendor's signature: the attacker has genuine statements, not the vendor's key."""
    return pki.sign_raw(platform.tcb_signer.key, text.encode())


def changed(lab: Any, member: str, changes: dict[str, Any], **arguments: Any) -> evidence_pb2.TdxCollateral:
    """Genuine collateral in which the vendor said something else."""
    collateral: evidence_pb2.TdxCollateral = lab.platform.collateral(lab.now, **arguments)
    text = json.dumps(json.loads(getattr(collateral, member)) | changes, separators=(",", ":"))
    setattr(collateral, member, text)
    setattr(collateral, f"{member}_signature", statement(lab.platform, text))
    return collateral


def test_current_collateral_is_accepted(lab: Any) -> None:
    assert lab.appraise(lab.evidence(collateral=lab.platform.collateral(lab.now)))


def test_rolled_back_to_before_a_recovery(lab: Any) -> None:
    """Both are signed and in date on the same day; only the evaluation number tells them apart."""
    old = lab.platform.collateral(lab.now, evaluation=EVALUATION_NUMBER - 1)
    assert lab.failures(lab.evidence(collateral=old)) == ("tdx.evaluation",)


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_only_one_of_the_two_statements_rolled_back(lab: Any, member: str) -> None:
    mixed = changed(lab, member, {"tcbEvaluationDataNumber": EVALUATION_NUMBER - 1})
    assert lab.failures(lab.evidence(collateral=mixed)) == ("tdx.evaluation",)


def test_expired_collateral(lab: Any) -> None:
    old = lab.platform.collateral(lab.now - (COLLATERAL_DAYS + 1) * DAY)
    assert lab.failures(lab.evidence(collateral=old)) == ("tdx.collateral_time",)


def test_collateral_in_date_but_older_than_the_policy_takes(lab: Any) -> None:
    old = lab.platform.collateral(lab.now - 8 * DAY)
    assert lab.failures(lab.evidence(collateral=old)) == ("tdx.collateral_time",)


@pytest.mark.parametrize("member", ["root_ca_crl", "pck_crl"])
def test_only_a_revocation_list_expired(lab: Any, member: str) -> None:
    """The host keeps the list from before its own certificate was revoked."""
    collateral = lab.platform.collateral(lab.now)
    setattr(collateral, member, getattr(lab.platform.collateral(lab.now - 60 * DAY), member))
    assert lab.failures(lab.evidence(collateral=collateral)) == ("tdx.collateral_time",)


def test_revoked_machine(lab: Any) -> None:
    serial = lab.platform.pck.certificate.serial_number
    revoked = lab.platform.collateral(lab.now, revoked=(serial,))
    assert lab.failures(lab.evidence(collateral=revoked)) == ("tdx.chain",)


def test_collateral_of_another_platform_family(lab: Any) -> None:
    """A family whose levels are kinder."""
    for changes in ({"fmspc": "c0c000000001"}, {"pceId": "0001"}):
        evidence = lab.evidence(collateral=changed(lab, "tcb_info", changes))
        assert lab.failures(evidence) == ("tdx.collateral",)


def test_revocation_list_of_another_authority(lab: Any) -> None:
    """Genuine, current, of the same root, and it does not list us: it lists other certificates."""
    collateral = lab.platform.collateral(lab.now)
    collateral.pck_crl = collateral.root_ca_crl
    assert lab.failures(lab.evidence(collateral=collateral)) == ("tdx.collateral",)
    collateral = lab.platform.collateral(lab.now)
    collateral.root_ca_crl = collateral.pck_crl
    assert lab.failures(lab.evidence(collateral=collateral)) == ("tdx.collateral",)


def test_revocation_list_signed_by_a_look_alike_authority(lab: Any) -> None:
    other = DevPlatform.create(lab.now - DAY, lab.random)
    collateral = lab.platform.collateral(lab.now)
    collateral.pck_crl = other.collateral(lab.now).pck_crl
    assert lab.failures(lab.evidence(collateral=collateral)) == ("tdx.chain",)


def test_statement_of_sgx_for_a_td(lab: Any) -> None:
    for member, changes in (("tcb_info", {"id": "SGX"}), ("qe_identity", {"id": "QE"})):
        evidence = lab.evidence(collateral=changed(lab, member, changes))
        assert lab.failures(evidence) == ("tdx.collateral",)


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_statement_edited_by_the_host(lab: Any, member: str) -> None:
    collateral = lab.platform.collateral(lab.now, status="OutOfDate")
    text = (
        getattr(collateral, member)
        .replace('"OutOfDate"', '"UpToDate"')
        .replace('"UpToDate"', '"UpToDate" ')
    )
    setattr(collateral, member, text)
    assert lab.failures(lab.evidence(collateral=collateral)) == ("tdx.collateral",)


def test_no_collateral_at_all(lab: Any) -> None:
    evidence = lab.evidence(edit=lambda message: message.tdx.ClearField("collateral"))
    assert lab.failures(evidence) == ("tdx.collateral",)


def test_clock_of_the_verifier_set_back(lab: Any) -> None:
    """Setting a clock back makes expired statements valid again; the evaluation number does not go back."""
    then = lab.now - 60 * DAY
    old = lab.platform.collateral(then, evaluation=EVALUATION_NUMBER - 1)
    evidence = lab.evidence(
        collateral=old,
        binding=lab.binding(not_before=then - 3600, not_after=then + 3600),
        challenge=lab.challenge,
    )
    # Certificates of this platform start a day before `now`: further back nothing is valid at all.
    assert lab.failures(evidence, now=then) == ("tdx.evaluation", "tdx.chain")
    assert lab.failures(now=lab.now - 2 * DAY) == ("binding.validity", "tdx.collateral_time")


def test_clock_of_the_verifier_set_forward(lab: Any) -> None:
    assert lab.failures(now=lab.now + 31 * DAY) == ("binding.validity", "tdx.collateral_time")


def test_a_client_that_saw_newer_statements_takes_no_older_ones(lab: Any, tmp_path: Path) -> None:
    """The registry's minimum lags behind: while both numbers are in date, only memory tells them apart."""
    seen = SeenStatements(tmp_path)

    def visit(now: int, **changes: Any) -> tuple[str, ...]:
        evidence = lab.evidence(collateral=lab.platform.collateral(now, **changes))
        verified = lab.appraise(evidence)
        return seen.observe(marks(parse_evidence(evidence), verified, lab.policy().root_sha256), now)

    newer = EVALUATION_NUMBER + 1
    assert visit(lab.now) == ()
    assert visit(lab.now, evaluation=newer) == ()
    assert {subject.split("/")[2] for subject in visit(lab.now)} == {"tcb", "qe"}
    # The same numbers from two days before: what was published since is missing.
    older = visit(lab.now - 2 * DAY, evaluation=newer)
    assert {subject.split("/")[2] for subject in older} == {"tcb", "qe", "crl"}
    seen.close()
    seen = SeenStatements(tmp_path)  # after a restart
    assert visit(lab.now)
    assert visit(lab.now - DAY + 60, evaluation=newer) == ()  # hosts refresh at different hours
    seen.close()
