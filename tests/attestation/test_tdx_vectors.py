"""Real production quotes and synthetic ones under the same verifier, each at its own time.

The samples lie outside of the repository; without them these tests are skipped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.checks import CheckList, Verdict
from cocoon_attestation.evidence import TdxCollateralBytes
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release
from cocoon_attestation.roots import intel_root
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_attestation.tdx.platform import TdxPlatform
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_attestation.tdx.report import TdReport
from cocoon_attestation.tdx.validate import validate_td_report
from cocoon_attestation.tdx.verify import verify_quote

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="the sample vectors are not on this machine")

MONTH = 31 * 86_400
ACCEPTED = {
    ("gcp_cos113", "2025-06"),
    ("phala_tdx_lab", "2025-06"),
    ("dstack_90c06f", "2026-02"),
    ("nearmpc_2026", "2026-08"),
    ("nearmpc_2026", "2026-03"),
    ("cocoon_test", "2026-02"),
    ("cocoon_test", "2026-05"),
    ("flashbots_rollback", "2025-11-rollback"),
}
REJECTED_BY = {
    ("gcp_cos113", "2026-02"): {"tdx.tcb"},
    ("intel_spr_lab", "2023-06"): {"tdx.attributes"},
    ("phala_tdx_lab", "2026-08"): {"tdx.tcb"},
    ("flashbots_rollback", "2025-11"): {"tdx.tcb"},
    ("gcp_outofdate", "2025-06"): {"tdx.tcb"},
    ("debug_td", "2023-06"): {"tdx.attributes"},
    ("azure_dcesv5", "2025-06"): {"tdx.attributes"},
    ("old_platform", "2025-06"): {"tdx.tcb"},
    ("v5_azure", "2026-02"): {"tdx.tcb"},
    ("neg_forged_attkey", "2026-02"): {"tdx.attestation_key"},
    ("neg_forged_attkey", "2026-05"): {"tdx.attestation_key"},
}
SYNTHETIC: dict[str, set[str]] = {
    "ok_v4": set(),
    "ok_v5": set(),
    "status_swhardening": {"tdx.tcb"},
    "status_outofdate_config": {"tdx.tcb"},
    "neg_status_revoked": {"tdx.tcb"},
    "neg_pck_revoked": {"tdx.chain"},
    "neg_debug_td": {"tdx.attributes"},
    "neg_qe_hash": {"tdx.attestation_key"},
    "neg_qe_mrsigner": {"tdx.qe"},
    "neg_expired_tcbinfo": {"tdx.collateral_time"},
    "neg_fmspc": {"tdx.collateral"},
    "neg_body_tampered": {"tdx.sig"},
    "module_outofdate": {"tdx.tcb"},
    "neg_rollback_eval": {"tdx.evaluation"},
}
HARDWARE = {
    "tdx.attributes",
    "tdx.module",
    "tdx.service_td",
    "tdx.root",
    "tdx.collateral",
    "tdx.collateral_time",
    "tdx.evaluation",
    "tdx.attestation_key",
    "tdx.qe",
    "tdx.sig",
    "tdx.chain",
    "tdx.tcb",
    "tdx.consistency",
    "tdx.platform",
}
"""Checks that say something about the hardware, not about our software or owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    when: str
    quote: Path
    collateral: Path
    now: int
    evaluations: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{self.when}"


def genuine_cases() -> list[Case]:
    if not VECTORS.is_dir():
        return []
    index = json.loads((VECTORS / "INDEX.json").read_text("utf-8"))
    return [
        Case(
            name=entry["id"].removeprefix("tdx/"),
            when=Path(case["collateral"]).stem.split("_tdx_")[1].split("_ev")[0],
            quote=VECTORS / entry["file"],
            collateral=VECTORS / case["collateral"],
            now=case["now"],
            evaluations=tuple(case["tcb_eval"]),
        )
        for entry in index["tdx"]
        for case in entry["cases"]
    ]


def synthetic_cases() -> list[Case]:
    if not VECTORS.is_dir():
        return []
    index = json.loads((VECTORS / "INDEX.json").read_text("utf-8"))
    return [
        Case(
            name=entry["id"].removeprefix("synthetic/"),
            when="synthetic",
            quote=VECTORS / entry["file"],
            collateral=VECTORS / entry["collateral"],
            now=entry["now"],
        )
        for entry in index["tdx_synthetic"]
        if entry["id"] != "synthetic/neg_truncated"
    ]


def read_collateral(path: Path) -> TdxCollateralBytes:
    fields: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for name in ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"):
        fields[name] = bytes.fromhex(fields[name])
    return TdxCollateralBytes(**fields)


def release_of(report: TdReport) -> Release:
    """Reference values equal to what a sample measured: only the hardware is under test here."""
    return Release(
        name="sample",
        mrtd=report.mrtd,
        rtmr0=report.rtmr0,
        rtmr1=report.rtmr1,
        rtmr2=report.rtmr2,
        td_attributes=report.td_attributes,
        xfam=report.xfam,
    )


