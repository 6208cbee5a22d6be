"""Reads NVIDIA's reference integrity manifests (RIM): signed SWID tags with expected measurements.

Needs `lxml` and `signxml` (extra ``gpu``). The document is parsed without DTD, entities or network;
the signer's chain is checked against a pinned root by our own rules; then the XML signature is
verified with that signer, with fixed algorithms and one reference to the whole document; and values
are read only from the element that the signature library returns, never from the input
(XML signature wrapping). Sources: ISO/IEC 19770-2, TCG RIM information model, W3C XML Signature 1.1.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509

from cocoon_attestation.errors import MalformedError, UnsupportedError
from cocoon_attestation.gpu.certificates import chain_problem, dates_problem, parse_der_chain

MAX_RIM: Final = 256 * 1024
MAX_INDEX: Final = 256
MAX_ALTERNATIVES: Final = 64
NVIDIA_MANUFACTURER_ID: Final = "5703"
"""IANA enterprise number of NVIDIA."""

_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_HASH: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_RIM: Final = (
    "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
)
_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_MEASUREMENT_SIZE: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Rim:
    """A manifest whose signature was verified by `verify_rim`."""

    chip: str
    """Name of the tag, for example ``GH100``."""
    version: str
    """Driver or VBIOS version the manifest describes."""
    active: Mapping[int, tuple[bytes, ...]]
    """Allowed 48-byte values by index (SPDM block number minus one), active entries only."""
    chain: tuple[x509.Certificate, ...]
    """The signer's chain, for the revocation check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedRim:
    """A parsed document with its certificates. Values are read from what `verify_rim` returns, never from here."""

    root: Any
    """The document, as `lxml` read it."""
    claimed_name: str
    """Name of the tag. Nobody vouches for it: it may sort manifests and nothing else."""
    chain: tuple[x509.Certificate, ...]


def parse_rim(data: bytes) -> UnverifiedRim:
    """Parse a manifest of at most 256 KiB.

    Raises:
        MalformedError: not such a document, a DTD or entity in it, or no certificates.
        UnsupportedError: the extra ``gpu`` is not installed.
    """
    etree = _module("lxml.etree")
    data = bytes(data)
    if len(data) > MAX_RIM:
        raise MalformedError("a manifest is too long")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedError("a manifest is not XML") from error
    document = root.getroottree().docinfo
    if document.internalDTD is not None or document.doctype:
        raise MalformedError("a manifest must not have a document type")
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise MalformedError("a manifest is a SoftwareIdentity tag")
    if next(root.iter(etree.Comment, etree.PI, etree.Entity), None) is not None:
        raise MalformedError("comments, entities and instructions have no place in a manifest")
    path = f"./{_DS}Signature/{_DS}KeyInfo/{_DS}X509Data/{_DS}X509Certificate"
    try:
        ders = [
            base64.b64decode("".join((e.text or "").split()), validate=True) for e in root.findall(path)
        ]
    except (binascii.Error, ValueError) as error:
        raise MalformedError("a certificate of a manifest is not base64") from error
    return UnverifiedRim(root=root, claimed_name=root.get("name", ""), chain=parse_der_chain(ders))


def rim_chain_problem(
    chain: Sequence[x509.Certificate], roots: Collection[bytes], at: dt.datetime
) -> str | None:
    """Say why the signer of a manifest with this `chain` is not trusted at `at`, or None."""
    return chain_problem(chain, roots) or dates_problem(chain, at)


def verify_rim(rim: UnverifiedRim) -> Rim | str:
    """Verify the XML signature with the first certificate of the chain and read the signed values.

    Check the chain and its dates with `rim_chain_problem`: a good signature of an untrusted or expired
    signer means nothing. Returns a sentence if the signature is wrong.

    Raises:
        MalformedError: the signed document is not a manifest of measurements.
        UnsupportedError: the extra ``gpu`` is not installed.
    """
    signxml, exceptions = _module("signxml"), _module("signxml.exceptions")
    verifier = signxml.XMLVerifier()
    # The library would parse again: it shall judge the very tree that `parse_rim` accepted.
    verifier.get_root = lambda root: root
    config = signxml.SignatureConfiguration(
        location="./",
        expect_references=1,
        signature_methods=frozenset({signxml.SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({signxml.DigestAlgorithm.SHA384}),
        # The library insists on a date check; the real one, with the real time, is ours.
        verification_time=rim.chain[0].not_valid_before_utc,
    )
    try:
        result = verifier.verify(rim.root, x509_cert=rim.chain[0], expect_config=config)
    except exceptions.SignXMLException as error:
        return f"the XML signature is wrong ({type(error).__name__})"
    except Exception as error:  # `signxml` lets errors of lxml and of key parsing through
        return f"the XML signature cannot be checked ({type(error).__name__})"
    signed = result.signed_xml
    if signed is None or signed.tag != f"{_SWID}SoftwareIdentity":
        return "the signature does not cover the whole manifest"
    return _read(signed, rim.chain)


def _read(signed: Any, chain: tuple[x509.Certificate, ...]) -> Rim:
    meta = _only(signed, f"{_SWID}Meta")
    payload = _only(signed, f"{_SWID}Payload")
    if meta.get(f"{_RIM}FirmwareManufacturerId") != NVIDIA_MANUFACTURER_ID:
        raise MalformedError("a manifest is not from NVIDIA")
    active: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in payload.findall(f"{_SWID}Resource"):
        if resource.get("type") != "Measurement":
            raise MalformedError("a manifest entry is not a measurement")
        index = _number(resource.get("index"), MAX_INDEX)
        if index in seen:
            raise MalformedError(f"manifest entry {index} is repeated")
        seen.add(index)
        state = resource.get("active")
        if state not in ("True", "False"):
            raise MalformedError("a manifest entry is neither active nor inactive")
        if state == "True":
            active[index] = _values(resource)
    return Rim(
        chip=_attribute(signed, "name"),
        version=_attribute(meta, "colloquialVersion"),
        active=MappingProxyType(active),
        chain=chain,
    )


def _values(resource: Any) -> tuple[bytes, ...]:
    count = _number(resource.get("alternatives"), MAX_ALTERNATIVES)
    if count < 1 or _number(resource.get("size"), _MEASUREMENT_SIZE) != _MEASUREMENT_SIZE:
        raise MalformedError("a manifest entry has no value or another size than 48")
    hashes = sum(1 for name in resource.attrib if name.startswith(_HASH))
    if hashes != count:
        raise MalformedError("a manifest entry has another number of values than it says")
    values = []
    for i in range(count):
        text = resource.get(f"{_HASH}{i}")
        try:
            value = bytes.fromhex(text or "")
        except ValueError as error:
            raise MalformedError("a manifest value is not hex") from error
        if len(value) != _MEASUREMENT_SIZE:
            raise MalformedError("a manifest value has not 48 bytes")
        values.append(value)
    return tuple(values)


def _only(parent: Any, tag: str) -> Any:
    found = parent.findall(tag)
    if len(found) != 1:
        raise MalformedError("a manifest has a missing or repeated element")
    return found[0]


def _attribute(element: Any, name: str) -> str:
    value = element.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or not value.isprintable():
        raise MalformedError(f"a manifest has no usable {name}")
    return value


def _number(text: str | None, limit: int) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 4 or int(text) > limit:
        raise MalformedError("a manifest number is missing or out of range")
    return int(text)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnsupportedError(
            "GPU reference manifests need the packages lxml and signxml",
            hint="pip install 'cocoon-network[gpu]'",
        ) from error
