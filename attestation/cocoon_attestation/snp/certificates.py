"""Chain of an SNP report's certificate to a pinned ARK, its dates, and the revocation list.

Rules: AMD publications 57230 (VCEK and KDS) and 56860; RFC 5280. The chain is always
leaf -> ASK or ASVK -> ARK, every signature RSA-PSS with SHA-384, MGF1-SHA-384 and 48 bytes of salt.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.roots.amd import amd_intermediates
from cocoon_attestation.snp.leaf import SnpLeaf, signature_algorithm
from cocoon_attestation.snp.policy import SnpRoot
from cocoon_attestation.snp.report import Product, SigningKey
from cocoon_attestation.x509_tools import load_crl, load_pem_chain

MAX_CHAIN: Final = 32 * 1024
MAX_ISSUERS: Final = 2
"""One intermediate and, optionally, the root."""
MAX_CRL: Final = 64 * 1024
MIN_RSA_BITS: Final = 2048

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_PSS_ALGORITHM: Final = bytes.fromhex(
    "06092a864886f70d01010a"  # id-RSASSA-PSS
    "3034a00f300d06096086480165030402020500"  # hash SHA-384
    "a11c301a06092a864886f70d010108300d06096086480165030402020500"  # MGF1 with SHA-384
    "a203020130"  # salt length 48
)
"""Content of the AlgorithmIdentifier of every AMD signature, trailer field left to its default."""
_PSS_ALGORITHM_TRAILER: Final = (
    _PSS_ALGORITHM.replace(b"\x30\x34", b"\x30\x39", 1) + b"\xa3\x03\x02\x01\x01"
)
"""The same with the default trailer field written out; both forms are in use."""


def parse_issuers(pem: bytes | str) -> tuple[x509.Certificate, ...]:
    """Read the issuer certificates that came with the evidence, nearest first; may be empty.

    Raises:
        MalformedError: longer than 32 KiB, more than two certificates, or not PEM.
    """
    if not pem.strip():
        return ()
    return load_pem_chain(pem, max_bytes=MAX_CHAIN, max_count=MAX_ISSUERS)


def parse_crl(data: bytes) -> x509.CertificateRevocationList:
    """Read a revocation list in DER or PEM form, at most 64 KiB.

    Raises:
        MalformedError: too long, or not a revocation list.
    """
    return load_crl(data, max_bytes=MAX_CRL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """A leaf whose signatures lead to a trusted root."""

    root: SnpRoot
    ark: x509.Certificate
    intermediate: x509.Certificate

    @property
    def product(self) -> Product:
        """The product of the root, which is the only authority on it."""
        return self.root.product


def verify_chain(
    leaf: SnpLeaf, issuers: Iterable[x509.Certificate], roots: Iterable[SnpRoot]
) -> Endorsement | str:
    """Check the signatures from `leaf` to one of `roots`; dates and revocation are separate.

    Returns the endorsement, or a sentence that says why there is none. Roots that came with the
    evidence are ignored: only `roots` count.
    """
    named = [c for c in issuers if c.subject.public_bytes() == leaf.issuer]
    candidates = [c for c in (*named, *_published(leaf.issuer)) if c.subject != c.issuer]
    if not candidates:
        return "no intermediate certificate with the name of the leaf's issuer"
    reason = "the chain does not lead to a trusted root"
    for intermediate in candidates:
        for root in roots:
            ark = _root(root.der)
            if intermediate.issuer != ark.subject:
                continue
            problem = _ca_problem(intermediate, ark, leaf)
            if problem is None:
                return Endorsement(root=root, ark=ark, intermediate=intermediate)
            reason = problem
    return reason


@functools.lru_cache(maxsize=32)
def _published(name: bytes) -> tuple[x509.Certificate, ...]:
    """AMD's own intermediates with this subject (DER)."""
    published = map(x509.load_der_x509_certificate, amd_intermediates())
    return tuple(one for one in published if one.subject.public_bytes() == name)


@functools.lru_cache(maxsize=32)
def _root(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def _ca_problem(intermediate: x509.Certificate, ark: x509.Certificate, leaf: SnpLeaf) -> str | None:
    name = intermediate.subject.rfc4514_string()
    if leaf.kind is SigningKey.VLEK and "CN=SEV-VLEK-" not in name:
        return "a VLEK must be issued by an ASVK"
    if leaf.kind is SigningKey.VCEK and "CN=SEV-VLEK-" in name:
        return "a VCEK must be issued by an ASK"
    if not _may_sign_certificates(intermediate):
        return "the intermediate is not a certificate authority"
    for algorithm in (leaf.algorithm, signature_algorithm(intermediate.public_bytes(Encoding.DER))):
        if algorithm not in (_PSS_ALGORITHM, _PSS_ALGORITHM_TRAILER):
            return "a certificate names another signature algorithm than RSA-PSS with SHA-384"
    parent, child = ark.public_key(), intermediate.public_key()
    for key in (parent, child):
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_RSA_BITS:
            return "an issuer key is not RSA or too short"
    if not _pss_valid(parent, intermediate.signature, intermediate.tbs_certificate_bytes):
        return "the intermediate is not signed by the trusted root"
    if not _pss_valid(child, leaf.signature, leaf.tbs):
        return "the leaf is not signed by the intermediate"
    return None


def chain_dates_problem(leaf: SnpLeaf, endorsement: Endorsement, at: dt.datetime) -> str | None:
    """Say which certificate of the chain is not valid at `at`, or None."""
    spans = [("leaf", leaf.not_before, leaf.not_after)]
    for name, certificate in (("intermediate", endorsement.intermediate), ("root", endorsement.ark)):
        spans.append((name, certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    for name, start, end in spans:
        if not start <= at <= end:
            return f"the {name} certificate is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d} only"
    return None


def crl_problem(
    crl: x509.CertificateRevocationList, leaf: SnpLeaf, endorsement: Endorsement, at: dt.datetime
) -> str | None:
    """Say why `crl` does not clear the chain at `at`, or None if it does."""
    if crl.issuer != endorsement.ark.subject:
        return "the revocation list is of another authority"
    if not _pss_valid(endorsement.ark.public_key(), crl.signature, crl.tbs_certlist_bytes):
        return "the revocation list is not signed by the trusted root"
    if any(extension.critical for extension in crl.extensions):
        return "the revocation list has an unknown critical extension"
    if crl.next_update_utc is None or not crl.last_update_utc <= at <= crl.next_update_utc:
        return "the revocation list is not current"
    revoked = {entry.serial_number for entry in crl}
    if endorsement.intermediate.serial_number in revoked:
        return "the intermediate certificate is revoked"
    if leaf.serial in revoked:
        return "the leaf certificate is revoked"
    return None


def _pss_valid(key: object, signature: bytes, message: bytes) -> bool:
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, message, _PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def _may_sign_certificates(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign
