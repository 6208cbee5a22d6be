"""`Outbox`: carries operations out exactly once, with one sender per wallet.

Why nothing is paid twice: a signed message is stored before it is sent; the wallet executes it at most
once (sequence number); and its transfers are put into a new message only when a proved state shows that
the old one can never be executed any more: its sequence number is used up and no transaction of the
wallet's proved history carries it, or a proved block's time has reached its `valid_until` while the
sequence number is unused.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pytoniq_core import Address

from cocoon_attestation.errors import ConfigError
from cocoon_ton.address import parse_address, raw_address
from cocoon_ton.amounts import format_ton
from cocoon_ton.chain import ChainReader, ChainWriter
from cocoon_ton.errors import (
    ChainUnavailableError,
    InsufficientFundsError,
    MessageRefusedError,
    OutboxBusyError,
)
from cocoon_ton.files import locked
from cocoon_ton.outbox.operation import (
    ExternalOperation,
    Operation,
    OperationState,
    OperationStatus,
)
from cocoon_ton.outbox.outcome import (
    expired,
    external_outcome,
    failed,
    find_delivery,
    match_emitted,
    transfer_of,
)
from cocoon_ton.outbox.store import Batch, OutboxStore, Pending
from cocoon_ton.values import AccountState, TransactionInfo
from cocoon_ton.wallet import MAX_TRANSFERS, Wallet

__all__ = ["FEE_RESERVE", "HISTORY_LIMIT", "TIME_TO_LIVE", "Chain", "Outbox", "find_delivery"]

TIME_TO_LIVE = 120
"""Seconds of chain time for which a signed message stays valid."""
FEE_RESERVE = 20_000_000
"""Nanoton kept back per transfer for fees, so that the wallet's own send does not run dry."""
HISTORY_LIMIT = 10_000
"""Transactions searched at most for one message."""

_log = logging.getLogger(__name__)


class Chain(ChainReader, ChainWriter, Protocol):
    """Both directions."""


