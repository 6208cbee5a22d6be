"""Endorsement of an SNP report: VCEK or VLEK certificate, its chain to a pinned ARK, and the CRL.

Rules: AMD publications 57230 (VCEK and KDS) and 56860; RFC 5280. The chain is always
leaf -> ASK or ASVK -> ARK, every signature RSA-PSS with SHA-384, MGF1-SHA-384 and 48 bytes of salt.
The leaf is decoded here and not by the X.509 loader, because AMD gives all leaves the serial 0, which
RFC 5280 forbids and the loader is about to refuse.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.roots.amd import amd_intermediates
from cocoon_attestation.snp.policy import SnpRoot
from cocoon_attestation.snp.report import Product, SigningKey, TcbVersion

MAX_CERTIFICATE: Final = 8 * 1024
MAX_CHAIN: Final = 32 * 1024
MAX_CRL: Final = 64 * 1024
MIN_RSA_BITS: Final = 2048

_OID_PREFIX: Final = "1.3.6.1.4.1.3704.1"
_OID_PRODUCT_NAME: Final = f"{_OID_PREFIX}.2"
_OID_BOOT_LOADER: Final = f"{_OID_PREFIX}.3.1"
_OID_TEE: Final = f"{_OID_PREFIX}.3.2"
_OID_SNP: Final = f"{_OID_PREFIX}.3.3"
_OID_MICROCODE: Final = f"{_OID_PREFIX}.3.8"
_OID_FMC: Final = f"{_OID_PREFIX}.3.9"
_OID_RESERVED_SPL: Final = tuple(f"{_OID_PREFIX}.3.{n}" for n in (4, 5, 6, 7))
_OID_HWID: Final = f"{_OID_PREFIX}.4"
_OID_CSP_ID: Final = f"{_OID_PREFIX}.5"
_HWID_SIZES: Final = (8, 64)
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


@asn1.sequence
class _Certificate:
    tbs: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.BitString


@asn1.sequence
class _Validity:
    not_before: asn1.UTCTime | asn1.GeneralizedTime
    not_after: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Attribute:
    oid: x509.ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class _TbsCertificate:
    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    algorithm: asn1.TLV
    issuer: asn1.TLV
    validity: _Validity
    subject: list[asn1.SetOf[_Attribute]]
    public_key: asn1.TLV
    extensions: Annotated[list[_Extension], asn1.Explicit(3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpLeaf:
    """A decoded VCEK or VLEK certificate. Its signature is checked by `verify_chain`."""

    kind: SigningKey
    product_name: str
    """Text of the product name extension, for example ``Milan-B0``."""
    tcb: TcbVersion
    has_fmc: bool
    hwid: bytes | None
    """8 or 64 bytes; None in a VLEK certificate."""
    csp_id: str | None
    """Cloud provider; None in a VCEK certificate."""
    serial: int
    issuer: bytes
    not_before: dt.datetime
    not_after: dt.datetime
    public_key: ec.EllipticCurvePublicKey
    tbs: bytes
    signature: bytes
    algorithm: bytes


def parse_leaf(der: bytes) -> SnpLeaf:
    """Decode a VCEK or VLEK certificate in DER form, at most 8 KiB.

    Raises:
        MalformedError: not such a certificate, an unknown critical extension, a P-384 key missing,
            or an AMD extension that is missing, doubled or out of range.
    """
    if len(der) > MAX_CERTIFICATE:
        raise MalformedError("the SNP certificate is too long")
    try:
        outer = asn1.decode_der(_Certificate, bytes(der))
        tbs_bytes = _whole(outer.tbs)
        tbs = asn1.decode_der(_TbsCertificate, tbs_bytes)
        key = serialization.load_der_public_key(_whole(tbs.public_key))
        subject = _common_name(tbs.subject)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedError("the SNP certificate does not decode") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise MalformedError("the SNP certificate has no P-384 key")
    same_algorithm = _whole(tbs.algorithm) == _whole(outer.algorithm)
    if tbs.version != 2 or outer.signature.padding_bits() or not same_algorithm:
        raise MalformedError("the SNP certificate is not an X.509 version 3 certificate")
    kinds = {"SEV-VCEK": SigningKey.VCEK, "SEV-VLEK": SigningKey.VLEK}
    if subject not in kinds:
        raise MalformedError("the subject of the SNP certificate is neither SEV-VCEK nor SEV-VLEK")
    values = _extensions(tbs.extensions)
    return SnpLeaf(
        kind=kinds[subject],
        product_name=_text(values, _OID_PRODUCT_NAME) or "",
        tcb=_leaf_tcb(values),
        has_fmc=_OID_FMC in values,
        hwid=_hwid(values.get(_OID_HWID)),
        csp_id=_text(values, _OID_CSP_ID),
        serial=tbs.serial,
        issuer=_whole(tbs.issuer),
        not_before=tbs.validity.not_before.as_datetime(),
        not_after=tbs.validity.not_after.as_datetime(),
        public_key=key,
        tbs=tbs_bytes,
        signature=outer.signature.as_bytes(),
        algorithm=bytes(outer.algorithm.data),
    )


def parse_issuers(pem: bytes | str) -> tuple[x509.Certificate, ...]:
    """Read the issuer certificates that came with the evidence, nearest first; may be empty.

    Raises:
        MalformedError: longer than 32 KiB, more than two certificates, or not PEM.
    """
    data = pem.encode() if isinstance(pem, str) else bytes(pem)
    if len(data) > MAX_CHAIN:
        raise MalformedError("the SNP certificate chain is too long")
    if not data.strip():
        return ()
    try:
        chain = tuple(x509.load_pem_x509_certificates(data))
    except (ValueError, TypeError) as error:
        raise MalformedError("the SNP certificate chain is not PEM") from error
    if len(chain) > 2:
        raise MalformedError("an SNP chain has one intermediate and one root")
    return chain


def parse_crl(data: bytes) -> x509.CertificateRevocationList:
    """Read a revocation list in DER or PEM form, at most 64 KiB.

    Raises:
        MalformedError: too long, or not a revocation list.
    """
    if len(data) > MAX_CRL:
        raise MalformedError("the SNP revocation list is too long")
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_crl(bytes(data))
        return x509.load_der_x509_crl(bytes(data))
    except (ValueError, TypeError) as error:
        raise MalformedError("the SNP revocation list does not decode") from error


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
    published = [x509.load_der_x509_certificate(der) for der in amd_intermediates()]
    candidates = [
        c
        for c in (*issuers, *published)
        if c.subject.public_bytes() == leaf.issuer and c.subject != c.issuer
    ]
    if not candidates:
        return "no intermediate certificate with the name of the leaf's issuer"
    reason = "the chain does not lead to a trusted root"
    for intermediate in candidates:
        for root in roots:
            ark = x509.load_der_x509_certificate(root.der)
            if intermediate.issuer != ark.subject:
                continue
            problem = _ca_problem(intermediate, ark, leaf)
            if problem is None:
                return Endorsement(root=root, ark=ark, intermediate=intermediate)
            reason = problem
    return reason


def _ca_problem(intermediate: x509.Certificate, ark: x509.Certificate, leaf: SnpLeaf) -> str | None:
    name = intermediate.subject.rfc4514_string()
    if leaf.kind is SigningKey.VLEK and "CN=SEV-VLEK-" not in name:
        return "a VLEK must be issued by an ASVK"
    if leaf.kind is SigningKey.VCEK and "CN=SEV-VLEK-" in name:
        return "a VCEK must be issued by an ASK"
    if not _may_sign_certificates(intermediate):
        return "the intermediate is not a certificate authority"
    parent, child = ark.public_key(), intermediate.public_key()
    for key in (parent, child):
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_RSA_BITS:
            return "an issuer key is not RSA or too short"
    if not _pss_valid(parent, intermediate.signature, intermediate.tbs_certificate_bytes):
        return "the intermediate is not signed by the trusted root"
    if leaf.algorithm not in (_PSS_ALGORITHM, _PSS_ALGORITHM_TRAILER):
        return "the leaf names another signature algorithm than RSA-PSS with SHA-384"
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


def _whole(tlv: asn1.TLV) -> bytes:
    """The full encoding of a DER element: tag, minimal length, content."""
    content = bytes(tlv.data)
    size = len(content)
    if size < 0x80:
        header = bytes([size])
    else:
        width = (size.bit_length() + 7) // 8
        header = bytes([0x80 | width]) + size.to_bytes(width, "big")
    return bytes(tlv.tag_bytes) + header + content


def _common_name(name: list[asn1.SetOf[_Attribute]]) -> str:
    found = [
        bytes(attribute.value.data)
        for part in name
        for attribute in part.as_list()
        if attribute.oid == NameOID.COMMON_NAME
    ]
    if len(found) != 1:
        raise MalformedError("the SNP certificate needs one common name")
    return found[0].decode("ascii")


def _extensions(extensions: list[_Extension]) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for extension in extensions:
        oid = extension.oid.dotted_string
        if oid in values:
            raise MalformedError(f"extension {oid} is present twice")
        if extension.critical:
            raise MalformedError(f"critical extension {oid} is not known")
        values[oid] = extension.value
    return values


def _leaf_tcb(values: dict[str, bytes]) -> TcbVersion:
    for oid in _OID_RESERVED_SPL:
        if oid in values and _level(values, oid) != 0:
            raise MalformedError("a reserved security patch level is not zero")
    return TcbVersion(
        fmc=_level(values, _OID_FMC) if _OID_FMC in values else 0,
        boot_loader=_level(values, _OID_BOOT_LOADER),
        tee=_level(values, _OID_TEE),
        snp=_level(values, _OID_SNP),
        microcode=_level(values, _OID_MICROCODE),
    )


def _level(values: dict[str, bytes], oid: str) -> int:
    raw = values.get(oid)
    if raw is None:
        raise MalformedError(f"extension {oid} is missing")
    try:
        level = asn1.decode_der(int, raw)
    except ValueError as error:
        raise MalformedError(f"extension {oid} is not an integer") from error
    if not 0 <= level <= 255:
        raise MalformedError(f"extension {oid} is not a byte")
    return level


def _text(values: dict[str, bytes], oid: str) -> str | None:
    raw = values.get(oid)
    if raw is None:
        return None
    try:
        return asn1.decode_der(asn1.IA5String, raw).as_str()
    except ValueError as error:
        raise MalformedError(f"extension {oid} is not a text") from error


def _hwid(raw: bytes | None) -> bytes | None:
    """The chip id: 8 or 64 raw bytes, or the same inside a DER OCTET STRING; nothing else."""
    if raw is None:
        return None
    if len(raw) in _HWID_SIZES:
        return raw
    for size in _HWID_SIZES:
        if len(raw) == size + 2 and raw[0] == 0x04 and raw[1] == size:
            return raw[2:]
    raise MalformedError("the chip id of the SNP certificate has a wrong form")
