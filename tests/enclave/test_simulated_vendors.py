"""Simulated GPU and SNP vendors: reproducible, silent about their keys, and clearly marked."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import DeviceKind, GpuPolicy
from cocoon_attestation.gpu.verify import verify_gpu
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.report import Product, parse_snp_report
from cocoon_attestation.snp.verify import verify_snp
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)
NONCE = b"\x4e" * 32


def common_name(certificate: x509.Certificate) -> str:
    value = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert isinstance(value, str)
    return value


def test_seed_gives_the_same_gpu_roots_and_devices() -> None:
    first, second = (SimulatedNvidia(now=NOW, rng=seeded_random(b"seed")) for _ in range(2))
    other = SimulatedNvidia(now=NOW, rng=seeded_random(b"another seed"))
    assert first.device_root.der == second.device_root.der
    assert first.rim_root.der == second.rim_root.der
    assert first.device_root.der != other.device_root.der
    assert [one.pdi for one in first.board()] == [one.pdi for one in second.board()]


def test_evidence_of_a_restarted_vendor_meets_the_old_policy() -> None:
    before = SimulatedNvidia(now=NOW, rng=seeded_random(b"seed"))
    policy = before.policy(gpu_count=8)
    board = before.board()
    after = SimulatedNvidia(now=NOW, rng=seeded_random(b"seed"))
    evidence = after.evidence(after.board(), NONCE, now=NOW + 3600)
    claims, checks = verify_gpu(evidence, policy, NONCE, AT + dt.timedelta(hours=1))
    assert checks.accepted
    assert [gpu.serial[-16:] for gpu in claims.gpus] == [one.pdi.hex() for one in board[:8]]


def test_random_bytes_differ_between_calls() -> None:
    rng = seeded_random(b"seed")
    assert rng(32) != rng(32)
    assert len(rng(7)) == 7


def test_keys_do_not_show() -> None:
    vendor = SimulatedNvidia(now=NOW, rng=seeded_random(b"seed"))
    device = vendor.gpu()
    secret = str(device.chain[0].key.private_numbers().private_value)
    chip = SimulatedAmd(now=NOW, rng=seeded_random(b"seed")).chip()
    for shown in (repr(device.chain[0]), repr(device), repr(chip)):
        assert secret not in shown
        assert "PrivateKey" not in shown


def test_free_names_say_that_it_is_a_simulation() -> None:
    vendor = SimulatedNvidia(now=NOW, rng=seeded_random(b"seed"))
    chain = [signer.certificate for signer in vendor.gpu().chain]
    assert all("SIMULATED" in common_name(one) for one in chain[2:])
    assert all("SIMULATED" in common_name(one.certificate) for one in vendor.rim_chain)
    amd = SimulatedAmd(now=NOW, rng=seeded_random(b"seed"))
    for one in (*chain, amd.ark, amd.ask, amd.asvk):
        organization = one.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
        assert "SIMULATED" in str(organization)


def test_simulated_evidence_never_meets_a_policy_for_real_hardware() -> None:
    vendor = SimulatedNvidia(now=NOW, rng=seeded_random(b"seed"))
    evidence = vendor.evidence([vendor.gpu()], NONCE, now=NOW)
    _, checks = verify_gpu(evidence, GpuPolicy.dangerous_genuine_only(), NONCE, AT)
    assert [check.id for check in checks.failed] == ["gpu.chain", "gpu.rim_chain"]
    amd = SimulatedAmd(now=NOW, rng=seeded_random(b"seed"))
    chip = amd.chip()
    report = chip.report(ReportFields())
    _, checks = verify_snp(
        report, chip.certificate, amd.chain_pem, None, SnpPolicy.dangerous_genuine_only(), AT
    )
    assert "snp.chain" in [check.id for check in checks.failed]


def test_evidence_shares_what_devices_share() -> None:
    vendor = SimulatedNvidia(now=NOW, rng=seeded_random(b"seed"))
    evidence = vendor.evidence(vendor.board(), NONCE, now=NOW)
    assert len({one.rims for one in evidence if one.kind is DeviceKind.GPU}) == 1
    assert len({one.ocsp_responses[0] for one in evidence}) == 12
    assert len({one.ocsp_responses[3:] for one in evidence}) == 1
    assert all(isinstance(one, GpuDevice) for one in evidence)


def test_report_fields_reach_the_report() -> None:
    fields = ReportFields(
        version=5,
        guest_svn=7,
        vmpl=2,
        measurement=b"\x01" * 48,
        host_data=b"\x02" * 32,
        report_data=b"\x03" * 64,
        current_mitigations=5,
    )
    report = parse_snp_report(fields.encode())
    assert (report.version, report.guest_svn, report.vmpl) == (5, 7, 2)
    assert report.measurement == b"\x01" * 48
    assert report.host_data == b"\x02" * 32
    assert report.report_data == b"\x03" * 64
    assert report.current_mitigations == 5


@pytest.mark.parametrize("product", list(Product))
def test_chip_keeps_its_id_in_every_report(product: Product) -> None:
    amd = SimulatedAmd(product=product, now=NOW, rng=seeded_random(b"chip"))
    chip = amd.chip()
    fields = ReportFields(product=product)
    report = parse_snp_report(chip.report(dataclasses.replace(fields, chip_id=b"\x09" * 64)))
    assert report.chip_id == chip.chip_id
    assert fields.chip_id == bytes(64)
