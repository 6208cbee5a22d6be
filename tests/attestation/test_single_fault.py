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
else:
    import faults_amd
    import faults_eventlog
    import faults_nvidia
    import faults_quote
    import faults_session
    from fault_case import Case, World

TABLES = (faults_session, faults_quote, faults_amd, faults_nvidia, faults_eventlog)
CASES: dict[str, Case] = {id: case for table in TABLES for id, case in table.CASES.items()}
NEVER_FAILS = {
    "snp.length": "a report of another length or form does not parse: MalformedError, before any check",
}
"""Checks that cannot fail, and why. They are recorded so that a reader sees that the rule was kept."""


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


def test_tables_have_every_rule_once() -> None:
    assert sum(len(table.CASES) for table in TABLES) == len(CASES)
    assert set(CASES) | set(NEVER_FAILS) == set(RULES)


def test_checks_that_never_fail_are_few_and_explained() -> None:
    assert len(NEVER_FAILS) <= 1
    assert all(len(reason) > 40 for reason in NEVER_FAILS.values())
