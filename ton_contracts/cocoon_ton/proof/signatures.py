"""Validators and their signatures under a masterchain block: ordinary and Simplex consensus.

TL schemes: ``lite_api.tl`` and ``ton_api.tl`` of the TON node. A block is final if validators with
**more than** two thirds of the weight signed it, each counted once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pytoniq_core import Cell, Slice

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.tlb import lookup, read_config
from cocoon_ton.proof.tree import ProofTree
from cocoon_ton.values import BlockId

CURRENT_VALIDATORS, CURRENT_TEMPORARY_VALIDATORS = 34, 35
MAX_VALIDATORS = 4096
_PUBLIC_KEY_TL = b"\xc6\xb4\x13\x48"  # pub.ed25519
_BLOCK_SIGN_TAG = b"\x70\x6e\x0b\xc5"
_CANDIDATE_TL = frozenset({bytes.fromhex("dcbcf9e8"), bytes.fromhex("33d9b472")})  # ordinary, empty
_CANDIDATE_ID_TL = bytes.fromhex("3fcd91b6")
_FINALIZE_VOTE_TL = bytes.fromhex("05e1a740")
_DATA_TO_SIGN_TL = bytes.fromhex("f83de3a8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """The validators that sign masterchain blocks, by short node id."""

    members: Mapping[bytes, tuple[bytes, int]]
    """Node id to (Ed25519 public key, weight)."""
    total_weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSet:
    """Signatures under one block."""

    kind: Literal["ordinary", "simplex"]
    signatures: tuple[tuple[bytes, bytes], ...]
    """(short node id, signature)."""
    session_id: bytes = b""
    slot: int = 0
    candidate: bytes = b""
    """Simplex only: TL ``consensus.CandidateHashData``."""


def read_validators(tree: ProofTree) -> Validators:
    """The masterchain validators in the configuration of a key block: the first `main` of the current set.

    Which order a shuffled set has matters for whose turn it is, not for who counts, so the shuffle is not
    computed.
    """
    config = read_config(tree)
    param = _param(tree, config, CURRENT_TEMPORARY_VALIDATORS) or _param(tree, config, CURRENT_VALIDATORS)
    if param is None:
        raise ChainProofError("configuration has no validators")
    part = tree.open(param)
    tag = part.load_uint(8)
    if tag != 0x12:
        raise ChainProofError("validator set has a wrong tag")
    part.skip_bits(32 + 32)
    total, main = part.load_uint(16), part.load_uint(16)
    if not 1 <= main <= total <= MAX_VALIDATORS:
        raise ChainProofError("validator set has impossible sizes")
    part.skip_bits(64)
    if not part.load_bit():
        raise ChainProofError("validator set is empty")
    root = part.load_ref()
    members: dict[bytes, tuple[bytes, int]] = {}
    for index in range(main):
        leaf = lookup(tree, root, format(index, "016b"))
        if leaf is None:
            raise ChainProofError("validator set has a gap")
        key, weight = _validator(leaf)
        members[node_id(key)] = (key, weight)
    if len(members) != main:
        raise ChainProofError("validator set repeats a key")
    return Validators(members=members, total_weight=sum(weight for _, weight in members.values()))


def _param(tree: ProofTree, config: Cell, index: int) -> Cell | None:
    leaf = lookup(tree, config, format(index, "032b"))
    return None if leaf is None else leaf.load_ref()


def _validator(leaf: Slice) -> tuple[bytes, int]:
    if leaf.load_uint(8) not in (0x53, 0x73) or leaf.load_uint(32) != 0x8E81278A:
        raise ChainProofError("validator has a wrong tag")
    key = leaf.load_bytes(32)
    return key, leaf.load_uint(64)


def node_id(public_key: bytes) -> bytes:
    """Short node id of an Ed25519 key: SHA-256 of its TL form."""
    return hashlib.sha256(_PUBLIC_KEY_TL + public_key).digest()


def verify_signatures(signatures: SignatureSet, validators: Validators, block: BlockId) -> None:
    """Raise `ChainProofError` unless more than two thirds of the weight signed `block`."""
    message = _signed_message(signatures, block)
    seen: set[bytes] = set()
    weight = 0
    for signer, signature in signatures.signatures:
        member = validators.members.get(signer)
        if member is None or signer in seen:
            raise ChainProofError("block is signed by an unknown validator, or twice by one")
        seen.add(signer)
        try:
            Ed25519PublicKey.from_public_bytes(member[0]).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise ChainProofError("block has a wrong validator signature") from error
        weight += member[1]
    if weight * 3 <= validators.total_weight * 2:
        raise ChainProofError("block is signed by too little validator weight")


def _signed_message(signatures: SignatureSet, block: BlockId) -> bytes:
    if signatures.kind == "ordinary":
        return _BLOCK_SIGN_TAG + block.root_hash + block.file_hash
    candidate = signatures.candidate
    if candidate[:4] not in _CANDIDATE_TL or candidate[4:84] != tl_block_id(block):
        raise ChainProofError("signatures are for another block")
    if len(signatures.session_id) != 32:
        raise ChainProofError("consensus session id must have 32 bytes")
    slot = signatures.slot.to_bytes(4, "little", signed=True)
    vote = _FINALIZE_VOTE_TL + _CANDIDATE_ID_TL + slot + hashlib.sha256(candidate).digest()
    data = bytes([len(vote)]) + vote
    return _DATA_TO_SIGN_TL + signatures.session_id + data + bytes(-len(data) % 4)


def tl_block_id(block: BlockId) -> bytes:
    """``tonNode.blockIdExt`` without its constructor number: 80 bytes."""
    return (
        block.workchain.to_bytes(4, "little", signed=True)
        + block.shard.to_bytes(8, "little", signed=True)
        + block.seqno.to_bytes(4, "little", signed=True)
        + block.root_hash
        + block.file_hash
    )
