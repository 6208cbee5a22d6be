"""The wallet as everybody uses it: pay once per key, and know what became of it.

Host agent and client library share this class. The outbox allows one sender per wallet at a time, so it is
opened for each piece of work only; a second process waits for its turn. Keys, states and what a crash
leaves behind: ``docs/spec/wallet.md#treasury``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pytoniq_core import Address, Cell, StateInit

from cocoon_attestation.errors import ConfigError, PaymentError, UnavailableError
from cocoon_ton.chain import ChainReader, ChainWriter, TransactionInfo
from cocoon_ton.errors import (
    ChainUnavailableError,
    InsufficientFundsError,
    MessageFailedError,
    OutboxBusyError,
)
from cocoon_ton.messages import Transfer, external_message
from cocoon_ton.outbox import (
    ExternalOperation,
    Operation,
    OperationState,
    OperationStatus,
    Outbox,
    TransferOperation,
    find_delivery,
)
from cocoon_ton.outbox.sender import FEE_RESERVE
from cocoon_ton.wallet import Wallet

TIMEOUT_S: Final = 120.0
"""Longest wait for a message to be executed, and again for its delivery."""
EXTERNAL_LIFE_S: Final = 60
"""Seconds of chain time after which an external message is given up."""
_STEP_S: Final = 0.2
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One message of the wallet. The same `key` is the same payment for ever."""

    key: str
    to: Address
    value: int
    """Nanoton that go along."""
    body: Cell
    state_init: StateInit | None = None
    bounce: bool = True

    @property
    def operation(self) -> TransferOperation:
        """What the outbox stores."""
        init = None if self.state_init is None else self.state_init.serialize()
        return TransferOperation(
            transfer=Transfer(
                destination=self.to, amount=self.value, body=self.body, state_init=init, bounce=self.bounce
            )
        )


class Treasury(Protocol):
    """Sends messages that cost money. Every call is idempotent by its key, across crashes too."""

    @property
    def address(self) -> Address:
        """The wallet."""
        ...

    async def balance(self) -> int:
        """Proved balance in nanoton."""
        ...

    async def resume(self) -> None:
        """Finish what an earlier life of this process began; then the chain shows all that was done.

        Raises:
            UnavailableError: not all of it was seen in time; call again.
        """
        ...

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> TransactionInfo:
        """Send `value` nanoton with a message; returns the receiver's proved transaction.

        Raises:
            MessageFailedError: the receiver refused it; the value came back less the fees.
            InsufficientFundsError: the wallet does not hold `value` and fees; nothing was stored.
            UnavailableError: not seen in time; call again with the same key.
        """
        ...

    async def pay_all(self, payments: Sequence[Payment]) -> list[TransactionInfo | PaymentError]:
        """Like `pay` for several: up to four in one message of the wallet. Failures are returned.

        Raises:
            InsufficientFundsError: the wallet does not hold the sum and fees; nothing was stored.
            UnavailableError: not all were seen in time; call again with the same keys.
        """
        ...

    async def send_external(self, *, key: str, to: Address, body: Cell) -> TransactionInfo:
        """Offer an external message; returns the receiver's proved transaction.

        Raises:
            MessageFailedError: the contract ran it and failed, or never accepted it.
            UnavailableError: not seen in time.
        """
        ...


class Chain(ChainReader, ChainWriter, Protocol):
    """Both directions."""


