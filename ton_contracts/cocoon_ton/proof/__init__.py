"""Proofs about the chain: blocks, accounts and transactions, without any input or output."""

from cocoon_ton.proof.facts import ProvedFacts, verify_chain_facts
from cocoon_ton.values import (
    AccountState,
    BlockId,
    BlockRef,
    MessageInfo,
    TransactionInfo,
)

__all__ = [
    "AccountState",
    "BlockId",
    "BlockRef",
    "MessageInfo",
    "ProvedFacts",
    "TransactionInfo",
    "verify_chain_facts",
]
