"""`LiteChain`: proved reads and message sending over liteservers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from pytoniq_core import Address

from cocoon_ton.errors import ChainProofError, ChainUnavailableError, MessageRefusedError
from cocoon_ton.lite.anchors import AnchorStore
from cocoon_ton.lite.head import HeadTracker, named_block
from cocoon_ton.lite.pool import ServerPool
from cocoon_ton.lite.server import LiteserverRefusalError, Server
from cocoon_ton.lite.trust import TrustMode
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof.accounts import ProvedAccount, verify_account
from cocoon_ton.proof.answers import block_id_query, compare_shard_block, parse_account_answer
from cocoon_ton.proof.blocks import ChainWalker, ProvedBlock
from cocoon_ton.proof.facts import export_facts, verify_chain_facts
from cocoon_ton.proof.transactions import verify_transactions
from cocoon_ton.values import AccountState, BlockId, BlockRef, TransactionInfo

_PAGE = 16
"""Transactions per query; liteservers give no more."""
MAX_EXTERNAL = 65_535
"""Largest external message, in bytes."""


class LiteChain:
    """Chain client (async context manager); implements `ChainReader` and `ChainWriter`.

    `max_head_age` bounds the age of the head by `clock` in seconds; a proved head is asked for again after
    `head_ttl` seconds. `timeout` bounds each query. With `anchors`, the newest proved key block is kept for the
    next start. It holds no task between calls.
    """

    def __init__(
        self,
        network: NetworkConfig,
        *,
        trust: TrustMode = TrustMode.VERIFY,
        max_head_age: float = 60.0,
        head_ttl: float = 1.0,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.time,
        anchors: AnchorStore | None = None,
    ) -> None:
        self.network = network
        self._pool = ServerPool(network.liteservers, timeout)
        self._heads = HeadTracker(
            network,
            self._pool,
            trust=trust,
            max_age=max_head_age,
            ttl=head_ttl,
            clock=clock,
            anchors=anchors if trust is TrustMode.VERIFY else None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def head(self) -> BlockRef:
        """The newest proved masterchain block, of bounded age."""
        return (await self._heads.head()).ref

    async def account(self, addr: Address, at: BlockRef | None = None) -> AccountState:
        """The account, or its proved absence, after block `at` (default: the head)."""
        block = await self._block(at)
        return (await self._account(addr, block)).state

    async def transactions(
        self, addr: Address, *, after_lt: int = 0, limit: int = 100, at: BlockRef | None = None
    ) -> list[TransactionInfo]:
        """The newest transactions up to block `at`, newest first; see `ChainReader.transactions`."""
        state = await self.account(addr, at)
        found: list[TransactionInfo] = []
        lt, last_hash = state.last_tx_lt, state.last_tx_hash
        while lt > after_lt and len(found) < limit:
            page = await self._pool.first(functools.partial(_page, addr, lt, last_hash))
            found.extend(page)
            lt, last_hash = page[-1].prev_lt, page[-1].prev_hash
        return [transaction for transaction in found if transaction.lt > after_lt][:limit]

    async def masterchain_block(self, seqno: int) -> BlockId:
        """The masterchain block with this number, proved to be on the head's chain; 0: the pinned zerostate.

        Raises:
            ChainUnavailableError: it is not known on the chain yet.
        """
        head = await self._heads.head()
        if seqno == 0:
            return self.network.zero_state
        if seqno == head.ref.seqno:
            return head.ref.id
        named = await self._pool.first(functools.partial(named_block, seqno))
        return (await self._heads.block(named)).ref.id

    async def export_proof(
        self, addresses: Sequence[Address], at: BlockRef | None = None
    ) -> dict[str, Any]:
        """Accounts under one block as a document for `cocoon_ton.proof.verify_chain_facts`.

        The links start at the pinned init block. The document is verified before it is returned.
        """
        block = await self._block(at)
        accounts = [await self._account(address, block) for address in addresses]
        start, target = self.network.init_block, block.ref.id
        from_init = await self._pool.first(
            lambda server: self._heads.walk(server, ChainWalker(self.network.global_id), start, target)
        )
        document = export_facts(from_init, accounts)
        verify_chain_facts(document, self.network)
        return document

    async def send(self, boc: bytes) -> None:
        """Offer an external message to all liteservers; see `ChainWriter.send`."""
        if len(boc) > MAX_EXTERNAL:
            raise MessageRefusedError(f"an external message has at most {MAX_EXTERNAL} bytes")
        refusals: list[str] = []

        async def offer(server: Server) -> bool:
            try:
                await server.query("sendMessage", {"body": boc})
            except LiteserverRefusalError as error:
                refusals.append(str(error))
                return False
            return True

        answers = await self._pool.all(offer)
        if any(accepted for _, accepted in answers):
            return
        raise MessageRefusedError(refusals[0])

    async def _block(self, at: BlockRef | None) -> ProvedBlock:
        if at is None:
            return await self._heads.head()
        block = await self._heads.block(at.id)
        if block.ref != at:
            raise ChainProofError("the block has another time than it claims")
        return block

    async def _account(self, address: Address, block: ProvedBlock) -> ProvedAccount:
        async def ask(server: Server) -> ProvedAccount:
            query = {"id": block_id_query(block.ref.id), "account": address.to_tl_account_id()}
            answer = await server.query("getAccountState", query)
            proof = parse_account_answer(answer, block.ref, address)
            proved = verify_account(block.ref, block.header, self.network.global_id, address, proof)
            compare_shard_block(answer, proved)
            return proved

        return await self._pool.first(ask)


async def _page(address: Address, lt: int, last_hash: bytes, server: Server) -> list[TransactionInfo]:
    account = address.to_tl_account_id()
    query = {"count": _PAGE, "account": account, "lt": lt, "hash": last_hash.hex()}
    answer = await server.query("getTransactions", query)
    data = answer.get("transactions")
    if not isinstance(data, bytes) or not data:
        raise ChainUnavailableError(f"liteserver {server.name} does not keep these transactions")
    return verify_transactions(data, address, lt, last_hash)
