"""A12 with a running enclave and a real node contract: the host agent answers, a silent host pays."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cocoon.v1 import host_service_pb2, record_pb2
from cocoon_attestation.binding import parse_key_binding
from cocoon_attestation.errors import PaymentError
from cocoon_attestation.receipt import Receipt, commit_response, verify_receipt
from cocoon_enclave.attestation.simulated import simulated_release
from cocoon_enclave.host.agent import HostAgent
from cocoon_enclave.host.answers import NoAnswerError
from cocoon_enclave.host.plan import Anchor, Respond
from cocoon_ton import node_messages
from cocoon_ton.emulator import Emulator, SendResult, TestChain
from cocoon_ton.registry_messages import RegistryGenesis

from ..ton_contracts.conftest import (
    GLOBAL_ID,
    PARAMETERS,
    POLICY,
    TON,
    TREASURY,
    World,
    emulator,  # noqa: F401
)
from .host_kit import Treasury, make_agent

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))

from enclave_testkit import (  # type: ignore[import-not-found]
    Wallet,
    config,  # noqa: F401
    platform_dir,  # noqa: F401
    start_node,  # noqa: F401
    tiny_model,  # noqa: F401
)

DUE = PARAMETERS.anchor_within + 60


@dataclasses.dataclass
class Network:
    """An enclave, its node contract, its host agent, and a client with receipts."""

    world: World
    node: Any
    agent: HostAgent
    treasury: Treasury

    async def ask(self, text: str = "hello") -> tuple[Receipt, record_pb2.SignedReceipt, bytes, bytes]:
        """One answer: its receipt as parsed and as signed, its body, and the salt."""
        account = bytes(self.world.node.hash_part)
        wallet = Wallet(node=account, global_id=GLOBAL_ID, salt=self.node.enclave.service.log.size)
        async with self.node.client(wallet) as client:
            number = await client.send(client.plain(text))
            reply = await client.wait(number)
            salt = client.pending[number].plain.receipt_salt
        log = self.node.enclave.service.log
        rows = await log.on_disk(lambda: list(log._store.receipts()))
        (row,) = (row for row in rows if row.hash == reply.receipt.hash)
        signed = record_pb2.SignedReceipt(receipt=row.receipt, signature=row.signature)
        return reply.receipt, signed, reply.body, salt

    def challenge(self, signed: record_pb2.SignedReceipt) -> SendResult:
        body = node_messages.challenge_body(signed)
        return self.world.to_node(self.world.client, body)


@pytest.fixture
async def network(start_node: Any, emulator: Emulator) -> AsyncIterator[Network]:  # noqa: F811
    chain = TestChain(emulator=emulator, now=int(time.time()))
    assert chain.treasury("treasury") == TREASURY
    world = World(
        chain=chain,
        genesis=RegistryGenesis(
            global_id=GLOBAL_ID,
            governance=chain.treasury("governance"),
            parameters=PARAMETERS,
            policy=POLICY,
            releases=(simulated_release(),),
            since=chain.now,
        ),
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
    assert world.deploy_registry().success
    assert world.join().success
    assert world.to_node(world.stranger, node_messages.top_up_body()).success
    account_id = bytes(world.node.hash_part)
    async with start_node(node=account_id, global_id=GLOBAL_ID) as (node, _):
        status = await node.host.GetStatus(host_service_pb2.GetStatusRequest())
        binding = parse_key_binding(status.key_binding)
        assert world.attest(binding, until=binding.not_after).success
        treasury = Treasury(world)
        agent = make_agent(world, treasury, node)
        yield Network(world=world, node=node, agent=agent, treasury=treasury)


async def test_the_host_answers_challenges_on_its_own(network: Network) -> None:
    receipt, signed, _, _ = await network.ask()
    network.world.chain.warp(700)
    assert Anchor() in await network.agent.step()
    network.world.chain.warp(DUE)
    assert network.challenge(signed).success
    await network.ask("meanwhile the log grows")
    actions = await network.agent.step()
    assert isinstance(actions[0], Respond)
    assert actions[0].challenge.receipt_hash == receipt.hash
    state = network.world.node_state()
    assert (state.open_challenges, state.stake, state.deposits) == (0, 10 * TON, 0)
    assert not any(isinstance(action, Respond) for action in await network.agent.step())


async def test_it_answers_while_it_waits_for_its_stake(network: Network) -> None:
    _, signed, _, _ = await network.ask()
    network.world.chain.warp(700)
    await network.agent.step()
    assert network.world.to_node(network.world.owner, node_messages.unbond_body()).success
    network.world.chain.warp(DUE)
    assert network.challenge(signed).success
    await network.agent.step()
    assert network.world.node_state().open_challenges == 0


async def test_a_host_that_keeps_the_log_to_itself_is_slashed(network: Network) -> None:
    """The enclave signed and logged the receipt; its host never anchors."""
    _, signed, _, _ = await network.ask()
    network.world.chain.warp(DUE)
    assert network.challenge(signed).success
    assert network.world.node_state().stake == 8 * TON


async def test_a_host_that_does_not_answer_is_slashed(network: Network) -> None:
    receipt, signed, _, _ = await network.ask()
    network.world.chain.warp(700)
    await network.agent.step()
    network.world.chain.warp(DUE)
    network.challenge(signed)
    network.world.chain.warp(PARAMETERS.response_window + 1)
    actions = await network.agent.step()
    assert not any(isinstance(action, Respond) for action in actions), "nothing is paid for in vain"
    assert network.world.slash(receipt).success
    assert network.world.node_state().stake == 8 * TON


async def test_an_enclave_without_the_receipt_costs_no_fees_and_blocks_nothing(network: Network) -> None:
    """The contract has anchored a tree that is not the enclave's: say so, and go on with the rest."""
    receipt, _, _, _ = await network.ask()
    network.world.chain.warp(700)
    await network.agent.step()
    network.world.chain.warp(DUE)
    # a receipt signed by the enclave's own key that is not in its log: only a broken enclave has one
    keyset = network.node.enclave.service.keyring.current
    other = dataclasses.replace(receipt, prompt_tokens=receipt.prompt_tokens + 1)
    signed = record_pb2.SignedReceipt(receipt=other.to_boc(), signature=keyset.receipt.sign(other.hash))
    assert network.challenge(signed).success
    await network.ask("more")
    network.treasury.sent.clear()
    with pytest.raises(NoAnswerError):
        await network.agent.step()
    assert network.treasury.sent == ["anchor"]
    network.world.chain.warp(30)
    await network.agent.step()
    network.world.chain.warp(31)
    with pytest.raises(PaymentError):
        await network.agent.step()


async def test_a_receipt_for_another_output_convicts_itself(network: Network) -> None:
    """The signed receipt commits to the bytes: whoever holds salt and answer sees that they are not these."""
    receipt, signed, body, salt = await network.ask()
    assert receipt.response_commitment == commit_response(salt, body)
    assert receipt.response_commitment != commit_response(salt, body + b" ")
    # and it is the node's word: the key that signed it is the one on chain
    record = network.world.node_state().key
    assert record is not None
    assert record.binding_hash == receipt.binding_hash
    assert verify_receipt(signed, record.receipt_key) == receipt
