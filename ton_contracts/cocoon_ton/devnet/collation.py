"""One tick's worth of transactions: messages run over a snapshot of accounts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from pytoniq_core import Cell, MessageAny

from cocoon_ton.devnet.blocks import BlockTransaction
from cocoon_ton.devnet.cells import Stub, write_boc
from cocoon_ton.devnet.values import (
    BASECHAIN,
    MASTERCHAIN,
    AccountEntry,
    TransactionRecord,
    name_of,
    workchain_of,
)
from cocoon_ton.emulator import (
    EMPTY_ACCOUNT,
    EmulatedTransaction,
    Emulator,
    EmulatorError,
    MessageNotAcceptedError,
    PrevBlocks,
    view_account,
)
from cocoon_ton.emulator.accounts import NO_ACCOUNT

logger = logging.getLogger(__name__)

MAX_TRANSACTIONS: Final = 300
"""Transactions in one block; what is left waits for the next."""


class Collation:
    """Runs messages in logical-time order. Nothing outside changes until the caller takes the results.

    Both workchains are one run here: a message from one to the other needs no block of its own to arrive.
    `read` gives the ``ShardAccount`` of an account before the block. `lt` is the next free logical
    time. Results: `transactions`, `changed` (None for accounts that are gone) and `account_bocs`
    (changed ``Account`` cells by hash).
    """

    def __init__(
        self,
        emulator: Emulator,
        read: Callable[[bytes], Cell],
        *,
        utime: int,
        lt: int,
        seed: bytes,
        prev_blocks: PrevBlocks,
    ) -> None:
        self._emulator = emulator
        self._read = read
        self.utime = utime
        self.seed = seed
        self._prev_blocks = prev_blocks
        self._after: dict[bytes, Cell] = {}
        self._old_hashes: list[bytes] = []
        self.lt = lt
        self.transactions: list[EmulatedTransaction] = []
        self.changed: dict[bytes, AccountEntry | None] = {}

    def run(self, external: deque[Cell], queue: deque[Cell]) -> None:
        """Take messages from both queues, external ones first, and add what they cause to `queue`."""
        while (external or queue) and len(self.transactions) < MAX_TRANSACTIONS:
            self._execute(external.popleft() if external else queue.popleft(), queue)

    def _execute(self, message: Cell, queue: deque[Cell]) -> None:
        account = destination(message)
        if account is None:
            logger.warning("a message to a workchain that does not exist was dropped")
            return
        before = self._after[account] if account in self._after else self._read(account)
        try:
            result = self._emulator.transaction(
                before,
                message,
                self.utime,
                self.lt,
                prev_blocks=self._prev_blocks,
                random_seed=self.seed,
            )
        except MessageNotAcceptedError:
            return  # the state changed since it was sent; a real chain drops it too
        except EmulatorError as error:
            logger.warning("a message was dropped: %s", error)
            return
        after = result.shard_account
        state = after.refs[0]
        if state.hash == NO_ACCOUNT.hash:
            self.changed[account], after = None, EMPTY_ACCOUNT
        else:
            self.changed[account] = account_entry(after)
        self._after[account] = after
        self._old_hashes.append(bytes(before.refs[0].hash))
        self.transactions.append(result)
        self.lt = result.end_lt + 1
        for cell, parsed in zip(result.out_messages, result.outgoing, strict=True):
            if parsed.is_internal:
                queue.append(cell)

    @property
    def account_bocs(self) -> dict[bytes, bytes]:
        """``Account`` cells after the block by hash; what came in between, nobody can ask for."""
        kept = (self._after[account] for account, entry in self.changed.items() if entry is not None)
        return {bytes(after.refs[0].hash): write_boc([after.refs[0]]) for after in kept}

    @property
    def accounts_after(self) -> dict[bytes, Cell]:
        """``ShardAccount`` of each changed account."""
        return self._after

    def block_transactions(self, workchain: int) -> list[BlockTransaction]:
        """The transactions of one workchain as its block holds them."""
        return [
            BlockTransaction(
                account=name_of(result.address),
                lt=result.lt,
                cell=result.cell,
                fees=result.total_fees,
                old_hash=old_hash,
                new_hash=bytes(result.shard_account.refs[0].hash),
            )
            for result, old_hash in zip(self.transactions, self._old_hashes, strict=True)
            if workchain_of(name_of(result.address)) == workchain
        ]

    def records(self, seqno: int) -> list[TransactionRecord]:
        """The transactions as the store holds them."""
        return [
            TransactionRecord(
                account=name_of(result.address),
                lt=result.lt,
                hash=result.hash,
                seqno=seqno,
                boc=write_boc([result.cell]),
            )
            for result in self.transactions
        ]


def destination(message: Cell) -> bytes | None:
    """Name of the account that a message goes to; None for another workchain or a malformed cell."""
    try:
        address = MessageAny.deserialize(message.begin_parse()).info.dest
        return name_of(address) if address.wc in (BASECHAIN, MASTERCHAIN) else None
    except Exception:  # pytoniq-core raises whatever it meets
        return None


def account_entry(shard_account: Cell, *, whole: bool = False) -> AccountEntry:
    """Dictionary entry of an existing ``ShardAccount``, with the ``Account`` cell itself if `whole`."""
    part = shard_account.begin_parse()
    account = shard_account.refs[0]
    return AccountEntry(
        account=account if whole else Stub.of(account),
        balance=view_account(shard_account).balance,
        last_hash=part.load_bytes(32),
        last_lt=part.load_uint(64),
    )
