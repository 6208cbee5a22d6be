"""What a client does about a receipt that its node may have withheld."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import pytest

from cocoon.v1 import attestation_service_pb2 as wire
from cocoon_attestation.errors import ReceiptRejectedError, RejectedError, UnavailableError
from cocoon_attestation.receipt import Receipt
from cocoon_proxy import dispute as module
from cocoon_proxy.dispute import ACTIONABLE, Finding, assess, challenge_message, dispute
from cocoon_proxy.ledger import ReceiptRow
from cocoon_ton import node_messages
from cocoon_ton.values import AccountState, BlockRef

from ..ton_contracts.conftest import (  # noqa: F401  (fixtures)
    PARAMETERS,
    TON,
    World,
    active,
    emulator,
    key,
    world,
)

DUE = PARAMETERS.anchor_within


@pytest.fixture
def node(active: World) -> World:  # noqa: F811
    """A node with money for anchors and three receipts that nobody asks about."""
    assert active.to_node(active.stranger, node_messages.top_up_body()).success
    active.grow(3)
    return active


def finding(node: World, receipt: Receipt, proof: tuple[bytes, ...] | None = None) -> Finding:
    """What the client finds now; whatever it would challenge, the contract takes, and nothing else."""
    state = node.node_state()
    result = assess(node.signed(receipt), state, now=node.chain.now, proof=proof)
    assert result.receipt == receipt
    assert result.actionable is (result.finding in ACTIONABLE)
    assert (result.answer_until != 0) is (result.finding is Finding.CHALLENGED)
    return result.finding


def proof(node: World, receipt: Receipt) -> tuple[bytes, ...]:
    return tuple(node.tree.inclusion_proof(receipt.index, node.node_state().log.tree_size))


def test_a_receipt_that_was_anchored_in_time(node: World) -> None:
    receipt = node.issue()
    assert node.anchor().success
    assert finding(node, receipt) is Finding.NOT_DUE
    assert finding(node, receipt, proof(node, receipt)) is Finding.ANCHORED
    node.chain.warp(DUE + 1)
    node.grow(5)
    assert node.anchor().success
    assert finding(node, receipt, proof(node, receipt)) is Finding.ANCHORED


def test_a_receipt_that_the_log_does_not_reach(node: World) -> None:
    assert node.anchor().success
    receipt = node.issue()
    node.chain.warp(DUE)
    assert finding(node, receipt) is Finding.NOT_DUE
    node.chain.warp(1)
    assert finding(node, receipt) is Finding.WITHHELD
    # too late is too late, and a proof changes nothing about it
    assert node.anchor().success
    assert finding(node, receipt, proof(node, receipt)) is Finding.WITHHELD
    message = challenge_message(node.signed(receipt), node.node_state())
    assert node.chain.send_from(node.client, message.to, message.value, message.body).success
    assert node.node_state().stake == 8 * TON
    assert finding(node, receipt) is Finding.PUNISHED


def test_a_receipt_that_the_node_does_not_show(node: World) -> None:
    receipt = node.receipt()
    node.grow(5)
    assert node.anchor().success
    node.chain.warp(DUE + 1)
    other = tuple(node.tree.inclusion_proof(3, 8))
    for bad in (None, (), other):
        assert finding(node, receipt, bad) is Finding.NOT_SHOWN
    message = challenge_message(node.signed(receipt), node.node_state())
    assert node.chain.send_from(node.client, message.to, message.value, message.body).success
    assert finding(node, receipt) is Finding.CHALLENGED
    node.chain.warp(PARAMETERS.response_window + 1)
    node.slash(receipt)
    assert finding(node, receipt) is Finding.PUNISHED


def test_too_late(node: World) -> None:
    receipt = node.receipt()
    node.chain.warp(DUE + PARAMETERS.challenge_window)
    assert finding(node, receipt) is Finding.WITHHELD
    node.chain.warp(1)
    assert finding(node, receipt) is Finding.TOO_LATE
    assert node.challenge(receipt).first.exit_code == 320


def test_a_key_that_the_contract_no_longer_keeps(node: World) -> None:
    receipt = dataclasses.replace(node.receipt(), binding_hash=b"\x05" * 32)
    node.chain.warp(DUE + 1)
    assert finding(node, receipt) is Finding.TOO_LATE


def test_a_node_without_stake(node: World) -> None:
    receipt = node.receipt()
    node.chain.warp(DUE + 1)
    state = dataclasses.replace(node.node_state(), stake=0)
    assert assess(node.signed(receipt), state, now=node.chain.now).finding is Finding.NOTHING_AT_STAKE


def test_receipts_that_are_not_the_nodes_are_refused(node: World) -> None:
    state = node.node_state()
    with pytest.raises(ReceiptRejectedError):
        assess(node.signed(node.receipt(), key(9)), state, now=0)
    with pytest.raises(ReceiptRejectedError):
        assess(node.signed(node.receipt(node=b"\x09" * 32)), state, now=0)


def test_the_value_follows_the_number_of_open_challenges(node: World) -> None:
    state = node.node_state()
    signed = node.signed(node.receipt())
    values = [
        challenge_message(signed, dataclasses.replace(state, open_challenges=n)).value for n in (0, 16, 32)
    ]
    assert values[0] < values[1] < values[2]


# ---- with chain and node


class Chain:
    """A reader of the emulated chain."""

    def __init__(self, world: World) -> None:  # noqa: F811
        self.world = world

    async def head(self) -> BlockRef:
        return BlockRef(seqno=1, root_hash=bytes(32), file_hash=bytes(32), utime=self.world.chain.now)

    async def account(self, addr: Any, at: BlockRef | None = None) -> AccountState:
        view = self.world.chain.account(addr)
        status: Any = view.status
        return AccountState(
            address=addr,
            status=status,
            balance=view.balance,
            code=view.code,
            data=view.data,
            last_tx_lt=0,
            last_tx_hash=bytes(32),
            block=await self.head(),
            shard_utime=self.world.chain.now,
        )


class Connection:
    """The node's public service; `answer` None: it does not answer."""

    answer: tuple[bytes, ...] | None = None
    asked: list[tuple[str, int]]

    def __init__(self, endpoint: str, connect_s: float) -> None:
        self.endpoint = endpoint

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def inclusion(self, receipt_hash: bytes, tree_size: int) -> wire.GetInclusionProofResponse:
        Connection.asked.append((self.endpoint, tree_size))
        if Connection.answer is None:
            raise UnavailableError("gone")
        response = wire.GetInclusionProofResponse()
        response.proof.hashes.extend(Connection.answer)
        return response


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> type[Connection]:
    Connection.answer, Connection.asked = None, []
    monkeypatch.setattr(module, "NodeConnection", Connection)
    return Connection


