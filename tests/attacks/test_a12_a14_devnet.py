"""A12 and A14 over a running chain: real blocks, liteserver, proofs, wallet contract and outbox on the attacker's side.

What the contracts answer in the emulator (test_a12_receipts.py, test_a14_vouchers.py) they answer here too, and a
client sees it in proved state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address, Cell, StateInit

from cocoon.v1 import payment_pb2
from cocoon_attestation.errors import UnsupportedError
from cocoon_ton import channel, node_messages, registry_messages
from cocoon_ton.address import raw_address
from cocoon_ton.chain import LiteChain, TransactionInfo
from cocoon_ton.channel import ChannelState, channel_state_init, parse_channel
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import BondState, NodeState, node_state_init, parse_node
from cocoon_ton.registry_messages import RegistryGenesis
from cocoon_ton.treasury import WalletTreasury
from cocoon_ton.wallet import faucet_wallet

from ..ton_contracts.conftest import (
    GLOBAL_ID,
    MODEL,
    PARAMETERS,
    POLICY,
    PRICES,
    RELEASE,
    TON,
    World,
    key,
)


@dataclass
class Clock:
    """The chain's time, for records that are signed here."""

    net: Devnet

    @property
    def now(self) -> int:
        return self.net.chain.now()


@dataclass
class Live:
    """A registry, a node and a channel on a development chain; one wallet plays everybody who pays."""

    net: Devnet
    chain: LiteChain
    treasury: WalletTreasury
    world: World
    sent: int = 0

    async def pay(
        self, to: Address, body: Cell, value: int = TON, init: StateInit | None = None
    ) -> TransactionInfo:
        """One message of the wallet; the receiver's proved transaction."""
        self.sent += 1
        return await self.treasury.pay(key=f"m{self.sent}", to=to, value=value, body=body, state_init=init)

    async def node(self) -> NodeState:
        data = (await self.chain.account(self.world.node)).data
        assert data is not None
        return parse_node(data)

    async def channel(self) -> tuple[ChannelState, int]:
        account = await self.chain.account(self.world.channel)
        assert account.data is not None
        return parse_channel(account.data), account.balance

    async def settle(
        self, claim: payment_pb2.SignedClaim, authorization: payment_pb2.SignedAuthorization
    ) -> int | None:
        """Settle through the node; the exit code of the channel that was asked, as its history proves it."""
        target = self.world.channel
        before = (await self.chain.account(target)).last_tx_lt
        body = node_messages.settle_body(claim=claim, authorization=authorization, query_id=self.sent)
        await self.pay(self.world.node, body)
        found: list[TransactionInfo] = await until(lambda: self.chain.transactions(target, after_lt=before))
        return found[-1].exit_code


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until `look` returns something true."""
    async with asyncio.timeout(30):
        while not (found := await look()):  # noqa: ASYNC110  # blocks are polled
            await asyncio.sleep(0.05)
    return found


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    async with Devnet.start(tmp_path / "chain", block_interval=0.05, global_id=GLOBAL_ID) as net:
        genesis = RegistryGenesis(
            global_id=GLOBAL_ID, governance=net.faucet_address, parameters=PARAMETERS, policy=POLICY,
            releases=(RELEASE,), models={MODEL: "tiny@test"}, since=net.chain.now(),
        )  # fmt: skip
        network = NetworkConfig(
            name="live",
            global_id=GLOBAL_ID,
            registry=raw_address(genesis.address),
            global_config=net.config,
            faucet={"wallet": "v4r2", "seed": net.faucet_seed.hex()},
        )
        async with LiteChain(network, clock=lambda: float(net.chain.now()), head_ttl=0.05) as chain:
            treasury = WalletTreasury(
                faucet_wallet(network), outbox=tmp_path / "outbox.sqlite", chain=chain
            )
            me = treasury.address
            clock: Any = Clock(net)
            world = World(chain=clock, genesis=genesis, owner=me, client=me, stranger=me)
            found = Live(net=net, chain=chain, treasury=treasury, world=world)
            await _set_up(found)
            yield found


async def _set_up(live: Live) -> None:
    world = live.world
    await live.pay(world.registry, registry_messages.top_up_body(), init=world.genesis.state_init)
    join = node_messages.join_body(
        stake=10 * TON, endpoint="host:1", models=[MODEL], prices=PRICES, simulated=True
    )
    await live.pay(world.node, join, 11 * TON, node_state_init(world.node_identity))

    async def active() -> bool:
        return (await live.node()).bond is BondState.ACTIVE

    async def keyed() -> bool:
        return (await live.node()).key is not None

    await until(active)
    attest = node_messages.attest_body(
        key_binding=world.binding().to_boc(),
        evidence_digest=b"\x08" * 32,
        attested_until=world.chain.now + 3600,
    )
    await live.pay(world.node, attest)
    await until(keyed)
    await live.pay(
        world.channel, channel.top_up_body(), 20 * TON, channel_state_init(world.channel_identity)
    )


async def test_a14_no_foreign_late_or_forged_voucher_is_paid(live: Live) -> None:
    world = live.world
    now = world.chain.now
    good = world.claim(TON)
    real, world.client_key = world.client_key, key(9)
    forged = world.authorization(TON)
    world.client_key = real
    attacks = {
        "of mainnet": (world.authorization(TON, global_id=-239), 402),
        "of another channel": (world.authorization(TON, channel=b"\x01" * 32), 403),
        "expired": (world.authorization(TON, valid_until=now - 60), 404),
        "forged": (forged, 405),
        "over nothing": (world.authorization(0), 406),
    }
    before = await live.channel()
    for name, (authorization, code) in attacks.items():
        assert await live.settle(good, authorization) == code, name
        state, balance = await live.channel()
        assert state.paid == 0, name
        assert 0 <= before[1] - balance < 1000, name  # storage
    # The control: the same claim, honestly authorized, up to the cap and no further; and once.
    authorization = world.authorization(TON // 2)
    assert await live.settle(good, authorization) == 0
    assert (await live.channel())[0].paid == TON // 2
    assert await live.settle(good, authorization) == 406
    # After the end nothing is paid any more.
    await live.pay(world.channel, channel.start_close_body())
    live.net.warp(world.channel_identity.close_delay + 1)
    await asyncio.sleep(0.1)  # longer than the head's life in `chain`
    await live.pay(world.channel, channel.finish_close_body())
    late = world.authorization(10 * TON, valid_until=world.chain.now + 3600)
    assert await live.settle(world.claim(10 * TON), late) == 411
    assert (await live.channel())[0].paid == TON // 2


async def test_a12_a_withheld_receipt_costs_stake(live: Live) -> None:
    """The enclave signed it, the host never anchored it: whoever holds it takes it to the contract."""
    world = live.world
    binding = (await live.node()).key
    assert binding is not None
    receipt = world.receipt(binding_hash=binding.binding_hash)
    body = node_messages.challenge_body(world.signed(receipt), query_id=1)
    early = await _refused(live, body)
    assert early == 319  # not due yet
    live.net.warp(PARAMETERS.anchor_within + 60)
    await asyncio.sleep(0.1)
    forged = node_messages.challenge_body(world.signed(receipt, key(9)), query_id=2)
    assert await _refused(live, forged) == 310
    assert (await live.node()).stake == 10 * TON
    await live.pay(world.node, body)
    assert (await live.node()).stake == 10 * TON - PARAMETERS.penalty
    assert await _refused(live, body) == 321  # once for each receipt


async def _refused(live: Live, body: Cell) -> int:
    from cocoon_ton.errors import MessageFailedError

    with pytest.raises(MessageFailedError) as caught:
        await live.pay(live.world.node, body)
    return int(str(caught.value.details["exit_code"]))
