"""Intel's collateral: TCB info, QE identity, revocation lists and their certificate chains.

Parsing only. What is read here is authenticated in `verify` before anything depends on it. Field
meanings: Intel "PCS API v4", TCB info version 3 and QE identity version 2.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.evidence import MAX_CHAIN, MAX_CRL, MAX_SIGNED_JSON, TdxCollateralBytes
from cocoon_attestation.types import exact_bytes

MAX_CHAIN_LENGTH: Final = 4
"""Most certificates in one chain."""
MAX_COLLATERAL: Final = 4 << 20
"""Longest JSON file in bytes."""
_PEM: Final = b"-----BEGIN"
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)
_TEXT_LIMITS: Final = {
    "pck_crl_issuer_chain": MAX_CHAIN,
    "tcb_info_issuer_chain": MAX_CHAIN,
    "tcb_info": MAX_SIGNED_JSON,
    "qe_identity_issuer_chain": MAX_CHAIN,
    "qe_identity": MAX_SIGNED_JSON,
}
_HEX_LIMITS: Final = {
    "root_ca_crl": MAX_CRL,
    "pck_crl": MAX_CRL,
    "tcb_info_signature": 64,
    "qe_identity_signature": 64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedStatement:
    """What TCB info and QE identity have in common."""

    id: str
    version: int
    issue_date: int
    """Unix time in seconds."""
    next_update: int
    """Unix time in seconds."""
    evaluation: int
    """tcbEvaluationDataNumber: grows with every TCB recovery."""
    text: bytes
    """The exact signed JSON."""
    signature: bytes
    """64 bytes, r ‖ s."""
    chain: tuple[x509.Certificate, ...]
    """Signer first, root last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo(SignedStatement):
    """TCB levels of one platform family."""

    fmspc: bytes
    """6 bytes."""
    pce_id: bytes
    """2 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity(SignedStatement):
    """Which quoting enclave is Intel's."""

    miscselect: int
    miscselect_mask: int
    attributes: bytes
    """16 bytes."""
    attributes_mask: bytes
    """16 bytes."""
    mrsigner: bytes
    """32 bytes."""
    isv_prod_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A certificate revocation list."""

    issuer: x509.Name
    this_update: int
    """Unix time in seconds."""
    next_update: int
    """Unix time in seconds."""
    der: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Everything that is needed to judge a quote, apart from the root."""

    source: TdxCollateralBytes
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    root_crl: RevocationList
    pck_crl: RevocationList
    pck_crl_chain: tuple[x509.Certificate, ...]

    @property
    def expires_at(self) -> int:
        """Earliest next update of the four statements, Unix time in seconds."""
        statements = (self.tcb_info, self.qe_identity, self.root_crl, self.pck_crl)
        return min(statement.next_update for statement in statements)


def load_collateral(data: bytes) -> TdxCollateralBytes:
    """Read a JSON object with the nine fields of QuoteCollateralV3: texts, and bytes in hex.

    Other fields are ignored: everything that counts is signed. A revocation list may also be PEM, as text
    or in hex, which some services give.

    Raises:
        MalformedError: larger than 4 MiB, not such an object, a field that is missing or too long, or bytes
            that are not hex.
    """
    if len(data) > MAX_COLLATERAL:
        raise MalformedError(f"collateral: at most {MAX_COLLATERAL} bytes expected")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedError("collateral: not UTF-8") from error
    fields = _Fields(_strict_json(text, "collateral"), "collateral")
    texts = {key: fields.bounded(key, limit) for key, limit in _TEXT_LIMITS.items()}
    blobs = {key: fields.blob(key, limit) for key, limit in _HEX_LIMITS.items()}
    for key in ("tcb_info_signature", "qe_identity_signature"):
        exact_bytes(blobs[key], 64, key)
    for key in ("root_ca_crl", "pck_crl"):
        blobs[key] = _list_der(blobs[key], f"collateral: {key}")
    return TdxCollateralBytes(
        pck_crl_issuer_chain=texts["pck_crl_issuer_chain"],
        root_ca_crl=blobs["root_ca_crl"],
        pck_crl=blobs["pck_crl"],
        tcb_info_issuer_chain=texts["tcb_info_issuer_chain"],
        tcb_info=texts["tcb_info"],
        tcb_info_signature=blobs["tcb_info_signature"],
        qe_identity_issuer_chain=texts["qe_identity_issuer_chain"],
        qe_identity=texts["qe_identity"],
        qe_identity_signature=blobs["qe_identity_signature"],
    )


def _list_der(data: bytes, what: str) -> bytes:
    """A revocation list in DER form; it may come as PEM."""
    if not data.lstrip().startswith(_PEM):
        return data
    try:
        return x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
    except Exception as error:  # third-party parser: whatever it says about the bytes, they are bad
        raise MalformedError(f"{what}: does not decode") from error


def parse_collateral(source: TdxCollateralBytes) -> Collateral:
    """Read collateral.

    Raises:
        MalformedError: JSON with duplicate keys or fields of another form, a certificate or list that
            does not decode, a chain that is empty or too long.
    """
    return Collateral(
        source=source,
        tcb_info=_tcb_info(source),
        qe_identity=_qe_identity(source),
        root_crl=_revocation_list(source.root_ca_crl, "root CRL"),
        pck_crl=_revocation_list(source.pck_crl, "PCK CRL"),
        pck_crl_chain=parse_chain(source.pck_crl_issuer_chain.encode("ascii"), "PCK CRL issuer chain"),
    )


