"""The public-key infrastructure of the simulated TEE: certificates, revocation lists, raw signatures.

Everything has the exact form of Intel's so that the one verifier of this project checks it, and every
name says that it is a simulation. The formats are those of Intel's "PCK Certificate and CRL
Specification". See docs/spec/simulated-tee.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

Random = Callable[[int], bytes]
"""Source of randomness: number of bytes -> bytes, like `secrets.token_bytes`."""

ORGANIZATION: Final = "Cocoon Development (SIMULATED, no hardware security)"
ROOT_NAME: Final = "SIMULATED Cocoon Development Root CA"
PLATFORM_CA_NAME: Final = "SIMULATED Development stand-in for Intel SGX PCK Platform CA"
PCK_NAME: Final = "SIMULATED Cocoon Development PCK Certificate"
TCB_SIGNER_NAME: Final = "SIMULATED Cocoon Development TCB Signing"

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        """The subject only: the key is secret."""
        return f"Issuer({self.certificate.subject.rfc4514_string()!r})"

    @property
    def pem(self) -> str:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformTcb:
    """Security version numbers of the simulated platform."""

    fmspc: bytes = bytes.fromhex("c0c000000000")
    """6 bytes: platform family; none of Intel's."""
    pce_id: bytes = bytes(2)
    sgx_components: tuple[int, ...] = (3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0)
    """16 component SVNs in the PCK certificate."""
    pce_svn: int = 13
    tee_tcb_svn: tuple[int, ...] = (5, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    """16 bytes of TEE_TCB_SVN: module SVN 5, module major version 1, loader SVN 4."""


def new_key(rng: Random) -> ec.EllipticCurvePrivateKey:
    """A P-256 key from 48 random bytes (FIPS 186-5, A.2.1: extra random bits)."""
    secret = int.from_bytes(rng(48)) % (_P256_ORDER - 1) + 1
    return ec.derive_private_key(secret, ec.SECP256R1())


def sign_raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as 64 bytes r ‖ s."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def raw_public_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Public key as 64 bytes x ‖ y."""
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32) + numbers.y.to_bytes(32)


def make_ca(
    name: str,
    *,
    parent: Issuer | None,
    path_length: int,
    now: int,
    years: int,
    rng: Random,
    extra: Sequence[x509.UnrecognizedExtension] = (),
) -> Issuer:
    """A certificate authority below `parent`, or a self-signed root; `extra` extensions are not critical."""
    key = new_key(rng)
    usage = _key_usage(ca=True)
    builder = _builder(name, key, parent, now=now, years=years, rng=rng)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(usage, critical=True)
    for extension in extra:
        builder = builder.add_extension(extension, critical=False)
    return _signed(builder, key, parent)


def make_leaf(
    name: str, *, parent: Issuer, now: int, years: int, rng: Random, sgx_extension: bytes = b""
) -> Issuer:
    """An end certificate below `parent`; a PCK certificate if `sgx_extension` is given."""
    key = new_key(rng)
    builder = _builder(name, key, parent, now=now, years=years, rng=rng)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(ca=False), critical=True)
    if sgx_extension:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX_EXTENSION), sgx_extension)
        builder = builder.add_extension(extension, critical=False)
    return _signed(builder, key, parent)


def make_crl(issuer: Issuer, *, now: int, days: int, revoked: Sequence[int] = ()) -> bytes:
    """A DER revocation list of `issuer` that names the serial numbers `revoked`."""
    moment = moment_of(now)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(moment)
        .next_update(moment + timedelta(days=days))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(_authority(issuer), critical=False)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def sgx_extension(*, ppid: bytes, instance_id: bytes, tcb: PlatformTcb) -> bytes:
    """The SGX extension of a PCK certificate (OID 1.2.840.113741.1.13.1), DER.

    Args:
        ppid: platform provisioning id, 16 bytes.
        instance_id: platform instance id, 16 bytes.
        tcb: security version numbers.
    """
    components = [_entry(f"2.{index}", _integer(svn)) for index, svn in enumerate(tcb.sgx_components, 1)]
    components.append(_entry("2.17", _integer(tcb.pce_svn)))
    components.append(_entry("2.18", _der(0x04, bytes(tcb.sgx_components))))
    boolean_true, boolean_false = _der(0x01, b"\xff"), _der(0x01, b"\x00")
    # As on servers: a dynamic platform with hyper-threading, without cached keys.
    settings = [_entry("7.1", boolean_true), _entry("7.2", boolean_false), _entry("7.3", boolean_true)]
    return _sequence(
        _entry("1", _der(0x04, ppid)),
        _entry("2", _sequence(*components)),
        _entry("3", _der(0x04, tcb.pce_id)),
        _entry("4", _der(0x04, tcb.fmspc)),
        _entry("5", _der(0x0A, b"\x01")),
        _entry("6", _der(0x04, instance_id)),
        _entry("7", _sequence(*settings)),
    )


def _builder(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    parent: Issuer | None,
    *,
    now: int,
    years: int,
    rng: Random,
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )
    start = moment_of(now) - timedelta(hours=1)
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = (
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
        if parent is None
        else _authority(parent)
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if parent is None else parent.certificate.subject)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(rng(19)) | 1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * years))
        .add_extension(key_id, critical=False)
        .add_extension(authority, critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, parent: Issuer | None
) -> Issuer:
    signer = key if parent is None else parent.key
    return Issuer(certificate=builder.sign(signer, hashes.SHA256()), key=key)


def _authority(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    extension = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=not ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def moment_of(now: int) -> datetime:
    """Unix time in seconds as an aware datetime."""
    return datetime.fromtimestamp(now, UTC)


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    width = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | width]) + length.to_bytes(width) + content


def _sequence(*items: bytes) -> bytes:
    return _der(0x30, b"".join(items))


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _entry(suffix: str, value: bytes) -> bytes:
    """SEQUENCE { OID of the SGX extension . suffix, value }."""
    return _sequence(_oid(f"{_SGX_EXTENSION}.{suffix}"), value)


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = bytearray([40 * first + second])
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        content.extend(reversed(groups))
    return _der(0x06, bytes(content))
