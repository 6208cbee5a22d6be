"""Checks stapled OCSP responses for the certificates of a chain (RFC 6960, RFC 8954).

Dates in NVIDIA's chains never end, so revocation is the only thing that can retire a device or a
manifest signer. Only "good" counts: revoked, on hold, unknown, stale or unbound answers all fail.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.certificates import p384_key, signature_valid
from cocoon_attestation.x509_tools import decode_fully

MAX_RESPONSE: Final = 16 * 1024
MAX_RESPONSES: Final = 16
CLOCK_SKEW: Final = dt.timedelta(minutes=5)
"""How far ahead of ours a responder's clock may be."""


def parse_ocsp(data: bytes) -> ocsp.OCSPResponse:
    """Decode a DER response of at most 16 KiB that carries exactly one successful answer.

    Raises:
        MalformedError: anything else.
    """
    if len(data) > MAX_RESPONSE:
        raise MalformedError("an OCSP response is too long")
    try:
        response = ocsp.load_der_ocsp_response(bytes(data))
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise MalformedError("an OCSP response carries no answer")
        if len(list(response.responses)) != 1:
            raise MalformedError("an OCSP response must carry one answer")
        # These fields decode on first use: reading them here keeps later code free of decode errors.
        decode_fully(response.certificates)
        _ = (list(response.extensions), list(response.single_extensions), response.signature)
        _ = (response.this_update_utc, response.next_update_utc, response.certificate_status)
        _ = (response.issuer_name_hash, response.issuer_key_hash, response.serial_number)
        _ = (response.hash_algorithm, response.signature_algorithm_oid, response.tbs_response_bytes)
    except MalformedError:
        raise
    except Exception as error:  # `cryptography` raises several types on broken or unknown fields
        raise MalformedError("an OCSP response does not decode") from error
    return response


def revocation_problem(
    chain: Sequence[x509.Certificate],
    positions: Iterable[int],
    responses: Sequence[ocsp.OCSPResponse],
    nonce: bytes,
    at: dt.datetime,
) -> str | None:
    """Say which certificate of `chain` at `positions` is not cleared by `responses`, or None.

    Every response that speaks about a certificate must clear it, and there must be one. `nonce` is the
    one the responses were asked with (32 bytes).
    """
    for position in positions:
        certificate, issuer = chain[position], chain[position + 1]
        about = [response for response in responses if _is_about(response, certificate, issuer)]
        if not about:
            return f"no OCSP response for certificate {position}"
        for response in about:
            problem = response_problem(response, certificate, issuer, nonce, at)
            if problem is not None:
                return f"certificate {position}: {problem}"
    return None


def response_problem(
    response: ocsp.OCSPResponse,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    nonce: bytes,
    at: dt.datetime,
) -> str | None:
    """Say why `response` does not clear `certificate`, or None if it does."""
    if not _is_about(response, certificate, issuer):
        return "the OCSP response is about another certificate"
    problem = _responder_problem(response, issuer, at)
    if problem is not None:
        return problem
    if any(e.critical for e in (*response.extensions, *response.single_extensions)):
        return "the OCSP response has a critical extension"
    found = [e.value.nonce for e in response.extensions if isinstance(e.value, x509.OCSPNonce)]
    if found != [nonce]:
        return "the OCSP response does not carry our nonce"
    end = response.next_update_utc
    if end is None or not response.this_update_utc - CLOCK_SKEW <= at <= end:
        return "the OCSP response is not current"
    if response.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        reason = response.revocation_reason
        return f"status {response.certificate_status.name.lower()}" + (
            f" ({reason.value})" if reason else ""
        )
    return None


def _is_about(response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if not isinstance(response.hash_algorithm, hashes.SHA384):
        return False
    key = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return (
        response.serial_number == certificate.serial_number
        and response.issuer_name_hash == hashlib.sha384(issuer.subject.public_bytes()).digest()
        and response.issuer_key_hash == hashlib.sha384(_key_bits(key, issuer)).digest()
    )


def _key_bits(spki: bytes, issuer: x509.Certificate) -> bytes:
    """The content of the BIT STRING in the key info, which is what a CertID hashes."""
    key = p384_key(issuer)
    if key is None:
        return spki
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _responder_problem(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, at: dt.datetime
) -> str | None:
    """A delegated responder: certified for OCSP signing by the issuer of the checked certificate."""
    if len(response.certificates) != 1:
        return "the OCSP response must carry the responder's certificate"
    responder = response.certificates[0]
    if responder.issuer != issuer.subject or not signature_valid(responder, issuer):
        return "the OCSP responder is not certified by the issuer"
    try:
        usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        allowed = ExtendedKeyUsageOID.OCSP_SIGNING in usage
    except x509.ExtensionNotFound:
        allowed = False
    if not allowed:
        return "the OCSP responder's certificate is not for OCSP signing"
    if not responder.not_valid_before_utc <= at <= responder.not_valid_after_utc:
        return "the OCSP responder's certificate is not valid"
    key = p384_key(responder)
    if key is None or response.signature_algorithm_oid != x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        return "the OCSP response is not signed with ECDSA P-384 and SHA-384"
    try:
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return "the signature of the OCSP response is wrong"
    return None
