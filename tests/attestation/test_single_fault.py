"""Every check has evidence in which it fails and no other check does, and evidence in which it passes.

The tables are ``faults_*.py``, one case for each id of `RULES`. Checks that need what failed may be skipped;
a skip is visible and never a pass, so such a case is refused for one stated reason.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_attestation.checks import Verdict
from cocoon_attestation.rules import RULES

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation import (
        faults_amd,
        faults_eventlog,
        faults_nvidia,
        faults_quote,
        faults_session,
    )
    from tests.attestation.fault_case import Case, World
    from tests.attestation.kit_eventlog import BOOT
else:
    import faults_amd
    import faults_eventlog
    import faults_nvidia
    import faults_quote
    import faults_session
    from fault_case import Case, World
    from kit_eventlog import BOOT

TABLES = (faults_session, faults_quote, faults_amd, faults_nvidia, faults_eventlog)
CASES: dict[str, Case] = {id: case for table in TABLES for id, case in table.CASES.items()}
NEVER_FAILS = {
    "snp.length": "a report of another length or form does not parse: MalformedError, before any check",
}
"""Checks that cannot fail, and why. They are recorded so that a reader sees that the rule was kept."""


UNSEEN_DEVICES = {"release.gpu", "gpu.allowed"}
"""Where devices are missing, or nobody may look at them, their checks are not listed one by one."""
ONLY_ON_DEMAND = {
    "snp.csp", "snp.chip", "gpu.allowed", "gpu.serial", "gpu.topology", "eventlog.ready", "eventlog.unique",
}  # fmt: skip
"""Checks of a family that are made only where there is something to check: see their rules."""


@pytest.fixture(scope="module")
def world(lab: Any, amd: Any, nvidia: Any) -> World:
    return World(lab, amd, nvidia)


@pytest.mark.parametrize("id", RULES)
def test_only_this_check_fails(world: World, id: str) -> None:
    if id in NEVER_FAILS:
        assert id not in CASES
        return
    good, bad = CASES[id].good(world), CASES[id].bad(world)
    assert not good.failed
    assert {check.verdict for check in good if check.id == id} == {Verdict.PASS}
    assert {check.id for check in bad.failed} == {id}
    assert not bad.accepted
    # No other check disappears: what is not made any more is shown as skipped.
    vanished = {check.id for check in good} - {check.id for check in bad}
    if id in UNSEEN_DEVICES:
        vanished = {one for one in vanished if not one.startswith("gpu.") and one != "policy.device"}
    assert vanished == set()


def test_tables_have_every_rule_once() -> None:
    assert sum(len(table.CASES) for table in TABLES) == len(CASES)
    assert set(CASES) | set(NEVER_FAILS) == set(RULES)


def test_checks_that_never_fail_are_few_and_explained() -> None:
    assert len(NEVER_FAILS) <= 1
    assert all(len(reason) > 40 for reason in NEVER_FAILS.values())


@pytest.mark.parametrize(
    ("family", "good"),
    [
        ("sgx", faults_quote.judged()),
        ("snp", faults_amd.checked()),
        ("gpu", faults_nvidia.healthy),
        ("eventlog", faults_eventlog.replayed(BOOT)),
    ],
)
def test_good_evidence_meets_every_check_of_its_family(world: World, family: str, good: Any) -> None:
    ids = [check.id for check in good(world)]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id for id in RULES if id.startswith(f"{family}.")} - ONLY_ON_DEMAND
