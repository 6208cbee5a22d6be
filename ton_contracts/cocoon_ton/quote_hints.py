"""From a real TDX quote to the cells that the Pck contract checks. Pure.

The prover's work: cutting quote, reports and certificates into the cells that the contract reads, and a
hint for every signature. See ``docs/spec/onchain-attestation.md``, section 3.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from pytoniq_core import Builder, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.tdx.quote import Quote, parse_quote
from cocoon_attestation.x509_tools import load_der_chain, load_pem_chain
from cocoon_ton.cells import finish
from cocoon_ton.der_cells import certificate_cell, snake
from cocoon_ton.errors import UnprovableError
from cocoon_ton.p256 import SignatureHint, make_hint

AUTH_DATA: Final = 32
"""Bytes of authentication data that the contract supports: all known quoting enclaves use this many."""
_QUOTE_V4: Final = (112, 120, 96, 96, 96, 112)
_QUOTE_V5: Final = (118, 120, 96, 96, 96, 112, 64)
_QE_REPORT: Final = (96, 96, 68, 124)
_MAX_CHAIN: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteProof:
    """A quote in the form in which it is checked on chain."""

    quote: Quote
    leaf_hash: bytes
    """SHA-256 of the signed part of the PCK certificate: with the anchor, the identity of its contract."""
    signed_cell: Cell
    """Header and body of the quote."""
    signature: SignatureHint
    """By the attestation key."""
    certification_cell: Cell
    """``QeCertification``: the quoting enclave's statement on its attestation key."""
    certificates: tuple[x509.Certificate, ...]
    """PCK certificate, its issuer, the root."""

    def anchors(self) -> tuple[bytes, bytes]:
        """x coordinates of the issuer's and of the root's key, 32 bytes each: what may be an anchor."""
        return anchor_of(self.certificates[1]), anchor_of(self.certificates[2])

    def chain_cell(self, anchor: bytes) -> Cell:
        """``PckChain`` from `anchor` to the PCK certificate.

        Raises:
            UnprovableError: `anchor` is no key of this chain, or a certificate's signature does not hold.
        """
        leaf, issuer, root = self.certificates
        chain = Builder().store_ref(_certificate(leaf, issuer))
        issuer_x, root_x = self.anchors()
        if anchor == issuer_x:
            return finish(chain.store_bit(0))
        if anchor != root_x:
            raise UnprovableError("the anchor is no key of this certificate chain")
        return finish(chain.store_bit(1).store_ref(_certificate(issuer, root)))


def prove_quote(data: bytes) -> QuoteProof:
    """Prepare a TDX quote of version 4, or of version 5 with a TD 1.5 report.

    Raises:
        MalformedError: not such a quote, or its certificate chain does not parse.
        UnprovableError: a signature does not hold, or the quote is of a kind that the contract cannot check.
    """
    quote = parse_quote(data)
    lengths = {(4, 2): _QUOTE_V4, (5, 3): _QUOTE_V5}.get((quote.header.version, quote.body_type))
    if lengths is None:
        raise UnprovableError("quotes of version 5 are checked on chain with a TD 1.5 report only")
    if len(quote.qe_auth_data) != AUTH_DATA:
        raise UnprovableError(f"quoting enclave with other than {AUTH_DATA} bytes of authentication data")
    certificates = load_pem_chain(quote.pck_chain, max_bytes=_MAX_CHAIN, max_count=3)
    if len(certificates) != 3:
        raise UnprovableError("a chain of PCK certificate, issuer and root is expected")
    signature = make_hint(_sha256(quote.signed), quote.signature, quote.attestation_key)
    qe_signature = make_hint(
        _sha256(quote.qe_report.raw), quote.qe_report_signature, _public_key(certificates[0])
    )
    certification = (
        Builder()
        .store_bytes(quote.attestation_key + quote.qe_auth_data)
        .store_ref(snake(quote.qe_report.raw, _QE_REPORT))
        .store_ref(qe_signature.cell)
    )
    return QuoteProof(
        quote=quote,
        leaf_hash=_sha256(certificates[0].tbs_certificate_bytes),
        signed_cell=snake(quote.signed, lengths),
        signature=signature,
        certification_cell=finish(certification),
        certificates=certificates,
    )


def anchor_of(certificate: x509.Certificate | bytes) -> bytes:
    """x coordinate, 32 bytes, of a certificate's key; the certificate may be given in DER form.

    Raises:
        MalformedError: not a certificate with a P-256 key.
    """
    if isinstance(certificate, bytes):
        (certificate,) = load_der_chain([certificate], max_bytes=_MAX_CHAIN, max_count=1)
    return _public_key(certificate)[:32]


def certificate_hint(certificate: x509.Certificate, issuer: x509.Certificate) -> SignatureHint:
    """The hint for a certificate's signature.

    Raises:
        MalformedError: no ECDSA signature, or the issuer has another kind of key.
        UnprovableError: the signature does not hold.
    """
    try:
        r, s = decode_dss_signature(certificate.signature)
        raw = r.to_bytes(32) + s.to_bytes(32)
    except (ValueError, OverflowError) as error:
        raise MalformedError("certificate: not an ECDSA signature") from error
    return make_hint(_sha256(certificate.tbs_certificate_bytes), raw, _public_key(issuer))


def _certificate(certificate: x509.Certificate, issuer: x509.Certificate) -> Cell:
    """``SignedCertificate``."""
    tbs = certificate_cell(certificate.tbs_certificate_bytes)
    hint = certificate_hint(certificate, issuer)
    return finish(Builder().store_ref(tbs).store_ref(hint.cell))


def _public_key(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError("certificate: a P-256 key is expected")
    numbers = key.public_numbers()
    return numbers.x.to_bytes(32) + numbers.y.to_bytes(32)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
