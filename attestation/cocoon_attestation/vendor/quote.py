"""A raw Intel quote, TDX (version 4 and 5) or SGX (version 3), with collateral."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.policy import MAX_GRACE_S, Policy
from cocoon_attestation.sgx.quote import VERSION as SGX_VERSION
from cocoon_attestation.sgx.quote import SgxQuote, parse_sgx_quote
from cocoon_attestation.sgx.verify import validate_enclave, verify_sgx_quote
from cocoon_attestation.tdx.collateral import load_collateral, parse_collateral
from cocoon_attestation.tdx.platform import TdxPlatform
from cocoon_attestation.tdx.quote import Quote, parse_quote
from cocoon_attestation.tdx.report import TdReport
from cocoon_attestation.tdx.requirements import NEVER, PlatformRequirements, PlatformRules
from cocoon_attestation.tdx.validate import check_owner, validate_td_hardware, validate_td_report
from cocoon_attestation.tdx.verify import verify_quote
from cocoon_attestation.vendor.outcome import Outcome, judge

STATUSES: Final = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)
"""TCB statuses that can be allowed here. A session can allow fewer: see `Policy.statuses`."""
SOFTWARE_CHECKS: Final = frozenset(
    {
        "tdx.measurement",
        "tdx.owner",
        "tdx.report_data",
        "sgx.mrenclave",
        "sgx.mrsigner",
        "sgx.report_data",
    }
)
"""Checks that need reference values."""
_WAIVED: Final = SOFTWARE_CHECKS | {"tdx.evaluation", "sgx.evaluation"}
CUSTOM_ROOT: Final = (
    "UNSAFE custom root: --root replaces Intel's root, so nothing about real hardware is shown"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteOptions:
    """What is expected of a raw quote; everything may stay open."""

    root: bytes | None = None
    """DER certificate instead of Intel's root. Loudly reported."""
    report_data: bytes | None = None
    """64 bytes."""
    mrtd: bytes | None = None
    """48 bytes; of an SGX quote 32 bytes of MRENCLAVE."""
    min_tcb_evaluation: int = 0
    statuses: frozenset[str] = frozenset()
    """TCB statuses to allow besides the policy's."""
    grace_s: int | None = None
    """Seconds of grace for outdated platforms instead of the policy's; see `Policy.grace_s`."""
    allowed_advisories: frozenset[str] | None = None
    """Advisories tolerated with such a status; None: the policy's, and without a policy all."""
    denied_advisories: frozenset[str] = frozenset()
    """Advisories to refuse besides the policy's."""
    policy: Policy | None = None
    """Rules of a session; None: the hardware alone."""


def verify_raw_quote(quote: bytes, collateral: bytes, options: QuoteOptions, now: int) -> Outcome:
    """Judge a quote at Unix time `now`.

    Args:
        quote: the quote; unsigned bytes behind it are ignored.
        collateral: JSON object with the fields of QuoteCollateralV3.
        options: what is expected.
        now: Unix time in seconds.

    Raises:
        MalformedError: quote or collateral do not parse.
        ConfigError: an option cannot be meant: an unknown status, or a second root.
    """
    rules = _rules(options)
    statements = parse_collateral(load_collateral(collateral))
    checks = CheckList()
    if int.from_bytes(quote[:2], "little") == SGX_VERSION:
        sgx = parse_sgx_quote(quote)
        allowed = None if options.mrtd is None else frozenset({options.mrtd})
        validate_enclave(sgx, mrenclave=allowed, mrsigner=None, checks=checks)
        platform = verify_sgx_quote(sgx, statements, policy=rules, now=now, checks=checks)
        _check_report_data("sgx.report_data", sgx.report.report_data, options, checks)
        return _outcome("sgx-quote", _enclave_claims(sgx), platform, rules, checks, options.policy)
    tdx = parse_quote(quote)
    _check_software(tdx.report, options, checks)
    platform = verify_quote(tdx, statements, policy=rules, now=now, checks=checks)
    _check_report_data("tdx.report_data", tdx.report.report_data, options, checks)
    return _outcome("tdx-quote", _td_claims(tdx), platform, rules, checks, options.policy)


