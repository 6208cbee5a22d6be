"""Parts of a proof document to and from JSON values. Decoding raises only `ChainProofError`."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pytoniq_core import Cell

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.accounts import AccountProof
from cocoon_ton.proof.blocks import BackLink, ForwardLink, Link
from cocoon_ton.proof.boc import parse_canonical, write_boc
from cocoon_ton.proof.signatures import SignatureSet
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, BlockId

MAX_PART = 4 << 20
"""Largest single part in base64 characters."""
MAX_SIGNATURES = 4096


def fields(value: object, names: set[str]) -> dict[str, Any]:
    """`value` as an object with exactly these fields."""
    if not isinstance(value, dict) or not names <= value.keys() <= names:
        raise ChainProofError("proof document has missing or unknown fields")
    return value


def items(value: object, limit: int) -> list[Any]:
    """`value` as a list of at most `limit` items."""
    if not isinstance(value, list) or len(value) > limit:
        raise ChainProofError("proof document needs a shorter list here")
    return value


def encode_bytes(data: bytes) -> str:
    """Base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_bytes(value: object, *, length: int | None = None) -> bytes:
    """Bytes from base64 text, optionally of an exact length."""
    if not isinstance(value, str) or len(value) > MAX_PART:
        raise ChainProofError("proof document needs base64 text here")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ChainProofError("proof document needs base64 text here") from error
    if length is not None and len(data) != length:
        raise ChainProofError(f"proof document needs {length} bytes here")
    return data


def _number(value: object) -> int:
    if type(value) is not int or not -(1 << 31) <= value < 1 << 31:
        raise ChainProofError("proof document needs a 32-bit number here")
    return value


def encode_cell(cell: Cell) -> str:
    """One root cell."""
    return encode_bytes(write_boc([cell]))


def decode_cell(value: object) -> Cell:
    """One root cell in canonical form."""
    return parse_canonical(decode_bytes(value))


def encode_block(block: BlockId) -> dict[str, Any]:
    """A masterchain block."""
    return {
        "seqno": block.seqno,
        "root_hash": encode_bytes(block.root_hash),
        "file_hash": encode_bytes(block.file_hash),
    }


def decode_block(value: object) -> BlockId:
    """A masterchain block."""
    block = fields(value, {"seqno", "root_hash", "file_hash"})
    seqno = _number(block["seqno"])
    if seqno < 0:
        raise ChainProofError("proof document has a negative block number")
    return BlockId(
        workchain=MASTERCHAIN,
        shard=FULL_SHARD,
        seqno=seqno,
        root_hash=decode_bytes(block["root_hash"], length=32),
        file_hash=decode_bytes(block["file_hash"], length=32),
    )


def encode_link(link: Link) -> dict[str, Any]:
    """A forward or back link."""
    if isinstance(link, ForwardLink):
        return {
            "to": encode_block(link.to),
            "config": encode_cell(link.config),
            "signatures": _encode_signatures(link.signatures),
        }
    return {
        "to": encode_block(link.to),
        "header": encode_cell(link.header),
        "state": encode_cell(link.state),
    }


def decode_link(value: object) -> Link:
    """A forward or back link."""
    if isinstance(value, dict) and "config" in value:
        forward = fields(value, {"to", "config", "signatures"})
        return ForwardLink(
            to=decode_block(forward["to"]),
            config=decode_cell(forward["config"]),
            signatures=_decode_signatures(forward["signatures"]),
        )
    back = fields(value, {"to", "header", "state"})
    return BackLink(
        to=decode_block(back["to"]), header=decode_cell(back["header"]), state=decode_cell(back["state"])
    )


def _encode_signatures(signatures: SignatureSet) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "kind": signatures.kind,
        "signatures": [[encode_bytes(node), encode_bytes(sig)] for node, sig in signatures.signatures],
    }
    if signatures.kind == "simplex":
        encoded["session_id"] = encode_bytes(signatures.session_id)
        encoded["slot"] = signatures.slot
        encoded["candidate"] = encode_bytes(signatures.candidate)
    return encoded


def _decode_signatures(value: object) -> SignatureSet:
    simplex = isinstance(value, dict) and value.get("kind") == "simplex"
    extra = {"session_id", "slot", "candidate"} if simplex else set()
    found = fields(value, {"kind", "signatures"} | extra)
    pairs = []
    for pair in items(found["signatures"], MAX_SIGNATURES):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ChainProofError("proof document needs a signer and a signature here")
        pairs.append((decode_bytes(pair[0], length=32), decode_bytes(pair[1], length=64)))
    if simplex:
        return SignatureSet(
            kind="simplex",
            signatures=tuple(pairs),
            session_id=decode_bytes(found["session_id"], length=32),
            slot=_number(found["slot"]),
            candidate=decode_bytes(found["candidate"]),
        )
    if found["kind"] != "ordinary":
        raise ChainProofError("proof document has an unknown kind of signatures")
    return SignatureSet(kind="ordinary", signatures=tuple(pairs))


def encode_account(proof: AccountProof) -> dict[str, Any]:
    """The parts of an account proof."""
    return {
        "shards": None if proof.shards is None else encode_cell(proof.shards),
        "header": encode_cell(proof.header),
        "path": encode_cell(proof.path),
        "state": None if proof.state is None else encode_cell(proof.state),
    }


def decode_account(value: object) -> tuple[str, AccountProof]:
    """An address in raw form with its proof."""
    found = fields(value, {"address", "shards", "header", "path", "state"})
    if not isinstance(found["address"], str):
        raise ChainProofError("proof document needs an address here")
    proof = AccountProof(
        shards=None if found["shards"] is None else decode_cell(found["shards"]),
        header=decode_cell(found["header"]),
        path=decode_cell(found["path"]),
        state=None if found["state"] is None else decode_cell(found["state"]),
    )
    return found["address"], proof
