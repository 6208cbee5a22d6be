"""A1: no evidence, an empty allow-list, an unknown policy key, an unknown kind of TEE.

Each attack tries to get a client to talk without proof, by leaving something out. It ends as a refusal,
or the client does not even start.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation import appraisal
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.checks import Verdict
from cocoon_attestation.errors import CocoonError, ConfigError, EvidenceRejectedError, MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_toml import policy_from_toml
from cocoon_attestation.reference import TeeKind


def edited(evidence: bytes, change: Callable[[Any], object]) -> bytes:
    message = evidence_pb2.Evidence.FromString(evidence)
    change(message)
    return message.SerializeToString(deterministic=True)


# --- no evidence ----------------------------------------------------------------------------------------


def test_no_bytes_at_all(lab: Any) -> None:
    with pytest.raises(MalformedError):
        lab.appraise(b"")


def test_keys_without_hardware_evidence(lab: Any) -> None:
    """The node sends its keys and leaves the quote out."""
    bare = edited(lab.evidence(), lambda message: message.ClearField("tdx"))
    assert lab.failures(bare) == ("tee.kind",)


@pytest.mark.parametrize("field", [f.name for f in evidence_pb2.Evidence.DESCRIPTOR.fields])
def test_leaving_out_any_field(lab: Any, field: str) -> None:
    """Whatever field is missing, nothing is accepted that was not complete."""
    message = evidence_pb2.Evidence.FromString(lab.evidence())
    if field in ("beacon", "snp", "devices"):
        return  # not part of this evidence
    message.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises((EvidenceRejectedError, MalformedError)):
        lab.appraise(message.SerializeToString())


@pytest.mark.parametrize("field", [f.name for f in evidence_pb2.TdxEvidence.DESCRIPTOR.fields])
def test_leaving_out_any_part_of_the_tdx_evidence(lab: Any, field: str) -> None:
    evidence = edited(lab.evidence(), lambda message: message.tdx.ClearField(field))
    with pytest.raises((EvidenceRejectedError, MalformedError)):
        lab.appraise(evidence)


@pytest.mark.parametrize("field", [f.name for f in evidence_pb2.TdxCollateral.DESCRIPTOR.fields])
def test_leaving_out_any_part_of_the_collateral(lab: Any, field: str) -> None:
    evidence = edited(lab.evidence(), lambda message: message.tdx.collateral.ClearField(field))
    with pytest.raises((EvidenceRejectedError, MalformedError)):
        lab.appraise(evidence)


def test_a_skipped_check_never_counts_as_passed(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if every check that is made passes, one that is not made refuses."""

    def skipping(evidence: Any, policy: Any, now: int, checks: Any) -> None:
        checks.skip("binding.network", "not made")

    monkeypatch.setattr(appraisal, "_check_binding", skipping)
    with pytest.raises(EvidenceRejectedError) as caught:
        lab.appraise()
    assert caught.value.checks is not None
    assert not caught.value.checks.failed
    assert [check.id for check in caught.value.checks.skipped] == ["binding.network"]


# --- empty allow-lists ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty",
    [
        {"releases": ()},
        {"models": frozenset()},
        {"tee_kinds": frozenset()},
        {"statuses": frozenset()},
        {"allowed_platforms": frozenset()},
    ],
    ids=lambda empty: next(iter(empty)),
)
def test_empty_allow_list_refuses_to_start(lab: Any, empty: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        lab.policy(**empty)


def test_a_policy_has_no_default_that_accepts() -> None:
    required = {
        field.name
        for field in dataclasses.fields(Policy)
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    assert required == {"global_id", "releases", "models", "min_tcb_evaluation"}


def test_appraisal_has_no_switch_to_skip_it() -> None:
    parameters = dict(inspect.signature(appraise).parameters)
    # Only replaces what the node stapled, and is verified like it: without it nothing is left out.
    assert parameters.pop("endorsements").default is None
    assert set(parameters) == {"evidence", "policy", "challenge", "now"}
    assert all(parameter.default is inspect.Parameter.empty for parameter in parameters.values())


# --- unknown policy keys --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "allow_debug = true",
        "skip_appraisal = true",
        "insecure = true",
        "min_tcb_evaluation_number = 1",
        'status = ["UpToDate"]',
        "[tdx]\ndebug = true",
    ],
)
def test_unknown_policy_key_refuses_to_start(line: str) -> None:
    text = f'{line}\nglobal_id = -3\nmin_tcb_evaluation = 1\nmodels = ["{"00" * 32}"]\nreleases = []\n'
    with pytest.raises(ConfigError):
        policy_from_toml(text)


# --- unknown kinds of TEE -------------------------------------------------------------------------------


def test_kind_that_the_policy_does_not_allow(lab: Any) -> None:
    assert lab.failures(policy=lab.policy(tee_kinds=frozenset({TeeKind.SEV_SNP}))) == ("tee.kind",)


def test_kind_that_this_version_does_not_know(lab: Any) -> None:
    """A future kind would be a new field; to this version it is an unknown one."""
    bare = edited(lab.evidence(), lambda message: message.ClearField("tdx"))
    future_kind = b"\x7a\x04none"  # field 15, length-delimited
    with pytest.raises(MalformedError):
        lab.appraise(bare + future_kind)
    with pytest.raises(MalformedError):
        lab.appraise(lab.evidence() + future_kind)


@pytest.mark.parametrize("tee_type", [0x00, 0x80, 0x82, 0xFFFFFFFF])
def test_quote_of_another_tee(lab: Any, tee_type: int) -> None:
    """An SGX quote, or one of an unknown kind, in the place of the TDX quote."""

    def relabel(quote: bytes) -> bytes:
        return quote[:4] + tee_type.to_bytes(4, "little") + quote[8:]

    with pytest.raises(MalformedError):
        lab.appraise(lab.evidence(quote=relabel))


def test_every_refusal_is_an_error_with_a_code(lab: Any) -> None:
    """No refusal is a boolean that a caller could forget to look at."""
    for evidence in (b"", edited(lab.evidence(), lambda message: message.ClearField("tdx"))):
        with pytest.raises(CocoonError) as caught:
            lab.appraise(evidence)
        assert caught.value.code in {"malformed", "evidence_rejected"}
        assert caught.value.exit_code in {10, 30}


def test_rejection_lists_only_real_verdicts(lab: Any) -> None:
    with pytest.raises(EvidenceRejectedError) as caught:
        lab.appraise(edited(lab.evidence(), lambda message: message.ClearField("tdx")))
    assert caught.value.checks is not None
    assert {check.verdict for check in caught.value.checks} <= set(Verdict)
