"""Grace for outdated platforms: when it starts, when it ends, and what it never covers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.policy import MAX_GRACE_S, Policy
from cocoon_attestation.policy_toml import policy_from_toml
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_attestation.tdx.dcap import level_key
from cocoon_attestation.tdx.grace import find_grace
from cocoon_attestation.tdx.requirements import PlatformRules
from cocoon_attestation.vendor.outcome import Outcome
from cocoon_attestation.vendor.quote import QuoteOptions, verify_raw_quote
from cocoon_enclave.attestation import simulated_pki as pki

DAY = 86_400
MONTH = 30 * DAY
OLD = ("INTEL-SA-01010", "INTEL-SA-01036")


def date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def raised(level: dict[str, Any], moment: int, status: str = "UpToDate") -> dict[str, Any]:
    """The level of a later recovery, which this platform does not reach."""
    newer: dict[str, Any] = json.loads(json.dumps(level))
    newer["tcb"]["sgxtcbcomponents"][0]["svn"] += 1
    return newer | {"tcbDate": date(moment), "tcbStatus": status, "advisoryIDs": []}


class World:
    """Collateral of an outdated platform: its level is of day 0, newer levels of the given days."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.start = lab.now - 100 * DAY

    def collateral(
        self,
        *days: int,
        status: str = "OutOfDate",
        edit: Callable[[dict[str, Any]], object] = lambda document: None,
        edit_qe: Callable[[dict[str, Any]], object] = lambda document: None,
    ) -> evidence_pb2.TdxCollateral:
        message: evidence_pb2.TdxCollateral = self.lab.platform.collateral(self.lab.now)
        tcb, qe = json.loads(message.tcb_info), json.loads(message.qe_identity)
        level = tcb["tcbLevels"][0]
        level |= {"tcbDate": date(self.start), "tcbStatus": status}
        if status != "UpToDate":
            level["advisoryIDs"] = list(OLD)
        newer = [raised(level, self.start + day * DAY) for day in sorted(days, reverse=True)]
        tcb["tcbLevels"] = [*newer, level]
        edit(tcb)
        edit_qe(qe)
        for name, document in (("tcb_info", tcb), ("qe_identity", qe)):
            text = json.dumps(document, separators=(",", ":"))
            setattr(message, name, text)
            key = self.lab.platform.tcb_signer.key
            setattr(message, f"{name}_signature", pki.sign_raw(key, text.encode()))
        return message

    def policy(self, **changes: Any) -> Policy:
        policy: Policy = self.lab.policy(**({"grace_s": MONTH} | changes))
        return policy

    def appraise(self, collateral: evidence_pb2.TdxCollateral, **changes: Any) -> Any:
        evidence = self.lab.evidence(collateral=collateral)
        return self.lab.appraise(evidence, policy=self.policy(**changes))

    def refused(self, collateral: evidence_pb2.TdxCollateral, **changes: Any) -> tuple[str, ...]:
        evidence = self.lab.evidence(collateral=collateral)
        failures: tuple[str, ...] = self.lab.failures(evidence, policy=self.policy(**changes))
        return failures


@pytest.fixture(scope="module")
def world(lab: Any) -> World:
    return World(lab)


def tcb_detail(world: World, **changes: Any) -> str:
    evidence = world.lab.evidence(collateral=world.collateral(99))
    with pytest.raises(EvidenceRejectedError) as caught:
        world.lab.appraise(evidence, policy=world.policy(**changes))
    assert caught.value.checks is not None
    return caught.value.checks.failed[0].detail


def test_no_grace_by_default(world: World) -> None:
    assert world.lab.policy().grace_s == 0
    assert world.refused(world.collateral(99), grace_s=0) == ("tdx.tcb",)
    assert "grace" not in tcb_detail(world, grace_s=0)
    assert "grace ended" in tcb_detail(world, grace_s=1)


def test_grace_after_a_recovery_names_what_it_tolerates(world: World) -> None:
    enclave = world.appraise(world.collateral(80))
    until = world.start + 110 * DAY
    assert enclave.claims["tcb_status"] == "OutOfDate"
    assert enclave.claims["tcb_tolerated"] == {
        "status_read_as": "UpToDate",
        "advisories": list(OLD),
        "until": until,
    }
    (check,) = (check for check in enclave.checks if check.id == "tdx.tcb")
    assert "tolerated until" in check.detail
    assert ("grace_until", str(until)) in check.inputs
    assert world.appraise(world.collateral(99, status="UpToDate")).claims["tcb_tolerated"] is None


def test_result_ends_with_the_grace(world: World) -> None:
    # 70 days after the level came the next one: the last second of 30 days is the one before now.
    assert world.refused(world.collateral(70)) == ("tdx.tcb",)
    last = world.appraise(
        world.collateral(70), grace_s=MONTH - 1, recovery_dates={19: world.start + 71 * DAY}
    )
    assert last.expires_at <= world.start + 71 * DAY + MONTH - 1


