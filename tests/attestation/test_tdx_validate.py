"""Rules on the TD report, bit by bit, without any quote around it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cocoon_attestation.checks import CheckList, Verdict
from cocoon_attestation.reference import Release
from cocoon_attestation.tdx.report import TdReport
from cocoon_attestation.tdx.validate import check_owner, validate_td_hardware, validate_td_report

GOOD = 1 << 28
"""SEPT_VE_DISABLE alone."""
KNOWN_FEATURES = (16, 27, 30, 31, 62, 63)


@pytest.fixture(scope="module")
def report(lab: Any) -> TdReport:
    made: TdReport = lab.platform.td_report(bytes(64), bytes(48))
    return made


def judged(report: TdReport, expected: Release | None = None, **changes: Any) -> CheckList:
    checks = CheckList()
    changed = dataclasses.replace(report, **changes)
    validate_td_hardware(changed, expected=expected, allowed_modules=frozenset(), checks=checks)
    return checks


def failed(report: TdReport, expected: Release | None = None, **changes: Any) -> list[str]:
    return [check.id for check in judged(report, expected, **changes).failed]


def flags(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_good_report_passes_every_check(report: TdReport, lab: Any) -> None:
    for expected in (None, lab.release):
        checks = judged(report, expected)
        assert {check.verdict for check in checks} == {Verdict.PASS}
        assert [check.id for check in checks] == [
            "tdx.attributes",
            "tdx.xfam",
            "tdx.module",
            "tdx.service_td",
            "tdx.paravisor",
        ]


@pytest.mark.parametrize("bit", range(64))
def test_each_attribute_bit(report: TdReport, bit: int) -> None:
    """Debug group and reserved bits are refused, features allowed; bit 28 must be set."""
    wanted = [] if bit in (*KNOWN_FEATURES, 28) else ["tdx.attributes"]
    assert failed(report, td_attributes=flags(GOOD | 1 << bit)) == wanted


def test_memory_protection_attribute_must_be_set(report: TdReport) -> None:
    checks = judged(report, td_attributes=flags(1 << 30))
    assert [check.id for check in checks.failed] == ["tdx.attributes"]
    assert "SEPT_VE_DISABLE" in checks.failed[0].detail


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (GOOD | 1, "debug"),
        (GOOD | 1 << 29, "migratable"),
        (GOOD | 1 << 40, "reserved"),
        (GOOD, "release says"),
    ],
)
def test_the_reason_is_named(report: TdReport, lab: Any, value: int, words: str) -> None:
    release = dataclasses.replace(lab.release, td_attributes=flags(GOOD | 1 << 30))
    check = judged(report, release, td_attributes=flags(value)).failed[0]
    assert check.id == "tdx.attributes"
    assert words in check.detail
    assert check.inputs == (("td_attributes", flags(value).hex()),)


def test_attributes_of_another_release(report: TdReport, lab: Any) -> None:
    release = dataclasses.replace(lab.release, td_attributes=flags(GOOD | 1 << 30))
    assert failed(report, release, td_attributes=flags(GOOD)) == ["tdx.attributes"]
    assert failed(report, None, td_attributes=flags(GOOD)) == []


@pytest.mark.parametrize("low", range(4))
def test_fixed_bits_of_xfam(report: TdReport, low: int) -> None:
    rest = int.from_bytes(report.xfam, "little") & ~0b11
    assert failed(report, xfam=flags(rest | low)) == ([] if low == 3 else ["tdx.xfam"])


def test_xfam_of_another_release(report: TdReport, lab: Any) -> None:
    release = dataclasses.replace(lab.release, xfam=flags(0b1011))
    assert failed(report, release) == ["tdx.xfam"]
    assert failed(report, release, xfam=flags(0b1011)) == []


@pytest.mark.parametrize("name", ["mrconfigid", "mrowner", "mrownerconfig"])
@pytest.mark.parametrize("position", [0, 47])
def test_each_owner_field_must_be_zero(report: TdReport, name: str, position: int) -> None:
    value = bytes(1 if at == position else 0 for at in range(48))
    checks = CheckList()
    check_owner(dataclasses.replace(report, **{name: value}), checks)
    assert [check.id for check in checks.failed] == ["tdx.owner"]
    assert name.upper() in checks.failed[0].detail.upper()
    checks = CheckList()
    check_owner(report, checks)
    assert [check.verdict for check in checks] == [Verdict.PASS]


def test_modules(report: TdReport) -> None:
    for allowed, wanted in (
        (frozenset(), []),
        (frozenset({report.mrseam}), []),
        (frozenset({bytes(48)}), ["tdx.module"]),
    ):
        checks = CheckList()
        validate_td_hardware(report, expected=None, allowed_modules=allowed, checks=checks)
        assert [check.id for check in checks.failed] == wanted


@pytest.mark.parametrize(("name", "size"), [("mrsignerseam", 48), ("seam_attributes", 8)])
def test_module_must_be_intels_and_not_debuggable(report: TdReport, name: str, size: int) -> None:
    changes: dict[str, Any] = {name: b"\x01" + bytes(size - 1)}
    assert failed(report, **changes) == ["tdx.module"]


def test_the_matching_release_is_returned(report: TdReport, lab: Any) -> None:
    other = dataclasses.replace(lab.release, name="other", rtmr2=b"\x01" * 48)
    policy = lab.policy(releases=(other, lab.release))
    checks = CheckList()
    assert validate_td_report(report, policy=policy, named=None, checks=checks) is lab.release
    assert checks.accepted
    for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2"):
        checks = CheckList()
        changed = dataclasses.replace(report, **{name: b"\x02" * 48})
        assert validate_td_report(changed, policy=policy, named=None, checks=checks) is None
        assert [check.id for check in checks.failed] == ["tdx.measurement"]


def test_flags_are_compared_with_the_named_release_if_none_matches(report: TdReport, lab: Any) -> None:
    named = dataclasses.replace(lab.release, td_attributes=flags(GOOD | 1 << 30))
    checks = CheckList()
    changed = dataclasses.replace(report, mrtd=b"\x02" * 48)
    assert validate_td_report(changed, policy=lab.policy(), named=named, checks=checks) is None
    assert [check.id for check in checks.failed] == ["tdx.measurement", "tdx.attributes"]


def test_module_without_a_measurement(report: TdReport) -> None:
    assert failed(report, mrseam=bytes(48)) == ["tdx.module"]


@pytest.mark.parametrize("value", [None, bytes(48), b"\x01" + bytes(47), bytes(47) + b"\x01"])
def test_bound_service_td(report: TdReport, value: bytes | None) -> None:
    svn = None if value is None else bytes(16)
    changed = dataclasses.replace(report, mrservicetd=value, tee_tcb_svn_2=svn)
    wanted = ["tdx.service_td"] if value and any(value) else []
    assert failed(changed) == wanted


@pytest.mark.parametrize("register", [None, "rtmr0", "rtmr1", "rtmr2", "rtmr3"])
@pytest.mark.parametrize(("low", "high"), [(1, 0), (0, 0), (1, 1), (0, 1)])
def test_paravisor_form(report: TdReport, register: str | None, low: int, high: int) -> None:
    """Refused: all registers zero and report data that is 32 bytes and then zeros."""
    values: dict[str, Any] = dict.fromkeys(("rtmr0", "rtmr1", "rtmr2", "rtmr3"), bytes(48))
    if register is not None:
        values[register] = b"\x01" * 48
    data = bytes(31) + bytes((low, high)) + bytes(31)
    wanted = ["tdx.paravisor"] if register is None and low and not high else []
    assert failed(report, **values, report_data=data) == wanted


def test_reason_of_a_wrong_xfam_is_shown_without_a_release(report: TdReport) -> None:
    assert "clear" in judged(report, xfam=bytes(8)).failed[0].detail
