"""Exporting the offline proof of a receipt, and not exporting what does not prove it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pytoniq_core import Address

from cocoon_attestation.bundle import parse_bundle, verify_bundle
from cocoon_attestation.errors import LogProofError, MalformedError, RejectedError, UnavailableError
from cocoon_attestation.merkle import MerkleTree
from cocoon_proxy.audit import chain_facts
from cocoon_proxy.errors import UnknownReceiptError
from cocoon_ton.address import raw_address
from cocoon_ton.values import AccountState

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

CHAT = "/v1/chat/completions"


async def proved(network: Network, enclave: FakeEnclave) -> dict[str, AccountState]:
    states = [
        await network.chain.account(network.genesis.address),
        await network.chain.account(enclave.identity.address),
    ]
    return {raw_address(state.address): state for state in states}


async def test_a_bundle_proves_the_answer(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    request = harness.body(stream=False)
    async with network.client() as client:
        for _ in range(3):
            answer = await client.complete(CHAT, request)
        network.anchor(enclave)
        receipt_id = answer.completed.receipt_id
        data = await client.export_bundle(receipt_id, request=request, response=answer.body)
        without = await client.export_bundle(receipt_id)
        calls = await client.export_bundle(receipt_id, request=request, response=answer.body)
    assert data == calls
    bundle = parse_bundle(data)
    facts = chain_facts(
        await proved(network, enclave),
        network=network.config,
        node=enclave.node,
        block_time=int(network.clock()),
    )
    assert verify_bundle(bundle, facts).accepted
    assert not verify_bundle(replace(bundle, response=answer.body + b" "), facts).accepted
    assert "salt" not in json.loads(without)
    assert verify_bundle(parse_bundle(without), facts, content_required=False).accepted
    wanted = [raw_address(network.genesis.address), raw_address(enclave.identity.address)]
    assert bundle.chain["accounts"] == wanted


async def test_no_bundle_before_the_anchor(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    async with network.client() as client:
        network.anchor(enclave)
        answer = await client.complete(CHAT, harness.body())
        with pytest.raises(UnavailableError, match="not anchored"):
            await client.export_bundle(answer.completed.receipt_id)
        with pytest.raises(UnknownReceiptError):
            await client.export_bundle("00" * 32)


async def test_a_rewritten_log_is_found(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
        enclave.tree = MerkleTree()
        enclave.tree.append(bytes(32))
        network.anchor(enclave)
        with pytest.raises(LogProofError):
            await client.export_bundle(answer.completed.receipt_id)


async def test_other_evidence_than_recorded_is_found(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
        network.anchor(enclave)
        enclave.published = enclave.make_evidence(bytes(32))
        with pytest.raises(RejectedError, match="published evidence"):
            await client.export_bundle(answer.completed.receipt_id)


async def test_keys_that_the_contract_forgot_cannot_be_proved(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
        enclave.new_keys()
        network.anchor(enclave)
        with pytest.raises(UnavailableError, match="keys of this receipt"):
            await client.export_bundle(answer.completed.receipt_id)


async def test_a_node_that_is_gone_cannot_be_asked(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
        network.anchor(enclave)
        await enclave.stop()
        with pytest.raises(UnavailableError):
            await client.export_bundle(answer.completed.receipt_id)
        network.publish(network.enclaves[0].listing)
        network.chain.accounts.pop(enclave.node)
        with pytest.raises(RejectedError):
            await client.export_bundle(answer.completed.receipt_id)


async def test_facts_need_both_accounts(network: Network, enclave: FakeEnclave) -> None:
    network.anchor(enclave)
    accounts = await proved(network, enclave)
    for missing in accounts:
        rest = {key: value for key, value in accounts.items() if key != missing}
        with pytest.raises(MalformedError):
            chain_facts(rest, network=network.config, node=enclave.node, block_time=1)


async def test_a_contract_that_only_looks_like_a_node_proves_nothing(
    network: Network, enclave: FakeEnclave
) -> None:
    """The same data at another address: a contract with other code, which can rewrite its log."""
    network.anchor(enclave)
    accounts = await proved(network, enclave)
    genuine = accounts.pop(raw_address(enclave.identity.address))
    fake = Address((0, b"\x5a" * 32))
    accounts[raw_address(fake)] = replace(genuine, address=fake)
    with pytest.raises(MalformedError, match="not a node contract"):
        chain_facts(accounts, network=network.config, node=b"\x5a" * 32, block_time=1)
