"""`cocoon log`: what nodes have anchored on chain, and what governance changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cocoon_attestation.errors import ConfigError
from cocoon_cli.clients import run
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import print_json, table
from cocoon_ton.address import raw_address
from cocoon_ton.chain import LiteChain, default_anchors
from cocoon_ton.network import NetworkConfig, load_network

if TYPE_CHECKING:
    from cocoon_ton.registry_history import RegistryEvent, RegistryHistory


@click.group()
def log() -> None:
    """Read what nodes have anchored on chain, and what governance has changed."""


@log.command()
@click.argument("node_id", required=False)
@network_option
@common_options
def checkpoint(node_id: str | None, network: str, as_json: bool) -> None:
    """Show the anchored checkpoint of NODE_ID (hex or a beginning), or of every listed node."""
    rows = run(lambda: _checkpoints(load_network(network), (node_id or "").lower()))
    if not rows:
        raise click.UsageError(
            f"the registry lists no node {node_id!r}" if node_id else "no node is listed"
        )
    if as_json:
        print_json({"checkpoints": rows})
        return
    table(
        "Anchored checkpoints",
        ["node", "receipts", "root", "anchored"],
        [
            (
                row["node"],
                row["tree_size"],
                str(row["root"])[:16] + "…",
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(str(row["anchored_at"]))))
                if row["anchored_at"]
                else "never",
            )
            for row in rows
        ],
    )


@log.command()
@click.option("--nodes", is_flag=True, help="Show nodes that entered, changed or left, too.")
@network_option
@common_options
def registry(nodes: bool, network: str, as_json: bool) -> None:
    """Show every change of the registry since it was deployed, from proved transactions."""
    from cocoon_ton.registry_history import read_history

    async def main() -> RegistryHistory:
        chosen = load_network(network)
        async with LiteChain(chosen, anchors=default_anchors()) as chain:
            return await read_history(chain, chosen.registry_address)

    history = run(main)
    events = [event for event in history.events if nodes or not event.kind.startswith("node_")]
    if as_json:
        print_json(
            {
                "registry": raw_address(history.registry),
                "version": history.version,
                "block": history.seqno,
                "events": [_event(event) for event in events],
            }
        )
        return
    table(
        f"Registry, version {history.version}, up to block {history.seqno}",
        ["time", "event", "version", "what"],
        [
            (
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time)),
                f"{event.kind} {event.change}".strip(),
                "" if event.version is None else event.version,
                ", ".join(f"{name} {_short(value)}" for name, value in event.details.items()),
            )
            for event in events
        ],
    )


def _event(event: RegistryEvent) -> dict[str, object]:
    return {
        "event": event.kind,
        "change": event.change or None,
        "version": event.version,
        "time": event.time,
        "lt": event.lt,
        "transaction": event.transaction.hex(),
        "details": dict(event.details),
    }


def _short(value: object) -> str:
    text = str(value)
    return text[:16] + "…" if len(text) > 40 else text


async def _checkpoints(network: NetworkConfig, prefix: str) -> list[dict[str, object]]:
    from cocoon_ton.node import parse_node
    from cocoon_ton.registry import parse_registry

    rows: list[dict[str, object]] = []
    async with LiteChain(network, anchors=default_anchors()) as chain:
        head = await chain.head()
        account = await chain.account(network.registry_address, head)
        if account.data is None:
            raise ConfigError("the network's registry is not deployed")
        for node in parse_registry(account.data).nodes.values():
            if not node.account_id.hex().startswith(prefix):
                continue
            contract = await chain.account(node.address, head)
            if contract.data is None:
                continue
            anchored = parse_node(contract.data).log
            rows.append(
                {
                    "node": node.account_id.hex(),
                    "tree_size": anchored.tree_size,
                    "root": anchored.root.hex(),
                    "anchored_at": anchored.anchored_at,
                    "block": head.seqno,
                }
            )
    return rows
