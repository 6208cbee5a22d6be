"""Each SEV-SNP check fails alone on simulated evidence with exactly that fault."""

from __future__ import annotations

import dataclasses
import datetime as dt
import secrets
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.snp import report as layout
from cocoon_attestation.snp.leaf import SnpLeaf, parse_leaf
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB, SnpPolicy, SnpRoot, amd_roots
from cocoon_attestation.snp.report import Product, SigningKey, TcbVersion
from cocoon_attestation.snp.validate import product_of_cpuid
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import (
    SIMULATED_CSP,
    SimulatedAmd,
    sign_report,
)

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.kit_amd import AT, NOW, REPORT_DATA, Guest
else:
    from kit_amd import AT, NOW, REPORT_DATA, Guest

USUAL = DEFAULT_MINIMUM_TCB[Product.GENOA]


@pytest.fixture(scope="module")
def guest(amd: SimulatedAmd) -> Guest:
    return Guest(amd)


def test_healthy_guest_is_accepted(guest: Guest) -> None:
    claims, checks = guest.check()
    assert checks.accepted
    assert claims.simulated
    assert claims.product is Product.GENOA
    assert claims.reported_tcb == claims.committed_tcb == USUAL
    assert claims.platform_id == guest.chip.chip_id
    assert claims.valid_until == AT + dt.timedelta(days=30)
    assert all(check.spec == f"docs/spec/snp.md#{check.id}" for check in checks)


@pytest.mark.parametrize(
    ("check", "fields"),
    [
        ("snp.algorithm", {"signature_algorithm": 2}),
        ("snp.key_kind", {"key_info": SigningKey.VLEK << 2}),
        ("snp.key_kind", {"key_info": 7 << 2}),
        ("snp.debug", {"policy": 1 << 17 | layout.POLICY_DEBUG}),
        ("snp.migration", {"policy": 1 << 17 | layout.POLICY_MIGRATE_MA}),
        ("snp.migration", {"report_id_ma": b"\x01" * 32}),
        ("snp.cpuid", {"cpuid": (0x19, 0x01, 0x01)}),
        ("snp.cpuid", {"cpuid": (0x1B, 0x00, 0x00)}),
        ("snp.platform", {"platform_info": layout.PLATFORM_ECC}),
        ("snp.platform", {"platform_info": layout.PLATFORM_ALIAS_CHECK}),
        ("snp.platform", {"platform_info": 0x24 | 1 << 9}),
        ("snp.vmpl", {"vmpl": 1}),
        ("snp.vmpl", {"vmpl": layout.HOST_VMPL}),
        ("snp.measurement", {"measurement": bytes(48)}),
        ("snp.host_data", {"host_data": b"\x01" * 32}),
        ("snp.report_data", {"report_data": bytes(64)}),
        ("snp.tcb_layout", {"overwrite": {0x1E2: b"\x01"}}),
        ("snp.tcb_order", {"committed_tcb": dataclasses.replace(USUAL, microcode=90)}),
        ("snp.tcb_order", {"current_tcb": dataclasses.replace(USUAL, snp=1)}),
        ("snp.tcb_min", {"launch_tcb": dataclasses.replace(USUAL, snp=22)}),
    ],
)
def test_one_wrong_field_fails_one_check(guest: Guest, check: str, fields: dict[str, Any]) -> None:
    assert guest.failed(fields=fields) == [check]


AZURE_IDS = {"family_id": b"\x01" + bytes(15), "image_id": b"\x02" + bytes(15)}
DIGEST_ONLY = b"\x44" * 32 + bytes(32)


def test_guest_under_a_paravisor_has_a_reason_of_its_own(guest: Guest) -> None:
    fields = {**AZURE_IDS, "report_data": DIGEST_ONLY}
    assert guest.failed(fields=fields, rules={"report_data": DIGEST_ONLY}) == ["snp.paravisor"]
    # One half of the mark is none: our own report data has a challenge in its second half.
    for others, data in ((AZURE_IDS, REPORT_DATA), ({}, DIGEST_ONLY), (AZURE_IDS, bytes(64))):
        _, checks = guest.check(fields={**others, "report_data": data}, rules={"report_data": data})
        assert checks.accepted
    _, checks = guest.check(fields=fields, rules={"report_data": DIGEST_ONLY, "allow_paravisor": True})
    assert not checks.accepted
    assert [check.id for check in checks.skipped] == ["snp.paravisor"]


