"""Results under the claim names of EAR: what may be affirming, and what never is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.checks import Check, Verdict
from cocoon_attestation.ear import (
    CLAIMS,
    EAR_PROFILE,
    FORGERY,
    HARDWARE_ONLY,
    Result,
    ear_claims,
)
from cocoon_attestation.errors import EvidenceRejectedError
from cocoon_attestation.rules import RULES

PASS, FAIL, SKIP = Verdict.PASS, Verdict.FAIL, Verdict.SKIP
TIERS = {"none": 0, "affirming": 2, "warning": 32, "contraindicated": 96}
NOW = 1_800_000_000


def result(accepted: bool = True, simulated: bool = False, **verdicts: Verdict) -> Result:
    checks = [
        Check(id=name.replace("__", "."), verdict=verdict, detail="test")
        for name, verdict in verdicts.items()
    ]
    return Result(
        checks=checks, accepted=accepted, simulated=simulated, issued_at=NOW, policy_digest=b"\x01" * 32
    )


def shown(made: Result) -> Any:
    document = ear_claims(made, build="test 1")
    assert json.loads(json.dumps(document)) == document
    return document


def cpu(made: Result) -> Any:
    return shown(made)["submods"]["cpu"]


def test_every_check_decides_exactly_one_claim() -> None:
    mapped = [check for checks in CLAIMS.values() for check in checks]
    assert len(mapped) == len(set(mapped))
    assert set(mapped) == set(RULES)
    assert set(RULES) >= FORGERY


def test_form() -> None:
    made = result(tdx__sig=PASS, tdx__measurement=PASS)
    made = dataclasses.replace(made, nonce=bytes(32), expires_at=NOW + 5)
    assert shown(made) == {
        "eat_profile": EAR_PROFILE,
        "iat": NOW,
        "exp": NOW + 5,
        "eat_nonce": "00" * 32,
        "ear_verifier_id": {"developer": "Cocoon", "build": "test 1"},
        "ear_status": "affirming",
        "submods": {
            "cpu": {
                "ear_status": "affirming",
                "ear_trustworthiness_vector": {"hardware": 2, "executables": 2},
                "ear_appraisal_policy_ids": ["urn:x-cocoon:policy:v1:" + "01" * 32],
                "ear_verifier_claims": {
                    "cocoon_simulated": False,
                    "cocoon_signed": False,
                    "cocoon_failed": [],
                    "cocoon_not_checked": [],
                },
            }
        },
    }
    assert "exp" not in shown(dataclasses.replace(made, accepted=False))


def test_without_a_policy_only_the_hardware_is_affirming() -> None:
    made = dataclasses.replace(result(tdx__sig=PASS, tdx__measurement=PASS), policy_digest=None)
    assert cpu(made)["ear_appraisal_policy_ids"] == [HARDWARE_ONLY]
    assert cpu(made)["ear_trustworthiness_vector"] == {"hardware": 2, "executables": 32}
    assert cpu(made)["ear_status"] == shown(made)["ear_status"] == "warning"


@pytest.mark.parametrize(
    ("made", "status", "vector"),
    [
        (result(tdx__sig=PASS), "affirming", {"hardware": 2}),
        (result(tdx__sig=PASS, tdx__evaluation=SKIP), "warning", {"hardware": 32}),
        (result(tdx__sig=PASS, tdx__measurement=SKIP), "warning", {"hardware": 2}),
        (result(False, tdx__sig=PASS, tdx__measurement=SKIP), "none", {"hardware": 2}),
        (result(False, tdx__sig=FAIL), "contraindicated", {"hardware": 99}),
        (result(False, tdx__tcb=FAIL), "contraindicated", {"hardware": 96}),
        (
            result(False, tdx__tcb=FAIL, tdx__xfam=PASS),
            "contraindicated",
            {"hardware": 96, "configuration": 2},
        ),
        (result(False, snp__debug=FAIL), "contraindicated", {"runtime-opaque": 96}),
        (result(False, snp__chip=FAIL), "contraindicated", {"instance-identity": 96}),
        (result(simulated=True, tdx__sig=PASS), "none", {}),
        (result(False, True, tdx__sig=FAIL, tdx__xfam=PASS), "contraindicated", {"hardware": 99}),
        (result(False), "none", {}),
    ],
)
def test_tiers(made: Result, status: str, vector: dict[str, int]) -> None:
    part = cpu(made)
    assert part["ear_status"] == shown(made)["ear_status"] == status
    assert part["ear_trustworthiness_vector"] == vector


def test_tolerated_platform_is_a_warning_about_hardware() -> None:
    made = dataclasses.replace(result(tdx__tcb=PASS, tdx__measurement=PASS), tolerated=True)
    assert cpu(made)["ear_status"] == "warning"
    assert cpu(made)["ear_trustworthiness_vector"] == {"hardware": 32, "executables": 2}


def test_devices_are_a_part_of_their_own() -> None:
    made = result(False, tdx__sig=PASS, gpu__sig=PASS, gpu__rim_match=FAIL, rtmr3__gpu_mode=PASS)
    parts = shown(made)["submods"]
    assert parts["gpu"]["ear_trustworthiness_vector"] == {
        "hardware": 2,
        "executables": 96,
        "runtime-opaque": 2,
    }
    assert parts["gpu"]["ear_status"] == shown(made)["ear_status"] == "contraindicated"
    # The whole was refused, so no part is affirming, although nothing is wrong with this one.
    assert parts["cpu"]["ear_status"] == "none"


@given(
    verdicts=st.dictionaries(st.sampled_from(sorted(RULES)), st.sampled_from(Verdict), max_size=12),
    accepted=st.booleans(),
    simulated=st.booleans(),
    tolerated=st.booleans(),
)
def test_never_better_than_the_worst(
    verdicts: dict[str, Verdict], accepted: bool, simulated: bool, tolerated: bool
) -> None:
    checks = [Check(id=id, verdict=verdict, detail="") for id, verdict in verdicts.items()]
    document = shown(
        Result(checks=checks, accepted=accepted, simulated=simulated, tolerated=tolerated, issued_at=NOW)
    )
    statuses = [document["ear_status"], *(part["ear_status"] for part in document["submods"].values())]
    for part in document["submods"].values():
        worst = max(part["ear_trustworthiness_vector"].values(), default=0)
        assert part["ear_status"] == "none" or TIERS[part["ear_status"]] >= min(worst, 96)
        assert TIERS[document["ear_status"]] >= TIERS[part["ear_status"]]
        assert worst <= 99
        if simulated:
            assert not {2, 32} & set(part["ear_trustworthiness_vector"].values())
    if simulated or not accepted or set(verdicts.values()) - {PASS}:
        assert "affirming" not in statuses or (accepted and not simulated)
        assert document["ear_status"] != "affirming"


def test_simulated_appraisal_is_never_affirming(lab: Any) -> None:
    enclave = lab.appraise()
    assert enclave.simulated
    made = Result(
        checks=list(enclave.checks),
        accepted=True,
        simulated=enclave.simulated,
        issued_at=enclave.appraised_at,
        expires_at=enclave.expires_at,
        nonce=lab.challenge,
        policy_digest=enclave.policy_digest,
    )
    document = shown(made)
    assert document["ear_status"] == "none"
    assert all(not part["ear_trustworthiness_vector"] for part in document["submods"].values())
    assert document["submods"]["cpu"]["ear_verifier_claims"]["cocoon_simulated"] is True
    # The same checks under a vendor's root would be.
    assert shown(dataclasses.replace(made, simulated=False))["ear_status"] == "affirming"
    with pytest.raises(EvidenceRejectedError) as caught:
        lab.appraise(challenge=bytes(31) + b"\x01")
    assert caught.value.checks is not None
    refused = dataclasses.replace(made, checks=list(caught.value.checks), accepted=False)
    assert shown(refused)["ear_status"] == "contraindicated"
    assert cpu(refused)["ear_trustworthiness_vector"] == {"instance-identity": 96}
