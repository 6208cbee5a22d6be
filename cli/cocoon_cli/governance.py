"""`cocoon governance`: who governs the registry, and what they propose, approve and carry out."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cocoon_attestation.errors import MalformedError
from cocoon_cli.clients import run
from cocoon_cli.inputs import read_hex
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import out, print_json
from cocoon_ton.chain import LiteChain
from cocoon_ton.network import NetworkConfig, load_network

if TYPE_CHECKING:
    from pytoniq_core import Cell

    from cocoon_cli.governing import Governance, Governor

T = TypeVar("T")
_DAY = 86_400
_PASSPHRASE = "COCOON_WALLET_PASSPHRASE"  # noqa: S105  # the name of a variable

key_option = click.option(
    "--key",
    "key",
    type=click.Path(path_type=Path),
    required=True,
    help="Key file of the signer's wallet; its passphrase in COCOON_WALLET_PASSPHRASE.",
)
days_option = click.option(
    "--days", type=click.IntRange(1, 365), default=30, show_default=True, help="How long approvals count."
)


@click.group()
def governance() -> None:
    """Who governs the registry; propose, approve and carry out changes of it.

    A registry is governed by a wallet or by one of TON's multisig contracts. Additions wait for the timelock.
    """


@governance.command()
@network_option
@common_options
def show(network: str, as_json: bool) -> None:
    """Show who governs, the newest orders, and announced changes."""
    from cocoon_cli.governing import read_governance

    async def main() -> Governance:
        chosen = load_network(network)
        async with LiteChain(chosen) as chain:
            return await read_governance(chain, chosen)

    document = _document(run(main), load_network(network))
    if as_json:
        print_json(document)
        return
    say = out().print
    say(f"governance  {document['governance']}  [dim]({document['kind']})[/]")
    for index, signer in enumerate(document.get("signers", ())):
        say(f"  signer {index}  {signer}")
    if "threshold" in document:
        say(f"  {document['threshold']} of {len(document['signers'])} decide")
    for order in document.get("orders", ()):
        state = "carried out" if order["executed"] else f"approved by {order['approvals']}"
        say(f"order {order['number']}  {state}, until {_date(order['expires_at'])}")
        for action in order["actions"]:
            say(f"  {action}")
    for change in document["pending"]:
        say(
            f"announced  {change['change']} {change['change_hash'][:16]}…  from {_date(change['ready_at'])}"
        )


@governance.group()
def propose() -> None:
    """Tell the registry something, or put it up for approval where several people govern."""


@propose.command("model")
@click.argument("digest")
@click.argument("name")
@key_option
@days_option
@network_option
@common_options
def propose_model(digest: str, name: str, key: Path, days: int, network: str, as_json: bool) -> None:
    """Announce the model DIGEST (hex) under NAME."""
    from cocoon_ton.registry_messages import announce_body, set_model

    _tell(announce_body(set_model(read_hex(digest, 32, "DIGEST"), name)), key, days, network, as_json)


@propose.command("parameter")
@click.argument("name")
@click.argument("value", type=click.IntRange(0))
@key_option
@days_option
@network_option
@common_options
def propose_parameter(name: str, value: int, key: Path, days: int, network: str, as_json: bool) -> None:
    """Announce another VALUE (nanoton, seconds or a number) of the registry's parameter NAME."""
    from cocoon_cli.governing import read_governance
    from cocoon_ton.node import RegistryParameters
    from cocoon_ton.registry_messages import announce_body, check_parameters, set_parameters

    numbers = {f.name for f in dataclasses.fields(RegistryParameters) if f.type == "int"}
    if name not in numbers:
        raise click.UsageError(f"{name!r} is not one of {', '.join(sorted(numbers))}")

    async def main() -> RegistryParameters:
        chosen = load_network(network)
        async with LiteChain(chosen) as chain:
            return (await read_governance(chain, chosen)).registry.parameters

    changed = dataclasses.replace(run(main), **{name: value})  # type: ignore[arg-type]  # a number, see above
    check_parameters(changed)
    _tell(announce_body(set_parameters(changed)), key, days, network, as_json)


@propose.command("remove")
@click.argument("kind", type=click.Choice(["release", "model", "node", "platform"]))
@click.argument("identifier")
@key_option
@days_option
@network_option
@common_options
def propose_remove(kind: str, identifier: str, key: Path, days: int, network: str, as_json: bool) -> None:
    """Remove a release, model, node or platform at once, by its IDENTIFIER (hex)."""
    from cocoon_ton.registry_messages import Removal, remove_body

    body = remove_body(Removal[kind.upper()], read_hex(identifier, 32, "IDENTIFIER"))
    _tell(body, key, days, network, as_json)


