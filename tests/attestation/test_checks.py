"""Checks and their list: order, verdicts, and what counts as accepted."""

from __future__ import annotations

import pytest

from cocoon_attestation.checks import Check, CheckList, Verdict


def test_a_list_keeps_every_check_in_order() -> None:
    checks = CheckList()
    assert checks.record("tdx.sig", True, "fits", inputs=(("key", "00"),)) is True
    assert checks.record("tdx.qe", False, "differs") is False
    checks.skip("tdx.chain", "not made")
    assert [(check.id, check.verdict) for check in checks] == [
        ("tdx.sig", Verdict.PASS),
        ("tdx.qe", Verdict.FAIL),
        ("tdx.chain", Verdict.SKIP),
    ]
    assert len(checks) == 3
    assert checks.failed == (checks.checks[1],)
    assert checks.skipped == (checks.checks[2],)
    assert checks.checks[0].inputs == (("key", "00"),)


@pytest.mark.parametrize(
    ("verdicts", "accepted"),
    [
        ((), False),
        ((True,), True),
        ((True, True), True),
        ((False,), False),
        ((True, False), False),
        ((None,), False),
        ((True, None), False),
    ],
)
def test_accepted_means_checks_were_made_and_all_passed(
    verdicts: tuple[bool | None, ...], accepted: bool
) -> None:
    checks = CheckList()
    for number, verdict in enumerate(verdicts):
        if verdict is None:
            checks.skip(f"check.{number}", "not made")
        else:
            checks.record(f"check.{number}", verdict, "made")
    assert checks.accepted is accepted


def test_lists_are_joined_in_order() -> None:
    first, second = CheckList(), CheckList()
    first.record("a", True, "")
    second.record("b", False, "")
    first.extend(second)
    assert [check.id for check in first] == ["a", "b"]
    assert not first.accepted
    assert len(second) == 1


def test_every_check_links_to_its_rule() -> None:
    checks = CheckList()
    checks.record("tdx.sig", True, "")
    checks.skip("tdx.qe", "")
    checks.record("bundle.salt", True, "", spec="docs/spec/bundle.md#bundle.salt")
    checks.skip("bundle.chain", "", spec="docs/spec/bundle.md#bundle.chain")
    assert [check.spec for check in checks] == [
        "docs/spec/appraisal.md#tdx.sig",
        "docs/spec/appraisal.md#tdx.qe",
        "docs/spec/bundle.md#bundle.salt",
        "docs/spec/bundle.md#bundle.chain",
    ]


def test_a_check_as_an_object() -> None:
    check = Check(id="tdx.sig", verdict=Verdict.SKIP, detail="not made")
    assert check.to_dict() == {"id": "tdx.sig", "verdict": "skip", "detail": "not made"}
