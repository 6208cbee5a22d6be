"""Proof documents: accounts under a masterchain block, checked offline from the pinned init block.

The document is JSON with base64 parts, byte layout in ``docs/spec/ledger-client.md#proof-document``. A
document has exactly one accepted form for the links it uses: it is decoded, verified, cut down to what the
verification read, encoded again and compared, so no byte of it is free.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cocoon_ton.address import parse_address, raw_address
from cocoon_ton.errors import ChainProofError
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof import document
from cocoon_ton.proof.accounts import ProvedAccount, verify_account
from cocoon_ton.proof.blocks import ChainWalker, ProvedBlock, verify_walk
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.values import AccountState, BlockRef

FORMAT = "cocoon.chain.v1"
MAX_ACCOUNTS = 64
MAX_LINKS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedFacts:
    """What a proof document proves."""

    block: BlockRef
    accounts: Mapping[str, AccountState]
    """By raw address (``0:`` and 64 lower-case hex digits)."""


def export_facts(block: ProvedBlock, accounts: Iterable[ProvedAccount]) -> dict[str, Any]:
    """The proof document for accounts that were proved under `block`. JSON-ready.

    `block` must have been reached from the network's init block by a fresh `ChainWalker`.
    """
    by_address = {raw_address(account.state.address): account for account in accounts}
    return {
        "format": FORMAT,
        "links": [document.encode_link(link) for link in block.links],
        "header": document.encode_cell(block.proof),
        "accounts": [
            {"address": address, **document.encode_account(by_address[address].proof)}
            for address in sorted(by_address)
        ],
    }


def verify_chain_facts(doc: object, network: NetworkConfig) -> ProvedFacts:
    """Verify a proof document against the pinned init block of `network`.

    Raises `ChainProofError` on anything but a complete, correct and canonical document.
    """
    with proof_seam("proof document"):
        links, header, parts = _decode(doc)
        start = network.init_block
        target = links[-1].to if links else start
        block = verify_walk(ChainWalker(network.global_id), start, links, target, header)
        accounts = [
            verify_account(block.ref, block.header, network.global_id, parse_address(address), proof)
            for address, proof in parts
        ]
        if _canonical(export_facts(block, accounts)) != _canonical(doc):
            raise ChainProofError("proof document is not in canonical form")
    return ProvedFacts(block=block.ref, accounts={raw_address(a.state.address): a.state for a in accounts})


def _decode(doc: object) -> Any:
    fields = document.fields(doc, {"format", "links", "header", "accounts"})
    if fields["format"] != FORMAT:
        raise ChainProofError("proof document has an unknown format")
    links = document.items(fields["links"], MAX_LINKS)
    accounts = document.items(fields["accounts"], MAX_ACCOUNTS)
    return (
        [document.decode_link(link) for link in links],
        document.decode_cell(fields["header"]),
        [document.decode_account(account) for account in accounts],
    )


def _canonical(doc: object) -> str:
    return json.dumps(doc, sort_keys=True, allow_nan=False)