@pytest.mark.parametrize(
    ("check", "rules"),
    [
        ("snp.product", {"products": frozenset({Product.TURIN})}),
        ("snp.policy", {"policy_forbidden": layout.POLICY_SMT}),
        ("snp.policy", {"policy_required": layout.POLICY_SINGLE_SOCKET}),
        ("snp.policy", {"minimum_abi": (1, 55)}),
        ("snp.platform", {"platform_forbidden": layout.PLATFORM_SMT}),
        ("snp.platform", {"platform_required": MappingProxyType({Product.TURIN: 0})}),
        ("snp.tcb_min", {"minimum_tcb": MappingProxyType({Product.TURIN: USUAL})}),
        ("snp.chip", {"chip_ids": frozenset({b"\x01" * 64})}),
        ("snp.id_block", {"minimum_guest_svn": 1}),
        ("snp.id_block", {"family_id": b"\x01" * 16}),
        ("snp.id_block", {"image_id": b"\x01" * 16}),
        ("snp.id_block", {"id_key_digests": frozenset({b"\x01" * 48})}),
        ("snp.id_block", {"author_key_digests": frozenset({b"\x01" * 48})}),
    ],
)
def test_one_rule_fails_one_check(guest: Guest, check: str, rules: dict[str, Any]) -> None:
    assert guest.failed(rules=rules) == [check]


def test_rules_that_the_guest_meets_are_accepted(guest: Guest) -> None:
    rules = {
        "minimum_guest_svn": 2,
        "minimum_abi": (1, 55),
        "family_id": b"\x01" * 16,
        "image_id": b"\x02" * 16,
        "id_key_digests": frozenset({b"\x03" * 48}),
        "author_key_digests": frozenset({b"\x04" * 48}),
        "policy_required": layout.POLICY_SINGLE_SOCKET,
        "platform_required": MappingProxyType({Product.GENOA: layout.PLATFORM_CIPHERTEXT_HIDING}),
        "chip_ids": frozenset({guest.chip.chip_id}),
    }
    fields = {
        "guest_svn": 2,
        "policy": 1 << 17 | layout.POLICY_SINGLE_SOCKET | 1 << 8 | 55,
        "platform_info": layout.PLATFORM_CIPHERTEXT_HIDING,
        "family_id": b"\x01" * 16,
        "image_id": b"\x02" * 16,
        "id_key_digest": b"\x03" * 48,
        "author_key_digest": b"\x04" * 48,
    }
    _, checks = guest.check(rules=rules, fields=fields)
    assert checks.accepted


def test_denied_chip_is_refused(guest: Guest) -> None:
    assert guest.failed(rules={"denied_chip_ids": frozenset({guest.chip.chip_id})}) == ["snp.chip"]


def test_signature_of_another_key_fails(guest: Guest) -> None:
    other = guest.amd.chip(hwid=guest.chip.chip_id)
    assert guest.failed(edit=lambda report: sign_report(report, other.key)) == ["snp.sig"]


@pytest.mark.parametrize("offset", [0x2A0, 0x2E8])
def test_zero_signature_fails(guest: Guest, offset: int) -> None:
    def edit(report: bytes) -> bytes:
        return report[:offset] + bytes(48) + report[offset + 48 :]

    assert guest.failed(edit=edit) == ["snp.sig"]


def test_certificate_of_another_tcb_fails(guest: Guest) -> None:
    chip = guest.amd.chip(tcb=dataclasses.replace(USUAL, microcode=83))
    assert guest.failed(chip=chip) == ["snp.tcb_match"]


def test_certificate_of_another_chip_fails(guest: Guest) -> None:
    other = secrets.token_bytes(64)
    chip = dataclasses.replace(guest.chip, chip_id=other)
    assert guest.failed(chip=chip) == ["snp.hwid"]


@pytest.mark.parametrize(("kind", "hwid"), [("VCEK", None), ("VLEK", b"\x07" * 64)])
def test_certificate_that_names_no_chip_or_one_too_many(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, kind: str, hwid: bytes | None
) -> None:
    """AMD makes no such certificate, nor does the simulation: the decoded one is changed."""

    def changed(der: bytes) -> SnpLeaf:
        return dataclasses.replace(parse_leaf(der), hwid=hwid)

    monkeypatch.setattr("cocoon_attestation.snp.verify.parse_leaf", changed)
    vlek = kind == "VLEK"
    chip = guest.amd.chip(kind=SigningKey[kind])
    failed = guest.failed(
        chip=chip,
        chain=guest.amd.vlek_chain_pem if vlek else None,
        fields={"key_info": SigningKey[kind] << 2},
        rules={"vlek_csps": frozenset({SIMULATED_CSP})},
    )
    assert failed == ["snp.hwid"]