class Outbox:
    """Operations of one wallet; an async context manager that holds the wallet's lock file.

    `enqueue` stores an operation under a key, repeated `step` carries the stored ones out, `status` says
    where one stands. `resend_interval` is in seconds of real time.
    """

    def __init__(self, path: Path, wallet: Wallet, chain: Chain, *, resend_interval: float = 5.0) -> None:
        self._path, self._wallet, self._chain = path, wallet, chain
        self._resend_interval = resend_interval
        self._sent_at: dict[bytes, float] = {}
        self._store: OutboxStore | None = None
        self._held = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        identity = f"{raw_address(self._wallet.address)} {self._wallet.global_id}"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._path.with_name(self._path.name + ".lock")))
            except BlockingIOError as error:
                raise OutboxBusyError("another process uses this wallet's outbox") from error
            self._store = OutboxStore(self._path, identity)
            self._held = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._store = None
        self._held.close()

    @property
    def _open(self) -> OutboxStore:
        if self._store is None:
            raise ConfigError("the outbox is not open")
        return self._store

    def enqueue(self, key: str, operation: Operation) -> OperationStatus:
        """Store an operation; it is on disk when this returns.

        The same key with the same operation changes nothing; with another operation it raises
        `OutboxConflictError`.
        """
        self._open.add(key, operation)
        return self.status(key)

    def find(self, key: str) -> OperationStatus | None:
        """The status of an operation; None if there is none of this key."""
        return self._open.status(key)

    def status(self, key: str) -> OperationStatus:
        """The status of an operation. Raises `ConfigError` for an unknown key."""
        found = self.find(key)
        if found is None:
            raise ConfigError(f"the outbox has no operation {key!r}")
        return found

    @property
    def pending(self) -> int:
        """How many operations are not final."""
        return self._open.count_pending()

    def trouble(self) -> str:
        """What holds the oldest operation up that is not final; empty if nothing does."""
        return self._open.trouble()

    def last_emitted(self) -> list[tuple[Address, OperationStatus]]:
        """Destination and status of each transfer that the wallet emitted last.

        Whoever carries out one piece of work after the other need not look further back: what was
        emitted before has arrived.
        """
        found = []
        for destination, key in self._open.last_emitted():
            found.append((parse_address(destination), self.status(key)))
        return found

    async def step(self) -> None:
        """Do what can be done now. Safe to repeat at any time, and after any crash."""
        store = self._open
        batch = store.open_batch()
        if batch is not None or store.queued_transfers():
            await self._transfers(batch)
        for pending in store.externals():
            await self._external(pending)

    # ---- transfers

    async def _transfers(self, batch: Batch | None) -> None:
        state = await self._chain.account(self._wallet.address)
        if batch is not None:
            if not await self._resolve(batch, state):
                await self._send_again(batch.boc, batch.body_hash)
                return
            self._sent_at.pop(batch.body_hash, None)
        await self._start(state)

    async def _resolve(self, batch: Batch, state: AccountState) -> bool:
        """Whether the open message can never be executed again, so that a new one may be signed."""
        seqno = self._wallet.seqno(state)
        if seqno > batch.seqno:
            found = await self._find(state, batch.start_lt, batch.body_hash)
            if found is None:
                self._open.void_batch(batch, "the sequence number was used by another message")
            else:
                transfers = self._open.batch_transfers(batch)
                self._open.finish_batch(batch, match_emitted(transfers, found))
            return True
        if seqno == batch.seqno and state.shard_utime >= batch.valid_until:
            self._open.void_batch(batch, "the message expired before it was executed")
            return True
        return False

    async def _find(self, state: AccountState, after_lt: int, body_hash: bytes) -> TransactionInfo | None:
        """The transaction after `after_lt` that an external message with this body started.

        Raises `ChainUnavailableError` unless the whole history since then was seen.
        """
        transactions = await self._chain.transactions(
            state.address, after_lt=after_lt, limit=HISTORY_LIMIT, at=state.block
        )
        for transaction in transactions:
            message = transaction.in_msg
            if message is not None and message.kind == "external_in" and message.body.hash == body_hash:
                return transaction
        if state.last_tx_lt > after_lt and (not transactions or transactions[-1].prev_lt > after_lt):
            raise ChainUnavailableError("the account's history is not complete")
        return None

    async def _start(self, state: AccountState) -> None:
        """Sign, store and send the next message."""
        transfers = self._affordable(state)
        if not transfers:
            return
        seqno = self._wallet.seqno(state)
        valid_until = state.shard_utime + TIME_TO_LIVE
        message = self._wallet.sign(
            [transfer_of(pending) for pending in transfers],
            seqno=seqno,
            valid_until=valid_until,
            deploy=not state.active,
        )
        batch = self._open.start_batch(
            transfers, message, seqno=seqno, valid_until=valid_until, start_lt=state.last_tx_lt
        )
        await self._send_again(batch.boc, batch.body_hash)

    def _affordable(self, state: AccountState) -> list[Pending]:
        """The oldest queued transfers that the balance covers; expired ones are failed."""
        chosen: list[Pending] = []
        left = state.balance
        for pending in self._open.queued_transfers():
            if expired(pending, state):
                self._open.settle(failed(pending, "it was not started in time"))
                continue
            left -= transfer_of(pending).amount + FEE_RESERVE
            if left < 0:
                if not chosen:
                    self._open.note(pending.number, str(self._poor(transfer_of(pending).amount, state)))
                break
            chosen.append(pending)
            if len(chosen) == MAX_TRANSFERS:
                break
        return chosen

    def _poor(self, amount: int, state: AccountState) -> InsufficientFundsError:
        return InsufficientFundsError(
            f"wallet {self._wallet.friendly} holds {format_ton(state.balance)} TON,"
            f" the transfer needs {format_ton(amount + FEE_RESERVE)} TON"
        )

    # ---- external messages

    async def _external(self, pending: Pending) -> None:
        operation = pending.operation
        if not isinstance(operation, ExternalOperation):
            raise ConfigError("outbox database is inconsistent")
        state = await self._chain.account(operation.destination)
        start = pending.start_lt if pending.state is OperationState.SENT else state.last_tx_lt
        if pending.state is OperationState.SENT:
            found = await self._find(state, start, operation.message.body_hash)
            if found is not None:
                self._open.settle(external_outcome(pending, found))
                self._sent_at.pop(operation.message.hash, None)
                return
        if expired(pending, state):
            self._open.settle(failed(pending, "it was not executed in time"))
            return
        self._open.external_sent(pending.number, max(start, state.last_tx_lt))
        await self._send_again(operation.message.boc, operation.message.hash, pending)

    async def _send_again(self, boc: bytes, key: bytes, pending: Pending | None = None) -> None:
        now = time.monotonic()
        if now - self._sent_at.get(key, float("-inf")) < self._resend_interval:
            return
        self._sent_at[key] = now
        try:
            await self._chain.send(boc)
        except (MessageRefusedError, ChainUnavailableError) as error:
            # Refused now may be accepted later, and an error may hide an acceptance: keep on looking.
            if pending is not None:
                self._open.note(pending.number, str(error))
            _log.info("outbox: message not taken: %s", error)