def _rules(options: QuoteOptions) -> PlatformRequirements:
    if unknown := sorted(options.statuses - frozenset(STATUSES)):
        never = " can never be allowed" if unknown[0] == NEVER else " is not a TCB status"
        raise ConfigError(f"{unknown[0]}{never}", hint="known: " + ", ".join(STATUSES))
    if options.grace_s is not None and not 0 <= options.grace_s <= MAX_GRACE_S:
        raise ConfigError(f"grace is 0 to {MAX_GRACE_S // 86_400} days")
    policy = options.policy
    if policy is None:
        return PlatformRules(
            custom_root=options.root,
            min_tcb_evaluation=options.min_tcb_evaluation,
            statuses=frozenset({"UpToDate"}) | options.statuses,
            allowed_advisories=options.allowed_advisories,
            denied_advisories=options.denied_advisories,
            grace_s=options.grace_s or 0,
        )
    if options.root is not None and options.root != policy.root:
        raise ConfigError("the root contradicts the policy's", hint="name the root in the policy: dev_root")
    open_ended = options.statuses - policy.statuses and options.allowed_advisories is None
    named = policy.allowed_advisories | (options.allowed_advisories or frozenset())
    return PlatformRules(
        custom_root=policy.dev_root,
        min_tcb_evaluation=max(policy.min_tcb_evaluation, options.min_tcb_evaluation),
        max_collateral_age_s=policy.max_collateral_age_s,
        statuses=policy.statuses | options.statuses,
        allowed_advisories=None if open_ended else named,
        denied_advisories=policy.denied_advisories | options.denied_advisories,
        grace_s=policy.grace_s if options.grace_s is None else options.grace_s,
        recovery_dates=policy.recovery_dates,
        allowed_platforms=policy.allowed_platforms,
        denied_platforms=policy.denied_platforms,
    )


def _check_software(report: TdReport, options: QuoteOptions, checks: CheckList) -> None:
    if options.policy is not None:
        validate_td_report(report, policy=options.policy, named=None, checks=checks)
        return
    if options.mrtd is None:
        checks.skip("tdx.measurement", "no reference value: MRTD and RTMR0 to RTMR3 are shown, not judged")
    else:
        same = hmac.compare_digest(report.mrtd, options.mrtd)
        checks.record("tdx.measurement", same, f"MRTD {report.mrtd.hex()}, the registers are not compared")
    validate_td_hardware(report, expected=None, allowed_modules=frozenset(), checks=checks)
    if any(report.mrconfigid + report.mrowner + report.mrownerconfig):
        checks.skip("tdx.owner", "no reference value: the host set MRCONFIGID, MROWNER or MROWNERCONFIG")
    else:
        check_owner(report, checks)


def _check_report_data(id: str, found: bytes, options: QuoteOptions, checks: CheckList) -> None:
    if options.report_data is None:
        checks.skip(id, "no expected value: freshness and keys are not judged")
    else:
        same = hmac.compare_digest(found, options.report_data)
        inputs = (("expected", options.report_data.hex()), ("report_data", found.hex()))
        checks.record(id, same, f"the quote says {found.hex()}", inputs=inputs)


def _td_claims(quote: Quote) -> dict[str, object]:
    report = quote.report
    names = [name for name in report.__slots__ if isinstance(getattr(report, name), bytes)]
    return {
        "quote_version": quote.header.version,
        "tee": "tdx",
        "quote_sha256": quote.sha256.hex(),
        "trailing_bytes": quote.trailing,
        **{name: getattr(report, name).hex() for name in names},
    }


def _enclave_claims(quote: SgxQuote) -> dict[str, object]:
    report = quote.report
    return {
        "quote_version": quote.header.version,
        "tee": "sgx",
        "quote_sha256": quote.sha256.hex(),
        "trailing_bytes": quote.trailing,
        "attributes": report.attributes.hex(),
        "mrenclave": report.mrenclave.hex(),
        "mrsigner": report.mrsigner.hex(),
        "isv_prod_id": report.isv_prod_id,
        "isv_svn": report.isv_svn,
        "report_data": report.report_data.hex(),
    }


def _outcome(
    kind: str,
    claims: Mapping[str, object],
    platform: TdxPlatform | None,
    rules: PlatformRequirements,
    checks: CheckList,
    policy: Policy | None,
) -> Outcome:
    facts = dict(platform.claims) if platform else {}
    status, advisories = facts.pop("tcb_status", None), facts.pop("advisories", [])
    warnings = [CUSTOM_ROOT] if rules.simulated else []
    warnings += [f"TCB status {one} is allowed" for one in sorted(rules.statuses - {"UpToDate"})]
    if rules.grace_s:
        warnings.append(f"outdated platforms have {rules.grace_s // 86_400} days of grace")
    if platform:
        facts["expires_at"] = platform.expires_at
    made = {check.id for check in checks} - {check.id for check in checks.skipped}
    software = made & {"tdx.measurement", "sgx.mrenclave"}
    return Outcome(
        kind=kind,
        verdict=judge(checks, _WAIVED),
        checks=checks,
        waived=_WAIVED,
        scope="hardware and software" if software else "hardware",
        tcb_status=status if isinstance(status, str) else None,
        advisories=tuple(advisories) if isinstance(advisories, list) else (),
        claims={**claims, **facts, "root_sha256": rules.root_sha256.hex(), "custom_root": rules.simulated},
        warnings=tuple(warnings),
        simulated=rules.simulated,
        expires_at=platform.expires_at if platform else None,
        policy_digest=None if policy is None else policy.digest,
    )
