"""A chain for outbox tests: the real wallet contracts, and a network that may do anything with messages.

Blocks come only from `block`. Every message ever sent is kept, and `replay` offers all of them again: a
stranger who has seen them may do that at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pytoniq_core import Address, Cell

from cocoon_ton.emulator import MessageNotAcceptedError, SendResult, TestChain
from cocoon_ton.errors import ChainUnavailableError, MessageRefusedError
from cocoon_ton.proof.boc import parse_boc, write_boc
from cocoon_ton.proof.transactions import verify_transactions
from cocoon_ton.values import AccountState, BlockRef, TransactionInfo

BLOCK_SECONDS = 5


@dataclass
class EmulatedChain:
    """`ChainReader` and `ChainWriter` over a `TestChain`.

    Switches: `take` (messages reach the pool), `admit` (``send`` reports success), `alive` (anything
    answers), `lag` (blocks by which readers are behind).
    """

    chain: TestChain
    take: bool = True
    admit: bool = True
    alive: bool = True
    lag: int = 0
    pool: list[Cell] = field(default_factory=list)
    seen: list[Cell] = field(default_factory=list)
    sends: int = 0
    history: dict[Address, list[TransactionInfo]] = field(default_factory=dict)
    blocks: list[dict[Address, AccountState]] = field(default_factory=list)
    tracked: set[Address] = field(default_factory=set)

    def block(self, count: int = 1, seconds: int = BLOCK_SECONDS) -> None:
        """Execute the pool and show a new state."""
        for _ in range(count):
            self.chain.warp(seconds)
            pool, self.pool = self.pool, []
            for message in pool:
                self._execute(message)
            self._show()

    def replay(self) -> None:
        """Offer every message that was ever sent once more."""
        self.pool.extend(self.seen)

    def _execute(self, message: Cell) -> None:
        try:
            result = self.chain.send_message(message)
        except MessageNotAcceptedError:
            return
        self._record(result)

    def dust(self, address: Address) -> None:
        """A worthless message from a stranger."""
        self._record(self.chain.send_internal(address, 10**6, sender=Address((0, bytes(32))), bounce=False))

    def _record(self, result: SendResult) -> None:
        for done in result:
            (info,) = verify_transactions(write_boc([done.cell]), done.address, done.lt, done.hash)
            self.history.setdefault(done.address, []).insert(0, info)

    def _show(self) -> None:
        number = len(self.blocks) + 1
        ref = BlockRef(
            seqno=number,
            root_hash=hashlib.sha256(b"%d" % number).digest(),
            file_hash=b"",
            utime=self.chain.now,
        )
        self.blocks.append({address: self._state(address, ref) for address in self.tracked})

    def _state(self, address: Address, block: BlockRef) -> AccountState:
        view = self.chain.account(address)
        last = next(iter(self.history.get(address, [])), None)
        status: Any = view.status
        return AccountState(
            address=address,
            status=status,
            balance=view.balance,
            code=view.code,
            data=view.data,
            last_tx_lt=last.lt if last else 0,
            last_tx_hash=last.hash if last else bytes(32),
            block=block,
            shard_utime=block.utime,
        )

    # ---- ChainReader, ChainWriter

    def _visible(self) -> int:
        if not self.alive:
            raise ChainUnavailableError("no answer")
        return max(1, len(self.blocks) - self.lag)

    async def head(self) -> BlockRef:
        return next(iter(self.blocks[self._visible() - 1].values())).block

    async def account(self, addr: Address, at: BlockRef | None = None) -> AccountState:
        return self.blocks[self._visible() - 1 if at is None else at.seqno - 1][addr]

    async def transactions(
        self, addr: Address, *, after_lt: int = 0, limit: int = 100, at: BlockRef | None = None
    ) -> list[TransactionInfo]:
        newest = (await self.account(addr, at)).last_tx_lt
        found = [t for t in self.history.get(addr, []) if after_lt < t.lt <= newest]
        return found[:limit]

    async def export_proof(
        self, addresses: Sequence[Address], at: BlockRef | None = None
    ) -> dict[str, Any]:
        raise NotImplementedError

    async def send(self, boc: bytes) -> None:
        if not self.alive:
            raise ChainUnavailableError("no answer")
        self.sends += 1
        message = parse_boc(boc)[0]
        if message not in self.seen:
            self.seen.append(message)
        if self.take:
            self.pool.append(message)
        if not self.admit:
            raise MessageRefusedError("cannot apply external message to current state")
