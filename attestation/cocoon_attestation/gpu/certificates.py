"""Certificate chains of NVIDIA devices and manifest signers, checked by hand, and the device's FWID.

Generic path builders refuse these chains (no usual end-entity profile, dates of the year 9999), so the
rules are explicit: exact order, every issuer name and ECDSA P-384/SHA-384 signature, CA flags of every
issuer, end at a pinned root. Rules: docs/spec/gpu.md; DICE attestation architecture (TcbInfo).
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.x509_tools import load_der_chain, load_pem_chain

MAX_CHAIN: Final = 64 * 1024
MAX_CERTIFICATES: Final = 8
DEVICE_CHAIN_LENGTH: Final = 5
"""Signing key, device, provisioner, chip family, root."""

_OID_FWID_HOPPER: Final = x509.ObjectIdentifier("2.23.133.5.4.1")
_OID_FWID_BLACKWELL: Final = x509.ObjectIdentifier("2.23.133.5.4.1.1")
_OID_SHA384: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.2")
_LEAF_NAME: Final = re.compile(r"([A-Z0-9_]{2,12}) [A-Z0-9]{1,8} (GSP|FSP) FMC LF")
_DEVICE_NAME: Final = re.compile(r"([A-Z0-9_]{2,12}) [A-Z0-9]{1,8} (GSP|FSP) BROM")


@asn1.sequence
class _Fwid:
    algorithm: x509.ObjectIdentifier
    digest: bytes


@asn1.sequence
class _CompositeDeviceId:
    version: int
    public_key: asn1.TLV
    fwid: _Fwid


@asn1.sequence
class _DiceTcbInfo:
    vendor: Annotated[str | None, asn1.Implicit(0)]
    model: Annotated[str | None, asn1.Implicit(1)]
    version: Annotated[str | None, asn1.Implicit(2)]
    svn: Annotated[int | None, asn1.Implicit(3)]
    layer: Annotated[int | None, asn1.Implicit(4)]
    index: Annotated[int | None, asn1.Implicit(5)]
    fwids: Annotated[list[_Fwid], asn1.Implicit(6)]
    flags: Annotated[asn1.BitString | None, asn1.Implicit(7)]
    vendor_info: Annotated[bytes | None, asn1.Implicit(8)]
    type: Annotated[bytes | None, asn1.Implicit(9)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """What the certificate chain says about a device; authentic once the chain is verified."""

    chip: str
    """Chip name, for example ``GH100``, ``GB100`` or ``LS_10``."""
    serial: str
    """Serial number of the device certificate in hex: unique for each chip."""
    fwid: bytes | None
    """48-byte firmware digest certified with the signing key; None if the leaf has none."""


def parse_pem_chain(pem: bytes | str) -> tuple[x509.Certificate, ...]:
    """Read a PEM chain, leaf first, of at most 8 certificates and 64 KiB.

    Raises:
        MalformedError: too long, empty, or not PEM.
    """
    return load_pem_chain(pem, max_bytes=MAX_CHAIN, max_count=MAX_CERTIFICATES)


def parse_der_chain(ders: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """Read certificates in DER form, leaf first, with the limits of `parse_pem_chain`.

    Raises:
        MalformedError: too many, too long, or one does not decode.
    """
    return load_der_chain(ders, max_bytes=MAX_CHAIN, max_count=MAX_CERTIFICATES)


def chain_problem(chain: Sequence[x509.Certificate], roots: Collection[bytes]) -> str | None:
    """Say why `chain` (leaf first, root last) does not lead to one of `roots` (DER), or None."""
    if len(chain) < 2 or chain[-1].public_bytes(Encoding.DER) not in roots:
        return "the chain does not end at a trusted root"
    for position, (child, issuer) in enumerate(pairwise(chain)):
        if (problem := _link_problem(child, issuer, position)) is not None:
            return problem
    if _is_ca(chain[0]):
        return "the signing certificate is a certificate authority"
    return None


@functools.lru_cache(maxsize=512)
def _link_problem(child: x509.Certificate, issuer: x509.Certificate, position: int) -> str | None:
    """Why `issuer` did not issue `child`, which has this position in its chain. Pure, like `signature_valid`."""
    if child.issuer != issuer.subject:
        return f"certificate {position} is not issued by certificate {position + 1}"
    if not _may_sign(issuer, position):
        return f"certificate {position + 1} may not issue certificates at this place"
    if not signature_valid(child, issuer):
        return f"the signature of certificate {position} is wrong"
    return None


def dates_problem(chain: Sequence[x509.Certificate], at: dt.datetime) -> str | None:
    """Say which certificate is not valid at `at`, or None."""
    for position, certificate in enumerate(chain):
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start <= at <= end:
            return f"certificate {position} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d} only"
    return None


@functools.lru_cache(maxsize=512)
def signature_valid(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    """True if `issuer` signed `child` with ECDSA P-384 and SHA-384.

    A pure function of two certificates, compared by all their bytes. The devices of one machine share most
    of their chains, so the answers are kept.
    """
    key = p384_key(issuer)
    if key is None or child.signature_algorithm_oid != x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        return False
    try:
        key.verify(child.signature, child.tbs_certificate_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def p384_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey | None:
    """The public key of `certificate` if it is on P-384."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    return None


def device_identity(chain: Sequence[x509.Certificate]) -> DeviceIdentity:
    """Read chip, serial number and FWID of a device chain. Verify the chain before trusting them.

    Raises:
        MalformedError: not five certificates, or names and FWID not in NVIDIA's form.
    """
    if len(chain) != DEVICE_CHAIN_LENGTH:
        raise MalformedError(f"a device chain has {DEVICE_CHAIN_LENGTH} certificates")
    leaf = _LEAF_NAME.fullmatch(_common_name(chain[0]))
    device = _DEVICE_NAME.fullmatch(_common_name(chain[1]))
    if leaf is None or device is None or leaf[1] != device[1]:
        raise MalformedError("the device certificates do not name one NVIDIA chip")
    return DeviceIdentity(chip=device[1], serial=f"{chain[1].serial_number:x}", fwid=_leaf_fwid(chain[0]))


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise MalformedError("a device certificate needs one common name")
    return names[0].value


def _leaf_fwid(leaf: x509.Certificate) -> bytes | None:
    found = [
        extension
        for extension in leaf.extensions
        if extension.oid in (_OID_FWID_HOPPER, _OID_FWID_BLACKWELL)
    ]
    if not found:
        return None
    if len(found) > 1 or not isinstance(found[0].value, x509.UnrecognizedExtension):
        raise MalformedError("the signing certificate has more than one firmware identity")
    raw = found[0].value.value
    try:
        if found[0].oid == _OID_FWID_HOPPER:
            fwid = asn1.decode_der(_CompositeDeviceId, raw).fwid
        else:
            fwid = asn1.decode_der(_DiceTcbInfo, raw).fwids[0]
    except (ValueError, IndexError) as error:
        raise MalformedError("the firmware identity of the signing certificate does not decode") from error
    if fwid.algorithm != _OID_SHA384 or len(fwid.digest) != 48:
        raise MalformedError("the firmware identity is not a SHA-384 digest")
    return fwid.digest


def _may_sign(issuer: x509.Certificate, below: int) -> bool:
    """CA flag, certificate signing, and a path length that allows `below` CAs under the issuer."""
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    if constraints.path_length is not None and below > constraints.path_length:
        return False
    return constraints.ca and usage.key_cert_sign


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
