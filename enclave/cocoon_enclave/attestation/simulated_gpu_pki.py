"""Certificates and revocation answers of the simulated GPU vendor, in NVIDIA's form.

Every name says SIMULATED; the roots are development roots that a policy must name. See docs/spec/gpu.md.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Random = Callable[[int], bytes]
"""Source of randomness: number of bytes -> bytes, like `secrets.token_bytes`."""

ORGANIZATION: Final = "Cocoon Development (SIMULATED, no hardware security)"
FOREVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
_OID_FWID_HOPPER: Final = "2.23.133.5.4.1"
_OID_FWID_BLACKWELL: Final = "2.23.133.5.4.1.1"
_DER_SHA384: Final = bytes.fromhex("0609608648016503040202")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        """The subject only: the key is secret."""
        return f"Signer({self.certificate.subject.rfc4514_string()!r})"

    @property
    def der(self) -> bytes:
        """The certificate in DER form."""
        return self.certificate.public_bytes(Encoding.DER)


def seeded_random(seed: bytes) -> Random:
    """Reproducible bytes from `seed`: the same roots at every start of a development network.

    Whoever knows the seed owns the simulated vendor. Never use it outside a simulation.
    """
    counter = itertools.count()
    return lambda size: hashlib.shake_256(seed + next(counter).to_bytes(8, "big")).digest(size)


def new_key(rng: Random) -> ec.EllipticCurvePrivateKey:
    """A P-384 key from 72 random bytes (FIPS 186-5, A.2.1: extra random bits)."""
    secret = int.from_bytes(rng(72), "big") % (_P384_ORDER - 1) + 1
    return ec.derive_private_key(secret, ec.SECP384R1())


def make_authority(
    name: str, parent: Signer | None, *, start: datetime, rng: Random, serial: int | None = None
) -> Signer:
    """A certificate authority below `parent`, or a self-signed root; it never expires."""
    key = new_key(rng)
    builder = _builder(name, key, parent, start=start, end=FOREVER, rng=rng, serial=serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    return _signed(builder, key, parent)


def make_signer(
    name: str,
    parent: Signer,
    *,
    start: datetime,
    end: datetime = FOREVER,
    rng: Random,
    fwid: bytes | None = None,
    blackwell: bool = False,
    ocsp_signing: bool = False,
) -> Signer:
    """An end certificate: a device's signing key (with `fwid`), a manifest signer or a responder."""
    key = new_key(rng)
    builder = _builder(name, key, parent, start=start, end=end, rng=rng)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    if ocsp_signing:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
        builder = builder.add_extension(usage, critical=False)
    if fwid is not None:
        oid = _OID_FWID_BLACKWELL if blackwell else _OID_FWID_HOPPER
        value = _tcb_info(fwid) if blackwell else _composite_id(key, fwid)
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
        )
    return _signed(builder, key, parent)


def make_ocsp_response(
    certificate: x509.Certificate,
    issuer: Signer,
    responder: Signer,
    *,
    nonce: bytes | None,
    at: datetime,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    hours: int = 24,
) -> bytes:
    """A DER response about `certificate`, signed by `responder`."""
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=certificate,
            issuer=issuer.certificate,
            algorithm=hashes.SHA384(),
            cert_status=status,
            this_update=at - timedelta(hours=1),
            next_update=at + timedelta(hours=hours),
            revocation_time=at - timedelta(days=1) if revoked else None,
            revocation_reason=reason if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
        .certificates([responder.certificate])
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.sign(responder.key, hashes.SHA384()).public_bytes(Encoding.DER)


def chain_pem(chain: Sequence[Signer]) -> bytes:
    """The certificates in PEM, in the given order."""
    return b"".join(signer.certificate.public_bytes(Encoding.PEM) for signer in chain)


def _builder(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    parent: Signer | None,
    *,
    start: datetime,
    end: datetime,
    rng: Random,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.certificate.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(serial if serial is not None else int.from_bytes(rng(16), "big") >> 1 | 1)
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, parent: Signer | None
) -> Signer:
    certificate = builder.sign(parent.key if parent else key, hashes.SHA384(), ecdsa_deterministic=True)
    return Signer(certificate=certificate, key=key)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _composite_id(key: ec.EllipticCurvePrivateKey, fwid: bytes) -> bytes:
    """Hopper's FWID extension: SEQUENCE {1, public key info, SEQUENCE {sha384, FWID}}."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _der(0x30, b"\x02\x01\x01" + spki + _fwid(fwid))


def _tcb_info(fwid: bytes) -> bytes:
    """Blackwell's: DICE TcbInfo, vendor [0], model [1], version [2], svn [3], layer, index, fwids [6]."""
    return _der(
        0x30,
        _der(0x80, b"NVIDIA")
        + _der(0x81, b"SIMULATED")
        + _der(0x82, b"01")
        + _der(0x83, b"\x01")
        + _der(0x84, b"\x00")
        + _der(0x85, b"\x00")
        + _der(0xA6, _fwid(fwid) + _fwid(bytes(48))),
    )


def _fwid(fwid: bytes) -> bytes:
    return _der(0x30, _DER_SHA384 + _der(0x04, fwid))


def _der(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content
