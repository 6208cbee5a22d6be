"""Checks stapled OCSP responses for the certificates of a chain (RFC 6960, RFC 8954).

Dates in NVIDIA's chains never end, so revocation is the only thing that can retire a device or a
manifest signer. Only "good" counts: revoked, on hold, unknown, stale or unbound answers all fail.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.certificates import p384_key, signature_valid
from cocoon_attestation.x509_tools import decoded

MAX_RESPONSE: Final = 16 * 1024
MAX_RESPONSES: Final = 16
CLOCK_SKEW: Final = dt.timedelta(minutes=5)
"""How far ahead of ours a responder's clock may be."""


CertId = tuple[int, bytes, bytes]
"""Serial number of a certificate, SHA-384 of its issuer's name and of its issuer's key."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OcspAnswer:
    """The one answer of a response. Compared by identity; nothing in it is authenticated yet."""

    about: CertId | None
    """What the answer speaks about; None if it is named with another hash than SHA-384."""
    serial: int
    """Serial number of the certificate that the answer speaks about."""
    status: ocsp.OCSPCertStatus
    reason: x509.ReasonFlags | None
    start: dt.datetime
    """The answer counts from here on, in UTC."""
    end: dt.datetime | None
    """The answer counts until here, in UTC."""
    nonces: tuple[bytes, ...]
    critical: bool
    """True if an extension is critical."""
    responders: tuple[x509.Certificate, ...]
    """Certificates that came with the response."""
    algorithm: x509.ObjectIdentifier
    """Of the signature."""
    signature: bytes
    signed: bytes


def parse_ocsp(data: bytes) -> OcspAnswer:
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
        return _answer(response)
    except MalformedError:
        raise
    except Exception as error:  # `cryptography` raises several types on broken or unknown fields
        raise MalformedError("an OCSP response does not decode") from error


def _answer(response: ocsp.OCSPResponse) -> OcspAnswer:
    """Read every field once: they decode on first use, and raise then what they like."""
    extensions, serial = list(response.extensions), response.serial_number
    issuer = (response.issuer_name_hash, response.issuer_key_hash)
    return OcspAnswer(
        about=(serial, *issuer) if isinstance(response.hash_algorithm, hashes.SHA384) else None,
        serial=serial,
        status=response.certificate_status,
        reason=response.revocation_reason,
        start=response.this_update_utc,
        end=response.next_update_utc,
        nonces=tuple(e.value.nonce for e in extensions if isinstance(e.value, x509.OCSPNonce)),
        critical=any(e.critical for e in (*extensions, *response.single_extensions)),
        responders=decoded(response.certificates),
        algorithm=response.signature_algorithm_oid,
        signature=response.signature,
        signed=response.tbs_response_bytes,
    )


class RevocationReader:
    """Parses and judges each distinct response once, whatever the number of devices that carry it."""

    def __init__(self, nonce: bytes, at: dt.datetime) -> None:
        """`nonce` is the one the responses were asked with (32 bytes); `at` the time to judge at."""
        self._nonce = nonce
        self._at = at
        self._parsed: dict[bytes, OcspAnswer] = {}
        self._links: dict[
            tuple[x509.Certificate, x509.Certificate], tuple[CertId, dict[OcspAnswer, str | None]]
        ] = {}
        """By certificate and issuer: what an answer about it is named by, and what was found."""

    def parse(self, data: bytes) -> OcspAnswer:
        """`parse_ocsp`, the same object for the same bytes.

        Raises:
            MalformedError: see `parse_ocsp`.
        """
        answer = self._parsed.get(data)
        if answer is None:
            answer = self._parsed[data] = parse_ocsp(data)
        return answer

    def problem(
        self, chain: Sequence[x509.Certificate], positions: Iterable[int], answers: Sequence[OcspAnswer]
    ) -> str | None:
        """Say which certificate of `chain` at `positions` is not cleared by `answers`, or None.

        Every answer that speaks about a certificate must clear it, and there must be one.
        """
        for position in positions:
            certificate, issuer = chain[position], chain[position + 1]
            link = self._links.get((certificate, issuer))
            if link is None:
                link = self._links[certificate, issuer] = (_cert_id(certificate, issuer), {})
            wanted, judged = link
            about = [answer for answer in answers if answer.about == wanted]
            if not about:
                return f"no OCSP response for certificate {position}"
            for answer in about:
                if answer not in judged:
                    judged[answer] = _answer_problem(answer, issuer, self._nonce, self._at)
                if (problem := judged[answer]) is not None:
                    return f"certificate {position}: {problem}"
        return None


def revocation_problem(
    chain: Sequence[x509.Certificate],
    positions: Iterable[int],
    answers: Sequence[OcspAnswer],
    nonce: bytes,
    at: dt.datetime,
) -> str | None:
    """`RevocationReader.problem` for one chain alone."""
    return RevocationReader(nonce, at).problem(chain, positions, answers)


def response_problem(
    answer: OcspAnswer,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    nonce: bytes,
    at: dt.datetime,
) -> str | None:
    """Say why `answer` does not clear `certificate`, or None if it does."""
    if answer.about != _cert_id(certificate, issuer):
        return "the OCSP response is about another certificate"
    return _answer_problem(answer, issuer, nonce, at)


def _answer_problem(
    answer: OcspAnswer, issuer: x509.Certificate, nonce: bytes, at: dt.datetime
) -> str | None:
    """Why `answer`, which is about a certificate of `issuer`, does not clear it, or None."""
    problem = _responder_problem(answer, issuer, at)
    if problem is not None:
        return problem
    if answer.critical:
        return "the OCSP response has a critical extension"
    if answer.nonces != (nonce,):
        return "the OCSP response does not carry our nonce"
    if answer.end is None or not answer.start - CLOCK_SKEW <= at <= answer.end:
        return "the OCSP response is not current"
    if answer.status is not ocsp.OCSPCertStatus.GOOD:
        return f"status {answer.status.name.lower()}" + (
            f" ({answer.reason.value})" if answer.reason else ""
        )
    return None


def _cert_id(certificate: x509.Certificate, issuer: x509.Certificate) -> CertId:
    """The CertID (RFC 6960, 4.1.1) with which one would ask about `certificate`."""
    asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA384()).build()
    return asked.serial_number, asked.issuer_name_hash, asked.issuer_key_hash


def _responder_problem(answer: OcspAnswer, issuer: x509.Certificate, at: dt.datetime) -> str | None:
    """A delegated responder: certified for OCSP signing by the issuer of the checked certificate."""
    if len(answer.responders) != 1:
        return "the OCSP response must carry the responder's certificate"
    responder = answer.responders[0]
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
    if key is None or answer.algorithm != x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        return "the OCSP response is not signed with ECDSA P-384 and SHA-384"
    try:
        key.verify(answer.signature, answer.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return "the signature of the OCSP response is wrong"
    return None
