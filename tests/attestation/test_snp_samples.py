"""Real SEV-SNP reports of every product, and what must happen to each."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import gzip
import json
from typing import Any

import pytest

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.snp.leaf import parse_leaf
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB, SnpPolicy
from cocoon_attestation.snp.report import Product, SigningKey, parse_snp_report
from cocoon_attestation.snp.verify import SnpClaims, verify_snp

GOOD = (
    "milan_v2",
    "milan_v2_aws_vlek",
    "milan_v3_dstack",
    "genoa_v3",
    "turin_v5",
    "azure_milan_v2",
    "trustee_milan_v2",
)
AZURE = ("azure_milan_v2", "trustee_milan_v2")
PRODUCTS = {"milan": Product.MILAN, "genoa": Product.GENOA, "turin": Product.TURIN}


def moment(certificate: bytes, days: int = 3) -> dt.datetime:
    """A time shortly after a certificate was issued."""
    return parse_leaf(certificate).not_before + dt.timedelta(days=days)


def run(samples: Any, name: str, policy: SnpPolicy, **changes: Any) -> tuple[SnpClaims, CheckList]:
    entry = samples.entry("snp", name)
    certificate = changes.get("certificate") or samples.read(entry.get("cert", "snp/genoa_v3.vcek.der"))
    return verify_snp(
        changes.get("report") or samples.read(entry["file"]),
        certificate,
        changes.get("chain", b""),
        changes.get("crl"),
        policy,
        changes.get("at") or moment(certificate),
    )


def failed(checks: CheckList) -> list[str]:
    return [check.id for check in checks.failed]


@pytest.mark.parametrize("name", GOOD)
def test_genuine_report_passes_every_check_that_was_not_waived(samples: Any, name: str) -> None:
    policy = SnpPolicy.dangerous_genuine_only()
    claims, checks = run(samples, name, policy)
    assert failed(checks) == []
    made = set() if name in AZURE else {"snp.paravisor"}  # looked for under every policy
    assert {check.id for check in checks.skipped} == policy.waived - made
    assert not checks.accepted  # waived checks never add up to an acceptance
    assert claims.product is next(p for text, p in PRODUCTS.items() if text in name)
    assert not claims.simulated


@pytest.mark.parametrize("name", GOOD)
def test_fields_are_read_as_published(samples: Any, name: str) -> None:
    entry = samples.entry("snp", name)
    report, fields = parse_snp_report(samples.read(entry["file"])), entry["fields"]
    assert report.version == fields["ver"]
    assert report.guest_svn == fields["guest_svn"]
    assert hex(report.policy) == fields["policy"]
    assert report.vmpl == fields["vmpl"]
    assert hex(report.platform_info) == fields["plat_info"]
    assert hex(report.key_info) == fields["author"]
    assert list(report.current_firmware) == fields["cur_ver"][::-1]
    assert list(report.committed_firmware) == fields["comm_ver"][::-1]
    for mine, theirs in (
        ("report_data", "report_data"),
        ("measurement", "meas"),
        ("host_data", "host_data"),
        ("chip_id", "chip_id"),
        ("current_tcb", "cur_tcb"),
        ("reported_tcb", "rep_tcb"),
        ("committed_tcb", "comm_tcb"),
        ("launch_tcb", "launch_tcb"),
        ("report_id", "report_id"),
        ("id_key_digest", "idkey"),
        ("author_key_digest", "authorkey"),
        ("family_id", "family"),
        ("image_id", "image"),
    ):
        assert getattr(report, mine).hex() == fields[theirs], mine
    if report.cpuid is not None:
        assert bytes(report.cpuid).hex() == fields["cpuid"]
    if report.launch_mitigations is not None:
        assert report.launch_mitigations.to_bytes(8, "little").hex() == fields["launch_mit"]


def test_debuggable_guest_is_rejected_for_that_reason_only(samples: Any) -> None:
    _, checks = run(samples, "milan_v2_debug", SnpPolicy.dangerous_genuine_only())
    assert failed(checks) == ["snp.debug"]


def test_changed_measurement_breaks_the_signature_only(samples: Any) -> None:
    _, checks = run(samples, "neg_genoa_meas_flip", SnpPolicy.dangerous_genuine_only())
    assert failed(checks) == ["snp.sig"]


def test_raised_tcb_differs_from_the_certificate_and_breaks_the_signature(samples: Any) -> None:
    _, checks = run(samples, "neg_genoa_tcb_raised", SnpPolicy.dangerous_genuine_only())
    assert {"snp.sig", "snp.tcb_match"} <= set(failed(checks))


@pytest.mark.parametrize("form", ["legacy", "new"])
def test_made_up_certificate_is_rejected(samples: Any, form: str) -> None:
    certificate = samples.read(f"snp/neg_test-vcek-invalid-{form}.der")
    _, checks = run(
        samples, "trustee_milan_v2", SnpPolicy.dangerous_genuine_only(), certificate=certificate
    )
    assert {"snp.chain", "snp.hwid", "snp.sig"} <= set(failed(checks))


def test_certificate_of_another_chip_is_rejected(samples: Any) -> None:
    other = samples.read("snp/azure_milan_v2.vcek.der")
    _, checks = run(samples, "milan_v2", SnpPolicy.dangerous_genuine_only(), certificate=other)
    assert {"snp.hwid", "snp.sig"} <= set(failed(checks))


def test_report_with_a_chain_of_another_product_finds_its_own(samples: Any) -> None:
    """Issuers that came with the evidence are candidates, not authorities."""
    chain = samples.read("snp/ca/ask_ark_milan.pem")
    claims, checks = run(samples, "genoa_v3", SnpPolicy.dangerous_genuine_only(), chain=chain)
    assert failed(checks) == []
    assert claims.product is Product.GENOA


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("milan_v2", "ask_ark_milan"),
        ("milan_v2_aws_vlek", "ask_ark_milan_vlek"),
        ("genoa_v3", "ask_ark_genoa"),
        ("turin_v5", "ask_ark_turin_vcek"),
    ],
)
def test_published_chain_in_the_evidence_is_accepted(samples: Any, name: str, chain: str) -> None:
    pem = samples.read(f"snp/ca/{chain}.pem")
    _, checks = run(samples, name, SnpPolicy.dangerous_genuine_only(), chain=pem)
    assert failed(checks) == []


def test_vlek_expires(samples: Any) -> None:
    late = dt.datetime(2025, 5, 6, tzinfo=dt.UTC)
    _, checks = run(samples, "milan_v2_aws_vlek", SnpPolicy.dangerous_genuine_only(), at=late)
    assert failed(checks) == ["snp.dates"]


def test_vlek_needs_a_known_provider(samples: Any) -> None:
    genuine = SnpPolicy.dangerous_genuine_only()
    listed = dataclasses.replace(genuine, vlek_csps=frozenset({"CN=cc-us-east-2.amazonaws.com"}))
    claims, checks = run(samples, "milan_v2_aws_vlek", listed)
    assert failed(checks) == []
    assert claims.signing_key is SigningKey.VLEK
    assert claims.platform_id is None
    _, checks = run(samples, "milan_v2_aws_vlek", dataclasses.replace(genuine, vlek_csps=frozenset()))
    assert failed(checks) == ["snp.csp"]


def test_milan_is_refused_unless_it_is_named(samples: Any) -> None:
    genuine = SnpPolicy.dangerous_genuine_only()
    usual = dataclasses.replace(genuine, products=frozenset({Product.GENOA, Product.TURIN}))
    _, checks = run(samples, "milan_v3_dstack", usual)
    assert failed(checks) == ["snp.product"]
    assert SnpPolicy(measurements=None, report_data=None).products == usual.products


@pytest.mark.parametrize("name", ["genoa_v3", "turin_v5"])
def test_current_platforms_meet_the_default_policy(samples: Any, name: str) -> None:
    report = parse_snp_report(samples.read(samples.entry("snp", name)["file"]))
    policy = SnpPolicy(
        measurements=frozenset({report.measurement}),
        report_data=report.report_data,
        host_data=report.host_data,
        require_crl=False,
    )
    _, checks = run(samples, name, policy)
    assert failed(checks) == []
    assert [check.id for check in checks.skipped] == ["snp.crl"]


@pytest.mark.parametrize("name", ["milan_v2", "milan_v3_dstack", "azure_milan_v2"])
def test_old_platforms_are_below_the_default_minimum(samples: Any, name: str) -> None:
    policy = dataclasses.replace(SnpPolicy.dangerous_genuine_only(), minimum_tcb=DEFAULT_MINIMUM_TCB)
    _, checks = run(samples, name, policy)
    assert failed(checks) == ["snp.tcb_min"]


def test_real_revocation_list_clears_a_chain_while_it_is_current(samples: Any) -> None:
    crl = samples.read("snp/ca/milan.crl.pem")
    policy = dataclasses.replace(SnpPolicy.dangerous_genuine_only(), require_crl=True)
    current = dt.datetime(2025, 9, 1, tzinfo=dt.UTC)
    claims, checks = run(samples, "milan_v2", policy, crl=crl, at=current)
    assert failed(checks) == []
    assert claims.valid_until == dt.datetime(2026, 5, 12, tzinfo=dt.UTC)
    for at in (dt.datetime(2025, 5, 1, tzinfo=dt.UTC), dt.datetime(2026, 5, 13, tzinfo=dt.UTC)):
        _, checks = run(samples, "milan_v2", policy, crl=crl, at=at)
        assert failed(checks) == ["snp.crl"]


def test_revocation_list_of_another_product_clears_nothing(samples: Any) -> None:
    crl = samples.read("snp/ca/genoa.crl.pem")
    policy = dataclasses.replace(SnpPolicy.dangerous_genuine_only(), require_crl=True)
    at = dt.datetime(2025, 9, 1, tzinfo=dt.UTC)
    _, checks = run(samples, "milan_v2", policy, crl=crl, at=at)
    assert failed(checks) == ["snp.crl"]


@pytest.mark.parametrize("name", AZURE)
def test_genuine_guest_under_a_paravisor(samples: Any, name: str) -> None:
    policy = dataclasses.replace(SnpPolicy.dangerous_genuine_only(), allow_paravisor=False)
    assert failed(run(samples, name, policy)[1]) == ["snp.paravisor"]


def test_report_inside_an_azure_blob(samples: Any) -> None:
    blob = samples.read("snp/azure_milan_v2.hcl.bin")
    assert blob[32 : 32 + 1184] == samples.read("snp/azure_milan_v2.report.bin")
    with pytest.raises(MalformedError):
        parse_snp_report(blob)


def test_report_of_a_provider_answer(samples: Any) -> None:
    bundle = json.loads(samples.read("bundles/tinfoil_v2/attestation-bundle.json"))
    report = gzip.decompress(base64.b64decode(bundle["enclaveAttestationReport"]["body"]))
    certificate = base64.b64decode(bundle["vcek"])
    at = dt.datetime(2026, 1, 23, 20, 26, 40, tzinfo=dt.UTC)
    claims, checks = verify_snp(report, certificate, b"", None, SnpPolicy.dangerous_genuine_only(), at)
    assert failed(checks) == []
    assert claims.product is Product.GENOA
    assert claims.report.measurement.hex().startswith("09ef32acf90fcfeb")


@pytest.mark.parametrize("name", ["genoa_v3", "turin_v5", "milan_v2_aws_vlek"])
def test_every_truncation_is_malformed(samples: Any, name: str) -> None:
    data = samples.read(samples.entry("snp", name)["file"])
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            parse_snp_report(data[:length])
    with pytest.raises(MalformedError):
        parse_snp_report(data + b"\x00")


@pytest.mark.parametrize("name", ["genoa_v3", "turin_v5"])
def test_no_changed_report_passes(samples: Any, flips: Any, name: str) -> None:
    entry = samples.entry("snp", name)
    policy = SnpPolicy.dangerous_genuine_only()
    for offset, changed in flips(samples.read(entry["file"]), 7):
        try:
            _, checks = run(samples, name, policy, report=changed)
        except MalformedError:
            continue
        assert failed(checks), f"a changed byte at {offset} was not noticed"
        if offset < 0x2A0:
            assert "snp.sig" in failed(checks)


def test_no_changed_certificate_passes(samples: Any, flips: Any) -> None:
    certificate = samples.read("snp/genoa_v3.vcek.der")
    at = moment(certificate)
    for offset, changed in flips(certificate, 5):
        try:
            _, checks = run(
                samples, "genoa_v3", SnpPolicy.dangerous_genuine_only(), certificate=changed, at=at
            )
        except MalformedError:
            continue
        assert failed(checks), f"a changed byte at {offset} was not noticed"


def test_truncated_certificate_and_lists_are_malformed(samples: Any) -> None:
    certificate = samples.read("snp/turin_v5.vcek.der")
    for length in range(0, len(certificate), 3):
        with pytest.raises(MalformedError):
            parse_leaf(certificate[:length])
