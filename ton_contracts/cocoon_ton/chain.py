"""The two seams between Cocoon and the chain, and the client that implements them.

`ChainReader` and `ChainWriter` are what the rest of the project is written against; `LiteChain` is the
implementation over liteservers. Rules and proofs: ``docs/spec/ledger-client.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pytoniq_core import Address

from cocoon_ton.lite.anchors import AnchorStore, default_anchors
from cocoon_ton.lite.chain import LiteChain
from cocoon_ton.lite.trust import TrustMode
from cocoon_ton.values import AccountState, BlockId, BlockRef, MessageInfo, TransactionInfo

__all__ = [
    "AccountState",
    "AnchorStore",
    "BlockId",
    "BlockRef",
    "ChainReader",
    "ChainWriter",
    "LiteChain",
    "MessageInfo",
    "TransactionInfo",
    "TrustMode",
    "default_anchors",
]


class ChainReader(Protocol):
    """Reads proved facts. Every method raises `ChainUnavailableError` or `ChainProofError`."""

    async def head(self) -> BlockRef:
        """The newest masterchain block that is proved, of bounded age."""
        ...

    async def account(self, addr: Address, at: BlockRef | None = None) -> AccountState:
        """The account after block `at` (default: the head)."""
        ...

    async def transactions(
        self, addr: Address, *, after_lt: int = 0, limit: int = 100, at: BlockRef | None = None
    ) -> list[TransactionInfo]:
        """The newest transactions of the account up to block `at`, newest first.

        Ends at logical time `after_lt` (exclusive) or after `limit` transactions. The list has a gap
        only at its old end: it is complete if the last entry's ``prev_lt <= after_lt``.
        """
        ...

    async def export_proof(
        self, addresses: Sequence[Address], at: BlockRef | None = None
    ) -> dict[str, Any]:
        """A JSON-ready document that `cocoon_ton.proof.verify_chain_facts` accepts offline."""
        ...


class ChainWriter(Protocol):
    """Sends messages to the chain. Sending proves nothing: look for the effect with a `ChainReader`."""

    async def send(self, boc: bytes) -> None:
        """Offer an external message to the network.

        Raises `MessageRefusedError` if every liteserver that answered refused it, and
        `ChainUnavailableError` if none answered. After either the message may still be executed.
        """
        ...
