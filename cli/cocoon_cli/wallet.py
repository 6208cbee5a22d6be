"""`cocoon wallet`: keys, balances and channels; amounts in TON for people and nanoton in JSON."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cocoon_attestation.errors import ConfigError
from cocoon_cli.clients import open_client, open_ledger, run
from cocoon_cli.events import describe
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import console, moment, out, print_json, table, ton
from cocoon_cli.wallet_keys import backup, new, open_wallet, restore
from cocoon_cli.wallet_send import confirm, parse_ton_amount, send
from cocoon_cli.ways_out import WayOut, channel_ways, node_ways, wallet_way
from cocoon_proxy.channel_view import ChannelViewer
from cocoon_proxy.closing import Closure
from cocoon_proxy.events import ClientEvent, EventHandler
from cocoon_proxy.ledger import ChannelRow
from cocoon_ton.chain import LiteChain, default_anchors
from cocoon_ton.channel import MIN_MESSAGE_VALUE, start_close_body, top_up_body
from cocoon_ton.fees import channel_fee
from cocoon_ton.network import NetworkConfig, load_network
from cocoon_ton.paths import home_dir
from cocoon_ton.wallet import Wallet


@click.group()
def wallet() -> None:
    """Keys, balances and channels.

    An encrypted key file is opened with the passphrase in COCOON_WALLET_PASSPHRASE.
    """


for command in (new, restore, backup, send):
    wallet.add_command(command)


@wallet.command()
@click.option(
    "--host-config",
    type=click.Path(path_type=Path, exists=True),
    default=None,
    help="host.toml of a node whose stake is shown too [default: that of the local development network].",
)
@network_option
@common_options
def show(host_config: Path | None, network: str, as_json: bool) -> None:
    """Show address, balance and channels, and how to get every balance out."""
    chosen = load_network(network)
    key = open_wallet(chosen)
    ledger = open_ledger(network)
    try:
        channels = ledger.channels()
    finally:
        ledger.close()

    async def main() -> tuple[int, list[WayOut]]:
        async with LiteChain(chosen, anchors=default_anchors()) as chain:
            balance = (await chain.account(key.address)).balance
            viewer = ChannelViewer(chain=chain, clock=time.time, timeout_s=60)
            ways = wallet_way(key, balance) + await channel_ways(viewer, channels, int(time.time()))
            if config := _host_config(host_config):
                try:
                    ways += await node_ways(chain, chosen, config)
                except ConfigError:
                    if host_config is not None:  # asked for by name
                        raise
            return balance, ways

    balance, ways = run(main)
    if as_json:
        print_json(_shown(chosen, key, balance, channels, ways))
    else:
        _show(chosen, key, balance, channels, ways)


def _host_config(given: Path | None) -> Path | None:
    default = home_dir() / "dev" / "host.toml"
    return given or (default if default.exists() else None)


def _shown(
    network: NetworkConfig,
    key: Wallet,
    balance: int,
    channels: tuple[ChannelRow, ...],
    ways: list[WayOut],
) -> dict[str, object]:
    return {
        "address": key.friendly,
        "explorer": network.explorer_link(key.address),
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
        "ways_out": [way.to_dict() for way in ways],
    }


def _show(
    network: NetworkConfig,
    key: Wallet,
    balance: int,
    channels: tuple[ChannelRow, ...],
    ways: list[WayOut],
) -> None:
    out().print(f"address  {key.friendly}\nbalance  {ton(balance)}")
    if link := network.explorer_link(key.address):
        out().print(f"explorer {link}")
    if channels:
        rows = [
            (
                c.id.hex()[:16] + "…",
                c.node.hex()[:12] + "…",
                c.state,
                ton(c.deposit),
                ton(c.account.cumulative),
            )
            for c in channels
        ]
        table("Channels", ["channel", "node", "state", "deposit", "used"], rows)
    if ways:
        out().print("\n[bold]To get it out[/]")
    for way in ways:
        when = f" from {moment(way.available_at)}" if way.available_at > time.time() else ""
        out().print(
            f"{way.what:<8} {ton(way.amount_nanoton)}{when}\n  [bold]{way.command}[/]\n  [dim]{way.note}[/]"
        )


@wallet.command("top-up")
@click.argument("channel")
@click.argument("amount")
@click.option("--yes", is_flag=True, help="Do not ask.")
@network_option
@common_options
def top_up(channel: str, amount: str, yes: bool, network: str, as_json: bool) -> None:
    """Add AMOUNT TON to CHANNEL (id or a unique beginning)."""
    value = parse_ton_amount(amount)
    target = _channel(channel, network)
    confirm(
        load_network(network),
        f"Add {ton(value)} to channel {target.hex()[:16]}…",
        value=value + MIN_MESSAGE_VALUE,
        body=top_up_body(),
        extra=f"{ton(MIN_MESSAGE_VALUE)} beside it stays in the channel for its messages",
        ask=not yes and not as_json,
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
    back = MIN_MESSAGE_VALUE - channel_fee("start_close")
    confirm(
        load_network(network),
        f"Close channel {target.hex()[:16]}…",
        value=MIN_MESSAGE_VALUE,
        body=start_close_body(),
        extra=f"about {ton(back)} of what is sent comes back at once",
        ask=not yes and not as_json,
    )

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