def judge(
    case: Case, *, root: bytes | None = None, minimum: int = 1
) -> tuple[CheckList, TdxPlatform | None]:
    quote = parse_quote(case.quote.read_bytes())
    policy = Policy(
        global_id=-3,
        releases=(release_of(quote.report),),
        models=frozenset({bytes(32)}),
        min_tcb_evaluation=minimum,
        dev_root=root,
        max_collateral_age_s=MONTH * (130 if root else 1),
    )
    checks = CheckList()
    validate_td_report(quote.report, policy=policy, named=None, checks=checks)
    collateral = parse_collateral(read_collateral(case.collateral))
    platform = verify_quote(quote, collateral, policy=policy, now=case.now, checks=checks)
    return checks, platform


def failed(checks: CheckList) -> set[str]:
    return {check.id for check in checks.failed} & HARDWARE


@pytest.mark.parametrize("case", genuine_cases(), ids=str)
def test_genuine_quotes_under_the_intel_root(case: Case) -> None:
    checks, platform = judge(case)
    key = (case.name, case.when)
    if key in ACCEPTED:
        assert failed(checks) == set()
        assert platform is not None
        assert platform.claims["tcb_status"] == "UpToDate"
        assert platform.expires_at > case.now
        assert {check.id for check in checks.skipped} == set()
    else:
        assert failed(checks) >= REJECTED_BY[key]
        assert not checks.accepted


def test_every_vector_has_an_expectation() -> None:
    known = ACCEPTED | REJECTED_BY.keys()
    assert {(case.name, case.when) for case in genuine_cases()} == known
    assert {case.name for case in synthetic_cases()} == SYNTHETIC.keys()


def test_rollback_pair_is_decided_by_the_minimum_evaluation_number() -> None:
    old = next(c for c in genuine_cases() if c.when == "2025-11-rollback")
    checks, _ = judge(old, minimum=17)
    assert failed(checks) == set()
    checks, _ = judge(old, minimum=18)
    assert failed(checks) == {"tdx.evaluation"}


def test_evaluation_minimum_covers_both_statements() -> None:
    case = next(c for c in genuine_cases() if c.evaluations == (20, 19) and c.name == "nearmpc_2026")
    assert failed(judge(case, minimum=19)[0]) == set()
    assert failed(judge(case, minimum=20)[0]) == {"tdx.evaluation"}


@pytest.mark.parametrize("case", genuine_cases(), ids=str)
def test_expired_collateral(case: Case) -> None:
    checks, _ = judge(replace(case, now=case.now + 400 * 86_400))
    assert "tdx.collateral_time" in failed(checks)


@pytest.mark.parametrize("case", synthetic_cases(), ids=str)
def test_synthetic_quotes_under_their_root(case: Case) -> None:
    root = (VECTORS / "tdx/synthetic/root_ca.der").read_bytes()
    checks, _ = judge(case, root=root, minimum=19)
    assert failed(checks) == SYNTHETIC[case.name]


@pytest.mark.parametrize("case", synthetic_cases(), ids=str)
def test_synthetic_quotes_under_the_intel_root(case: Case) -> None:
    checks, platform = judge(case)
    assert "tdx.root" in failed(checks)
    assert platform is None


def test_pre_production_root() -> None:
    """A root of the same name that Intel uses for early machines."""
    case = Case(
        name="preprod_root_v4",
        when="",
        quote=VECTORS / "tdx/preprod_root_v4.quote.bin",
        collateral=genuine_cases()[0].collateral,
        now=genuine_cases()[0].now,
    )
    checks, platform = judge(case)
    assert "tdx.root" in failed(checks)
    assert platform is None


@pytest.mark.parametrize("path", sorted((VECTORS / "tdx").rglob("*.quote.bin")), ids=lambda path: path.name)
def test_both_parsers_read_the_same_fields(path: Path) -> None:
    data = path.read_bytes()
    if path.name == "neg_truncated.quote.bin":
        return
    ours, theirs = parse_quote(data), dcap_qvl.parse_quote(data)
    names = {"mrtd": "mr_td", "mrseam": "mr_seam", "mrowner": "mr_owner", "mrconfigid": "mr_config_id"}
    for name in ("tee_tcb_svn", "td_attributes", "xfam", "report_data", *names):
        assert getattr(ours.report, name) == bytes(getattr(theirs.report, names.get(name, name)))
    for index in range(4):
        assert getattr(ours.report, f"rtmr{index}") == bytes(getattr(theirs.report, f"rt_mr{index}"))
    assert ours.header.version == theirs.header.version
    assert ours.header.user_data == bytes(theirs.header.user_data)


@pytest.mark.parametrize("case", genuine_cases()[:1] + genuine_cases()[-1:], ids=str)
def test_one_checks_list_has_every_hardware_check(case: Case) -> None:
    checks, _ = judge(case)
    assert {check.id for check in checks} >= HARDWARE
    assert all(check.verdict is not Verdict.PASS or check.detail for check in checks)


def test_intel_root_is_the_published_one() -> None:
    published = (VECTORS / "tdx/pcs_raw/intel_sgx_root_ca.pem").read_bytes()
    certificate = x509.load_pem_x509_certificate(published)
    assert certificate.public_bytes(Encoding.DER) == intel_root()
