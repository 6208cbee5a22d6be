"""Decoder of VCEK and VLEK certificates (AMD publication 57230).

The leaf is decoded here and not by the X.509 loader, because AMD gives all leaves the serial number 0,
which RFC 5280 forbids and the loader is about to refuse.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.snp.report import SigningKey, TcbVersion

MAX_CERTIFICATE: Final = 8 * 1024

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
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm) as error:
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


def signature_algorithm(der: bytes) -> bytes:
    """Content of the AlgorithmIdentifier beside the signature of a certificate in DER form.

    Raises:
        ValueError: not a certificate.
    """
    return bytes(asn1.decode_der(_Certificate, der).algorithm.data)


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