class WalletTreasury:
    """A `Treasury` on a wallet, its outbox file and the chain.

    fund: called with what is missing before a payment is stored, where there is a faucet; returns the
    balance afterwards.
    """

    def __init__(
        self,
        wallet: Wallet,
        *,
        outbox: Path,
        chain: Chain,
        fund: Callable[[int], Awaitable[int]] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.wallet = wallet
        self._path = outbox
        self._chain = chain
        self._fund = fund
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()

    @property
    def address(self) -> Address:
        """The wallet's address."""
        return self.wallet.address

    async def balance(self) -> int:
        """Proved balance in nanoton."""
        return (await self._chain.account(self.wallet.address)).balance

    async def resume(self) -> None:
        """See `Treasury.resume`."""
        if not self._path.exists():
            return
        async with self._outbox() as outbox:
            await self._work(outbox, lambda: outbox.pending == 0)
            last = outbox.last_emitted()
        for to, status in last:
            await self._delivered(to, status)

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> TransactionInfo:
        """See `Treasury.pay`."""
        payment = Payment(key=key, to=to, value=value, body=body, state_init=state_init)
        (found,) = await self.pay_all([payment])
        if isinstance(found, PaymentError):
            raise found
        return found

    async def pay_all(self, payments: Sequence[Payment]) -> list[TransactionInfo | PaymentError]:
        """See `Treasury.pay_all`."""
        async with self._outbox() as outbox:
            names = [await self._name(outbox, payment) for payment in payments]
            fresh = [p for p, name in zip(payments, names, strict=True) if outbox.find(name) is None]
            if fresh:
                await self._require(sum(payment.value + FEE_RESERVE for payment in fresh))
            for payment, name in zip(payments, names, strict=True):
                outbox.enqueue(name, payment.operation)
            await self._work(outbox, lambda: all(outbox.status(name).state.final for name in names))
            statuses = [outbox.status(name) for name in names]
        return [
            await self._outcome(payment, status) for payment, status in zip(payments, statuses, strict=True)
        ]

    async def send_external(self, *, key: str, to: Address, body: Cell) -> TransactionInfo:
        """See `Treasury.send_external`."""
        state = await self._chain.account(to)
        operation: Operation = ExternalOperation(
            destination=to,
            message=external_message(to, body),
            not_after=state.shard_utime + EXTERNAL_LIFE_S,
        )
        # The contract itself acts only once on such a message, so a later attempt is a new operation.
        name = f"{key}:{state.shard_utime}"
        async with self._outbox() as outbox:
            outbox.enqueue(name, operation)
            await self._work(outbox, lambda: outbox.status(name).state.final)
            status = outbox.status(name)
        if status.state is not OperationState.SEEN:
            raise MessageFailedError(f"{_kind(key)}: {status.error}")
        for transaction in await self._chain.transactions(to, after_lt=max(0, (status.tx_lt or 1) - 1)):
            if transaction.hash == status.tx_hash:
                if not transaction.success:
                    raise _refusal(key, transaction)
                return transaction
        raise ChainUnavailableError(f"{_kind(key)}: the transaction is not to be had")

    # ---- one payment

    async def _name(self, outbox: Outbox, payment: Payment) -> str:
        """The name under which a payment stands in the outbox: a new one after each that failed for good."""
        for attempt in range(_ATTEMPTS):
            name = payment.key if attempt == 0 else f"{payment.key}#{attempt}"
            status = outbox.find(name)
            if status is None or not await self._is_lost(payment, status):
                return name
        raise PaymentError("the payment failed repeatedly", details={"operation": payment.key})

    async def _is_lost(self, payment: Payment, status: OperationStatus) -> bool:
        """Whether a stored operation has failed for good: the wallet skipped it, or the receiver refused."""
        if status.state is OperationState.FAILED:
            return True
        if status.state is not OperationState.SEEN:
            return False
        return not _kept(payment, await self._delivered(payment.to, status))

    async def _outcome(self, payment: Payment, status: OperationStatus) -> TransactionInfo | PaymentError:
        if status.state is not OperationState.SEEN:
            return MessageFailedError(f"{_kind(payment.key)}: {status.error}")
        transaction = await self._delivered(payment.to, status)
        return transaction if _kept(payment, transaction) else _refusal(payment.key, transaction)

    async def _delivered(self, to: Address, status: OperationStatus) -> TransactionInfo:
        """The receiver's transaction for a message that the wallet emitted."""
        if status.message_hash is None:
            raise ConfigError("outbox database is inconsistent")
        end = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            with contextlib.suppress(ChainUnavailableError):
                found = await find_delivery(
                    self._chain, to, status.message_hash, after_lt=status.tx_lt or 0
                )
                if found is not None:
                    return found
            if asyncio.get_running_loop().time() >= end:
                raise ChainUnavailableError(
                    "a message of the wallet did not arrive yet", hint="try again: nothing is paid twice"
                )
            await asyncio.sleep(_STEP_S)

    async def _require(self, need: int) -> None:
        """See that the wallet can pay before anything is stored; where there is a faucet, see to it."""
        balance = await self.balance()
        if balance < need and self._fund is not None:
            balance = await self._fund(need)
        if balance < need:
            raise InsufficientFundsError(
                "the wallet does not hold enough for the payment and its fees",
                hint=f"send TON to {self.wallet.friendly}",
                details={"address": self.wallet.friendly, "balance": balance, "needed": need},
            )

    # ---- the outbox

    @contextlib.asynccontextmanager
    async def _outbox(self) -> AsyncIterator[Outbox]:
        """The outbox, open; waits while another task or process uses it."""
        async with self._lock, contextlib.AsyncExitStack() as stack:
            end = asyncio.get_running_loop().time() + self._timeout_s
            outbox = Outbox(self._path, self.wallet, self._chain)
            while True:
                try:
                    await stack.enter_async_context(outbox)
                    break
                except OutboxBusyError:
                    if asyncio.get_running_loop().time() >= end:
                        raise
                    await asyncio.sleep(_STEP_S)
            yield outbox

    async def _work(self, outbox: Outbox, done: Callable[[], bool]) -> None:
        """Carry stored operations out until `done`."""
        end = asyncio.get_running_loop().time() + self._timeout_s
        trouble = ""
        while True:
            try:
                await outbox.step()
            except ChainUnavailableError as error:
                trouble = str(error)
            if done():
                return
            if asyncio.get_running_loop().time() >= end:
                raise UnavailableError(
                    f"the payment was not seen on chain in time: {outbox.trouble() or trouble}",
                    hint="try again: nothing is paid twice",
                )
            await asyncio.sleep(_STEP_S)


def _kind(key: str) -> str:
    """The part of a key that says what it is for."""
    return key.replace("/", ":").split(":")[0]


def _kept(payment: Payment, transaction: TransactionInfo) -> bool:
    """Whether the receiver kept the value. What is not bounceable stays wherever it lands."""
    return transaction.success or not payment.bounce


def _refusal(key: str, transaction: TransactionInfo) -> MessageFailedError:
    return MessageFailedError(
        f"{_kind(key)}: refused with exit code {transaction.exit_code}",
        details={"exit_code": transaction.exit_code, "transaction": transaction.hash.hex()},
    )
