"""The least that an appraisal can cost: signatures in evidence, one check of each, and the libraries' part.

Signatures are counted twice: *presented* is every one that stands in the evidence, *different* leaves out the
repetitions (the devices of one machine share most of their chains, answers and manifests).
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509 import ocsp

from cocoon_attestation.evidence import DeviceEvidence, TdxCollateralBytes
from cocoon_attestation.gpu.rim import parse_rim
from cocoon_attestation.tdx.dcap import dcap_verify

P256, P384 = "P-256", "P-384"
TDX_DIFFERENT: Final = 9
"""Quote, QE report, PCK certificate, its CA, TCB signing certificate, TCB info, QE identity, two CRLs."""
TDX_PRESENTED: Final = 11
"""The CA certificate stands in two chains, and so does the TCB signing certificate."""
TDX_TWICE: Final = 4
"""Quote, QE report, TCB info and QE identity: checked by dcap-qvl and by our own code."""
_KEYS: Final = 32

Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A call into a library that appraisal cannot do without."""

    call: Call
    signatures: Mapping[str, int] = field(default_factory=dict)
    """Signature checks inside, by kind: they are in the floor already."""


def count_device_signatures(devices: Sequence[DeviceEvidence]) -> tuple[int, int]:
    """Signatures of devices, different and presented: reports, certificates, OCSP answers, manifests."""
    found = [signed for device in devices for signed in _signed_by(device)]
    return len(set(found)), len(found)


def _signed_by(device: DeviceEvidence) -> Iterable[bytes]:
    yield device.report
    yield from _certificates(x509.load_pem_x509_certificates(device.certificate_chain.encode()))
    for der in device.ocsp_responses:
        response = ocsp.load_der_ocsp_response(der)
        yield response.tbs_response_bytes
        yield from _certificates(response.certificates)
    for rim in device.rims:
        yield rim
        yield from _certificates(parse_rim(rim).chain)


def _certificates(chain: Iterable[x509.Certificate]) -> Iterable[bytes]:
    """What issuers signed; a pinned root needs no check."""
    return (one.tbs_certificate_bytes for one in chain if one.issuer != one.subject)


def ecdsa_check(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> Call:
    """One check over 1 KiB with a key that is read first, another key each time, as in a chain."""
    made, message = [], bytes(1024)
    for _ in range(_KEYS):
        key = ec.generate_private_key(curve)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        made.append((spki, key.sign(message, ec.ECDSA(digest))))
    turns = itertools.cycle(made)

    def check() -> None:
        spki, signature = next(turns)
        public: Any = load_der_public_key(spki)
        public.verify(signature, message, ec.ECDSA(digest))

    return check


def pss_check(child: x509.Certificate, issuer: x509.Certificate) -> Call:
    """One check of a certificate, RSA-PSS with SHA-384."""
    spki = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature, message = child.signature, child.tbs_certificate_bytes
    rule = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)

    def check() -> None:
        public: Any = load_der_public_key(spki)
        public.verify(signature, message, rule, hashes.SHA384())

    return check


def evidence_hash(evidence: bytes) -> Library:
    """The digest of the evidence, which receipts and the chain name."""
    return Library(call=lambda: hashlib.sha256(evidence).digest())


def dcap_library(quote: bytes, collateral: TdxCollateralBytes, *, root: bytes, now: int) -> Library:
    """`dcap-qvl` alone on the same quote."""
    return Library(
        call=lambda: dcap_verify(quote, collateral, root=root, now=now), signatures={P256: TDX_DIFFERENT}
    )


def manifest_library(devices: Sequence[DeviceEvidence]) -> Library:
    """`signxml` (with `lxml`) alone on every different manifest."""
    manifests = {rim: parse_rim(rim).chain[0] for device in devices for rim in device.rims}

    signxml: Any = importlib.import_module("signxml")

    def verify() -> None:
        for rim, signer in manifests.items():
            config = signxml.SignatureConfiguration(
                location="./",
                expect_references=1,
                signature_methods=frozenset({signxml.SignatureMethod.ECDSA_SHA384}),
                digest_algorithms=frozenset({signxml.DigestAlgorithm.SHA384}),
                verification_time=signer.not_valid_before_utc,
            )
            signxml.XMLVerifier().verify(rim, x509_cert=signer, expect_config=config)

    return Library(call=verify, signatures={P384: len(manifests)})


def decoding_library(devices: Sequence[DeviceEvidence]) -> Library:
    """`cryptography` alone: every chain and every different answer read, fields of different certificates."""
    chains = [device.certificate_chain.encode("ascii") for device in devices]
    answers = {der for device in devices for der in device.ocsp_responses}
    signers = {
        one.public_bytes(Encoding.DER)
        for device in devices
        for rim in device.rims
        for one in parse_rim(rim).chain
    }

    def decode() -> None:
        found: set[x509.Certificate] = set()
        for chain in chains:
            found.update(x509.load_pem_x509_certificates(chain))
        found.update(map(x509.load_der_x509_certificate, signers))
        for der in answers:
            response = ocsp.load_der_ocsp_response(der)
            _ = (list(response.extensions), list(response.single_extensions), response.signature)
            _ = (response.issuer_name_hash, response.issuer_key_hash, response.tbs_response_bytes)
            found.update(response.certificates)
        for one in found:  # the keys are read in the floor
            _ = (one.subject, one.issuer, one.serial_number, list(one.extensions))
            _ = (one.not_valid_before_utc, one.not_valid_after_utc, one.tbs_certificate_bytes)

    return Library(call=decode)
