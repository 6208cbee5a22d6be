"""The client on a real chain: contracts in the real TVM, proofs, wallet, outbox, faucet and channels.

The chain is the development network in this process; only the enclave's service is the harness's.
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
from cocoon_attestation.bundle import parse_bundle, verify_bundle
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.errors import ConfigError, UnsupportedError
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_proxy import events as e
from cocoon_proxy.audit import chain_facts
from cocoon_proxy.client import AsyncClient
from cocoon_ton import node_messages, registry_messages
from cocoon_ton.chain import LiteChain
from cocoon_ton.channel import ChannelStatus, parse_channel
from cocoon_ton.code import node_code
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.messages import Transfer, external_message
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import node_state_init, parse_node
from cocoon_ton.proof import verify_chain_facts
from cocoon_ton.registry import RegistryState, parse_registry
from cocoon_ton.wallet import Wallet, WalletVersion

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave

CHAT = "/v1/chat/completions"
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

    async def anchor(self) -> None:
        """Anchor the enclave's log in the node contract, as its host does."""
        enclave = self.enclave
        state = await self.chain.account(enclave.identity.address)
        assert state.data is not None
        log = parse_node(state.data).log
        point = Checkpoint(
            global_id=self.config.global_id,
            node=enclave.node,
            tree_size=enclave.tree.size,
            root=bytes(enclave.tree.root()),
            issued_at=int(self.now()),
        )
        proof = enclave.tree.consistency_proof(log.tree_size, point.tree_size)
        order = Anchor(first_size=log.tree_size, first_root=log.root, checkpoint=point, proof=proof)
        body = node_messages.anchor_external_body(
            anchor=order.cell.to_boc(), signature=order.sign(enclave.receipt_key)
        )
        await self.chain.send(external_message(enclave.identity.address, body).boc)
        async with asyncio.timeout(20):
            while True:
                state = await self.chain.account(enclave.identity.address)
                assert state.data is not None
                if parse_node(state.data).log.tree_size == point.tree_size:
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


@pytest.fixture
async def live(harness: Any, platform: DevPlatform, tmp_path: Path) -> AsyncIterator[Live]:
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
            attest = node_messages.attest_body(
                key_binding=enclave.binding.to_boc(),
                evidence_digest=hashlib.sha256(enclave.published).digest(),
                attested_until=enclave.binding.not_after,
            )
            await _until(chain, genesis.address, lambda state: len(state.nodes) == 1)
            await _pay(net, chain, identity.address, TON, attest, None)
            await _until(chain, genesis.address, lambda state: state.nodes[enclave.node].key is not None)
            assert node_code().code_hash == (await chain.account(identity.address)).code_hash
            live = Live(net, chain, config, enclave)
            enclave.clock = live.now
            yield live
        await enclave.stop()


async def test_from_nothing_to_a_bundle_that_proves_the_answer(
    live: Live, harness: Any, tmp_path: Path
) -> None:
    request = harness.body(stream=False)
    async with live.client(tmp_path / "home", chain=live.chain) as client:
        first = await client.complete(CHAT, request)
        answer = await client.complete(CHAT, request)
        created, funded = (event for event in live.events if isinstance(event, e.WalletReady))
        assert created.created
        assert funded.funded > 0
        (row,) = await client.channels()
        state = await live.chain.account(Address((0, row.id)))
        assert state.data is not None
        found = parse_channel(state.data)
        assert (found.status, found.paid) == (ChannelStatus.OPEN, 0)
        assert state.balance >= client.config.payment.deposit
        assert row.account.cumulative == first.completed.amount + answer.completed.amount
        before = row.deposit
        topped = await client.top_up(row.id, TON)
        assert topped.deposit == before + TON
        assert (await live.chain.account(Address((0, row.id)))).balance >= state.balance + TON
        await live.anchor()
        data = await client.export_bundle(
            answer.completed.receipt_id, request=request, response=answer.body
        )
    bundle = parse_bundle(data)
    proved = verify_chain_facts(bundle.chain, live.config)
    facts = chain_facts(
        proved.accounts, network=live.config, node=live.enclave.node, block_time=proved.block.utime
    )
    assert verify_bundle(bundle, facts).accepted


async def test_the_second_start_finds_wallet_and_channel(live: Live, harness: Any, tmp_path: Path) -> None:
    for _ in range(2):
        async with live.client(tmp_path / "home", chain=live.chain) as client:
            await client.complete(CHAT, harness.body())
            rows = await client.channels()
    assert len(rows) == 1
    assert [event.created for event in live.events if isinstance(event, e.WalletReady)] == [True, False]


async def test_the_rest_of_a_channel_comes_back(live: Live, harness: Any, tmp_path: Path) -> None:
    async with live.client(tmp_path / "home", chain=live.chain) as client:
        await client.complete(CHAT, harness.body())
        (row,) = await client.channels()
        begun = await client.close_channel(row.id)
        assert begun.close_at > live.now()
        assert await client.close_channel(row.id) == begun
        live.net.warp(begun.close_at - live.net.chain.now() + 1)
        await asyncio.sleep(0.1)  # longer than the head's life in `chain`
        assert (await client.close_channel(row.id)).state == "closed"
        assert (await client.channels())[0].state == "closed"
        balance = (await live.chain.account(Address((0, row.id)))).balance
        assert balance < TON // 100


async def test_without_wallet_and_faucet_reading_works_and_paying_says_what_to_do(
    live: Live, harness: Any, tmp_path: Path
) -> None:
    live.config = NetworkConfig(
        name="bare",
        global_id=live.config.global_id,
        registry=live.config.registry,
        global_config=live.config.global_config,
        dev_root=live.config.dev_root,
        simulated=True,
    )
    async with live.client(tmp_path / "home", chain=live.chain) as client:
        assert [model.name for model in await client.models()] == ["tiny"]
        with pytest.raises(ConfigError, match="wallet"):
            await client.complete(CHAT, harness.body())
    assert not live.enclave.sealed_seen


async def test_the_client_makes_its_own_chain_client(live: Live, harness: Any, tmp_path: Path) -> None:
    async with live.client(tmp_path / "home") as client:
        await client.complete(CHAT, harness.body())
