"""A10, A22: clients that make the host work for nothing, burn its fees, or block its other business."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address, StateInit

from cocoon.v1 import host_service_pb2 as wire
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.errors import PaymentError
from cocoon_attestation.payment import PriceList
from cocoon_attestation.types import ZERO_DIGEST
from cocoon_enclave.host import agent as agent_module
from cocoon_enclave.host.agent import HostAgent
from cocoon_enclave.host.config import parse_host_config
from cocoon_enclave.host.plan import Anchor, Settle
from cocoon_enclave.host.views import CHANNEL_RESERVE, channel_view
from cocoon_ton.channel import CLOSED, ChannelState, channel_state_init
from cocoon_ton.errors import MessageFailedError
from cocoon_ton.node import AnchoredLog, BondState, KeyRecord, NodeState, NodeTerms, RegistryParameters
from cocoon_ton.treasury import Payment
from cocoon_ton.values import AccountState, BlockRef

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))

from enclave_testkit import Wallet  # type: ignore[import-not-found]

NOW = 1_800_000_000
OWNER = Address((0, b"\x07" * 32))
REGISTRY = Address((0, b"\x08" * 32))
BLOCK = BlockRef(seqno=1, root_hash=b"r" * 32, file_hash=b"f" * 32, utime=NOW)
PRICES = PriceList(prompt=1, cached=1, completion=2)
TON = 10**9


def _account(address: Address, *, balance: int = 0, init: StateInit | None = None) -> AccountState:
    return AccountState(
        address=address,
        status="active" if init else "nonexist",
        balance=balance,
        code=init.code if init else None,
        data=init.data if init else None,
        last_tx_lt=7,
        last_tx_hash=b"t" * 32,
        block=BLOCK,
        shard_utime=NOW,
    )


class Chain:
    """Proved accounts; counts what is looked up."""

    def __init__(self) -> None:
        self.accounts: dict[bytes, AccountState] = {}
        self.looked: list[bytes] = []

    def channel(self, wallet: Any, balance: int) -> None:
        address = wallet.identity.address
        self.accounts[address.hash_part] = _account(
            address, balance=balance, init=channel_state_init(wallet.identity)
        )

    async def head(self) -> BlockRef:
        return BLOCK

    async def account(self, address: Address, at: BlockRef | None = None) -> AccountState:
        self.looked.append(address.hash_part)
        return self.accounts.get(address.hash_part) or _account(address, balance=2 * TON)


class Treasury:
    """Refuses what `refuse` names, as a contract would: the fees are gone."""

    address = OWNER

    def __init__(self) -> None:
        self.refuse: set[str] = set()
        self.sent: list[str] = []
        self.batches: list[int] = []

    async def resume(self) -> None:
        pass

    async def pay(self, *, key: str, **_: Any) -> None:
        self._send(key)

    async def pay_all(self, payments: Sequence[Payment]) -> list[PaymentError | None]:
        self.batches.append(len(payments))
        results: list[PaymentError | None] = []
        for payment in payments:
            try:
                self._send(payment.key)
                results.append(None)
            except PaymentError as error:
                results.append(error)
        return results

    async def send_external(self, *, key: str, **_: Any) -> None:
        self._send(key)

    def _send(self, key: str) -> None:
        kind = key.partition(":")[0]
        self.sent.append(kind)
        if kind in self.refuse:
            raise MessageFailedError(f"{kind}: refused")


class Enclave:
    """HostService of an enclave."""

    def __init__(self, binding: KeyBinding) -> None:
        self.status = wire.GetStatusResponse(key_binding=binding.to_boc(), tree_size=9, ready=True)
        self.claims: list[wire.ChannelClaim] = []
        self.told: list[Any] = []

    async def GetStatus(self, *_: Any, **__: Any) -> Any:  # noqa: N802
        return self.status

    async def ListClaims(self, *_: Any, **__: Any) -> Any:  # noqa: N802
        return wire.ListClaimsResponse(claims=self.claims)

    async def SetChannels(self, request: Any, **_: Any) -> Any:  # noqa: N802
        self.told += request.channels
        return wire.SetChannelsResponse()

    async def SetTerms(self, *_: Any, **__: Any) -> Any:  # noqa: N802
        return wire.SetTermsResponse()

    async def GetCheckpoint(self, *_: Any, **__: Any) -> Any:  # noqa: N802
        return wire.GetCheckpointResponse()


class World:
    """A host agent whose node has joined, with everything around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chain, self.treasury, self.now = Chain(), Treasury(), float(NOW)
        terms = {"prompt": 1, "cached": 1, "completion": 2}
        config = parse_host_config(
            {
                "network": "n", "host_service": "h:1", "state": "s", "endpoint": "e:1", "prices": terms,
                "models": ["aa" * 32], "stake": "1",
            },
            base=Path(),
        )  # fmt: skip
        network: Any = types.SimpleNamespace(global_id=-217, registry_address=REGISTRY)
        self.agent = HostAgent(
            config,
            network,
            chain=self.chain,  # type: ignore[arg-type]
            treasury=self.treasury,  # type: ignore[arg-type]
            enclave=None,  # type: ignore[arg-type]
            records=None,  # type: ignore[arg-type]
            clock=lambda: self.now,
        )
        self.node = self.agent.identity.account_id
        self.binding = KeyBinding(
            node=self.node,
            seal_key_hash=b"\1" * 32,
            receipt_key=b"\2" * 32,
            tls_spki_hash=b"\3" * 32,
            config_hash=b"\4" * 32,
            release_id=b"\5" * 32,
            not_before=NOW - 60,
            not_after=NOW + 80_000,
            global_id=-217,
        )
        self.enclave = Enclave(self.binding)
        self.agent._looked_at = 2**40  # what the registry says is tested elsewhere
        self.agent._enclave = self.enclave  # type: ignore[assignment]
        self.state = self._state()
        monkeypatch.setattr(agent_module, "node_state", lambda _: self.state)
        monkeypatch.setattr(agent_module, "anchor_external_body", lambda **_: _Body())
        monkeypatch.setattr(agent_module, "settle_body", lambda **_: _Body())

    def _state(self) -> NodeState:
        return NodeState(
            identity=self.agent.identity,
            bond=BondState.ACTIVE,
            unlock_at=0,
            stake=0,
            log=AnchoredLog(tree_size=5, root=ZERO_DIGEST, anchored_at=NOW - 3600),
            terms=NodeTerms(
                endpoint="e:1",
                models=(b"\xaa" * 32,),
                simulated=True,
                prices=PRICES,
                next_prices=PRICES,
                prices_effective_at=0,
            ),
            key=KeyRecord(
                binding_hash=self.binding.hash,
                receipt_key=b"\2" * 32,
                evidence_digest=b"\6" * 32,
                not_before=NOW - 60,
                not_after=NOW + 80_000,
                attested_until=NOW + 80_000,
            ),
            parameters=RegistryParameters(
                min_stake=1, anchor_within=3600, challenge_window=1, response_window=1, close_delay=600,
                price_delay=1, max_nodes=9, timelock=1, penalty=1, bounty_permille=1, treasury=OWNER,
            ),
        )  # fmt: skip

    def client(self, salt: int = 1, close_delay: int = 600) -> Any:
        wallet = Wallet(node=self.node, global_id=-217, salt=salt)
        wallet.identity = replace(wallet.identity, close_delay=close_delay)
        wallet.channel = wallet.identity.address.hash_part
        return wallet

    def claim(self, wallet: Any, used: int) -> None:
        from cocoon_attestation.payment import Claim, sign_claim

        payment = wallet.payment(cap=10 * TON, valid_for=10**9)
        signed = sign_claim(Claim(global_id=-217, channel=wallet.channel, used=used, index=0), wallet.key)
        self.enclave.claims.append(
            wire.ChannelClaim(
                channel=payment.channel,
                authorization=payment.authorization,
                claim=signed,
                binding_hash=self.binding.hash,
            )
        )