def parse_chain(pem: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """Read a PEM chain of one to four certificates.

    Raises:
        MalformedError: it does not decode, or has too many certificates.
    """
    try:
        chain = tuple(_decoded(one) for one in x509.load_pem_x509_certificates(pem))
    except Exception as error:  # third-party parser: whatever it says about the bytes, they are bad
        raise MalformedError(f"{what}: certificates do not decode") from error
    if len(chain) > MAX_CHAIN_LENGTH:
        raise MalformedError(f"{what}: at most {MAX_CHAIN_LENGTH} certificates expected")
    return chain


@functools.lru_cache(maxsize=64)
def _decoded(certificate: x509.Certificate) -> x509.Certificate:
    """Decode what is read later, once for equal certificates: the chains of collateral share their roots."""
    certificate.public_key()
    _ = certificate.issuer, certificate.subject, certificate.public_bytes(Encoding.DER)
    return certificate


def _revocation_list(der: bytes, what: str) -> RevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        this_update, next_update = crl.last_update_utc, crl.next_update_utc
        issuer = crl.issuer
    except Exception as error:  # third-party parser: whatever it says about the bytes, they are bad
        raise MalformedError(f"{what}: does not decode") from error
    if next_update is None:
        raise MalformedError(f"{what}: has no next update")
    return RevocationList(
        issuer=issuer,
        this_update=int(this_update.timestamp()),
        next_update=int(next_update.timestamp()),
        der=der,
    )


def _tcb_info(source: TdxCollateralBytes) -> TcbInfo:
    fields = _Fields(_strict_json(source.tcb_info, "TCB info"), "TCB info")
    return TcbInfo(
        id=fields.text("id"),
        version=fields.number("version"),
        issue_date=fields.date("issueDate"),
        next_update=fields.date("nextUpdate"),
        evaluation=fields.number("tcbEvaluationDataNumber"),
        text=source.tcb_info.encode("ascii"),
        signature=source.tcb_info_signature,
        chain=parse_chain(source.tcb_info_issuer_chain.encode("ascii"), "TCB info chain"),
        fmspc=fields.hex("fmspc", 6),
        pce_id=fields.hex("pceId", 2),
    )


def _qe_identity(source: TdxCollateralBytes) -> QeIdentity:
    fields = _Fields(_strict_json(source.qe_identity, "QE identity"), "QE identity")
    return QeIdentity(
        id=fields.text("id"),
        version=fields.number("version"),
        issue_date=fields.date("issueDate"),
        next_update=fields.date("nextUpdate"),
        evaluation=fields.number("tcbEvaluationDataNumber"),
        text=source.qe_identity.encode("ascii"),
        signature=source.qe_identity_signature,
        chain=parse_chain(source.qe_identity_issuer_chain.encode("ascii"), "QE identity chain"),
        # Written as bytes in the order of the report, so little-endian like the report's field.
        miscselect=int.from_bytes(fields.hex("miscselect", 4), "little"),
        miscselect_mask=int.from_bytes(fields.hex("miscselectMask", 4), "little"),
        attributes=fields.hex("attributes", 16),
        attributes_mask=fields.hex("attributesMask", 16),
        mrsigner=fields.hex("mrsigner", 32),
        isv_prod_id=fields.number("isvprodid"),
    )


def _strict_json(text: str, what: str) -> Mapping[str, object]:
    """JSON without duplicate keys, NaN or endless nesting, whose top is an object."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(items)
        if len(table) != len(items):
            raise MalformedError(f"{what}: duplicate key")
        return table

    def constant(name: str) -> NoReturn:
        raise MalformedError(f"{what}: {name} is not JSON")

    try:
        document = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{what}: not JSON") from error
    if not isinstance(document, dict):
        raise MalformedError(f"{what}: object expected")
    return document


class _Fields:
    """Typed access to the fields of a JSON object."""

    __slots__ = ("_table", "_what")

    def __init__(self, table: Mapping[str, object], what: str) -> None:
        self._table = table
        self._what = what

    def text(self, key: str) -> str:
        value = self._table.get(key)
        if not isinstance(value, str):
            raise MalformedError(f"{self._what}: {key} must be text")
        return value

    def bounded(self, key: str, limit: int) -> str:
        """ASCII text of 1 to `limit` characters."""
        value = self.text(key)
        if not 1 <= len(value) <= limit or not value.isascii():
            raise MalformedError(f"{self._what}: {key} must be 1 to {limit} ASCII characters")
        return value

    def blob(self, key: str, limit: int) -> bytes:
        """1 to `limit` bytes in hex, or PEM text."""
        text = self.bounded(key, 2 * limit).strip()
        return (
            text.encode("ascii") if text.startswith(_PEM.decode()) else self._hex(key, text, len(text) // 2)
        )

    def number(self, key: str) -> int:
        value = self._table.get(key)
        if type(value) is not int or not 0 <= value < 2**31:
            raise MalformedError(f"{self._what}: {key} must be a small integer")
        return value

    def hex(self, key: str, length: int) -> bytes:
        return self._hex(key, self.text(key), length)

    def _hex(self, key: str, text: str, length: int) -> bytes:
        if len(text) != 2 * length or text.strip("0123456789abcdefABCDEF"):
            raise MalformedError(f"{self._what}: {key} must be {length} bytes in hex")
        return bytes.fromhex(text)

    def date(self, key: str) -> int:
        """Unix time of a date such as ``2026-05-20T01:16:27Z``."""
        text = self.text(key)
        if _DATE.fullmatch(text) is None:
            raise MalformedError(f"{self._what}: {key} must be a date in UTC")
        try:
            return int(datetime.fromisoformat(text).timestamp())
        except ValueError as error:
            raise MalformedError(f"{self._what}: {key} must be a date in UTC") from error
