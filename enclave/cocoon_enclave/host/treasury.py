"""The host's money: messages that happen exactly once per key and are waited for until they took effect."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytoniq_core import Address, Cell, StateInit

from cocoon_attestation.errors import PaymentError
from cocoon_ton.chain import ChainReader, ChainWriter, TransactionInfo
from cocoon_ton.errors import ChainUnavailableError
from cocoon_ton.messages import ExternalMessage, Transfer, external_message, state_init_cell
from cocoon_ton.outbox import ExternalOperation, Operation, OperationState, Outbox, TransferOperation
from cocoon_ton.outbox.sender import find_delivery
from cocoon_ton.wallet import Wallet

DELIVERY_S = 60.0
"""Longest wait for the effect of one message."""
EXTERNAL_LIFE_S = 60
"""Seconds of chain time after which an external message is given up."""


class MessageFailedError(PaymentError):
    """A contract refused a message that the wallet sent; its value came back less the fees."""

    code = "message_failed"
    default_hint = "the exit code is explained in docs/spec/contracts.md"


class Treasury(Protocol):
    """Sends messages that cost the host money. Every call is idempotent by its key, across crashes too."""

    @property
    def address(self) -> Address:
        """The wallet: owner of the node, and where earnings go."""
        ...

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> TransactionInfo:
        """Send `value` nanoton with a message; returns the receiver's proved transaction.

        Raises:
            MessageFailedError: the receiver refused it.
            InsufficientFundsError: the wallet does not hold `value` and fees.
            ChainUnavailableError: not seen in time; call again with the same key.
        """
        ...

    async def send_external(self, *, key: str, to: Address, body: Cell) -> TransactionInfo:
        """Offer an external message; returns the receiver's proved transaction.

        Raises:
            MessageFailedError: the contract ran it and failed, or never accepted it.
            ChainUnavailableError: not seen in time.
        """
        ...


class Chain(ChainReader, ChainWriter, Protocol):
    """Both directions."""


@dataclass(frozen=True, slots=True)
class WalletTreasury:
    """A `Treasury` on a wallet and its outbox."""

    wallet: Wallet
    outbox: Outbox
    chain: Chain

    @property
    def address(self) -> Address:
        """Address of the wallet."""
        return self.wallet.address

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> TransactionInfo:
        """See `Treasury.pay`."""
        await self.outbox.require(value)
        before = (await self.chain.account(to)).last_tx_lt
        init = None if state_init is None else state_init_cell(state_init)
        transfer = Transfer(destination=to, amount=value, body=body, state_init=init)
        status = await self._carry_out(key, TransferOperation(transfer=transfer))
        if status.message_hash is None:
            raise MessageFailedError(f"{key}: the wallet emitted no message")
        # A repeated call may come long after the delivery, so the search is not bounded by `before` then.
        after = min(before, status.tx_lt or before)
        return _succeeded(key, await self._delivered(to, status.message_hash, after))

    async def send_external(self, *, key: str, to: Address, body: Cell) -> TransactionInfo:
        """See `Treasury.send_external`."""
        state = await self.chain.account(to)
        message: ExternalMessage = external_message(to, body)
        operation = ExternalOperation(
            destination=to, message=message, not_after=state.shard_utime + EXTERNAL_LIFE_S
        )
        # The contract itself acts only once on such a message, so a later attempt is a new operation.
        status = await self._carry_out(f"{key}:{operation.not_after}", operation)
        for transaction in await self.chain.transactions(to, after_lt=max(0, (status.tx_lt or 1) - 1)):
            if transaction.hash == status.tx_hash:
                return _succeeded(key, transaction)
        raise ChainUnavailableError(f"{key}: the transaction is not to be had")

    async def _carry_out(self, key: str, operation: Operation) -> _Status:
        self.outbox.enqueue(key, operation)
        status = await self.outbox.wait(key, within=DELIVERY_S + EXTERNAL_LIFE_S)
        if status.state is not OperationState.SEEN:
            raise MessageFailedError(f"{key}: {status.error}")
        return _Status(tx_lt=status.tx_lt, tx_hash=status.tx_hash, message_hash=status.message_hash)

    async def _delivered(self, to: Address, message_hash: bytes, after_lt: int) -> TransactionInfo:
        deadline = time.monotonic() + DELIVERY_S
        while time.monotonic() < deadline:
            found = await find_delivery(self.chain, to, message_hash, after_lt=after_lt)
            if found is not None:
                return found
            await asyncio.sleep(0.2)
        raise ChainUnavailableError("a message of the wallet did not arrive yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status:
    tx_lt: int | None
    tx_hash: bytes | None
    message_hash: bytes | None


def _succeeded(key: str, transaction: TransactionInfo) -> TransactionInfo:
    if not transaction.success:
        raise MessageFailedError(
            f"{key.split(':')[0]}: refused with exit code {transaction.exit_code}",
            details={"exit_code": transaction.exit_code, "transaction": transaction.hash.hex()},
        )
    return transaction


@contextlib.asynccontextmanager
async def open_treasury(path: Path, wallet: Wallet, chain: Chain) -> AsyncIterator[WalletTreasury]:
    """A treasury whose outbox (a file at `path`) works as long as the context is open."""
    async with Outbox(path, wallet, chain) as outbox:
        sender = asyncio.create_task(outbox.run(interval=0.2))
        try:
            yield WalletTreasury(wallet, outbox, chain)
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender
