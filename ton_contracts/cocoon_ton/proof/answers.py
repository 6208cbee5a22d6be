"""Liteserver answers (TL objects as dictionaries) into proof parts, compared with what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytoniq_core import Address, Cell

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.accounts import AccountProof, ProvedAccount
from cocoon_ton.proof.blocks import BackLink, ForwardLink, Link
from cocoon_ton.proof.boc import parse_boc
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.proof.signatures import SignatureSet
from cocoon_ton.values import MASTERCHAIN, BlockId, BlockRef

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialWalk:
    """Links from one answer to ``getBlockProof``; the last one may stop short of the target."""

    links: tuple[Link, ...]
    header: Cell | None
    """Merkle proof of the header of the last link's block; None without links."""
    reached: BlockId


def block_id(answer: Answer) -> BlockId:
    """``tonNode.blockIdExt``."""
    with proof_seam("block id"):
        found = BlockId(
            workchain=answer["workchain"],
            shard=answer["shard"],
            seqno=answer["seqno"],
            root_hash=bytes.fromhex(answer["root_hash"]),
            file_hash=bytes.fromhex(answer["file_hash"]),
        )
        if len(found.root_hash) != 32 or len(found.file_hash) != 32 or found.seqno < 0:
            raise ChainProofError("block id is malformed")
        return found


def block_id_query(block: BlockId) -> dict[str, Any]:
    """A block as pytoniq's TL writer takes it."""
    return {
        "workchain": block.workchain,
        "shard": block.shard,
        "seqno": block.seqno,
        "root_hash": block.root_hash.hex(),
        "file_hash": block.file_hash.hex(),
    }


def parse_walk(answer: Answer, start: BlockId) -> PartialWalk:
    """The answer to ``getBlockProof`` for known block `start`."""
    with proof_seam("block proof"):
        current = start
        links: list[Link] = []
        header: Cell | None = None
        for step in answer["steps"]:
            if block_id(step["from"]) != current:
                raise ChainProofError("block proof has a gap")
            current = block_id(step["to"])
            links.append(_link(step, current))
            (header,) = parse_boc(step["dest_proof"])
        return PartialWalk(links=tuple(links), header=header, reached=current)


def _link(step: Answer, to: BlockId) -> Link:
    kind = step["@type"]
    if kind == "liteServer.blockLinkForward":
        (config,) = parse_boc(step["config_proof"])
        return ForwardLink(to=to, config=config, signatures=_signatures(step["signatures"]))
    if kind == "liteServer.blockLinkBack":
        (header,), (state,) = parse_boc(step["proof"]), parse_boc(step["state_proof"])
        return BackLink(to=to, header=header, state=state)
    raise ChainProofError("block proof has an unknown kind of link")


def _signatures(answer: Answer) -> SignatureSet:
    pairs = tuple(
        (bytes.fromhex(entry["node_id_short"]), bytes(entry["signature"])) for entry in answer["signatures"]
    )
    kind = answer["@type"]
    if kind == "liteServer.signatureSet.ordinary":
        return SignatureSet(kind="ordinary", signatures=pairs)
    if kind == "liteServer.signatureSet.simplex":
        return SignatureSet(
            kind="simplex",
            signatures=pairs,
            session_id=bytes.fromhex(answer["session_id"]),
            slot=answer["slot"],
            candidate=bytes(answer["candidate"]),
        )
    raise ChainProofError("block proof has an unknown kind of signatures")


def parse_header_answer(answer: Answer, block: BlockId) -> Cell:
    """The Merkle proof in an answer to ``getBlockHeader`` for `block`."""
    with proof_seam("block header"):
        if block_id(answer["id"]) != block:
            raise ChainProofError("liteserver answered about another block")
        (proof,) = parse_boc(answer["header_proof"])
        return proof


def parse_account_answer(answer: Answer, block: BlockRef, address: Address) -> AccountProof:
    """The parts of an answer to ``getAccountState`` for `address` in masterchain `block`."""
    with proof_seam("account answer"):
        if block_id(answer["id"]) != block.id:
            raise ChainProofError("liteserver answered about another block")
        if not answer["proof"]:
            raise ChainProofError("liteserver answered without a proof")
        header, path = parse_boc(answer["proof"], roots=2)
        shards = None
        if address.wc != MASTERCHAIN:
            if not answer["shard_proof"]:
                raise ChainProofError("liteserver answered without a shard proof")
            _, shards = parse_boc(answer["shard_proof"], roots=2)
        state = parse_boc(answer["state"])[0] if answer["state"] else None
        return AccountProof(shards=shards, header=header, path=path, state=state)


def compare_shard_block(answer: Answer, proved: ProvedAccount) -> None:
    """Raise `ChainProofError` if the answer names another shard block than the proved one."""
    if block_id(answer["shardblk"]) != proved.shard_block:
        raise ChainProofError("liteserver names another shard block than it proves")
