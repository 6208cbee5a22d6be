"""Commands of hosts: `host run`, `host status`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_attestation.errors import ConfigError
from cocoon_cli.clients import run
from cocoon_cli.options import common_options
from cocoon_cli.output import SIMULATED, console, out, print_json, ton
from cocoon_ton.address import friendly_address
from cocoon_ton.chain import LiteChain, default_anchors
from cocoon_ton.files import locked
from cocoon_ton.network import load_network
from cocoon_ton.paths import home_dir
from cocoon_ton.treasury import WalletTreasury

if TYPE_CHECKING:
    from cocoon_enclave.host.agent import HostAgent
    from cocoon_enclave.host.config import HostConfig
    from cocoon_ton.network import NetworkConfig
    from cocoon_ton.node import NodeIdentity, NodeState
    from cocoon_ton.wallet import Wallet

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=None,
    help="host.toml [default: that of the local development network].",
)


_RECONNECT = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 3000))
"""The enclave is on this machine; after a restart it is waiting, and so are its clients."""


@click.group()
def host() -> None:
    """Run a node and see what it earns."""


@host.command("run")
@_CONFIG
@click.option("--drain", is_flag=True, help="Take no more requests, anchor and settle everything, and end.")
@click.option(
    "--close-channels",
    is_flag=True,
    help="With --drain: close what is settled; clients get their rest now.",
)
@common_options
def run_agent(config_path: Path | None, drain: bool, close_channels: bool, as_json: bool) -> None:
    """Join, attest, anchor and settle for the enclave that host.toml names, until stopped."""
    if close_channels and not drain:
        raise click.UsageError("--close-channels needs --drain")
    run(lambda: _run(_config(config_path), drain=drain, close=close_channels, as_json=as_json))


@host.command()
@_CONFIG
@common_options
def status(config_path: Path | None, as_json: bool) -> None:
    """Show the node as the chain has it, the wallet, and what is not settled yet."""
    document = run(lambda: _status(_config(config_path)))
    if as_json:
        print_json(document)
        return
    for key, value in document.items():
        shown = ton(value) if key.endswith("_nanoton") and isinstance(value, int) else value
        out().print(f"[bold]{key.removesuffix('_nanoton').replace('_', ' '):>18}[/]  {shown}")
    if document.get("simulated"):
        out().print(f"[bold yellow]{SIMULATED}[/]")


@host.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_CONFIG
@common_options
def unbond(yes: bool, config_path: Path | None, as_json: bool) -> None:
    """Leave the registry and start the wait for the stake. Stop the agent first, best with --drain."""
    if not yes and not as_json:
        click.confirm("Leave the registry and serve no more clients?", abort=True, err=True)
    config = _config(config_path)
    state = run(lambda: _owner_message(config, "unbond"))
    if as_json:
        print_json({"ok": True, "bond": state.bond.name.lower(), "unlock_at": state.unlock_at})
    else:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.unlock_at))
        out().print(f"left; `cocoon host withdraw` returns the stake from {moment} on")


@host.command()
@_CONFIG
@common_options
def withdraw(config_path: Path | None, as_json: bool) -> None:
    """Take the stake and the working balance back into the wallet, once the wait is over."""
    state = run(lambda: _owner_message(_config(config_path), "withdraw"))
    if as_json:
        print_json({"ok": True, "bond": state.bond.name.lower(), "stake_nanoton": state.stake})
    else:
        out().print("withdrawn; the money is in the wallet")


def _config(path: Path | None) -> HostConfig:
    from cocoon_enclave.host.config import load_host_config

    chosen = path or home_dir() / "dev" / "host.toml"
    if not chosen.exists():
        raise ConfigError(
            f"{chosen} does not exist", hint="give --config, or start a development network: cocoon dev up"
        )
    return load_host_config(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnNode:
    """The node of a ``host.toml``."""

    network: NetworkConfig
    wallet: Wallet
    identity: NodeIdentity


def own_node(config_path: Path) -> OwnNode:
    """Read ``host.toml`` and the host's wallet. Raises `ConfigError`."""
    return _own_node(_config(config_path))


def _own_node(config: HostConfig) -> OwnNode:
    from cocoon_ton.node import NodeIdentity

    network = load_network(config.network)
    wallet = _wallet(config, network.global_id)
    identity = NodeIdentity(
        global_id=network.global_id,
        registry=network.registry_address,
        owner=wallet.address,
        salt=config.salt,
    )
    return OwnNode(network=network, wallet=wallet, identity=identity)


def _wallet(config: HostConfig, global_id: int) -> Wallet:
    from cocoon_ton.keystore import load_keystore

    return load_keystore(config.state / "wallet.json", os.environ.get("COCOON_WALLET_PASSPHRASE")).wallet(
        global_id
    )


