"""What somebody needs to use a development network: from Cocoon, and from any other TON tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cocoon_cli.devnetwork import chain_directory
from cocoon_cli.output import SIMULATED, out
from cocoon_ton.address import friendly_address
from cocoon_ton.network import NetworkConfig, network_path


def connection(root: Path, network: NetworkConfig) -> dict[str, Any]:
    """The ready document of `cocoon dev up`."""
    chain = chain_directory(root)
    faucet = json.loads((chain / "faucet.json").read_text("utf-8"))
    config = str(chain / "global.config.json")
    servers: list[dict[str, Any]] = [
        {"host": "127.0.0.1", "port": entry["port"], "key": entry["id"]["key"]}
        for entry in network.global_config["liteservers"]
    ]
    return {
        "ok": True,
        "network": network.name,
        "simulated": True,
        "network_file": str(network_path(network.name)),
        "global_config": config,
        "registry": network.registry,
        "registry_friendly": friendly_address(network.registry_address, bounceable=True, test_only=True),
        "global_id": network.global_id,
        "liteservers": servers,
        "init_block": network.global_config["validator"]["init_block"],
        "faucet": {
            "address": faucet["address"],
            "wallet": faucet["wallet"],
            "wallet_id": faucet["wallet_id"],
            "file": str(chain / "faucet.json"),
        },
        "connect": _hints(config, servers[0]),
        "logs": str(root / "logs"),
    }


def _hints(config: str, server: dict[str, Any]) -> dict[str, str]:
    """One line for each kind of tool."""
    where = f'host: "tcp://{server["host"]}:{server["port"]}"'
    return {
        "pytoniq": f'LiteClient.from_config(json.load(open("{config}")), trust_level=0)',
        "tonutils": f'LiteClient.from_config(NetworkGlobalID.TESTNET, config="{config}", index=0)',
        "ton-lite-client": f'new LiteSingleEngine({{ {where}, publicKey: Buffer.from("{server["key"]}", "base64") }})',
        "tonlib": f"global configuration: {config}",
    }


def explain(document: dict[str, Any]) -> None:
    """The same for people."""
    show = out().print
    faucet = document["faucet"]
    show(f"\n[bold yellow]{SIMULATED}[/]: all is real but the hardware; nothing is confidential.")
    show(f"network file    {document['network_file']}")
    show(f"global config   {document['global_config']}  [dim](for any TON tool)[/]")
    for server in document["liteservers"]:
        show(f"liteserver      {server['host']}:{server['port']}  [dim]Ed25519[/] {server['key']}")
    show(f"registry        {document['registry']}\n                {document['registry_friendly']}")
    show(f"faucet          {faucet['address']}  [dim]{faucet['wallet']}, key in {faucet['file']}[/]")
    show("\nIn another terminal:\n  cocoon chat 'Why is the sky blue?'\n  cocoon serve")
    show("  cocoon log registry       [dim]what the registry says and said[/]")
    show(
        "  cocoon dev fund ADDRESS 5 [dim]TON from the faucet; also: dev status, warp, faults, snapshot[/]"
    )
    show("\nOther tools:", markup=False)
    for tool, line in document["connect"].items():
        show(f"  {tool:<16}{line}", markup=False)
    show("")
