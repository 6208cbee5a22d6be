"""`cocoon wallet send`, and what every command asks before it spends: amount, fee, and what is left."""

from __future__ import annotations

import secrets

import click
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_cli.clients import client_home, run
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import out, print_json, ton
from cocoon_cli.wallet_keys import open_wallet
from cocoon_proxy.treasury import outbox_path
from cocoon_ton.address import friendly_address, parse_address
from cocoon_ton.amounts import parse_ton
from cocoon_ton.cells import finish
from cocoon_ton.chain import LiteChain
from cocoon_ton.errors import AddressError, AmountError, InsufficientFundsError
from cocoon_ton.fees import transfer_fee
from cocoon_ton.messages import Transfer
from cocoon_ton.network import NetworkConfig, load_network
from cocoon_ton.outbox.sender import FEE_RESERVE
from cocoon_ton.treasury import Payment, WalletTreasury
from cocoon_ton.values import AccountState
from cocoon_ton.wallet import Wallet

MAX_COMMENT = 120
"""Bytes of a comment: what fits into one cell."""


@click.command()
@click.argument("address")
@click.argument("amount", required=False)
@click.option("--all", "everything", is_flag=True, help="Send all but a reserve of 0.02 TON for fees.")
@click.option("--comment", default="", help="Text for the receiver; everybody can read it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@network_option
@common_options
def send(
    address: str,
    amount: str | None,
    everything: bool,
    comment: str,
    yes: bool,
    network: str,
    as_json: bool,
) -> None:
    """Send AMOUNT TON (or --all) from the wallet to ADDRESS."""
    if (amount is None) != everything:
        raise click.UsageError("give an AMOUNT or --all")
    chosen = load_network(network)
    to = parse_receiver(address, chosen)
    wallet = open_wallet(chosen)
    body = comment_body(comment)
    state = _state(chosen, wallet)
    value = state.balance - FEE_RESERVE if amount is None else parse_ton_amount(amount)
    if value <= 0:
        raise _poor(wallet, state, FEE_RESERVE + 1)
    # A bounceable form of an address asks for the money back if nobody is there.
    bounce = bool(to.is_bounceable) if ":" not in address else False
    fee = _checked(wallet, state, Transfer(destination=to, amount=value, body=body, bounce=bounce))
    if not yes and not as_json:
        shown = friendly_address(to, bounceable=bounce, test_only=chosen.test_only)
        click.confirm(f"Send {ton(value)} to {shown}\nfee: about {ton(fee)}. Go on?", abort=True, err=True)
    payment = Payment(key=f"send/{secrets.token_hex(16)}", to=to, value=value, body=body, bounce=bounce)
    transaction = run(lambda: _pay(chosen, wallet, payment))
    link = chosen.explorer_link(to)
    if as_json:
        print_json(
            {
                "ok": True, "to": friendly_address(to, bounceable=bounce, test_only=chosen.test_only),
                "amount_nanoton": value, "fee_nanoton_estimate": fee, "transaction": transaction, "explorer": link,
            }
        )  # fmt: skip
    else:
        out().print(f"sent {ton(value)}" + (f"\nexplorer {link}" if link else ""))


async def _pay(network: NetworkConfig, wallet: Wallet, payment: Payment) -> str:
    async with LiteChain(network) as chain:
        treasury = WalletTreasury(wallet, outbox=outbox_path(client_home(network)), chain=chain)
        await treasury.resume()  # what a stopped command left is sent once, and before
        (found,) = await treasury.pay_all([payment])
    if isinstance(found, Exception):
        raise found
    return found.hash.hex()


def confirm(network: NetworkConfig, what: str, *, value: int, body: Cell, extra: str, ask: bool) -> None:
    """Show what a message to a contract costs and ask. Nothing is checked where nobody is asked.

    Raises `click.Abort` for a no, `InsufficientFundsError` if the wallet cannot pay.
    """
    if not ask:
        return
    wallet = open_wallet(network)
    state = _state(network, wallet)
    transfer = Transfer(destination=wallet.address, amount=value, body=body)
    fee = transfer_fee(wallet, [transfer], deploy=not state.active)
    if network.faucet is None:
        _checked(wallet, state, transfer)
    click.confirm(f"{what}\nfee: about {ton(fee)}; {extra}. Go on?", abort=True, err=True)


def _state(network: NetworkConfig, wallet: Wallet) -> AccountState:
    async def main() -> AccountState:
        async with LiteChain(network) as chain:
            return await chain.account(wallet.address)

    return run(main)


def _checked(wallet: Wallet, state: AccountState, transfer: Transfer) -> int:
    """The fee in nanoton. Raises `InsufficientFundsError` unless the wallet can pay amount and reserve."""
    need = transfer.amount + FEE_RESERVE
    if state.balance < need:
        raise _poor(wallet, state, need)
    return transfer_fee(wallet, [transfer], deploy=not state.active)


def _poor(wallet: Wallet, state: AccountState, need: int) -> InsufficientFundsError:
    return InsufficientFundsError(
        f"the wallet holds {ton(state.balance)}; {ton(need)} are needed with the reserve for fees",
        hint=f"send TON to {wallet.friendly}, or send less: --all sends what can be sent",
        details={"address": wallet.friendly, "balance": state.balance, "needed": need},
    )


def parse_receiver(text: str, network: NetworkConfig) -> Address:
    """An address that somebody typed. Raises `AddressError`: misspelled, or of a test network on mainnet."""
    try:
        address = parse_address(text)
    except MalformedError as error:
        raise AddressError(str(error)) from error
    if ":" not in text and address.is_test_only and not network.test_only:
        raise AddressError(
            "this is an address of a test network, and the wallet is on mainnet",
            hint="ask the receiver for the mainnet form: it begins with UQ or EQ",
        )
    return address


def parse_ton_amount(text: str) -> int:
    """Nanoton from what somebody typed. Raises `AmountError`."""
    try:
        value = parse_ton(text)
    except MalformedError as error:
        raise AmountError(str(error)) from error
    if value == 0:
        raise AmountError("the amount is zero")
    return value


def comment_body(text: str) -> Cell:
    """The body of a transfer with a comment: 32 zero bits, then UTF-8. Empty for no comment."""
    data = text.encode()
    if len(data) > MAX_COMMENT:
        raise click.UsageError(f"a comment has at most {MAX_COMMENT} bytes")
    if not data:
        return finish(Builder())
    return finish(Builder().store_uint(0, 32).store_bytes(data))