def row(node: World, receipt: Receipt) -> ReceiptRow:
    signed = node.signed(receipt)
    return ReceiptRow(
        id=receipt.hash,
        request=b"r" * 16,
        node=receipt.node,
        binding_hash=receipt.binding_hash,
        log_index=receipt.index,
        issued_at=receipt.issued_at,
        anchor_by=receipt.anchor_by,
        amount=receipt.amount,
        status=receipt.status,
        boc=signed.receipt,
        signature=signed.signature,
        simulated=True,
        salt=bytes(32),
        model="tiny",
        endpoint="chat",
    )


async def look(node: World, receipt: Receipt) -> tuple[Finding, bool]:
    network: Any = type("Network", (), {"registry_address": node.registry})
    chain: Any = Chain(node)
    assessment, message = await dispute(row(node, receipt), network=network, chain=chain, connect_s=1)
    slashable = assessment.finding is Finding.CHALLENGED and node.chain.now > assessment.answer_until
    assert (message.kind if message else None) == (
        "challenge" if assessment.actionable else "slash" if slashable else None
    )
    if message is not None:
        assert message.to == node.node
    return assessment.finding, message is not None


async def test_the_node_is_asked_for_the_log_that_is_anchored(
    node: World, connection: type[Connection]
) -> None:
    receipt = node.issue()
    assert node.anchor().success
    node.chain.warp(DUE + 1)
    assert await look(node, receipt) == (Finding.NOT_SHOWN, True)
    connection.answer = proof(node, receipt)
    assert await look(node, receipt) == (Finding.ANCHORED, False)
    assert connection.asked == [("host:1", 4)] * 2


async def test_a_node_is_not_asked_for_what_it_cannot_have(
    node: World, connection: type[Connection]
) -> None:
    assert node.anchor().success
    receipt = node.issue()
    node.chain.warp(DUE + 1)
    assert await look(node, receipt) == (Finding.WITHHELD, True)
    assert connection.asked == []


async def test_a_node_that_the_registry_does_not_list_shows_nothing(
    node: World, connection: type[Connection]
) -> None:
    receipt = node.issue()
    assert node.anchor().success
    node.to_node(node.owner, node_messages.unbond_body())
    node.chain.warp(DUE + 1)
    assert await look(node, receipt) == (Finding.NOT_SHOWN, True)
    assert connection.asked == []


async def test_a_challenge_without_an_answer_is_ended_by_a_slash(node: World) -> None:
    receipt = node.receipt()
    node.to_node(node.owner, node_messages.unbond_body())
    node.grow(5)
    assert node.anchor().success
    node.chain.warp(DUE + 1)
    network: Any = type("Network", (), {"registry_address": node.registry})
    chain: Any = Chain(node)
    for kind in ("challenge", "slash"):
        _, message = await dispute(row(node, receipt), network=network, chain=chain, connect_s=1)
        assert message is not None
        assert message.kind == kind
        node.chain.send_from(node.client, message.to, message.value, message.body)
        if kind == "challenge":
            assert await look(node, receipt) == (Finding.CHALLENGED, False)
            node.chain.warp(PARAMETERS.response_window + 1)
    assert node.node_state().stake == 8 * TON
    assert await look(node, receipt) == (Finding.PUNISHED, False)


async def test_a_node_that_does_not_exist(world: World) -> None:  # noqa: F811
    world.deploy_registry()
    receipt = world.receipt(binding_hash=bytes(32))
    with pytest.raises(RejectedError):
        await look(world, receipt)
