"""Validator signatures over masterchain blocks, in both forms that TON has.

``ordinary``: over the block's hashes. ``simplex`` (Catchain 2.0, mainnet since April 2026): over the
vote that finalises a candidate which names the block.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final, Literal

from nacl.signing import SigningKey

from cocoon_ton.devnet import tl
from cocoon_ton.devnet.genesis import public_key, short_key_id, validator_set_hash
from cocoon_ton.devnet.values import BlockId

SignatureMode = Literal["ordinary", "simplex"]
_BLOCK_MAGIC: Final = b"\x70\x6e\x0b\xc5"  # ton.blockId


def signature_set(key: SigningKey, block: BlockId, mode: SignatureMode) -> tl.Fields:
    """``liteServer.SignatureSet`` with the validator's one signature."""
    public = public_key(key)
    common = {"validator_set_hash": tl.signed32(validator_set_hash(public))}
    if mode == "ordinary":
        message = _BLOCK_MAGIC + block.root_hash + block.file_hash
        return common | {
            "@type": "liteServer.signatureSet.ordinary",
            "catchain_seqno": 0,
            "signatures": [_signature(key, message)],
        }
    session = hashlib.sha256(b"cocoon development chain" + public).digest()
    candidate = _candidate(block)
    message = _vote(session, block.seqno, candidate)
    return common | {
        "@type": "liteServer.signatureSet.simplex",
        "cc_seqno": 0,
        "signatures": [_signature(key, message)],
        "session_id": session.hex(),
        "slot": block.seqno,
        "candidate": candidate,
    }


def _signature(key: SigningKey, message: bytes) -> tl.Fields:
    return {
        "node_id_short": short_key_id(public_key(key)).hex(),
        "signature": bytes(key.sign(message).signature),
    }


def _candidate(block: BlockId) -> bytes:
    """``consensus.candidateHashDataOrdinary`` of a block without parent candidate."""
    return (
        tl.tag("consensus.candidateHashDataOrdinary")
        + tl.write("tonNode.blockIdExt", block.to_tl(), boxed=False)
        + bytes(32)  # collated data: none
        + tl.tag("consensus.candidateWithoutParents")
    )


def _vote(session: bytes, slot: int, candidate: bytes) -> bytes:
    """``consensus.dataToSign`` of the vote that finalises the candidate."""
    vote = (
        tl.tag("consensus.simplex.finalizeVote")
        + tl.tag("consensus.candidateId")
        + struct.pack("<i", slot)
        + hashlib.sha256(candidate).digest()
    )
    data = bytes([len(vote)]) + vote
    return tl.tag("consensus.dataToSign") + session + data + bytes(-len(data) % 4)