@pytest.mark.parametrize(("left", "accepted"), [(1, True), (0, False)])
def test_last_second_of_grace(world: World, left: int, accepted: bool) -> None:
    grace = 20 * DAY + left
    if accepted:
        assert world.appraise(world.collateral(80), grace_s=grace).expires_at == world.lab.now + left
    else:
        assert world.refused(world.collateral(80), grace_s=grace) == ("tdx.tcb",)


def test_second_missed_recovery_has_no_grace(world: World) -> None:
    assert world.refused(world.collateral(20, 99)) == ("tdx.tcb",)
    # A date for the latest recovery cannot excuse the one before it.
    assert world.refused(world.collateral(20, 99), recovery_dates={19: world.lab.now}) == ("tdx.tcb",)


def test_date_of_a_recovery_moves_the_start_only_later(world: World) -> None:
    late = world.start + 90 * DAY
    enclave = world.appraise(world.collateral(10), recovery_dates={19: late})
    assert enclave.claims["tcb_tolerated"]["until"] == late + MONTH
    assert world.refused(world.collateral(10), recovery_dates={18: late}) == ("tdx.tcb",)
    early = world.appraise(world.collateral(80), recovery_dates={19: world.start})
    assert early.claims["tcb_tolerated"]["until"] == world.start + 110 * DAY


def test_outdated_without_a_newer_level_has_no_grace(world: World) -> None:
    assert world.refused(world.collateral()) == ("tdx.tcb",)


def test_configuration_must_still_be_allowed(world: World) -> None:
    collateral = world.collateral(80, status="OutOfDateConfigurationNeeded")
    assert world.refused(collateral) == ("tdx.tcb",)
    both = frozenset({"UpToDate", "ConfigurationNeeded"})
    assert world.refused(collateral, statuses=both) == ("tdx.tcb",)  # its advisories are not tolerated
    enclave = world.appraise(collateral, statuses=both, allowed_advisories=frozenset(OLD))
    assert enclave.claims["tcb_tolerated"]["status_read_as"] == "ConfigurationNeeded"


def test_denied_advisory_has_no_grace(world: World) -> None:
    assert world.refused(world.collateral(80), denied_advisories=frozenset(OLD[:1])) == ("tdx.tcb",)


def test_revoked_has_no_grace(world: World) -> None:
    assert world.refused(world.collateral(80, status="Revoked")) == ("tdx.tcb",)


def outdate_module(document: dict[str, Any], newer: int) -> None:
    levels = document["tdxModuleIdentities"][0]["tcbLevels"]
    first = levels[0]
    old = json.loads(json.dumps(first)) | {"tcbStatus": "OutOfDate"}
    first["tcb"]["isvsvn"] += 1
    first["tcbDate"], old["tcbDate"] = date(newer), date(newer - 50 * DAY)
    levels.append(old)


def outdate_qe(document: dict[str, Any], newer: int) -> None:
    old = json.loads(json.dumps(document["tcbLevels"][0])) | {"tcbStatus": "OutOfDate"}
    document["tcbLevels"][0]["tcb"]["isvsvn"] += 1
    document["tcbLevels"][0]["tcbDate"], old["tcbDate"] = date(newer), date(newer - 50 * DAY)
    document["tcbLevels"].append(old)


@pytest.mark.parametrize("part", ["module", "qe"])
def test_module_and_quoting_enclave_have_dates_of_their_own(world: World, part: str) -> None:
    def made(days: int) -> evidence_pb2.TdxCollateral:
        newer = world.lab.now - days * DAY
        if part == "module":
            return world.collateral(status="UpToDate", edit=lambda tcb: outdate_module(tcb, newer))
        return world.collateral(status="UpToDate", edit_qe=lambda qe: outdate_qe(qe, newer))

    enclave = world.appraise(made(10))
    assert enclave.claims["tcb_status"] == "OutOfDate"
    assert enclave.claims["tcb_tolerated"]["until"] == world.lab.now - 10 * DAY + MONTH
    assert world.refused(made(31)) == ("tdx.tcb",)


def test_earliest_of_two_outdated_parts_counts(world: World) -> None:
    collateral = world.collateral(95, edit=lambda tcb: outdate_module(tcb, world.lab.now - 31 * DAY))
    assert world.refused(collateral) == ("tdx.tcb",)


def test_every_outdated_part_needs_a_newer_level(world: World) -> None:
    # The module was outdated ten days ago; of the platform nobody says what it should be updated to.
    collateral = world.collateral(edit=lambda tcb: outdate_module(tcb, world.lab.now - 10 * DAY))
    assert world.refused(collateral) == ("tdx.tcb",)


# --- values --------------------------------------------------------------------------------------------


