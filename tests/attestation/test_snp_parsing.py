"""Parsers of SEV-SNP evidence: any bytes give a value or `MalformedError`, nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.roots import pinned
from cocoon_attestation.roots.amd import ARK_SHA256, amd_intermediates, amd_root
from cocoon_attestation.snp import certificates, leaf
from cocoon_attestation.snp.report import Product, parse_snp_report, parse_tcb
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd, encode_tcb

CERTIFICATE = SimulatedAmd(now=1_800_000_000, rng=seeded_random(b"leaf")).chip().certificate


def encode(**changes: Any) -> bytes:
    return dataclasses.replace(ReportFields(), **changes).encode()


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_known_versions_parse(version: int) -> None:
    report = parse_snp_report(encode(version=version))
    assert report.version == version
    assert (report.cpuid is None) == (version < 3)
    assert (report.current_mitigations is None) == (version < 5)
    assert report.current_firmware == (1, 55, 40)


@pytest.mark.parametrize("version", [0, 1, 6, 0xFFFF_FFFF])
def test_unknown_versions_are_malformed(version: int) -> None:
    with pytest.raises(MalformedError):
        parse_snp_report(encode(version=version))


@pytest.mark.parametrize(
    ("version", "offset"),
    [
        (3, 0x04C),
        (3, 0x18B),
        (3, 0x19F),
        (3, 0x1EB),
        (3, 0x1EF),
        (3, 0x208),
        (3, 0x29F),
        (3, 0x2D0),
        (3, 0x318),
        (3, 0x330),
        (3, 0x49F),
        (2, 0x188),
        (4, 0x1F8),
        (4, 0x207),
    ],
)
def test_reserved_bytes_must_be_zero(version: int, offset: int) -> None:
    with pytest.raises(MalformedError, match="reserved"):
        parse_snp_report(encode(version=version, overwrite={offset: b"\x01"}))


@pytest.mark.parametrize(
    "changes",
    [{"policy": 0}, {"policy": 1 << 17 | 1 << 26}, {"policy": 1 << 17 | 1 << 63}, {"key_info": 1 << 5}],
)
def test_reserved_bits_have_their_values(changes: dict[str, int]) -> None:
    with pytest.raises(MalformedError, match="reserved"):
        parse_snp_report(encode(**changes))


def test_mitigation_vectors_are_read_from_version_5_on() -> None:
    report = parse_snp_report(encode(version=5, launch_mitigations=3, current_mitigations=7))
    assert (report.launch_mitigations, report.current_mitigations) == (3, 7)


@given(st.binary(max_size=1300))
def test_any_bytes_are_a_report_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_snp_report(data)


@settings(max_examples=200)
@given(st.integers(0, 1183), st.integers(1, 255))
def test_any_changed_byte_is_a_report_or_malformed(offset: int, change: int) -> None:
    data = bytearray(encode())
    data[offset] ^= change
    try:
        report = parse_snp_report(bytes(data))
    except MalformedError:
        return
    assert report != parse_snp_report(encode())


@pytest.mark.parametrize("product", list(Product))
@given(raw=st.binary(min_size=8, max_size=8))
def test_tcb_bytes_survive_a_round_trip(product: Product, raw: bytes) -> None:
    try:
        tcb = parse_tcb(product, raw)
    except MalformedError:
        reserved = raw[4:7] if product is Product.TURIN else raw[2:6]
        assert any(reserved)
        return
    assert encode_tcb(product, tcb) == raw


def test_tcb_has_eight_bytes() -> None:
    with pytest.raises(MalformedError):
        parse_tcb(Product.GENOA, bytes(7))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_certificate_is_a_leaf_or_malformed(data: st.DataObject) -> None:
    raw = bytearray(CERTIFICATE)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        leaf.parse_leaf(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    except MalformedError:
        return


@given(st.binary(max_size=600))
def test_any_bytes_are_evidence_or_malformed(data: bytes) -> None:
    for parse in (leaf.parse_leaf, certificates.parse_crl):
        with pytest.raises(MalformedError):
            parse(data)
    if data.strip():
        with pytest.raises(MalformedError):
            certificates.parse_issuers(data)


AMD = "1.3.6.1.4.1.3704.1"


@pytest.mark.parametrize(
    "extra",
    [
        (f"{AMD}.3.4", b"\x02\x01\x01"),
        (f"{AMD}.3.4", b"\x04\x01\x00"),
        (f"{AMD}.3.5", b"\x02\x02\x01\x00"),
    ],
)
def test_reserved_patch_levels_must_be_zero(amd: SimulatedAmd, extra: tuple[str, bytes]) -> None:
    with pytest.raises(MalformedError):
        leaf.parse_leaf(amd.chip(extra=[extra]).certificate)


@pytest.mark.parametrize(
    "hwid", [b"", bytes(9), bytes(63), b"\x04\x3f" + bytes(64), b"\x0c\x40" + bytes(64)]
)
def test_chip_id_has_one_of_two_forms(amd: SimulatedAmd, hwid: bytes) -> None:
    chip = amd.chip(hwid=hwid) if hwid else amd.chip(hwid=b"\x00")
    with pytest.raises(MalformedError, match="chip id"):
        leaf.parse_leaf(chip.certificate)


def test_root_is_not_a_leaf(amd: SimulatedAmd) -> None:
    for der in (amd.root.der, amd_root("genoa")):
        with pytest.raises(MalformedError):
            leaf.parse_leaf(der)


def test_size_limits_hold_before_parsing(amd: SimulatedAmd) -> None:
    with pytest.raises(MalformedError, match="too long"):
        leaf.parse_leaf(bytes(leaf.MAX_CERTIFICATE + 1))
    with pytest.raises(MalformedError, match="too long"):
        certificates.parse_issuers(b"x" * (certificates.MAX_CHAIN + 1))
    with pytest.raises(MalformedError, match="too long"):
        certificates.parse_crl(bytes(certificates.MAX_CRL + 1))
    with pytest.raises(MalformedError, match="1 to 2 certificates"):
        certificates.parse_issuers(amd.chain_pem * 2)


def test_pinned_roots_are_the_pinned_ones() -> None:
    for product in ARK_SHA256:
        assert amd_root(product)
    assert len(amd_intermediates()) == 6


def test_replaced_root_file_is_noticed() -> None:
    with pytest.raises(ConfigError, match="not the pinned one"):
        pinned.load_pinned("amd", "ark_genoa.der", ARK_SHA256["milan"])
    with pytest.raises(ConfigError, match="cannot be read"):
        pinned.load_pinned("amd", "missing.der", ARK_SHA256["milan"])
