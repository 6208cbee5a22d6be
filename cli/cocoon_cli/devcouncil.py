"""`cocoon dev council`: hand a development network's registry over to a multisig contract of several people."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_attestation.errors import ConfigError, PaymentError
from cocoon_cli.clients import run
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import console, out, print_json
from cocoon_ton.chain import LiteChain
from cocoon_ton.network import NetworkConfig, load_network
from cocoon_ton.paths import home_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytoniq_core import Address, StateInit

    from cocoon_cli.governing import Governor
    from cocoon_ton.wallet import Wallet

TON = 10**9
SIGNER_FUNDS = 5 * TON
COUNCIL_FUNDS = 10 * TON


@click.command()
@click.option(
    "--signers", type=click.IntRange(1, 16), default=3, show_default=True, help="How many people."
)
@click.option(
    "--threshold", type=click.IntRange(1, 16), default=2, show_default=True, help="How many decide."
)
@network_option
@common_options
def council(signers: int, threshold: int, network: str, as_json: bool) -> None:
    """Deploy TON's multisig contract and make it the registry's governance, through the timelock.

    Makes a key file for every signer, without a passphrase: for development networks only.
    """
    chosen = load_network(network)
    if chosen.faucet is None:
        raise ConfigError("only a development network has a faucet that governs it")
    if threshold > signers:
        raise click.UsageError("the threshold is larger than the number of signers")
    folder = home_dir() / "council" / chosen.name
    keys = [folder / f"signer-{number}.json" for number in range(signers)]

    def say(what: str, detail: str) -> None:
        if not as_json:
            console().print(f"[green]✓[/] {what:<10} [dim]{detail}[/]")

    address = run(lambda: _found(chosen, [_signer(path, chosen) for path in keys], threshold, folder, say))
    if as_json:
        document = {
            "ok": True,
            "governance": address,
            "threshold": threshold,
            "keys": [str(k) for k in keys],
        }
        print_json(document)
        return
    out().print(f"{threshold} of {signers} govern the registry now: {address}\n\nTry:")
    out().print(f"  cocoon governance propose parameter max_nodes 50 --key {keys[0]}")
    out().print(f"  cocoon governance approve 1 --key {keys[-1]}\n  cocoon governance show")


def _signer(path: Path, network: NetworkConfig) -> Wallet:
    from cocoon_ton.keystore import KeyFile, create_keystore, load_keystore
    from cocoon_ton.wallet import WalletVersion, new_mnemonic

    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_keystore(path, KeyFile(mnemonic=new_mnemonic(), version=WalletVersion.V5R1))
    return load_keystore(path).wallet(network.global_id)


async def _found(
    network: NetworkConfig,
    wallets: list[Wallet],
    threshold: int,
    folder: Path,
    say: Callable[[str, str], None],
) -> str:
    from pytoniq_core import StateInit

    from cocoon_cli.governing import Governor, read_governance
    from cocoon_ton.address import raw_address
    from cocoon_ton.code import contract_address
    from cocoon_ton.emulator.multisig import multisig_code
    from cocoon_ton.multisig import MultisigConfig, parse_multisig
    from cocoon_ton.registry_messages import (
        accept_governance_body,
        announce_body,
        execute_body,
        set_governance,
    )
    from cocoon_ton.wallet import faucet_wallet

    config = MultisigConfig(signers=tuple(w.address for w in wallets), threshold=threshold)
    address = contract_address(multisig_code(), config.initial_data)
    async with LiteChain(network) as chain:
        found = await read_governance(chain, network)
        faucet = Governor(network, chain, faucet_wallet(network), folder / "faucet.outbox")
        if found.registry.governance == address:
            return raw_address(address)
        if found.registry.governance != faucet.wallet.address:
            raise ConfigError("this registry is not governed by the faucet's wallet any more")
        init = StateInit(code=multisig_code(), data=config.initial_data)
        await _fund(faucet, address, init, [wallet.address for wallet in wallets])
        say("multisig", f"{raw_address(address)}, {threshold} of {len(wallets)}")
        change = set_governance(address)
        if change.hash not in found.registry.pending and found.registry.next_governance != address:
            await faucet.tell_registry(announce_body(change), expires_in=0)
        say("announced", f"waiting for the timelock of {found.registry.parameters.timelock} s")
        await _ready(chain, network, bytes(change.hash))
        if (await read_governance(chain, network)).registry.next_governance != address:
            await faucet.send("execute", execute_body(bytes(change.hash)))
        say("named", "the council must accept")
        signers = [
            Governor(network, chain, w, folder / f"signer-{n}.outbox") for n, w in enumerate(wallets)
        ]
        account = await chain.account(address)
        if account.data is None:
            raise ConfigError("the multisig contract is not there")
        head = await chain.head()
        number = await signers[0].propose(
            address, parse_multisig(account.data), accept_governance_body(), head.utime + 3600
        )
        for signer in signers[1:threshold]:
            await signer.approve(address, number)
        say("accepted", f"by order {number}")
        if (await read_governance(chain, network)).registry.governance != address:
            raise ConfigError("the council does not govern, although all was sent")
    return raw_address(address)


async def _fund(faucet: Governor, address: Address, init: StateInit, signers: list[Address]) -> None:
    """Deploy and fund the contract, and fund the signers."""
    from pytoniq_core import Cell

    from cocoon_ton.treasury import Payment, WalletTreasury

    treasury = WalletTreasury(faucet.wallet, outbox=faucet.outbox, chain=faucet.chain)
    payments = [
        Payment(
            key=f"signer:{to.hash_part.hex()}", to=to, value=SIGNER_FUNDS, body=Cell.empty(), bounce=False
        )
        for to in signers
    ]
    payments.append(
        Payment(
            key=f"council:{address.hash_part.hex()}",
            to=address,
            value=COUNCIL_FUNDS,
            body=Cell.empty(),
            state_init=init,
        )
    )
    for outcome in await treasury.pay_all(payments):
        if isinstance(outcome, PaymentError):
            raise outcome


async def _ready(chain: LiteChain, network: NetworkConfig, change: bytes) -> None:
    """Wait until an announced change may be carried out, or is no longer announced."""
    from cocoon_cli.governing import read_governance

    while True:
        found = await read_governance(chain, network)
        pending = found.registry.pending.get(change)
        if pending is None or pending.ready_at < found.now:
            return
        await asyncio.sleep(0.5)