def test_short_chip_id_is_not_taken_for_a_genoa_chip(guest: Guest) -> None:
    assert guest.failed(chip=guest.amd.chip(hwid=b"\x07" * 8)) == ["snp.hwid"]


def test_chip_id_in_an_octet_string_is_accepted(guest: Guest) -> None:
    chip = guest.amd.chip(hwid=b"\x04\x40" + b"\x07" * 64)
    chip = dataclasses.replace(chip, chip_id=b"\x07" * 64)
    assert guest.check(chip=chip)[1].accepted


def test_masked_chip_id_needs_the_flag_and_the_policy(guest: Guest) -> None:
    chip = dataclasses.replace(guest.chip, chip_id=bytes(64))
    masked = {"key_info": 0b10}
    assert guest.failed(chip=chip, fields=masked) == ["snp.hwid"]
    assert guest.failed(chip=chip, rules={"allow_masked_chip_id": True}) == ["snp.hwid"]
    claims, checks = guest.check(chip=chip, fields=masked, rules={"allow_masked_chip_id": True})
    assert checks.accepted
    assert claims.platform_id is None


def test_vlek_is_accepted_from_a_listed_provider_only(guest: Guest) -> None:
    chip = guest.amd.chip(kind=SigningKey.VLEK)
    arguments: dict[str, Any] = {
        "chip": chip,
        "chain": guest.amd.vlek_chain_pem,
        "fields": {"key_info": SigningKey.VLEK << 2},
    }
    assert guest.failed(**arguments) == ["snp.csp"]
    claims, checks = guest.check(**arguments, rules={"vlek_csps": frozenset({SIMULATED_CSP})})
    assert checks.accepted
    assert {"snp.hwid", "snp.csp"} <= {check.id for check in checks}
    assert claims.csp_id == SIMULATED_CSP


def test_vlek_without_provider_fails(guest: Guest) -> None:
    chip = guest.amd.chip(kind=SigningKey.VLEK, csp=None)
    failed = guest.failed(
        chip=chip,
        chain=guest.amd.vlek_chain_pem,
        fields={"key_info": SigningKey.VLEK << 2},
        rules={"vlek_csps": frozenset({"*"})},
    )
    assert failed == ["snp.csp"]


@pytest.mark.parametrize(("kind", "wrong"), [(SigningKey.VCEK, "asvk"), (SigningKey.VLEK, "ask")])
def test_leaf_must_come_from_the_authority_of_its_kind(guest: Guest, kind: SigningKey, wrong: str) -> None:
    chip = guest.amd.chip(kind=kind, issuer=getattr(guest.amd, wrong))
    failed = guest.failed(
        chip=chip,
        chain=guest.amd.chain_pem if wrong == "ask" else guest.amd.vlek_chain_pem,
        fields={"key_info": kind << 2},
        rules={"vlek_csps": frozenset({SIMULATED_CSP})},
    )
    assert "snp.chain" in failed


def test_development_root_is_refused_by_the_usual_policy(guest: Guest) -> None:
    failed = guest.failed(rules={"roots": amd_roots()})
    assert failed[0] == "snp.chain"
    claims, checks = guest.check(rules={"roots": amd_roots()})
    assert claims.product is None
    assert claims.valid_until is None
    assert {"snp.dates", "snp.tcb_match", "snp.product"} <= {check.id for check in checks.skipped}


def test_look_alike_vendor_is_refused(guest: Guest) -> None:
    """Same names, other keys: the root that came with the evidence does not count."""
    impostor = SimulatedAmd(now=NOW, rng=seeded_random(b"impostor"))
    failed = guest.failed(chip=impostor.chip(), chain=impostor.chain_pem)
    assert failed[0] == "snp.chain"


def test_evidence_of_another_product_cannot_borrow_a_root(amd: SimulatedAmd) -> None:
    """A policy root for Turin does not vouch for a chain of Genoa."""
    guest = Guest(amd)
    borrowed = SnpRoot(product=Product.TURIN, der=amd.root.der, simulated=True)
    failed = guest.failed(rules={"roots": (borrowed,)})
    assert {"snp.tcb_layout", "snp.hwid", "snp.cpuid"} & set(failed)


def test_chain_without_intermediate_fails(guest: Guest) -> None:
    assert guest.failed(chain="")[0] == "snp.chain"


@pytest.mark.parametrize("days", [-2, 366])
def test_certificates_have_dates(guest: Guest, days: int) -> None:
    at = AT + dt.timedelta(days=days)
    failed = guest.failed(at=at)
    assert failed == ["snp.dates", "snp.crl"]
    assert guest.failed(at=at, crl=None, rules={"require_crl": False}) == ["snp.dates"]


