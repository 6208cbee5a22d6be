"""A12 over a running chain: a log rewritten after it was anchored, and a log told in two versions.

Client, auditor, wallets, blocks and proofs are real, and both read the chain in verify mode. The enclave's keys
are in the attacker's hands: only somebody who broke attested code could sign what is signed here.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Cell

from cocoon.v1 import record_pb2
from cocoon_attestation.bundle import parse_bundle, verify_bundle
from cocoon_attestation.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from cocoon_attestation.errors import LogProofError
from cocoon_attestation.merkle import MerkleTree
from cocoon_proxy.audit import chain_facts
from cocoon_proxy.dispute import Finding
from cocoon_ton import node_messages, opcodes
from cocoon_ton.cells import Reader
from cocoon_ton.chain import LiteChain, TransactionInfo, TrustMode
from cocoon_ton.errors import MessageFailedError
from cocoon_ton.node import BondState, parse_node
from cocoon_ton.proof import verify_chain_facts
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.registry import parse_registry
from cocoon_ton.treasury import WalletTreasury
from cocoon_ton.wallet import Wallet, WalletVersion

from ..proxy.conftest import harness, load_harness, platform  # noqa: F401  (fixtures)
from ..proxy.devnet_kit import TON, Live, running  # noqa: F401  (fixture `live`)

CHAT = "/v1/chat/completions"
PARAMETERS = load_harness().PARAMETERS
UNSIGNED, ROLLED_BACK, NOT_EXTENDED = 310, 311, 313
BAD_INCLUSION, NOTHING_AT_STAKE, NO_CONFLICT = 324, 327, 328


async def somebody(live: Live, home: Path) -> WalletTreasury:
    """A wallet of a person who has no part in anything, with 2 TON."""
    wallet = Wallet(b"\x5b" * 32, global_id=live.config.global_id, version=WalletVersion.V4R2)
    live.net.fund(wallet.address, 2 * TON)
    found = WalletTreasury(wallet, outbox=home / "somebody.sqlite", chain=live.chain)
    async with asyncio.timeout(20):
        while not await found.balance():  # noqa: ASYNC110  # blocks are polled
            await asyncio.sleep(0.05)
    return found


def auditor(live: Live) -> LiteChain:
    """Begins with the pinned init block and believes validator signatures only."""
    return LiteChain(live.config, trust=TrustMode.VERIFY, clock=live.now, head_ttl=0.05)


async def history(live: Live) -> list[TransactionInfo]:
    """All the node's transactions as an auditor proves them, newest first."""
    async with auditor(live) as chain:
        return await chain.transactions(live.enclave.identity.address)


def signed_in(body: Cell, receipt_key: bytes) -> Checkpoint:
    """The checkpoint of a `NodeAnchor` message, if the attested key signed it."""
    reader = Reader(body)
    reader.uint(32 + 64)
    signed = record_pb2.SignedCheckpoint(signature=reader.raw(64), checkpoint=write_boc([body.refs[0]]))
    return verify_checkpoint(signed, receipt_key)


async def refused(payer: WalletTreasury, live: Live, key: str, body: Cell) -> int:
    """Exit code with which the node contract refuses a message."""
    with pytest.raises(MessageFailedError) as caught:
        await payer.pay(key=key, to=live.enclave.identity.address, value=TON // 2, body=body)
    return int(str(caught.value.details["exit_code"]))


async def exit_code_of_own_anchor(live: Live, tree: MerkleTree) -> int | None:
    """Offer a log as the node's own external message; how its transaction ends."""
    address = live.enclave.identity.address
    before = (await live.chain.account(address)).last_tx_lt
    await live.offer(await live.order(tree))
    async with asyncio.timeout(20):
        while not (found := await live.chain.transactions(address, after_lt=before)):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.05)
    return found[-1].exit_code


