"""The bundle as a JSON document: writing it, and reading it strictly.

Two kinds of damage are told apart. A document that is not a bundle (JSON, media type, keys, types) is
malformed. A part inside a well-formed document that does not decode is remembered in
`Bundle.undecodable`; verification then fails, so a forged proof is always *rejected*.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn, cast

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import sint, uint

MEDIA_TYPE: Final = "application/vnd.cocoon.bundle.v1+json"
MAX_BUNDLE: Final = 32 << 20
"""Longest document, in bytes."""

_MAX_NAME: Final = 128
_REQUIRED: Final = frozenset(
    {"media_type", "network", "receipt", "receipt_signature", "inclusion", "evidence", "chain"}
)
_OPTIONAL: Final = frozenset({"salt", "request", "response", "checkpoint"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One receipt with everything that proves it. Nothing in here is verified yet."""

    network: str
    """Name of the TON network, for people."""
    global_id: int
    """TON network."""
    registry: str
    """Address of the registry contract, in the raw form ``workchain:hex``."""
    receipt: bytes
    """Receipt cell as a bag of cells."""
    receipt_signature: bytes
    """Ed25519 signature by the receipt key, 64 bytes."""
    leaf_index: int
    """Position of the receipt in the log."""
    tree_size: int
    """Size of the tree that the inclusion proof is for."""
    hashes: tuple[bytes, ...]
    """Inclusion proof, leaf level first."""
    evidence: bytes = field(repr=False)
    """Serialized Evidence, exactly as published by the node."""
    chain: Mapping[str, object] = field(repr=False)
    """Chain facts with block proofs; opaque here, verified by `cocoon_ton.proof`."""
    salt: bytes | None = field(default=None, repr=False)
    """Receipt salt, 32 bytes; needed to check content."""
    request: bytes | None = field(default=None, repr=False)
    """Exact request body."""
    response: bytes | None = field(default=None, repr=False)
    """Exact response body: data chunks, then tail."""
    checkpoint: bytes | None = None
    """Signed checkpoint cell as a bag of cells."""
    checkpoint_signature: bytes | None = None
    """Ed25519 signature by the receipt key, 64 bytes."""
    undecodable: tuple[str, ...] = ()
    """Parts of the document that were no canonical base64; their value here is empty."""

    def without_content(self) -> Bundle:
        """The same proof without request, response and salt: shows that an answer was given, not which."""
        return replace(self, salt=None, request=None, response=None)

    def to_json(self) -> bytes:
        """The document as UTF-8 JSON. Deterministic: equal bundles give equal bytes."""
        document: dict[str, object] = {
            "media_type": MEDIA_TYPE,
            "network": {"name": self.network, "global_id": self.global_id, "registry": self.registry},
            "receipt": _encode(self.receipt),
            "receipt_signature": _encode(self.receipt_signature),
        }
        for name, body in (("salt", self.salt), ("request", self.request), ("response", self.response)):
            if body is not None:
                document[name] = _encode(body)
        document["inclusion"] = {
            "leaf_index": self.leaf_index,
            "tree_size": self.tree_size,
            "hashes": [_encode(item) for item in self.hashes],
        }
        if self.checkpoint is not None and self.checkpoint_signature is not None:
            document["checkpoint"] = {
                "checkpoint": _encode(self.checkpoint),
                "signature": _encode(self.checkpoint_signature),
            }
        document["evidence"] = _encode(self.evidence)
        document["chain"] = dict(self.chain)
        return (json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def parse_bundle(data: bytes) -> Bundle:
    """Read the document of a bundle. Verifies nothing: see `verify_bundle`.

    Raises:
        MalformedError: too long, no JSON object, a key twice, unknown or missing keys, another media
            type, or a value of the wrong JSON type.
    """
    document = _parse_json(data)
    if document.get("media_type") != MEDIA_TYPE:
        raise MalformedError(f"bundle: media_type {MEDIA_TYPE} expected")
    _check_keys(document, _REQUIRED, _OPTIONAL, "bundle")
    parts = _Parts()
    network = _object(document, "network", {"name", "global_id", "registry"})
    inclusion = _object(document, "inclusion", {"leaf_index", "tree_size", "hashes"})
    checkpoint = signature = None
    if "checkpoint" in document:
        signed = _object(document, "checkpoint", {"checkpoint", "signature"})
        checkpoint = parts.decode(signed["checkpoint"], "checkpoint.checkpoint")
        signature = parts.decode(signed["signature"], "checkpoint.signature")
    salt, request, response = (
        parts.decode(document[name], name) if name in document else None
        for name in ("salt", "request", "response")
    )
    if salt is None and not (request is None and response is None):
        raise MalformedError("bundle: request and response need the salt")
    hashes = inclusion["hashes"]
    if not isinstance(hashes, list):
        raise MalformedError("bundle: inclusion.hashes must be a list")
    chain = document["chain"]
    if not isinstance(chain, dict):
        raise MalformedError("bundle: chain must be an object")
    return Bundle(
        network=_text(network["name"], "network.name"),
        global_id=sint(network["global_id"], 32, "bundle: network.global_id"),
        registry=_text(network["registry"], "network.registry"),
        receipt=parts.decode(document["receipt"], "receipt"),
        receipt_signature=parts.decode(document["receipt_signature"], "receipt_signature"),
        leaf_index=uint(inclusion["leaf_index"], 64, "bundle: inclusion.leaf_index"),
        tree_size=uint(inclusion["tree_size"], 64, "bundle: inclusion.tree_size"),
        hashes=tuple(parts.decode(item, "inclusion.hashes") for item in hashes),
        evidence=parts.decode(document["evidence"], "evidence"),
        chain=cast("dict[str, object]", chain),
        salt=salt,
        request=request,
        response=response,
        checkpoint=checkpoint,
        checkpoint_signature=signature,
        undecodable=tuple(parts.undecodable),
    )


class _Parts:
    """Decodes base64 parts and remembers the names of those that do not decode."""

    __slots__ = ("undecodable",)

    def __init__(self) -> None:
        self.undecodable: list[str] = []

    def decode(self, value: object, name: str) -> bytes:
        if not isinstance(value, str):
            raise MalformedError(f"bundle: {name} must be a string")
        try:
            data = base64.b64decode(value.encode("ascii"), validate=True)
        except ValueError:
            data = None
        if data is None or _encode(data) != value:  # one value has one spelling
            self.undecodable.append(name)
            return b""
        return data


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _parse_json(data: bytes) -> dict[str, object]:
    if len(data) > MAX_BUNDLE:
        raise MalformedError("bundle: too long")
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_number,
            parse_float=_refuse_number,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedError("bundle: not a JSON document") from error
    if not isinstance(document, dict):
        raise MalformedError("bundle: a JSON object expected")
    return cast("dict[str, object]", document)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise MalformedError("bundle: a key stands twice in one object")
    return document


def _refuse_number(text: str) -> NoReturn:
    raise MalformedError(f"bundle: only integers are allowed, not {text[:20]}")


def _check_keys(
    document: Mapping[str, object], required: frozenset[str], optional: frozenset[str], what: str
) -> None:
    if missing := required - document.keys():
        raise MalformedError(f"{what}: missing {', '.join(sorted(missing))}")
    if document.keys() - required - optional:
        raise MalformedError(f"{what}: unknown keys")


def _object(document: Mapping[str, object], name: str, keys: set[str]) -> dict[str, object]:
    value = document[name]
    if not isinstance(value, dict):
        raise MalformedError(f"bundle: {name} must be an object")
    _check_keys(value, frozenset(keys), frozenset(), f"bundle: {name}")
    return cast("dict[str, object]", value)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME:
        raise MalformedError(f"bundle: {name} must be a short text")
    if not value.isascii() or not value.isprintable():
        raise MalformedError(f"bundle: {name} must be printable ASCII")
    return value
