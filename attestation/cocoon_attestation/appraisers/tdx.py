"""Appraisal of TDX evidence: the quote, its report data, and the runtime log."""

from __future__ import annotations

import hmac

from cocoon_attestation.appraisers.result import CpuResult, MeasuredGpus, check_release, report_data_inputs
from cocoon_attestation.binding import gpu_digest, report_data
from cocoon_attestation.checks import CheckList
from cocoon_attestation.evidence import Evidence, TdxEvidence
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.rtmr3 import check_runtime_log
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_attestation.tdx.quote import Quote, parse_quote
from cocoon_attestation.tdx.validate import validate_td_report
from cocoon_attestation.tdx.verify import verify_quote

_MEASURED = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "td_attributes", "xfam", "mrseam", "tee_tcb_svn")


def appraise_tdx(
    evidence: Evidence, cpu: TdxEvidence, policy: Policy, now: int, checks: CheckList
) -> tuple[CpuResult | None, MeasuredGpus]:
    """Record the checks on TDX evidence.

    Raises:
        MalformedError: quote or collateral do not parse.
    """
    quote = parse_quote(cpu.quote)
    collateral = None if cpu.collateral is None else parse_collateral(cpu.collateral)
    named = policy.release(evidence.binding.release_id)
    expected = named if isinstance(named, Release) else None
    matched = validate_td_report(quote.report, policy=policy, named=expected, checks=checks)
    platform = verify_quote(quote, collateral, policy=policy, now=now, checks=checks)
    check_release(evidence.binding, policy, matched, checks)
    _check_report_data(evidence, quote, checks)
    log = check_runtime_log(
        cpu.runtime_events,
        register=quote.report.rtmr3,
        config_hash=evidence.binding.config_hash,
        allowed_models=policy.models,
        checks=checks,
    )
    measured = MeasuredGpus(payload=None if log is None else log.gpu)
    if matched is None or platform is None or log is None:
        return None, measured
    result = CpuResult(
        tee=TeeKind.TDX,
        release=matched,
        models=log.models,
        platform_id=platform.platform_id,
        expires_at=platform.expires_at,
        claims={**_claims(quote, matched), **platform.claims},
    )
    return result, measured


def _claims(quote: Quote, release: Release) -> dict[str, object]:
    return {
        "quote_version": quote.header.version,
        "quote_sha256": quote.sha256.hex(),
        "release_name": release.name,
        **{name: getattr(quote.report, name).hex() for name in _MEASURED},
    }


def _check_report_data(evidence: Evidence, quote: Quote, checks: CheckList) -> None:
    devices = gpu_digest([device.report for device in evidence.devices])
    expected = report_data(evidence.binding.hash, devices, evidence.challenge)
    checks.record(
        "binding.report_data",
        hmac.compare_digest(expected, quote.report.report_data),
        "the hardware signed exactly this key binding and challenge, 64 bytes compared",
        inputs=(*report_data_inputs(evidence), ("quoted", quote.report.report_data.hex())),
    )
