"""A registry, a node and its (harness) enclave on a running development chain in this process.

Contracts run in the real TVM; blocks, proofs, wallet and outbox are real. Only the enclave's service is the harness's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytoniq_core import Address, Cell, StateInit

from cocoon_attestation.anchor import Anchor
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.errors import UnsupportedError
from cocoon_attestation.merkle import MerkleTree
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_proxy.client import AsyncClient
from cocoon_ton import node_messages, registry_messages
from cocoon_ton.chain import LiteChain
from cocoon_ton.code import node_code
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.messages import Transfer, external_message
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import NodeState, node_state_init, parse_node
from cocoon_ton.registry import RegistryState, parse_registry
from cocoon_ton.wallet import Wallet, WalletVersion

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave

TON = 10**9


class Live:
    """A development chain with a registry and one node on it."""

    def __init__(self, net: Devnet, chain: LiteChain, config: NetworkConfig, enclave: FakeEnclave) -> None:
        self.net, self.chain, self.config, self.enclave = net, chain, config, enclave
        self.owner = _faucet(net)
        self.events: list[Any] = []

    def client(self, home: Path, **options: Any) -> AsyncClient:
        return AsyncClient(self.config, home, on_event=self.events.append, clock=self.now, **options)

    def now(self) -> float:
        return float(self.net.chain.now())

    async def node(self) -> NodeState:
        """The node contract's proved state."""
        data = (await self.chain.account(self.enclave.identity.address)).data
        assert data is not None
        return parse_node(data)

    def checkpoint(self, tree: MerkleTree) -> Checkpoint:
        """Of the whole of a log, of this moment."""
        return Checkpoint(
            global_id=self.config.global_id,
            node=self.enclave.node,
            tree_size=tree.size,
            root=bytes(tree.root()),
            issued_at=int(self.now()),
        )

    async def order(self, tree: MerkleTree) -> Anchor:
        """The enclave's order to anchor `tree` on top of what is anchored."""
        log = (await self.node()).log
        proof = tree.consistency_proof(log.tree_size, tree.size)
        return Anchor(
            first_size=log.tree_size, first_root=log.root, checkpoint=self.checkpoint(tree), proof=proof
        )

    async def offer(self, order: Anchor) -> None:
        """Send an order as the node's own external message, as its host does."""
        body = node_messages.anchor_external_body(
            anchor=order.cell.to_boc(), signature=order.sign(self.enclave.receipt_key)
        )
        await self.chain.send(external_message(self.enclave.identity.address, body).boc)

    async def anchor(self) -> None:
        """Anchor the enclave's log in the node contract."""
        order = await self.order(self.enclave.tree)
        await self.offer(order)
        async with asyncio.timeout(20):
            while (await self.node()).log.tree_size != order.checkpoint.tree_size:  # noqa: ASYNC110  # blocks are polled
                await asyncio.sleep(0.05)

    async def attest(self) -> None:
        """Show the enclave's key binding to the node contract, and wait until the registry has listed it."""
        enclave = self.enclave
        body = node_messages.attest_body(
            key_binding=enclave.binding.to_boc(),
            evidence_digest=hashlib.sha256(enclave.published).digest(),
            attested_until=enclave.binding.not_after,
        )
        await _pay(self.net, self.chain, enclave.identity.address, TON, body, None)
        async with asyncio.timeout(20):
            while True:
                key = (await self.node()).key
                if key is not None and key.binding_hash == enclave.binding.hash:
                    return
                await asyncio.sleep(0.05)


def _faucet(net: Devnet) -> Wallet:
    return Wallet(net.faucet_seed, global_id=net.global_id, version=WalletVersion.V4R2)


async def _pay(
    net: Devnet, chain: LiteChain, to: Address, value: int, body: Cell, init: StateInit | None
) -> None:
    """One transfer from the faucet's wallet, seen in a block."""
    wallet = _faucet(net)
    state = await chain.account(wallet.address)
    transfer = Transfer(
        destination=to, amount=value, body=body, state_init=None if init is None else init.serialize()
    )
    message = wallet.sign(
        [transfer],
        seqno=wallet.seqno(state),
        valid_until=net.chain.now() + 100,
        deploy=not state.active,
    )
    seqno = wallet.seqno(state)
    await chain.send(message.boc)
    async with asyncio.timeout(20):
        while wallet.seqno(await chain.account(wallet.address)) == seqno:  # noqa: ASYNC110  # blocks are polled
            await asyncio.sleep(0.05)
    net.tick(3)
    await asyncio.sleep(0.1)  # longer than the head's life in `chain`


async def _until(chain: LiteChain, registry: Address, done: Callable[[RegistryState], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            data = (await chain.account(registry)).data
            if data is not None and done(parse_registry(data)):
                return
            await asyncio.sleep(0.05)


@pytest.fixture(name="live")
async def running(harness: Any, platform: DevPlatform, tmp_path: Path) -> AsyncIterator[Live]:
    """Registry deployed, node joined and attested, enclave serving."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    async with Devnet.start(tmp_path / "chain", block_interval=0.05, global_id=harness.GLOBAL_ID) as net:
        genesis = harness.Network(platform, tmp_path).genesis
        config = NetworkConfig(
            name="live",
            global_id=net.global_id,
            registry=f"0:{genesis.address.hash_part.hex()}",
            global_config=net.config,
            dev_root=platform.root_der,
            simulated=True,
            faucet={"wallet": "v4r2", "seed": net.faucet_seed.hex()},
        )
        enclave = harness.FakeEnclave(platform, genesis.address, 1)
        identity = harness.NodeIdentity(
            global_id=net.global_id, registry=genesis.address, owner=_faucet(net).address, salt=1
        )
        enclave.identity, enclave.node = identity, identity.account_id
        enclave.new_keys()
        await enclave.start()
        async with LiteChain(config, clock=lambda: float(net.chain.now()), head_ttl=0.05) as chain:
            await _pay(
                net, chain, genesis.address, TON, registry_messages.top_up_body(), genesis.state_init
            )
            join = node_messages.join_body(
                stake=10 * TON, endpoint=f"127.0.0.1:{enclave.port}", models=[harness.MODEL],
                prices=harness.PRICES, simulated=True,
            )  # fmt: skip
            await _pay(net, chain, identity.address, 11 * TON, join, node_state_init(identity))
            await _until(chain, genesis.address, lambda state: len(state.nodes) == 1)
            assert node_code().code_hash == (await chain.account(identity.address)).code_hash
            live = Live(net, chain, config, enclave)
            await live.attest()
            enclave.clock = live.now
            yield live
        await enclave.stop()
