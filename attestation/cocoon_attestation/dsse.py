"""DSSE envelopes with Ed25519: opaque bytes, a type, and signatures of several people.

Source: DSSE protocol and envelope, version 1.0 (secure-systems-lab/dsse). What is signed is the
pre-authentication encoding (`pae`) of type and payload, so nothing is ever encoded again to be checked.
Stricter than the source in one point: unknown members of the envelope are refused.
See docs/spec/releases.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.strict_json import parse_object
from cocoon_attestation.types import exact_bytes

MAX_ENVELOPE: Final = 256 * 1024
MAX_SIGNATURES: Final = 16
MAX_TYPE: Final = 128
SIGNATURE_SIZE: Final = 64
KEY_SIZE: Final = 32

_ENVELOPE_KEYS: Final = {"payload", "payloadType", "signatures"}
_URL_SAFE: Final = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature of an envelope; nothing about it is verified."""

    key_id: str
    """Hint for people; never used to choose a key."""
    signature: bytes
    """64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A parsed envelope. The payload means nothing before `signers` was asked."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: ``DSSEv1 LEN(type) type LEN(payload) payload``, lengths in decimal."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(public_key: bytes) -> str:
    """Name of an Ed25519 key (32 bytes) in envelopes and reports: SHA-256 of the key in hex.

    Raises:
        MalformedError: not 32 bytes.
    """
    return hashlib.sha256(exact_bytes(public_key, KEY_SIZE, "public key")).hexdigest()


def sign_envelope(payload_type: str, payload: bytes, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """An envelope around `payload` with one signature of each key, as compact JSON.

    Raises:
        ConfigError: no key, too many, or one twice.
    """
    publics = [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for key in keys]
    if not 1 <= len(keys) <= MAX_SIGNATURES or len(set(publics)) != len(publics):
        raise ConfigError(f"envelope: 1 to {MAX_SIGNATURES} different signing keys expected")
    message = pae(payload_type, payload)
    signatures = [
        Signature(key_id=key_id(public), signature=key.sign(message))
        for key, public in zip(keys, publics, strict=True)
    ]
    return encode_envelope(
        Envelope(payload_type=payload_type, payload=payload, signatures=tuple(signatures))
    )


def encode_envelope(envelope: Envelope) -> bytes:
    """The envelope as compact JSON, for example to join the signatures of people who signed apart."""
    document = {
        "payload": base64.b64encode(envelope.payload).decode("ascii"),
        "payloadType": envelope.payload_type,
        "signatures": [
            {"keyid": one.key_id, "sig": base64.b64encode(one.signature).decode("ascii")}
            for one in envelope.signatures
        ],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def join_signatures(envelopes: Sequence[Envelope]) -> Envelope:
    """One envelope with the signatures of all: reviewers sign the same bytes at different places.

    Raises:
        MalformedError: no envelope, different payloads or types, or more than 16 signatures.
    """
    if len({(one.payload_type, one.payload) for one in envelopes}) != 1:
        raise MalformedError("envelopes: one or more with the same type and payload expected")
    distinct = {one.signature: one for envelope in envelopes for one in envelope.signatures}
    if len(distinct) > MAX_SIGNATURES:
        raise MalformedError(f"envelope: at most {MAX_SIGNATURES} signatures expected")
    first = envelopes[0]
    return Envelope(
        payload_type=first.payload_type, payload=first.payload, signatures=tuple(distinct.values())
    )


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope of at most 256 KiB with 1 to 16 signatures.

    Raises:
        MalformedError: not JSON of that form, an unknown or repeated member, or not base64.
    """
    document = parse_object(data, limit=MAX_ENVELOPE, what="envelope")
    signatures = document.get("signatures")
    if document.keys() != _ENVELOPE_KEYS or not isinstance(signatures, list):
        raise MalformedError("envelope: payload, payloadType and signatures expected, nothing else")
    kind = document["payloadType"]
    if not isinstance(kind, str) or not 1 <= len(kind) <= MAX_TYPE or not kind.isascii():
        raise MalformedError(f"envelope: payloadType of 1 to {MAX_TYPE} ASCII characters expected")
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise MalformedError(f"envelope: 1 to {MAX_SIGNATURES} signatures expected")
    return Envelope(
        payload_type=kind,
        payload=_base64(document["payload"], "payload"),
        signatures=tuple(_signature(entry) for entry in signatures),
    )


def signers(envelope: Envelope, keys: Collection[bytes]) -> frozenset[bytes]:
    """Those of the Ed25519 public `keys` (32 bytes each) that signed the envelope.

    Every signature is tried with every key: the key id in the envelope is a hint that anybody can write.
    A key counts once, however many signatures it made.
    """
    message = pae(envelope.payload_type, envelope.payload)
    found: set[bytes] = set()
    for one in envelope.signatures:
        for key in keys:
            if key not in found and _verifies(key, one.signature, message):
                found.add(key)
                break
    return frozenset(found)


def _verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signature(entry: object) -> Signature:
    if not isinstance(entry, dict) or not {"sig"} <= entry.keys() <= {"sig", "keyid"}:
        raise MalformedError("envelope: a signature has sig and perhaps keyid, nothing else")
    name = entry.get("keyid", "")
    if not isinstance(name, str) or len(name) > MAX_TYPE or not name.isascii():
        raise MalformedError("envelope: keyid is not a short text")
    value = _base64(entry["sig"], "signature")
    return Signature(key_id=name, signature=exact_bytes(value, SIGNATURE_SIZE, "envelope signature"))


def _base64(value: object, what: str) -> bytes:
    """Standard or URL-safe alphabet (DSSE allows both), padded, without line breaks."""
    if not isinstance(value, str):
        raise MalformedError(f"envelope: {what} is not a text")
    try:
        decoded = base64.b64decode(value.translate(_URL_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError(f"envelope: {what} is not base64") from error
    return decoded