def test_missing_revocation_list_fails_or_is_visible(guest: Guest) -> None:
    assert guest.failed(crl=None) == ["snp.crl"]
    _, checks = guest.check(crl=None, rules={"require_crl": False})
    assert checks.failed == ()
    assert [check.id for check in checks.skipped] == ["snp.crl"]
    assert not checks.accepted


def test_revoked_intermediate_and_leaf_fail(guest: Guest) -> None:
    serial = x509.load_der_x509_certificate(guest.chip.certificate).serial_number
    for revoked in (guest.amd.ask.serial_number, serial):
        crl = guest.amd.crl(revoked=[revoked])
        assert guest.failed(crl=crl) == ["snp.crl"]
        # A list is honoured even where none is asked for.
        assert guest.failed(crl=crl, rules={"require_crl": False}) == ["snp.crl"]
    assert guest.check(crl=guest.amd.crl(revoked=[12345]))[1].accepted


def test_stale_or_foreign_revocation_list_fails(guest: Guest) -> None:
    assert guest.failed(at=AT + dt.timedelta(days=31)) == ["snp.crl"]
    impostor = SimulatedAmd(now=NOW, rng=seeded_random(b"impostor"))
    assert guest.failed(crl=impostor.crl()) == ["snp.crl"]


@pytest.mark.parametrize("kind", SigningKey)
@pytest.mark.parametrize("product", Product)
def test_every_product_version_and_kind_of_key(product: Product, kind: SigningKey) -> None:
    amd = SimulatedAmd(product=product, now=NOW, rng=seeded_random(product.value.encode()))
    guest = Guest(amd)
    vlek = kind is SigningKey.VLEK
    for version in (2, 3, 4, 5):
        claims, checks = guest.check(
            fields={"version": version, "key_info": kind << 2},
            rules={
                "products": frozenset(Product),
                "roots": (amd.root,),
                "vlek_csps": frozenset({SIMULATED_CSP}),
            },
            chip=amd.chip(kind=kind),
            chain=amd.vlek_chain_pem if vlek else None,
        )
        assert checks.accepted, [check.id for check in checks.failed]
        assert (claims.product, claims.report.version) == (product, version)
        size = 0 if vlek else 8 if product is Product.TURIN else 64
        assert len(claims.report.chip_id.rstrip(b"\x00")) <= size


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        ((0x19, 0x01, 0), Product.MILAN),
        ((0x19, 0x11, 0), Product.GENOA),
        ((0x19, 0xA0, 2), Product.GENOA),
        ((0x1A, 0x02, 1), Product.TURIN),
        ((0x1A, 0x1F, 1), Product.TURIN),
        ((0x1A, 0x20, 1), None),
        ((0x19, 0x0F, 0), Product.MILAN),
        ((0x19, 0x10, 0), Product.GENOA),
        ((0x19, 0x1F, 0), Product.GENOA),
        ((0x19, 0x20, 0), None),
        ((0x19, 0x9F, 0), None),
        ((0x19, 0xAF, 0), Product.GENOA),
        ((0x19, 0xB0, 0), None),
        ((0x17, 0x31, 0), None),
    ],
)
def test_cpuid_names_a_product(cpuid: tuple[int, int, int], product: Product | None) -> None:
    assert product_of_cpuid(cpuid) is product


@pytest.mark.parametrize(
    "wrong",
    [
        {"measurements": frozenset()},
        {"measurements": frozenset({b"short"})},
        {"report_data": b"short"},
        {"host_data": b"short"},
        {"roots": ()},
        {"chip_ids": frozenset({b"short"})},
    ],
)
def test_policy_that_cannot_be_meant_is_refused(guest: Guest, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        guest.rules(**wrong)


def test_usual_policy_waives_nothing(guest: Guest) -> None:
    assert guest.rules().waived == frozenset()
    assert SnpPolicy.dangerous_genuine_only().waived == {
        "snp.measurement",
        "snp.report_data",
        "snp.host_data",
        "snp.crl",
        "snp.tcb_min",
        "snp.platform",
        "snp.paravisor",
    }


def test_tcb_order_is_by_part() -> None:
    low, high = (
        TcbVersion(boot_loader=1, tee=0, snp=9, microcode=9),
        TcbVersion(boot_loader=2, tee=0, snp=8, microcode=9),
    )
    assert not low.covers(high)
    assert not high.covers(low)
    assert low.covers(low)


def test_time_needs_a_zone(guest: Guest) -> None:
    with pytest.raises(ValueError, match="time zone"):
        guest.check(at=dt.datetime(2027, 1, 15))