def test_grace_is_bounded(world: World) -> None:
    assert world.policy(grace_s=MAX_GRACE_S).grace_s == MAX_GRACE_S
    for wrong in (
        {"grace_s": MAX_GRACE_S + 1},
        {"grace_s": -1},
        {"grace_s": 0, "recovery_dates": {19: 1}},
        {"recovery_dates": {0: 1}},
        {"recovery_dates": {19: -1}},
    ):
        with pytest.raises(ConfigError):
            world.policy(**wrong)


def test_tightening_shortens_grace_and_drops_statuses(world: World) -> None:
    policy = world.policy(recovery_dates={19: 1}, statuses=frozenset({"UpToDate", "ConfigurationNeeded"}))
    assert policy.tightened(max_grace_s=DAY).grace_s == DAY
    assert policy.tightened(max_grace_s=2 * MAX_GRACE_S).grace_s == MONTH
    none = policy.tightened(max_grace_s=0)
    assert (none.grace_s, dict(none.recovery_dates)) == (0, {})
    assert policy.tightened(statuses=["UpToDate", "SWHardeningNeeded"]).statuses == {"UpToDate"}
    with pytest.raises(ConfigError):
        policy.tightened(statuses=[])


TOML = """
global_id = -3
min_tcb_evaluation = 18
models = ["{model}"]
grace_s = 86400
recovery_dates = {dates}
releases = [{{ name = "one", tee = "sev-snp", measurement = "{measurement}", models = ["{model}"] }}]
"""


def test_toml(world: World) -> None:
    def read(dates: str) -> Policy:
        return policy_from_toml(TOML.format(model="05" * 32, measurement="01" * 48, dates=dates))

    policy = read("{ 18 = 1763424000, 19 = 1790000000 }")
    assert policy.grace_s == DAY
    assert policy.recovery_dates == {18: 1763424000, 19: 1790000000}
    members: dict[str, Any] = policy.to_dict()
    assert members["recovery_dates"] == {"18": 1763424000, "19": 1790000000}
    for wrong in ("[]", "{ x = 1 }", "{ 018 = 1 }", '{ 18 = "1" }', "{ 18 = -1 }", "{ 0 = 1 }"):
        with pytest.raises(ConfigError):
            read(wrong)


# --- raw quotes, and a genuine outdated platform -----------------------------------------------------------


def test_signed_collateral_of_another_form_gives_no_grace(world: World) -> None:
    message = world.collateral(80)
    source: Any = message
    parsed = parse_collateral(source)
    broken = dataclasses.replace(
        parsed, tcb_info=dataclasses.replace(parsed.tcb_info, text=b'{"tcbLevels":[{"tcbDate":5}]}')
    )
    key = level_key(json.loads(message.tcb_info)["tcbLevels"][1]["tcb"])
    svn = world.lab.platform.quoting_enclave.isv_svn
    answer: Any = SimpleNamespace(status="OutOfDate", platform_level=key, qe_isv_svn=svn)
    rules = PlatformRules(grace_s=MONTH)
    assert find_grace(answer, None, broken, rules) is None
    assert find_grace(answer, None, parsed, rules) is not None
    assert find_grace(answer, bytes([0, 9]), parsed, rules) is None  # a module without levels


NOW_COS = int(datetime(2026, 2, 22, 9, 51, 30, tzinfo=UTC).timestamp())


def genuine(samples: Any, **options: Any) -> Outcome:
    return verify_raw_quote(
        samples.read("tdx/gcp_cos113.quote.bin"),
        samples.read("tdx/collateral/00806f050000_tdx_2026-02_ev18.json"),
        QuoteOptions(**options),
        NOW_COS,
    )


def test_genuine_outdated_platform(samples: Any) -> None:
    late = genuine(samples, grace_s=MONTH)
    assert late.verdict == "rejected"
    assert "grace ended 2024-12-13: 30 days after the recovery of 2024-11-13" in late.reason
    for one in (
        {"statuses": frozenset({"OutOfDate"})},
        {"statuses": frozenset({"OutOfDate"}), "grace_s": MONTH},
    ):
        allowed = genuine(samples, **one)
        assert allowed.verdict == "accepted"
        tolerated: Any = allowed.claims["tcb_tolerated"]
        assert (tolerated["status_read_as"], tolerated["until"]) == ("OutOfDate", None)
        assert len(tolerated["advisories"]) == 7
    some = genuine(
        samples, statuses=frozenset({"OutOfDate"}), allowed_advisories=frozenset({"INTEL-SA-01010"})
    )
    assert "INTEL-SA-01036 not tolerated" in some.reason
    denied = genuine(
        samples, statuses=frozenset({"OutOfDate"}), denied_advisories=frozenset({"INTEL-SA-01111"})
    )
    assert "denied advisory INTEL-SA-01111" in denied.reason
    with pytest.raises(ConfigError):
        genuine(samples, grace_s=MAX_GRACE_S + 1)
