"""Applies an `SnpPolicy` to the fields of a report: checks 7 to 12 of docs/spec/snp.md."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.snp import report as layout
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.report import Product, SnpReport, TcbVersion

_SPEC: Final = "docs/spec/snp.md#"
_NO_MIGRATION_AGENT: Final = b"\xff" * 32
_PARAVISOR_IDS: Final = (b"\x01" + bytes(15), b"\x02" + bytes(15))
"""Family id and image id of guests that Azure launches."""
PARAVISOR: Final = (
    "a guest under a paravisor: the launch digest is the cloud's and the report data a digest of its run-time "
    "data, so this report shows neither software nor freshness"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTcbs:
    """The four TCB versions of a report in the layout of its product."""

    reported: TcbVersion
    committed: TcbVersion
    launch: TcbVersion
    current: TcbVersion


def validate(
    checks: CheckList,
    report: SnpReport,
    product: Product | None,
    tcbs: ReportTcbs | None,
    policy: SnpPolicy,
) -> None:
    """Append the policy checks. `product` and `tcbs` are None if the endorsement failed."""
    _check_product(checks, report, product, policy)
    _check_guest_policy(checks, report, policy)
    _check_tcb(checks, product, tcbs, policy)
    _check_platform(checks, report, product, policy)
    known_vmpl = report.vmpl in policy.vmpls and report.vmpl != layout.HOST_VMPL
    _record(checks, "snp.vmpl", known_vmpl, f"VMPL {report.vmpl}")
    _check_paravisor(checks, report, policy)
    _check_software(checks, report, policy)
    _compare(checks, "snp.report_data", report.report_data, policy.report_data)


def product_of_cpuid(cpuid: tuple[int, int, int]) -> Product | None:
    """The product of a CPUID family, model and stepping; None if it is not known."""
    family, model, _ = cpuid
    if family == 0x19:
        if model <= 0x0F:
            return Product.MILAN
        if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF:
            return Product.GENOA
    if family == 0x1A and model <= 0x1F:
        return Product.TURIN
    return None


def _check_product(
    checks: CheckList, report: SnpReport, product: Product | None, policy: SnpPolicy
) -> None:
    if product is None:
        for check in ("snp.product", "snp.cpuid"):
            checks.skip(check, "the product is not known", spec=_SPEC + check)
        return
    _record(checks, "snp.product", product in policy.products, f"product {product}")
    if report.cpuid is None:
        _record(checks, "snp.cpuid", True, "report version 2 carries no CPUID")
        return
    named = product_of_cpuid(report.cpuid)
    text = "/".join(f"{part:02x}" for part in report.cpuid)
    _record(checks, "snp.cpuid", named is product, f"CPUID {text} is {named or 'unknown'}")


def _check_guest_policy(checks: CheckList, report: SnpReport, policy: SnpPolicy) -> None:
    debug = bool(report.policy & layout.POLICY_DEBUG)
    _record(checks, "snp.debug", not debug, "debugging by the host is " + ("on" if debug else "off"))
    migratable = bool(report.policy & layout.POLICY_MIGRATE_MA)
    alone = report.report_id_ma == _NO_MIGRATION_AGENT
    _record(checks, "snp.migration", not migratable and alone, "no migration agent may be attached")
    ok = (
        report.policy & policy.policy_required == policy.policy_required
        and not report.policy & policy.policy_forbidden
        and report.abi >= policy.minimum_abi
    )
    _record(checks, "snp.policy", ok, f"guest policy 0x{report.policy:x}")


def _check_tcb(
    checks: CheckList, product: Product | None, tcbs: ReportTcbs | None, policy: SnpPolicy
) -> None:
    if product is None or tcbs is None:
        for check in ("snp.tcb_order", "snp.tcb_min"):
            checks.skip(check, "the TCB is not known", spec=_SPEC + check)
        return
    ordered = tcbs.current.covers(tcbs.committed) and tcbs.committed.covers(tcbs.reported)
    _record(checks, "snp.tcb_order", ordered, "current >= committed >= reported")
    if not policy.minimum_tcb:
        checks.skip("snp.tcb_min", "the policy sets no minimum", spec=_SPEC + "snp.tcb_min")
        return
    floor = policy.minimum_tcb.get(product)
    old = [
        name
        for name in ("reported", "committed", "launch")
        if floor is None or not getattr(tcbs, name).covers(floor)
    ]
    detail = f"minimum {floor}; below it: {', '.join(old) or 'none'}" if floor else "no minimum is set"
    _record(checks, "snp.tcb_min", not old, detail)


def _check_platform(
    checks: CheckList, report: SnpReport, product: Product | None, policy: SnpPolicy
) -> None:
    if product is None or not policy.platform_required:
        why = "the product is not known" if product is None else "the policy asks for no platform flag"
        checks.skip("snp.platform", why, spec=_SPEC + "snp.platform")
    else:
        required = policy.platform_required.get(product)
        info = report.platform_info
        ok = (
            required is not None
            and info & required == required
            and not info & policy.platform_forbidden
            and not info & ~policy.platform_known
        )
        _record(checks, "snp.platform", ok, f"platform information 0x{info:x}")
    if policy.chip_ids or policy.denied_chip_ids:
        allowed = not policy.chip_ids or report.chip_id in policy.chip_ids
        ok = allowed and report.chip_id not in policy.denied_chip_ids
        _record(checks, "snp.chip", ok, f"chip {report.chip_id[:8].hex()}...")


def _check_paravisor(checks: CheckList, report: SnpReport, policy: SnpPolicy) -> None:
    """Recognise a guest under Azure's paravisor: it launches with fixed ids, and a virtual TPM speaks for it.

    Such a report signs a digest of the cloud's run-time data (32 bytes, then zeros). Kernel, command line
    and freshness stand in a TPM quote, which is no part of this evidence.
    """
    digest_only = any(report.report_data[:32]) and not any(report.report_data[32:])
    found = (report.family_id, report.image_id) == _PARAVISOR_IDS and digest_only
    if found and policy.allow_paravisor:
        checks.skip("snp.paravisor", PARAVISOR, spec=_SPEC + "snp.paravisor")
    else:
        _record(checks, "snp.paravisor", not found, PARAVISOR if found else "no mark of a paravisor")


def _check_software(checks: CheckList, report: SnpReport, policy: SnpPolicy) -> None:
    if policy.measurements is None:
        checks.skip("snp.measurement", "the policy names no measurement", spec=_SPEC + "snp.measurement")
    else:
        known = report.measurement in policy.measurements
        allowed = sorted(policy.measurements)
        inputs = tuple((f"allowed {index}", digest.hex()) for index, digest in enumerate(allowed))
        found = report.measurement.hex()
        _record(checks, "snp.measurement", known, f"launch digest {found}", (*inputs, ("found", found)))
    _compare(checks, "snp.host_data", report.host_data, policy.host_data)
    ok = (
        report.guest_svn >= policy.minimum_guest_svn
        and policy.family_id in (None, report.family_id)
        and policy.image_id in (None, report.image_id)
        and (not policy.id_key_digests or report.id_key_digest in policy.id_key_digests)
        and (not policy.author_key_digests or report.author_key_digest in policy.author_key_digests)
    )
    _record(checks, "snp.id_block", ok, f"guest SVN {report.guest_svn}, family, image and key digests")


def _compare(checks: CheckList, check: str, found: bytes, expected: bytes | None) -> None:
    if expected is None:
        checks.skip(check, "the policy expects no value", spec=_SPEC + check)
    else:
        inputs = (("expected", expected.hex()), ("found", found.hex()))
        _record(checks, check, hmac.compare_digest(found, expected), f"found {found.hex()}", inputs)


def _record(
    checks: CheckList, check: str, ok: bool, detail: str, inputs: tuple[tuple[str, str], ...] = ()
) -> None:
    checks.record(check, ok, detail, spec=_SPEC + check, inputs=inputs)
