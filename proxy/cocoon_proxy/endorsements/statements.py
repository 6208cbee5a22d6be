"""Checks Intel's statements one by one, as they enter the cache: signature, chain, dates, subject.

`cocoon_attestation.tdx` checks them again, together and with the quote. Here a statement must stand alone,
so that a wrong one cannot take the place of a right one. Formats: Intel PCS API, version 4.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.errors import MalformedError, RejectedError
from cocoon_attestation.strict_json import number, parse_object, text
from cocoon_attestation.types import parse_hex
from cocoon_attestation.x509_tools import load_crl, load_pem_chain
from cocoon_proxy.endorsements.cache import Validity

MAX_STATEMENT: Final = 128 * 1024
MAX_CRL: Final = 512 * 1024
MAX_CHAIN: Final = 32 * 1024
MAX_CERTIFICATES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedText:
    """The inner object of a PCS answer, as the exact text that Intel signed."""

    text: bytes
    signature: bytes
    """64 bytes, r ‖ s."""


def split_envelope(body: bytes, member: str) -> SignedText:
    """Take ``{"<member>": {…}, "signature": "<hex>"}`` apart without encoding anything again.

    Raises:
        MalformedError: not an object of exactly these two members.
    """
    document = parse_object(body, limit=MAX_STATEMENT, what=member)  # repeated keys, depth, length
    if document.keys() != {member, "signature"} or not isinstance(document[member], dict):
        raise MalformedError(f"{member}: an object beside its signature expected")
    spans = _spans(body.decode("utf-8"))
    signature = parse_hex(document["signature"], 64, f"{member} signature")
    return SignedText(text=spans[member].encode("utf-8"), signature=signature)


def _spans(source: str) -> dict[str, str]:
    """The exact text of each value of the outer object; `source` is known to be one JSON object."""
    decoder = json.JSONDecoder()
    spans: dict[str, str] = {}
    offset = _skip(source, 0) + 1
    while source[_skip(source, offset)] != "}":
        key, offset = decoder.raw_decode(source, _skip(source, offset))
        start = _skip(source, _skip(source, offset) + 1)
        _, offset = decoder.raw_decode(source, start)
        spans[key] = source[start:offset]
        after = _skip(source, offset)
        offset = after + (source[after] == ",")
    return spans


def _skip(source: str, offset: int) -> int:
    while source[offset] in " \t\r\n":
        offset += 1
    return offset


def check_statement(
    signed: SignedText, chain: bytes, *, root: bytes, now: int, form: tuple[str, int], fmspc: bytes | None
) -> Validity:
    """Check TCB info or a QE identity.

    Args:
        signed: the exact text and its signature.
        chain: PEM of the signer and the root.
        root: DER of the trusted root.
        now: Unix time in seconds.
        form: id and version that the statement must have.
        fmspc: platform family that TCB info must be for; None: the statement has none.

    Raises:
        MalformedError: it does not parse.
        RejectedError: wrong signature, root, dates or subject.
    """
    certificates = load_pem_chain(chain, max_bytes=MAX_CHAIN, max_count=MAX_CERTIFICATES)
    _check_chain(certificates, root, now)
    key = certificates[0].public_key()
    if not _p256_valid(key, signed.signature, signed.text):
        raise RejectedError("the signature of the statement is wrong")
    fields = parse_object(signed.text, limit=MAX_STATEMENT, what="statement")
    if (fields.get("id"), fields.get("version")) != form:
        raise RejectedError("the statement is of another kind or version")
    if fmspc is not None and text(fields.get("fmspc"), "fmspc").lower() != fmspc.hex():
        raise RejectedError("the statement is for another platform family")
    issued, ends = _date(fields, "issueDate"), _date(fields, "nextUpdate")
    if not issued <= now < ends:
        raise RejectedError("the statement is not in date")
    evaluation = number(fields.get("tcbEvaluationDataNumber"), "tcbEvaluationDataNumber", limit=2**31)
    return Validity(valid_until=min(ends, _end(certificates)), rank=(evaluation, issued))


def check_crl(der: bytes, chain: bytes, *, root: bytes, now: int, issuer_name: str | None) -> Validity:
    """Check a revocation list against the first certificate of `chain` (the root alone for its own list).

    `issuer_name` is the common name that the issuer must have; None: it is the root.

    Raises:
        MalformedError: it does not parse.
        RejectedError: wrong signature, issuer, root or dates.
    """
    crl = load_crl(der, max_bytes=MAX_CRL)
    certificates = load_pem_chain(chain, max_bytes=MAX_CHAIN, max_count=MAX_CERTIFICATES)
    _check_chain(certificates, root, now)
    issuer = certificates[0]
    if (issuer_name is None) != (len(certificates) == 1):
        raise RejectedError("the revocation list is of another authority")
    names = [str(one.value) for one in issuer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    if issuer_name is not None and (len(names) != 1 or not names[0].endswith(issuer_name)):
        raise RejectedError("the revocation list is of another authority")
    if crl.issuer != issuer.subject or not crl.is_signature_valid(_p256(issuer)):
        raise RejectedError("the revocation list is not signed by its authority")
    if crl.next_update_utc is None:
        raise MalformedError("the revocation list has no next update")
    issued, ends = int(crl.last_update_utc.timestamp()), int(crl.next_update_utc.timestamp())
    if not issued <= now < ends:
        raise RejectedError("the revocation list is not in date")
    return Validity(valid_until=min(ends, _end(certificates)), rank=(0, issued))


def pem_of(der: bytes) -> bytes:
    """One certificate in PEM.

    Raises:
        MalformedError: not a certificate.
    """
    try:
        return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    except ValueError as error:
        raise MalformedError("not a certificate") from error


def _check_chain(chain: Sequence[x509.Certificate], root: bytes, now: int) -> None:
    at = datetime.fromtimestamp(now, UTC)
    if not hmac.compare_digest(chain[-1].public_bytes(Encoding.DER), root):
        raise RejectedError("the chain does not end in the trusted root")
    for child, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        try:
            child.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise RejectedError("a certificate of the chain is not issued by the next one") from error
        if not child.not_valid_before_utc <= at <= child.not_valid_after_utc:
            raise RejectedError("a certificate of the chain is not in date")


def _p256(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RejectedError("the signer's key is not on P-256")
    return key


def _p256_valid(key: object, signature: bytes, message: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return False
    encoded = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    try:
        key.verify(encoded, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _end(chain: Sequence[x509.Certificate]) -> int:
    return int(min(one.not_valid_after_utc for one in chain).timestamp())


def _date(fields: dict[str, object], name: str) -> int:
    try:
        moment = datetime.strptime(text(fields.get(name), name), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise MalformedError(f"{name}: a date in UTC expected") from error
    return int(moment.timestamp())