@contextlib.asynccontextmanager
async def _agent(config: HostConfig) -> AsyncIterator[HostAgent]:
    import grpc.aio

    from cocoon.v1 import attestation_service_pb2_grpc, host_service_pb2_grpc
    from cocoon_enclave.host.agent import HostAgent

    network = load_network(config.network)
    wallet = _wallet(config, network.global_id)
    async with (
        LiteChain(network, anchors=default_anchors()) as chain,
        grpc.aio.insecure_channel(config.host_service, _RECONNECT) as channel,
    ):
        yield HostAgent(
            config,
            network,
            chain=chain,
            treasury=WalletTreasury(wallet, outbox=config.state / "outbox.sqlite3", chain=chain),
            enclave=host_service_pb2_grpc.HostServiceStub(channel),
            records=attestation_service_pb2_grpc.AttestationServiceStub(channel),
            clock=time.time,
        )


async def _owner_message(config: HostConfig, what: str) -> NodeState:
    """Send one message of the owner to the node and return the node's state after it."""
    from cocoon_enclave.host.views import node_state
    from cocoon_ton.node_messages import NODE_MESSAGE_VALUE, unbond_body, withdraw_body

    own = _own_node(config)
    network, wallet, identity = own.network, own.wallet, own.identity
    body = {"unbond": unbond_body, "withdraw": withdraw_body}[what]()
    async with LiteChain(network, anchors=default_anchors()) as chain:
        treasury = WalletTreasury(wallet, outbox=config.state / "outbox.sqlite3", chain=chain)
        before = await chain.account(identity.address)
        if node_state(before) is None:
            raise ConfigError("the node is not deployed")
        await treasury.pay(
            key=f"{what}:{identity.account_id.hex()}:{before.last_tx_lt}",
            to=identity.address,
            value=NODE_MESSAGE_VALUE,
            body=body,
        )
        state = node_state(await chain.account(identity.address))
    if state is None:
        raise ConfigError("the node is no longer deployed")
    return state


async def _run(config: HostConfig, *, drain: bool, close: bool, as_json: bool) -> None:
    logging.getLogger("cocoon_enclave.host").setLevel(logging.INFO)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(config.state / "agent.lock"))
        except BlockingIOError as error:
            raise ConfigError("a host agent runs with this wallet already") from error
        await _serve(config, loop, drain=drain, close=close, as_json=as_json)


async def _serve(
    config: HostConfig, loop: asyncio.AbstractEventLoop, *, drain: bool, close: bool, as_json: bool
) -> None:
    async with _agent(config) as agent:
        agent.drain, agent.close = drain, close
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, agent.stop)
        test_only = load_network(config.network).test_only
        node = friendly_address(agent.node_address, bounceable=True, test_only=test_only)
        if as_json:
            sys.stdout.write(
                json.dumps({"node": node, "account_id": agent.identity.account_id.hex()}) + "\n"
            )
            sys.stdout.flush()
        else:
            console().print(f"serving node {node}")
        await agent.run()


async def _status(config: HostConfig) -> dict[str, object]:
    from cocoon_enclave.host.views import node_state

    own = _own_node(config)
    network, wallet, identity = own.network, own.wallet, own.identity
    async with LiteChain(network, anchors=default_anchors()) as chain:
        head = await chain.head()
        account = await chain.account(identity.address, head)
        money = await chain.account(wallet.address, head)
    state = node_state(account)
    key = state.key if state else None
    return {
        "node": friendly_address(identity.address, bounceable=True, test_only=network.test_only),
        "node_id": identity.account_id.hex(),
        "bond": state.bond.name.lower() if state else "not deployed",
        "stake_nanoton": state.stake if state else 0,
        "working_balance_nanoton": account.balance - (state.stake if state else 0),
        "wallet": wallet.friendly,
        "wallet_balance_nanoton": money.balance,
        "binding": key.binding_hash.hex() if key else None,
        "attested_until": key.attested_until if key else 0,
        "anchored_receipts": state.log.tree_size if state else 0,
        "anchored_at": state.log.anchored_at if state else 0,
        "endpoint": state.terms.endpoint if state and state.terms else None,
        "simulated": state.terms.simulated if state and state.terms else False,
        "block": head.seqno,
        **await _enclave_status(config),
    }


async def _enclave_status(config: HostConfig) -> dict[str, object]:
    """What the enclave says, or that it does not answer: the chain part is worth showing either way."""
    import grpc.aio

    from cocoon.v1 import host_service_pb2, host_service_pb2_grpc
    from cocoon_enclave.host.rpc import EnclaveUnavailableError, call
    from cocoon_enclave.host.views import claimed

    async with grpc.aio.insecure_channel(config.host_service) as channel:
        stub: host_service_pb2_grpc.HostServiceAsyncStub = host_service_pb2_grpc.HostServiceStub(channel)
        try:
            answer = await call(stub.GetStatus(host_service_pb2.GetStatusRequest(), timeout=5))
            listed = await call(stub.ListClaims(host_service_pb2.ListClaimsRequest(), timeout=5))
        except EnclaveUnavailableError:
            return {"enclave": "does not answer"}
    claims = [claimed(message).view for message in listed.claims]
    return {
        "enclave": "ready" if answer.ready else "starting",
        "receipts": answer.tree_size,
        "active_requests": answer.active_requests,
        "claimed_nanoton": sum(min(claim.used, claim.cap) for claim in claims),
        "channels": len(claims),
    }