async def test_a12_a_rewritten_log_is_refused_and_seen(live: Live, tmp_path: Path) -> None:
    enclave, request = live.enclave, load_harness().body(stream=False)
    async with live.client(tmp_path / "home", chain=live.chain) as client:
        answers = [await client.complete(CHAT, request) for _ in range(3)]
        await live.anchor()
        anchored = (await live.node()).log
        ids = [answer.completed.receipt_id for answer in answers]
        first_read = await client.export_bundle(ids[0], request=request, response=answers[0].body)

        # The node goes on as if the first answer had never been there.
        honest = enclave.tree
        leaves = [*(bytes(receipt.hash) for receipt in enclave.receipts[1:]), b"\x66" * 32, b"\x67" * 32]
        enclave.tree = rewritten = MerkleTree(leaves)

        # The contract takes no log that does not extend the anchored one, whoever pays for the message.
        signed = sign_checkpoint(live.checkpoint(rewritten), enclave.receipt_key)
        body = node_messages.anchor_body(
            checkpoint=signed, proof=rewritten.consistency_proof(3, rewritten.size)
        )
        payer = await somebody(live, tmp_path)
        assert await refused(payer, live, "rewritten", body) == NOT_EXTENDED
        assert await exit_code_of_own_anchor(live, rewritten) == NOT_EXTENDED
        back = live.checkpoint(MerkleTree(leaves[:2]))
        body = node_messages.anchor_body(checkpoint=sign_checkpoint(back, enclave.receipt_key), proof=())
        assert await refused(payer, live, "back", body) == ROLLED_BACK
        assert (await live.node()).log == anchored

        # An auditor proves the attempts from the chain, with what was signed for them.
        seen = [transaction for transaction in await history(live) if not transaction.success]
        assert [attempt.exit_code for attempt in seen] == [ROLLED_BACK, NOT_EXTENDED, NOT_EXTENDED]
        message, current = seen[-1].in_msg, (await live.node()).key
        assert message is not None
        assert message.opcode == opcodes.NODE_ANCHOR
        assert current is not None
        assert signed_in(message.body, current.receipt_key).root == bytes(rewritten.root())

        # Between two reads the node replaced what it serves: the same question has no proof any more.
        with pytest.raises(LogProofError):
            await client.export_bundle(ids[0], request=request, response=answers[0].body)
        with pytest.raises(LogProofError):
            await client.export_bundle(ids[1])

        # What was proved before stays proved, and the rewritten log's own proof proves nothing.
        bundle = parse_bundle(first_read)
        proved = verify_chain_facts(bundle.chain, live.config)
        facts = chain_facts(
            proved.accounts, network=live.config, node=enclave.node, block_time=proved.block.utime
        )
        assert facts.root == bytes(honest.root())
        assert verify_bundle(bundle, facts).accepted
        forged = dataclasses.replace(bundle, hashes=tuple(rewritten.inclusion_proof(0, 3)))
        assert not verify_bundle(forged, facts).accepted

        # And it costs: the client asks the contract, the node has no answer, the stake pays.
        live.net.warp(PARAMETERS.anchor_within + 60)
        await asyncio.sleep(0.1)  # longer than the head's life in `chain`
        assessment, sent = await client.dispute(ids[0], send=True)
        assert (assessment.finding, sent) == (Finding.NOT_SHOWN, "challenge")
        answer = node_messages.respond_body(
            receipt_hash=bytes.fromhex(ids[0]), proof=tuple(rewritten.inclusion_proof(0, 3))
        )
        assert await refused(payer, live, "answer", answer) == BAD_INCLUSION
        live.net.warp(PARAMETERS.response_window + 60)
        await asyncio.sleep(0.1)
        assert (await client.dispute(ids[0], send=True))[1] == "slash"
        assert (await client.dispute(ids[0]))[0].finding is Finding.PUNISHED
    assert (await live.node()).stake == 10 * TON - PARAMETERS.penalty


async def test_a12_two_versions_of_a_log_cost_the_whole_stake(live: Live, tmp_path: Path) -> None:
    """One root for the chain, another for a client, each signed by a key that the contract has as attested."""
    enclave, address = live.enclave, live.enclave.identity.address
    for number in range(3):
        enclave.tree.append(bytes([number]) * 32)
    await live.anchor()
    told = MerkleTree([b"\x66" * 32] * 3)
    shown = (live.checkpoint(enclave.tree), enclave.receipt_key, enclave.binding.hash)
    enclave.new_keys()
    await live.attest()
    node = await live.node()
    assert node.key is not None
    assert node.key.previous is not None
    assert (node.key.previous.binding_hash, node.key.binding_hash) == (shown[2], enclave.binding.hash)
    other = (live.checkpoint(told), enclave.receipt_key, enclave.binding.hash)

    def conflict(*sides: tuple[Checkpoint, Ed25519PrivateKey, bytes]) -> Cell:
        (first, first_key, first_hash), (second, second_key, second_hash) = sides
        return node_messages.conflict_body(
            first=sign_checkpoint(first, first_key), first_binding=first_hash,
            second=sign_checkpoint(second, second_key), second_binding=second_hash,
        )  # fmt: skip

    reporter = await somebody(live, tmp_path)
    # Controls: the same root twice, another size, or a key that no binding has, are no conflict.
    again = (dataclasses.replace(shown[0], issued_at=int(live.now()) + 1), other[1], other[2])
    grown = (dataclasses.replace(other[0], tree_size=4), other[1], other[2])
    unknown = (other[0], shown[1], other[2])
    assert await refused(reporter, live, "same", conflict(shown, again)) == NO_CONFLICT
    assert await refused(reporter, live, "grown", conflict(shown, grown)) == NO_CONFLICT
    assert await refused(reporter, live, "unknown", conflict(shown, unknown)) == UNSIGNED
    assert (await live.node()).stake == 10 * TON

    before = await reporter.balance()
    done = await reporter.pay(key="conflict", to=address, value=TON, body=conflict(shown, other))
    assert done.success
    bounty = 10 * TON * PARAMETERS.bounty_permille // 1000
    live.net.tick(3)  # the rewards, and the leave of the registry's list, are messages of their own
    async with auditor(live) as chain:
        state = await chain.account(address)
        assert state.data is not None
        node = parse_node(state.data)
        assert (node.stake, node.bond) == (0, BondState.UNBONDING)
        registry = (await chain.account(live.config.registry_address)).data
        assert registry is not None
        assert enclave.node not in parse_registry(registry).nodes
        assert bounty - TON // 10 < (await chain.account(reporter.address)).balance - before <= bounty
        assert bounty - TON // 100 < (await chain.account(PARAMETERS.treasury)).balance <= bounty
        listed = await chain.transactions(address, after_lt=done.lt - 1)
    (found,) = (transaction for transaction in listed if transaction.hash == done.hash)
    (event,) = (Reader(out.body) for out in found.out_msgs if out.opcode == opcodes.NODE_SLASHED)
    event.tag(opcodes.NODE_SLASHED)
    assert (event.raw(32), event.coins(), event.coins()) == (shown[0].hash, 10 * TON, 0)
    paid = {out.destination: out.value for out in found.out_msgs if out.opcode == opcodes.NODE_DISPUTE_PAID}
    assert set(paid) == {reporter.address, PARAMETERS.treasury}
    assert all(bounty - TON // 1000 < value <= bounty for value in paid.values())
    assert await refused(reporter, live, "again", conflict(shown, other)) == NOTHING_AT_STAKE
