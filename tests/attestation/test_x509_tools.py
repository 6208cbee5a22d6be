"""Loading certificates and revocation lists: a value or `MalformedError`, at once and for good."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.x509_tools import load_crl, load_der_chain, load_pem_chain
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

AMD = SimulatedAmd(now=1_800_000_000, rng=seeded_random(b"x509"))
ASK = AMD.ask.public_bytes(Encoding.DER)
CRL = AMD.crl(revoked=[7, 8])
LIMITS = {"max_bytes": 20_000, "max_count": 3}


def test_order_of_the_text_is_kept() -> None:
    chain = load_pem_chain(AMD.chain_pem, **LIMITS)
    assert chain == (AMD.ask, AMD.ark)
    assert load_der_chain([ASK], **LIMITS) == (AMD.ask,)
    assert load_pem_chain(AMD.chain_pem.encode(), **LIMITS) == chain


def test_limits() -> None:
    with pytest.raises(MalformedError, match="too long"):
        load_pem_chain(AMD.chain_pem, max_bytes=100, max_count=3)
    with pytest.raises(MalformedError, match="1 to 1"):
        load_pem_chain(AMD.chain_pem, max_bytes=20_000, max_count=1)
    with pytest.raises(MalformedError, match="too long"):
        load_der_chain([ASK, ASK], max_bytes=len(ASK), max_count=3)
    with pytest.raises(MalformedError, match="too long"):
        load_der_chain([ASK, ASK], max_bytes=20_000, max_count=1)
    with pytest.raises(MalformedError, match="1 to 3"):
        load_der_chain([], **LIMITS)
    with pytest.raises(MalformedError, match="too long"):
        load_crl(CRL, max_bytes=10)


def test_revocation_list_in_both_forms() -> None:
    der = load_crl(CRL, max_bytes=10_000)
    pem = x509.load_der_x509_crl(CRL).public_bytes(Encoding.PEM)
    assert load_crl(b"\n" + pem, max_bytes=10_000) == der
    assert sorted(entry.serial_number for entry in der) == [7, 8]


@given(st.binary(max_size=300))
def test_any_bytes_are_malformed(data: bytes) -> None:
    for load in (
        lambda: load_pem_chain(data, **LIMITS),
        lambda: load_der_chain([data], **LIMITS),
        lambda: load_crl(data, max_bytes=10_000),
    ):
        with pytest.raises(MalformedError):
            load()


@settings(max_examples=250, deadline=None)
@given(st.integers(0, len(ASK) - 1), st.integers(1, 255), st.integers(0, 30))
def test_changed_certificates_load_completely_or_not_at_all(offset: int, change: int, cut: int) -> None:
    data = bytearray(ASK)
    data[offset] ^= change
    try:
        [certificate] = load_der_chain([bytes(data[: len(data) - cut])], **LIMITS)
    except MalformedError:
        return
    # What loaded can be read without any further error.
    _ = (certificate.subject, certificate.issuer, list(certificate.extensions), certificate.public_key())
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.serial_number)


@settings(max_examples=250, deadline=None)
@given(st.integers(0, len(CRL) - 1), st.integers(1, 255))
def test_changed_lists_load_completely_or_not_at_all(offset: int, change: int) -> None:
    data = bytearray(CRL)
    data[offset] ^= change
    try:
        crl = load_crl(bytes(data), max_bytes=10_000)
    except MalformedError:
        return
    _ = (crl.issuer, crl.next_update_utc, [entry.serial_number for entry in crl], list(crl.extensions))