@propose.command("cancel")
@click.argument("change")
@key_option
@days_option
@network_option
@common_options
def propose_cancel(change: str, key: Path, days: int, network: str, as_json: bool) -> None:
    """Withdraw the announced CHANGE (its hash)."""
    from cocoon_ton.registry_messages import cancel_body

    _tell(cancel_body(read_hex(change, 32, "CHANGE")), key, days, network, as_json)


@governance.command()
@click.argument("number", type=click.IntRange(0))
@click.option("--yes", is_flag=True, help="Do not ask.")
@key_option
@network_option
@common_options
def approve(number: int, yes: bool, key: Path, network: str, as_json: bool) -> None:
    """Approve order NUMBER, after reading what it does."""
    from cocoon_cli.governing import describe_action, read_governance

    async def look(governor: Governor) -> Any:
        found = await read_governance(governor.chain, governor.network)
        return found.registry.governance, await governor.order(found.registry.governance, number)

    chosen = load_network(network)
    address, order = _as(key, chosen, look)
    actions = [describe_action(action, chosen.registry_address) for action in order.actions]
    if not yes and not as_json:
        for action in actions:
            out().print(f"  {action}")
        click.confirm(f"Approve order {number}, which does this?", abort=True, err=True)
    after = _as(key, chosen, lambda governor: governor.approve(address, number))
    document = {
        "ok": True,
        "order": number,
        "approvals": sorted(after.approvals),
        "threshold": after.threshold,
        "executed": after.executed,
        "actions": actions,
    }
    if as_json:
        print_json(document)
    else:
        state = "carried out" if after.executed else f"approved by {sorted(after.approvals)}"
        out().print(f"order {number} {state}")


@governance.command()
@click.argument("change")
@key_option
@network_option
@common_options
def execute(change: str, key: Path, network: str, as_json: bool) -> None:
    """Carry out the announced CHANGE (its hash). Anybody may, once the timelock is over."""
    from cocoon_ton.registry_messages import execute_body

    # the block's time goes in, so that a refused message can be sent again
    body = execute_body(read_hex(change, 32, "CHANGE"), query_id=int(time.time()))
    _as(key, load_network(network), lambda governor: governor.send("execute", body))
    if as_json:
        print_json({"ok": True, "change_hash": change})
    else:
        out().print(f"carried out {change}")


def _tell(body: Cell, key: Path, days: int, network: str, as_json: bool) -> None:
    from cocoon_cli.governing import describe_body

    number = _as(
        key, load_network(network), lambda governor: governor.tell_registry(body, expires_in=days * _DAY)
    )
    document = {"ok": True, "order": number, **describe_body(body)}
    if as_json:
        print_json(document)
    elif number is None:
        out().print("the registry took it")
    else:
        out().print(f"order {number} is up; the others: cocoon governance approve {number} --key FILE")


def _as(key: Path, network: NetworkConfig, act: Callable[[Governor], Awaitable[T]]) -> T:
    """Act with the wallet of a key file."""
    from cocoon_cli.governing import Governor
    from cocoon_ton.keystore import load_keystore

    wallet = load_keystore(key, os.environ.get(_PASSPHRASE)).wallet(network.global_id)

    async def main() -> T:
        async with LiteChain(network) as chain:
            return await act(Governor(network, chain, wallet, key.with_suffix(".outbox")))

    return run(main)


def _document(found: Governance, network: NetworkConfig) -> dict[str, Any]:
    from cocoon_cli.governing import describe_action
    from cocoon_ton.address import raw_address
    from cocoon_ton.registry_history import describe_change

    document: dict[str, Any] = {
        "governance": raw_address(found.registry.governance),
        "kind": "wallet or other contract" if found.multisig is None else "multisig-contract-v2",
    }
    if found.multisig is not None:
        config = found.multisig.config
        document |= {
            "signers": [raw_address(signer) for signer in config.signers],
            "threshold": config.threshold,
            "orders": [
                {
                    "number": number,
                    "approvals": sorted(order.approvals),
                    "executed": order.executed,
                    "expires_at": order.expires_at,
                    "actions": [describe_action(a, network.registry_address) for a in order.actions],
                }
                for number, order in found.orders.items()
            ],
        }
    document["pending"] = []
    for change in found.registry.pending.values():
        try:
            name, details = describe_change(change.change)
        except MalformedError:
            name, details = "unknown", {}
        document["pending"].append(
            {
                "change_hash": change.change_hash.hex(),
                "change": name,
                "details": dict(details),
                "ready_at": change.ready_at,
            }
        )
    return document


def _date(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
