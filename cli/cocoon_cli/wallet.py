"""`cocoon wallet`: keys, balances and channels; amounts in TON for people and nanoton in JSON."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_cli.clients import client_home, open_client, open_ledger, run
from cocoon_cli.events import describe
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import console, moment, out, print_json, table, ton
from cocoon_proxy.closing import Closure
from cocoon_proxy.events import ClientEvent, EventHandler
from cocoon_ton.amounts import parse_ton
from cocoon_ton.chain import LiteChain, default_anchors
from cocoon_ton.network import NetworkConfig, load_network

PASSPHRASE_VARIABLE = "COCOON_WALLET_PASSPHRASE"  # noqa: S105  # the name of a variable


@click.group()
def wallet() -> None:
    """Keys, balances and channels.

    An encrypted key file is opened with the passphrase in COCOON_WALLET_PASSPHRASE.
    """


def _path(network: NetworkConfig) -> Path:
    return client_home(network) / "wallet.json"


@wallet.command()
@click.option("--plain", is_flag=True, help="Do not encrypt the key file (mode 0600 either way).")
@network_option
@common_options
def new(plain: bool, network: str, as_json: bool) -> None:
    """Make a wallet of 24 words. The words are shown once: whoever has them has the money."""
    from cocoon_ton.keystore import KeyFile, create_keystore
    from cocoon_ton.wallet import WalletVersion, new_mnemonic

    chosen = load_network(network)
    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    if passphrase is None and not plain:
        if as_json:
            raise ConfigError("no passphrase", hint=f"set {PASSPHRASE_VARIABLE}, or give --plain")
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    words = new_mnemonic()
    key = KeyFile(mnemonic=words, version=WalletVersion.V5R1)
    create_keystore(_path(chosen), key, None if plain else passphrase)
    address = key.wallet(chosen.global_id).friendly
    if as_json:
        print_json(
            {"ok": True, "address": address, "file": str(_path(chosen)), "mnemonic": " ".join(words)}
        )
        return
    console().print("[bold yellow]Write these words down. They are shown only now.[/]")
    out().print(" ".join(words))
    out().print(f"address  {address}\nfile     {_path(chosen)}")


@wallet.command()
@network_option
@common_options
def show(network: str, as_json: bool) -> None:
    """Show address, balance and channels, and how to get every balance out."""
    from cocoon_ton.keystore import load_keystore

    chosen = load_network(network)
    key = load_keystore(_path(chosen), os.environ.get(PASSPHRASE_VARIABLE)).wallet(chosen.global_id)

    async def main() -> int:
        async with LiteChain(chosen, anchors=default_anchors()) as chain:
            return (await chain.account(key.address)).balance

    balance = run(main)
    ledger = open_ledger(network)
    try:
        channels = ledger.channels()
    finally:
        ledger.close()
    if as_json:
        print_json(
            {
                "address": key.friendly,
                "balance_nanoton": balance,
                "channels": [
                    {
                        "id": c.id.hex(),
                        "node": c.node.hex(),
                        "state": c.state,
                        "deposit_nanoton": c.deposit,
                        "used_nanoton": c.account.cumulative,
                    }
                    for c in channels
                ],
            }
        )
        return
    out().print(f"address  {key.friendly}\nbalance  {ton(balance)}")
    rows = [
        (c.id.hex()[:16] + "…", c.node.hex()[:12] + "…", c.state, ton(c.deposit), ton(c.account.cumulative))
        for c in channels
    ]
    if rows:
        table("Channels", ["channel", "node", "state", "deposit", "used"], rows)
        out().print(
            "[dim]To get a channel's rest back: cocoon wallet close CHANNEL, twice (see its output).[/]"
        )
    out().print("[dim]To get the balance out: open the 24 words in any TON wallet (v5) and send it.[/]")


@wallet.command("top-up")
@click.argument("channel")
@click.argument("amount")
@click.option("--yes", is_flag=True, help="Do not ask.")
@network_option
@common_options
def top_up(channel: str, amount: str, yes: bool, network: str, as_json: bool) -> None:
    """Add AMOUNT TON to CHANNEL (id or a unique beginning)."""
    value = _amount(amount)
    target = _channel(channel, network)
    if not yes and not as_json:
        click.confirm(
            f"Send {ton(value)} and about 0.005 TON of fees to {target.hex()[:16]}…?", abort=True, err=True
        )

    async def main() -> int:
        async with open_client(network, on_event=_say(as_json)) as client:
            return (await client.top_up(target, value)).deposit

    deposit = run(main)
    if as_json:
        print_json({"ok": True, "channel": target.hex(), "deposit_nanoton": deposit})
    else:
        out().print(f"deposit is now {ton(deposit)}")


@wallet.command()
@click.argument("channel")
@click.option("--yes", is_flag=True, help="Do not ask.")
@network_option
@common_options
def close(channel: str, yes: bool, network: str, as_json: bool) -> None:
    """Take the rest of CHANNEL back: the first call starts the delay, the second one after it pays out."""
    target = _channel(channel, network)

    async def main() -> Closure:
        async with open_client(network, on_event=_say(as_json)) as client:
            return await client.close_channel(target)

    found = run(main)
    if as_json:
        print_json({"ok": True, "channel": target.hex(), "state": found.state, "close_at": found.close_at})
    elif found.state == "closed":
        out().print("closed; the rest is back in the wallet")
    else:
        out().print(f"closing; run the same command again after {moment(found.close_at)}")


def _say(as_json: bool) -> EventHandler:
    talk = console()

    def show_event(event: ClientEvent) -> None:
        if not as_json and (line := describe(event)):
            talk.print(line)

    return show_event


def _amount(text: str) -> int:
    try:
        return parse_ton(text)
    except MalformedError as error:
        raise click.UsageError(str(error)) from error


def _channel(prefix: str, network: str) -> bytes:
    ledger = open_ledger(network)
    try:
        found = [c.id for c in ledger.channels() if c.id.hex().startswith(prefix.lower())]
    finally:
        ledger.close()
    if len(found) != 1:
        raise click.UsageError(
            f"{len(found)} channels begin with {prefix!r}; `cocoon wallet show` lists them"
        )
    return found[0]
