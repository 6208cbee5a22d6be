"""The client's wallet behind the payments: sends through the outbox, and knows the development faucet.

The outbox allows one sender per wallet at a time, so it is opened for each transfer only; a second
process waits for its turn. On a development network a missing wallet is made and funded on its own, and
an event says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Final, Protocol

from pytoniq_core import Address, Cell, StateInit

from cocoon_attestation.errors import ConfigError, PaymentError, UnavailableError
from cocoon_proxy.events import ClientEvent, WalletReady
from cocoon_proxy.payments import Treasury
from cocoon_ton.chain import ChainReader, ChainWriter
from cocoon_ton.errors import ChainUnavailableError, InsufficientFundsError, KeystoreError
from cocoon_ton.keystore import KeyFile, create_keystore, load_keystore
from cocoon_ton.messages import Transfer
from cocoon_ton.network import NetworkConfig
from cocoon_ton.outbox import OperationState, Outbox, TransferOperation
from cocoon_ton.wallet import Wallet, WalletVersion, faucet_wallet, new_mnemonic

FEE_ALLOWANCE: Final = 100_000_000
"""Nanoton that must be in the wallet beyond a transfer, for fees."""
FAUCET_AMOUNT: Final = 100 * 10**9
"""Nanoton that the development faucet gives at once."""
_TIMEOUT_S: Final = 120.0
_STEP_S: Final = 0.3
_ATTEMPTS: Final = 5
_LOG = logging.getLogger("cocoon_proxy")


class Chain(ChainReader, ChainWriter, Protocol):
    """A chain client that reads and sends."""


def wallet_path(directory: Path) -> Path:
    """The key file in a client's directory (``COCOON_HOME/client/NETWORK``)."""
    return directory / "wallet.json"


