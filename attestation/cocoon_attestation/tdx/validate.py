"""TDX policy on the TD report: is this the guest that we want? Authenticity is `verify`'s business.

Rules and bit names: docs/spec/appraisal.md, section 3.
"""

from __future__ import annotations

from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release
from cocoon_attestation.tdx.report import TdReport

DEBUG_GROUP: Final = 0xFF
"""TDATTRIBUTES bits 0-7 ("TUD"): debug and profiling; one of them set makes the guest untrusted."""
SEPT_VE_DISABLE: Final = 1 << 28
MIGRATABLE: Final = 1 << 29
_FEATURES: Final = 1 << 16 | 1 << 27 | 1 << 30 | 1 << 31 | 1 << 62 | 1 << 63
"""ICSSD, LASS, PKS, KL, TPA, PERFMON: allowed if the release has them."""
_DEFINED: Final = DEBUG_GROUP | SEPT_VE_DISABLE | MIGRATABLE | _FEATURES
_XFAM_FIXED: Final = 0b11
"""x87 and SSE are always on."""


def validate_td_report(
    report: TdReport, *, policy: Policy, named: Release | None, checks: CheckList
) -> Release | None:
    """Record the checks on a TD report and return the release that its measurements match.

    Args:
        report: from a quote; authenticated elsewhere.
        policy: gives the allowed releases and modules.
        named: the allowed release that the key binding names; its flags are the expected ones if the
            measurements match no release.
        checks: where the verdicts go.
    """
    matched = _measurement(report, policy, checks)
    validate_td_hardware(
        report, expected=matched or named, allowed_modules=policy.allowed_modules, checks=checks
    )
    check_owner(report, checks)
    return matched


def validate_td_hardware(
    report: TdReport, *, expected: Release | None, allowed_modules: frozenset[bytes], checks: CheckList
) -> None:
    """Record the checks on a TD report that need no reference values of the software.

    Args:
        report: from a quote; authenticated elsewhere.
        expected: if given, flags must equal this release's too.
        allowed_modules: MRSEAM values; empty: every module of Intel.
        checks: where the verdicts go.
    """
    _attributes(report, expected, checks)
    _xfam(report, expected, checks)
    _module(report, allowed_modules, checks)
    _service_td(report, checks)
    _paravisor(report, checks)


def _measurement(report: TdReport, policy: Policy, checks: CheckList) -> Release | None:
    for release in policy.tdx_releases:
        wanted = (release.mrtd, release.rtmr0, release.rtmr1, release.rtmr2)
        measured = (report.mrtd, report.rtmr0, report.rtmr1, report.rtmr2)
        if measured == wanted:
            checks.record(
                "tdx.measurement",
                True,
                f"MRTD and RTMR0-2 are those of {release.name}",
                inputs=_measured(report),
            )
            return release
    checks.record(
        "tdx.measurement",
        False,
        f"MRTD {report.mrtd.hex()[:16]}… and RTMR0-2 match none of {len(policy.tdx_releases)} allowed releases",
        inputs=_measured(report),
    )
    return None


def _measured(report: TdReport) -> tuple[tuple[str, str], ...]:
    return tuple((name, getattr(report, name).hex()) for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2"))


def _attributes(report: TdReport, expected: Release | None, checks: CheckList) -> None:
    flags = int.from_bytes(report.td_attributes, "little")
    faults = []
    if flags & DEBUG_GROUP:
        faults.append("a debug or profiling bit is set")
    if not flags & SEPT_VE_DISABLE:
        faults.append("SEPT_VE_DISABLE is not set")
    if flags & MIGRATABLE:
        faults.append("the guest is migratable")
    if flags & ~_DEFINED:
        faults.append("a reserved bit is set")
    if expected is not None and report.td_attributes != expected.td_attributes:
        faults.append(f"release says {expected.td_attributes.hex()}")
    verdict = "; ".join(faults) or "not debuggable" + (", as the release says" if expected else "")
    checks.record(
        "tdx.attributes",
        not faults,
        f"TDATTRIBUTES {report.td_attributes.hex()}: {verdict}",
        inputs=(("td_attributes", report.td_attributes.hex()),),
    )


def _xfam(report: TdReport, expected: Release | None, checks: CheckList) -> None:
    faults = []
    if int.from_bytes(report.xfam, "little") & _XFAM_FIXED != _XFAM_FIXED:
        faults.append("a fixed bit is clear")
    if expected is not None and report.xfam != expected.xfam:
        faults.append(f"release says {expected.xfam.hex()}")
    good = "as the release says" if expected else "fixed bits set"
    checks.record(
        "tdx.xfam",
        not faults,
        f"XFAM {report.xfam.hex()}: {'; '.join(faults) or good}",
        inputs=(("xfam", report.xfam.hex()),),
    )


def _module(report: TdReport, allowed_modules: frozenset[bytes], checks: CheckList) -> None:
    faults = []
    if any(report.mrsignerseam):
        faults.append("MRSIGNERSEAM is not zero: not a module of Intel")
    if any(report.seam_attributes):
        faults.append("SEAMATTRIBUTES is not zero: not a production module")
    if not any(report.mrseam):
        faults.append("MRSEAM is zero")
    if allowed_modules and report.mrseam not in allowed_modules:
        faults.append("MRSEAM is not in the policy")
    verdict = "; ".join(faults) or "a production module of the vendor"
    checks.record(
        "tdx.module",
        not faults,
        f"TDX module {report.mrseam.hex()[:16]}…: {verdict}",
        inputs=(("mrseam", report.mrseam.hex()), ("mrsignerseam", report.mrsignerseam.hex())),
    )


def _service_td(report: TdReport, checks: CheckList) -> None:
    bound = report.mrservicetd is not None and any(report.mrservicetd)
    checks.record(
        "tdx.service_td",
        not bound,
        "a service TD is bound: it could read the guest" if bound else "no service TD is bound",
        inputs=() if report.mrservicetd is None else (("mrservicetd", report.mrservicetd.hex()),),
    )


def _paravisor(report: TdReport, checks: CheckList) -> None:
    """Recognise a guest under a paravisor: nothing is measured into the TD, a virtual TPM speaks instead.

    Such a quote signs a digest of the cloud's run-time data (32 bytes, then zeros) and leaves all four
    registers at zero: boot state and freshness stand in a TPM quote, which is no part of this evidence.
    """
    registers = report.rtmr0 + report.rtmr1 + report.rtmr2 + report.rtmr3
    digest_only = any(report.report_data[:32]) and not any(report.report_data[32:])
    found = not any(registers) and digest_only
    checks.record(
        "tdx.paravisor",
        not found,
        "a guest under a paravisor: no register is extended and the report data is a digest of the cloud's "
        "run-time data, so this quote shows neither software nor freshness"
        if found
        else "the guest measures itself",
        inputs=(("registers", registers.hex()), ("report_data", report.report_data.hex())),
    )


def check_owner(report: TdReport, checks: CheckList) -> None:
    """Record ``tdx.owner``: what the host may choose at creation is left at zero."""
    names = ("mrconfigid", "mrowner", "mrownerconfig")
    used = [name.upper() for name in names if any(getattr(report, name))]
    checks.record(
        "tdx.owner",
        not used,
        f"{', '.join(used)}: zero expected" if used else "MRCONFIGID, MROWNER and MROWNERCONFIG are zero",
        inputs=tuple((name, getattr(report, name).hex()) for name in names),
    )
