"""Rules for OCSP responses, one broken rule at a time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.ocsp import (
    CLOCK_SKEW,
    MAX_RESPONSE,
    parse_ocsp,
    response_problem,
    revocation_problem,
)

AT = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)
NONCE = bytes(range(32))
HOUR = dt.timedelta(hours=1)
Key = ec.EllipticCurvePrivateKey


def key() -> Key:
    return ec.generate_private_key(ec.SECP384R1())


ISSUER_KEY, CHILD_KEY, RESPONDER_KEY = key(), key(), key()


def certificate(
    subject: str,
    public: Key,
    signer: Key = ISSUER_KEY,
    issuer: str = "issuer",
    *,
    usages: list[x509.ObjectIdentifier] | None = None,
    end: dt.datetime = AT + 24 * HOUR,
) -> x509.Certificate:
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(public.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(AT - 24 * HOUR)
        .not_valid_after(end)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(signer, hashes.SHA384())


SIGNING = [ExtendedKeyUsageOID.OCSP_SIGNING]
ISSUER = certificate("issuer", ISSUER_KEY)
CHILD = certificate("child", CHILD_KEY)
OTHER = certificate("other", CHILD_KEY)
RESPONDER = certificate("responder", RESPONDER_KEY, usages=SIGNING)


def response(
    *,
    about: x509.Certificate = CHILD,
    issuer: x509.Certificate = ISSUER,
    algorithm: hashes.HashAlgorithm | None = None,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    start: dt.datetime = AT - HOUR,
    end: dt.datetime | None = AT + HOUR,
    nonce: bytes | None = NONCE,
    critical: bool = False,
    responder: x509.Certificate = RESPONDER,
    shown: list[x509.Certificate] | None = None,
    signer: Key = RESPONDER_KEY,
    digest: hashes.SHA256 | hashes.SHA384 | None = None,
) -> bytes:
    """A response that clears `CHILD`, with one thing of the caller's choice wrong."""
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=about,
            issuer=issuer,
            algorithm=algorithm or hashes.SHA384(),
            cert_status=status,
            this_update=start,
            next_update=end,
            revocation_time=AT - HOUR if revoked else None,
            revocation_reason=reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
    )
    if shown != []:
        builder = builder.certificates(shown or [responder])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=critical)
    return builder.sign(signer, digest or hashes.SHA384()).public_bytes(Encoding.DER)


def problem(**changes: Any) -> str | None:
    return response_problem(parse_ocsp(response(**changes)), CHILD, ISSUER, NONCE, AT)


def test_good_response_clears() -> None:
    assert problem() is None


P256 = ec.generate_private_key(ec.SECP256R1())
EXPIRED = certificate("responder", RESPONDER_KEY, usages=SIGNING, end=AT - HOUR)
WITHOUT_USAGE = certificate("responder", RESPONDER_KEY)
OTHER_USAGE = certificate("responder", RESPONDER_KEY, usages=[ExtendedKeyUsageOID.SERVER_AUTH])
FOREIGN = certificate("responder", RESPONDER_KEY, key(), usages=SIGNING)
OTHER_NAME = certificate("responder", RESPONDER_KEY, issuer="stranger", usages=SIGNING)
SHORT_KEY = certificate("responder", P256, usages=SIGNING)
OTHER_KEY = certificate("responder", CHILD_KEY, usages=SIGNING)
REVOKED = ocsp.OCSPCertStatus.REVOKED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"about": OTHER}, "another certificate"),
        ({"issuer": OTHER}, "another certificate"),
        ({"algorithm": hashes.SHA256()}, "another certificate"),
        ({"shown": []}, "must carry"),
        ({"shown": [RESPONDER, ISSUER]}, "must carry"),
        ({"responder": FOREIGN}, "not certified by the issuer"),
        ({"responder": OTHER_NAME}, "not certified by the issuer"),
        ({"responder": WITHOUT_USAGE}, "not for OCSP signing"),
        ({"responder": OTHER_USAGE}, "not for OCSP signing"),
        ({"responder": EXPIRED}, "not valid"),
        ({"responder": SHORT_KEY, "signer": P256}, "ECDSA P-384"),
        ({"digest": hashes.SHA256()}, "ECDSA P-384"),
        ({"shown": [OTHER_KEY]}, "signature"),
        ({"critical": True}, "critical extension"),
        ({"nonce": None}, "our nonce"),
        ({"nonce": bytes(32)}, "our nonce"),
        ({"nonce": NONCE[:31]}, "our nonce"),
        ({"end": None}, "not current"),
        ({"end": AT - dt.timedelta(seconds=1)}, "not current"),
        (
            {"start": AT + CLOCK_SKEW + dt.timedelta(seconds=1), "end": AT + 2 * HOUR},
            "not current",
        ),
        ({"status": ocsp.OCSPCertStatus.UNKNOWN}, "unknown"),
        ({"status": REVOKED}, "revoked"),
        ({"status": REVOKED, "reason": x509.ReasonFlags.certificate_hold}, "certificateHold"),
    ],
)
def test_each_rule(changes: dict[str, Any], words: str) -> None:
    found = problem(**changes)
    assert found is not None
    assert words in found


def test_a_clock_that_is_a_little_ahead_is_accepted() -> None:
    assert problem(start=AT + CLOCK_SKEW, end=AT + HOUR) is None
    assert problem(end=AT) is None


def test_every_answer_about_a_certificate_must_clear_it() -> None:
    good, bad = parse_ocsp(response()), parse_ocsp(response(status=REVOKED))
    chain = (CHILD, ISSUER)
    assert revocation_problem(chain, [0], [good], NONCE, AT) is None
    assert revocation_problem(chain, [0], [good, bad], NONCE, AT) == "certificate 0: status revoked"
    other = parse_ocsp(response(about=OTHER))
    assert revocation_problem(chain, [0], [other], NONCE, AT) == "no OCSP response for certificate 0"
    assert revocation_problem(chain, [0], [other, good], NONCE, AT) is None
    assert revocation_problem(chain, [], [], NONCE, AT) is None


def test_issuer_whose_key_is_no_p384_key_clears_nothing() -> None:
    weak = certificate("issuer", P256, P256)
    child = certificate("child", CHILD_KEY, P256)
    made = parse_ocsp(response(about=child, issuer=weak))
    assert response_problem(made, child, weak, NONCE, AT) is not None


@pytest.mark.parametrize("status", list(ocsp.OCSPResponseStatus)[1:])
def test_response_without_an_answer_is_malformed(status: ocsp.OCSPResponseStatus) -> None:
    data = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
    with pytest.raises(MalformedError, match="no answer"):
        parse_ocsp(data)


def test_long_response_is_malformed() -> None:
    with pytest.raises(MalformedError, match="too long"):
        parse_ocsp(bytes(MAX_RESPONSE + 1))


def test_every_cut_response_is_malformed() -> None:
    data = response()
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            parse_ocsp(data[:length])