class WalletTreasury:
    """Implements `Treasury` with a wallet, its outbox file and the chain."""

    def __init__(
        self,
        wallet: Wallet,
        *,
        outbox: Path,
        chain: Chain,
        fund: Callable[[int], Coroutine[object, object, int]] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._wallet = wallet
        self._outbox = outbox
        self._chain = chain
        self._fund = fund
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()

    @property
    def address(self) -> Address:
        """The wallet's address."""
        return self._wallet.address

    async def balance(self) -> int:
        """Proved balance in nanoton."""
        return (await self._chain.account(self._wallet.address)).balance

    async def transfer(
        self, key: str, *, to: Address, amount: int, body: Cell, state_init: StateInit | None = None
    ) -> None:
        """See `Treasury.transfer`."""
        init: Cell | None = None if state_init is None else state_init.serialize()
        operation = TransferOperation(
            transfer=Transfer(destination=to, amount=amount, body=body, state_init=init)
        )
        async with self._lock, _outbox(self._outbox, self._wallet, self._chain) as outbox:
            await self._carry_out(outbox, key, operation)

    async def _carry_out(self, outbox: Outbox, key: str, operation: TransferOperation) -> None:
        """Run one operation to its end. A name whose transfer failed for good is followed by a new one."""
        for attempt in range(_ATTEMPTS):
            name = key if attempt == 0 else f"{key}#{attempt}"
            if _state(outbox, name) is OperationState.FAILED:
                continue
            if _state(outbox, name) is None:
                await self._require(operation.transfer.amount)
            outbox.enqueue(name, operation)
            await _finish(outbox, name, self._timeout_s)
            return
        raise PaymentError("the transfer failed repeatedly", details={"operation": key})

    async def _require(self, amount: int) -> None:
        """See that the wallet can pay before anything is stored; on a development network, see to it."""
        need = amount + FEE_ALLOWANCE
        balance = await self.balance()
        if balance < need and self._fund is not None:
            balance = await self._fund(max(need, FAUCET_AMOUNT))
        if balance < need:
            raise InsufficientFundsError(
                "the wallet does not hold enough for the deposit and fees",
                hint=f"send TON to {self._wallet.friendly}",
                details={"address": self._wallet.friendly, "balance": balance, "needed": need},
            )


class _NoWallet:
    """Stands where there is no wallet: reading works, paying says what to do."""

    @property
    def address(self) -> Address:
        """Raises `ConfigError`."""
        raise _no_wallet()

    async def balance(self) -> int:
        """Raises `ConfigError`."""
        raise _no_wallet()

    async def transfer(
        self, key: str, *, to: Address, amount: int, body: Cell, state_init: StateInit | None = None
    ) -> None:
        """Raises `ConfigError`."""
        raise _no_wallet()


def _no_wallet() -> ConfigError:
    return ConfigError("this client has no wallet", hint="make one with `cocoon wallet new`")


@contextlib.asynccontextmanager
async def open_treasury(
    network: NetworkConfig,
    directory: Path,
    chain: Chain,
    emit: Callable[[ClientEvent], None],
    *,
    passphrase: str | None = None,
) -> AsyncIterator[Treasury]:
    """The wallet of a client's directory.

    A missing wallet is made only on a network whose file holds a development faucet; elsewhere the
    treasury refuses to pay and says how to make one.

    Raises:
        KeystoreError: the key file cannot be opened.
    """
    path = wallet_path(directory)
    if not path.exists() and network.faucet is None:
        yield _NoWallet()
        return
    wallet, created = await asyncio.to_thread(_load, path, network, passphrase)

    async def fund(amount: int) -> int:
        balance = await _from_faucet(network, directory, chain, wallet.address, amount)
        _LOG.info("development network: the faucet funded the client's wallet")
        emit(WalletReady(address=wallet.friendly, created=False, funded=amount))
        return balance

    if created:
        _LOG.info("development network: made a wallet for this client")
        emit(WalletReady(address=wallet.friendly, created=True, funded=0))
    yield WalletTreasury(
        wallet,
        outbox=directory / "outbox.sqlite3",
        chain=chain,
        fund=fund if network.faucet is not None else None,
    )


def _load(path: Path, network: NetworkConfig, passphrase: str | None) -> tuple[Wallet, bool]:
    created = False
    if not path.exists():
        try:
            create_keystore(path, KeyFile(mnemonic=new_mnemonic(), version=WalletVersion.V5R1), passphrase)
            created = True
        except KeystoreError:
            if not path.exists():  # otherwise another process was faster
                raise
    return load_keystore(path, passphrase).wallet(network.global_id), created


async def _from_faucet(
    network: NetworkConfig, directory: Path, chain: Chain, to: Address, amount: int
) -> int:
    """Have the development faucet send `amount`; returns the proved balance afterwards."""
    faucet = faucet_wallet(network)
    before = await chain.account(to)
    operation = TransferOperation(transfer=Transfer(destination=to, amount=amount, bounce=False))
    async with _outbox(directory / "faucet.sqlite3", faucet, chain) as outbox:
        name = f"fund/{to.hash_part.hex()}/{before.last_tx_lt}"
        outbox.enqueue(name, operation)
        await _finish(outbox, name, _TIMEOUT_S)
    async with asyncio.timeout(_TIMEOUT_S):
        while (account := await chain.account(to)).balance <= before.balance:  # noqa: ASYNC110  # blocks are polled
            await asyncio.sleep(_STEP_S)
    return account.balance


@contextlib.asynccontextmanager
async def _outbox(path: Path, wallet: Wallet, chain: Chain) -> AsyncIterator[Outbox]:
    """Open the outbox, waiting while another process holds it."""
    outbox = Outbox(path, wallet, chain)
    async with contextlib.AsyncExitStack() as stack:
        for attempt in range(int(_TIMEOUT_S / _STEP_S)):
            try:
                await stack.enter_async_context(outbox)
                break
            except ConfigError as error:
                if "another process" not in str(error) or attempt + 1 == int(_TIMEOUT_S / _STEP_S):
                    raise
                await asyncio.sleep(_STEP_S)
        yield outbox


async def _finish(outbox: Outbox, name: str, timeout_s: float) -> None:
    """Work on the outbox until the operation is final."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    trouble = ""
    while True:
        try:
            await outbox.step()
        except ChainUnavailableError as error:
            trouble = str(error)
        status = outbox.status(name)
        if status.state is OperationState.SEEN:
            return
        if status.state is OperationState.FAILED:
            raise PaymentError(f"the transfer failed: {status.error}", details={"operation": name})
        if loop.time() >= end:
            raise UnavailableError(
                f"the transfer was not seen on chain in time: {status.error or trouble}",
                hint="try again: it is not paid twice",
                details={"operation": name},
            )
        await asyncio.sleep(_STEP_S)


def _state(outbox: Outbox, name: str) -> OperationState | None:
    try:
        return outbox.status(name).state
    except ConfigError:
        return None