class _Body:
    hash = b"h" * 32


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_a_refused_settlement_blocks_nothing_and_is_not_paid_for_at_every_look(world: World) -> None:
    wallet = world.client()
    world.chain.channel(wallet, TON)
    world.claim(wallet, TON // 2)
    world.treasury.refuse = {"anchor", "settle"}
    with pytest.raises(PaymentError):
        await world.agent.step()
    assert world.treasury.sent == ["anchor", "settle"]
    for _ in range(5):
        world.now += 5
        await world.agent.step()
    assert world.treasury.sent == ["anchor", "settle"]
    world.now += 60
    world.treasury.refuse = set()
    assert await world.agent.step() == (Anchor(), Settle(wallet.channel))


async def test_settlements_go_together_and_one_refusal_is_not_the_others_problem(world: World) -> None:
    wallets = [world.client(salt=salt) for salt in range(1, 6)]
    for wallet in wallets:
        world.chain.channel(wallet, TON)
        world.claim(wallet, TON // 2)
    refused = wallets[2].channel
    settle = world.agent._settlement

    def settlement(claim: Any, *, final: bool) -> Payment:
        payment = settle(claim, final=final)
        return replace(payment, key="refused") if claim.view.channel == refused else payment

    world.agent._settlement = settlement  # type: ignore[method-assign]
    world.treasury.refuse = {"refused"}
    with pytest.raises(PaymentError):
        await world.agent.step()
    assert world.treasury.batches == [5]
    world.now += 61
    world.treasury.refuse = set()
    await world.agent.step()
    assert world.treasury.batches == [5, 5]  # these fakes pay nothing: all of it is still due


async def test_invented_channels_are_looked_up_once(world: World) -> None:
    invented = [world.client(salt=salt) for salt in range(20)]
    world.enclave.status.unknown_channels.extend(w.identity.to_proto() for w in invented)
    await world.agent.step()
    assert {fact.balance for fact in world.enclave.told} == {0}
    del world.enclave.status.unknown_channels[:]
    world.chain.looked.clear()
    await world.agent.step()
    assert not {wallet.channel for wallet in invented} & set(world.chain.looked)


async def test_a_channel_that_can_be_emptied_before_the_host_settles_is_not_served(world: World) -> None:
    """The registry says how long a close must take at least; the client makes the channel."""
    quick, slow = world.client(salt=1, close_delay=599), world.client(salt=2)
    for wallet in (quick, slow):
        world.chain.channel(wallet, TON)
    world.enclave.status.unknown_channels.extend(w.identity.to_proto() for w in (quick, slow))
    await world.agent.step()
    told = {fact.channel: fact for fact in world.enclave.told}
    assert told[quick.channel].close_at == CLOSED
    assert (told[slow.channel].close_at, told[slow.channel].balance) == (0, TON - CHANNEL_RESERVE)


async def test_the_contracts_own_reserve_is_not_money_to_work_or_settle_for(world: World) -> None:
    """Channel keeps its reserve back: settling for it fails, at the host's cost, for as long as one tries."""
    wallet = world.client()
    world.chain.channel(wallet, CHANNEL_RESERVE)
    world.claim(wallet, TON)
    assert Settle(wallet.channel) not in await world.agent.step()
    view = channel_view(wallet.identity, world.chain.accounts[wallet.channel])
    assert view.facts(0).balance == 0
    assert isinstance(view.state, ChannelState)
