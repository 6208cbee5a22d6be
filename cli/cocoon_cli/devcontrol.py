"""`cocoon dev status`, `fund`, `warp`, `tick` and `faults`: commands to a chain that runs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cocoon_attestation.errors import MalformedError
from cocoon_cli.devnetwork import chain_directory, default_root
from cocoon_cli.options import common_options
from cocoon_cli.output import out, print_json, ton

directory_option = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=None, help="Directory of the network."
)


@click.command()
@directory_option
@common_options
def status(directory: Path | None, as_json: bool) -> None:
    """Show head, virtual time, liteservers with their faults, and snapshots of the chain."""
    document = _send(directory, "status")
    if as_json:
        print_json({"ok": True, **document})
        return
    show = out().print
    show(f"block        {document['seqno']}")
    show(f"time         {_time(document['now'])} [dim](virtual)[/]")
    for number, server in enumerate(document["liteservers"]):
        faults = ", ".join(server["faults"])
        state = f"[bold red]lies: {faults}[/]" if faults else "honest"
        show(f"liteserver {number} 127.0.0.1:{server['port']}  {state}")
    show(f"snapshots    {', '.join(document['snapshots']) or 'none'} [dim](of the chain alone)[/]")


@click.command()
@click.argument("address")
@click.argument("amount")
@directory_option
@common_options
def fund(address: str, amount: str, directory: Path | None, as_json: bool) -> None:
    """Send AMOUNT TON from the faucet to ADDRESS, in a block of its own."""
    from cocoon_ton.address import parse_address, raw_address
    from cocoon_ton.amounts import parse_ton

    try:
        to, value = raw_address(parse_address(address)), parse_ton(amount)
    except MalformedError as error:
        raise click.UsageError(str(error)) from error
    document = _send(directory, "fund", address=to, amount=value)
    if as_json:
        print_json({"ok": True, "address": to, "amount": str(value), **document})
        return
    out().print(f"{ton(value)} to {to} in block {document['seqno']}")


@click.command()
@click.argument("seconds", type=click.IntRange(min=0))
@directory_option
@common_options
def warp(seconds: int, directory: Path | None, as_json: bool) -> None:
    """Move the chain's time SECONDS forward, for good, and make a block that shows it."""
    document = _send(directory, "warp", seconds=seconds)
    if as_json:
        print_json({"ok": True, **document})
        return
    out().print(f"block {document['seqno']} at {_time(document['now'])}")


@click.command()
@click.argument("count", type=click.IntRange(1, 1000), default=1)
@directory_option
@common_options
def tick(count: int, directory: Path | None, as_json: bool) -> None:
    """Make COUNT blocks now."""
    document = _send(directory, "tick", count=count)
    if as_json:
        print_json({"ok": True, **document})
        return
    out().print(f"block {document['seqno']}")


@click.command()
@click.argument("switches", nargs=-1, metavar="[SWITCH=VALUE]…")
@click.option(
    "--server", type=click.IntRange(min=0), default=0, show_default=True, help="Which liteserver."
)
@click.option("--clear", is_flag=True, help="Be honest again, before switches are set.")
@directory_option
@common_options
def faults(
    switches: tuple[str, ...], server: int, clear: bool, directory: Path | None, as_json: bool
) -> None:
    """Make a liteserver lie, delay or fork, to test clients.

    \b
    delay=0.5                 answers late            stale_head=7     an old block is the head
    drop=["getTime"]          never answers           hide=["0:…"]     these accounts do not exist
    refuse=["getTime"]        answers with errors     forge={"0:…":5}  shows this balance (nanoton)
    lying_getter=42           result of all getters   fork=true        other blocks from now on
    duplicate_signatures=2    each one twice          claimed_key_block={…}  claims a foreign past

    Values are JSON. What is not named stays as it is; --clear ends all of them.
    """
    document = _send(directory, "faults", server=server, clear=clear, set=dict(map(_switch, switches)))
    if as_json:
        print_json({"ok": True, "server": server, **document})
        return
    on = ", ".join(document["faults"])
    out().print(f"liteserver {server} (127.0.0.1:{document['port']}): {on or 'honest'}")


def _switch(text: str) -> tuple[str, Any]:
    name, mark, value = text.partition("=")
    try:
        return name, json.loads(value if mark else "true")
    except ValueError as error:
        raise click.UsageError(f"the value of {name!r} is not JSON") from error


def _send(directory: Path | None, command: str, **arguments: object) -> dict[str, Any]:
    from cocoon_ton.devnet import send_command

    return asyncio.run(send_command(chain_directory(directory or default_root()), command, **arguments))


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
