"""The client's wallet behind the payments, and the development faucet.

On a development network a missing wallet is made and funded on its own, and an event says so. Elsewhere the
user makes it; without one the client reads, and refuses to pay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from pytoniq_core import Address, Cell, StateInit

from cocoon_attestation.errors import ConfigError, PaymentError
from cocoon_proxy.events import ClientEvent, WalletReady
from cocoon_ton.chain import TransactionInfo
from cocoon_ton.errors import KeystoreError
from cocoon_ton.keystore import KeyFile, create_keystore, load_keystore
from cocoon_ton.network import NetworkConfig
from cocoon_ton.treasury import Chain, Payment, Treasury, WalletTreasury
from cocoon_ton.wallet import Wallet, WalletVersion, faucet_wallet, new_mnemonic

FAUCET_AMOUNT: Final = 100 * 10**9
"""Nanoton that the development faucet gives at once."""
_LOG = logging.getLogger("cocoon_proxy")


def wallet_path(directory: Path) -> Path:
    """The key file in a client's directory (``COCOON_HOME/client/NETWORK``)."""
    return directory / "wallet.json"


def outbox_path(directory: Path) -> Path:
    """The outbox in a client's directory."""
    return directory / "outbox.sqlite3"


class _NoWallet:
    """Stands where there is no wallet: reading works, paying says what to do."""

    @property
    def address(self) -> Address:
        """Raises `ConfigError`."""
        raise _no_wallet()

    async def balance(self) -> int:
        """Raises `ConfigError`."""
        raise _no_wallet()

    async def resume(self) -> None:
        """There is nothing to resume."""

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> TransactionInfo:
        """Raises `ConfigError`."""
        raise _no_wallet()

    async def pay_all(self, payments: Sequence[Payment]) -> list[TransactionInfo | PaymentError]:
        """Raises `ConfigError`."""
        raise _no_wallet()

    async def send_external(self, *, key: str, to: Address, body: Cell) -> TransactionInfo:
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

    async def fund(need: int) -> int:
        amount = max(need, FAUCET_AMOUNT)
        balance = await _from_faucet(network, directory, chain, wallet.address, amount)
        _LOG.info("development network: the faucet funded the client's wallet")
        emit(WalletReady(address=wallet.friendly, created=False, funded=amount))
        return balance

    if created:
        _LOG.info("development network: made a wallet for this client")
        emit(WalletReady(address=wallet.friendly, created=True, funded=0))
    yield WalletTreasury(
        wallet,
        outbox=outbox_path(directory),
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
    faucet = WalletTreasury(faucet_wallet(network), outbox=directory / "faucet.sqlite3", chain=chain)
    before = (await chain.account(to)).last_tx_lt
    # Not bounceable: the wallet's contract does not exist before its first message.
    key = f"fund/{to.hash_part.hex()}/{before}"
    gift = Payment(key=key, to=to, value=amount, body=Cell.empty(), bounce=False)
    (found,) = await faucet.pay_all([gift])
    if isinstance(found, PaymentError):
        raise found
    return (await chain.account(to)).balance
