"""A12, on chain: receipts withheld or replaced, logs rewritten or told in two versions. All of it costs stake."""

from __future__ import annotations

import dataclasses

import pytest

from cocoon_attestation.checkpoint import sign_checkpoint
from cocoon_attestation.merkle import MerkleTree
from cocoon_ton import node_messages, opcodes
from cocoon_ton.cells import Reader
from cocoon_ton.emulator import MessageNotAcceptedError, SendResult
from cocoon_ton.node import BondState

from ..ton_contracts.conftest import (  # noqa: F401  (fixtures)
    PARAMETERS,
    TON,
    World,
    active,
    emulator,
    key,
    world,
)

DUE = PARAMETERS.anchor_within + 1
ANSWER = PARAMETERS.response_window + 1


@pytest.fixture
def node(active: World) -> World:  # noqa: F811
    """A node with a log of five, anchored."""
    assert active.to_node(active.stranger, node_messages.top_up_body()).success
    active.grow(5)
    assert active.anchor().success
    return active


def slashed(result: SendResult) -> bool:
    return opcodes.NODE_SLASHED in [Reader(body).uint(32) for body in result.events]


def test_a_withheld_receipt_is_slashed_by_the_client_alone(node: World) -> None:
    """The node gave a signed receipt and never put it into its log; the client needs nobody's help."""
    receipt = node.receipt()
    node.chain.warp(DUE)
    client = node.chain.balance(node.client)
    assert slashed(node.challenge(receipt))
    assert node.node_state().stake == 8 * TON
    assert node.chain.balance(node.client) > client + TON - TON // 20


def test_a_log_that_grows_without_the_receipt_does_not_hide_it(node: World) -> None:
    """Other leaves take the receipt's place, in time: the node is asked, and has no answer."""
    receipt = node.receipt()
    node.grow(200)
    assert node.anchor().success
    node.chain.warp(DUE)
    assert node.challenge(receipt).success
    for index in range(0, 205, 7):
        bad = tuple(node.tree.inclusion_proof(index, 205))
        assert node.respond(receipt, bad).first.exit_code in (9, 324)
    node.chain.warp(ANSWER)
    assert slashed(node.slash(receipt))


def test_the_receipt_at_another_place_is_no_answer(node: World) -> None:
    receipt = node.receipt()
    node.grow(1)
    node.tree.append(receipt.hash)  # at index 6; the signed receipt says 5
    assert node.anchor().success
    node.chain.warp(DUE)
    assert node.challenge(receipt).success
    assert node.respond(receipt, tuple(node.tree.inclusion_proof(6, 7))).first.exit_code in (9, 324)
    node.chain.warp(ANSWER)
    assert slashed(node.slash(receipt))


def test_two_receipts_for_one_place(node: World) -> None:
    """At most one of them is in the log; the holder of the other gets the penalty."""
    shown = node.issue()
    hidden = dataclasses.replace(shown, response_commitment=b"\x44" * 32)
    assert node.anchor().success
    node.chain.warp(DUE)
    assert node.challenge(shown).success
    assert node.respond(shown).success
    assert node.challenge(hidden).success
    assert node.respond(hidden).first.exit_code == 324
    node.chain.warp(ANSWER)
    assert slashed(node.slash(hidden))


@pytest.mark.parametrize("rotations", [1, 2, 5])
def test_changing_keys_does_not_help(node: World, rotations: int) -> None:
    receipt, signer = node.receipt(), node.receipt_key
    for number in range(rotations):
        node.chain.warp(5)
        node.receipt_key = key(20 + number)
        assert node.attest().success
    node.chain.warp(DUE)
    assert slashed(node.challenge(receipt, signer=signer))


def test_leaving_does_not_help(node: World) -> None:
    receipt = node.receipt()
    assert node.to_node(node.owner, node_messages.unbond_body()).success
    node.chain.warp(DUE)
    assert node.to_node(node.owner, node_messages.withdraw_body()).first.exit_code == 315
    assert slashed(node.challenge(receipt))


def test_a_late_anchor_does_not_help(node: World) -> None:
    receipt = node.issue()
    node.chain.warp(DUE)
    assert node.anchor().success
    assert slashed(node.challenge(receipt))


def test_a_node_cannot_pay_its_own_penalty_into_its_own_pocket(node: World) -> None:
    """Whoever slashes himself first to save the stake from others gets half of it at most."""
    receipt = node.receipt()
    node.chain.warp(DUE)
    before = node.chain.balance(node.owner) + node.chain.balance(node.node)
    assert slashed(node.challenge(receipt, sender=node.owner))
    assert node.chain.balance(node.owner) + node.chain.balance(node.node) < before - TON + TON // 100


def test_an_honest_node_loses_nothing_to_challenges(node: World) -> None:
    receipts = [node.issue() for _ in range(20)]
    node.grow(30)
    assert node.anchor().success
    node.chain.warp(DUE)
    before = node.chain.balance(node.owner) + node.chain.balance(node.node)
    for receipt in receipts:
        assert node.challenge(receipt, sender=node.stranger).success
    for receipt in receipts:
        assert node.respond(receipt).success
    state = node.node_state()
    assert (state.stake, state.bond, state.open_challenges) == (10 * TON, BondState.ACTIVE, 0)
    assert node.chain.balance(node.owner) + node.chain.balance(node.node) > before - TON // 1000


def test_a_rewritten_log_is_refused(node: World) -> None:
    leaves = [(99).to_bytes(32), *(number.to_bytes(32) for number in range(1, 9))]
    rewritten = MerkleTree(leaves)
    point = node.checkpoint(tree_size=9, root=bytes(rewritten.root()))
    proof = rewritten.consistency_proof(5, 9)
    log = node.node_state().log
    assert node.anchor_by_message(point, proof=proof).first.exit_code == 313
    order = dataclasses.replace(node.anchor_order(), checkpoint=point, proof=proof)
    assert node.anchor(order).first.exit_code == 313
    assert node.node_state().log == log


def test_a_log_is_not_rolled_back(node: World) -> None:
    point = node.checkpoint(tree_size=4, root=bytes(node.tree.root(4)))
    signed = sign_checkpoint(point, node.receipt_key)
    assert node.anchor_by_message(proof=(), signed=signed).first.exit_code == 311
    order = dataclasses.replace(node.anchor_order(), checkpoint=point)
    with pytest.raises(MessageNotAcceptedError):
        node.anchor(order)


def test_two_versions_of_the_log_cost_the_whole_stake(node: World) -> None:
    """One version for the chain, one for a client: whoever sees both ends it."""
    shown = node.checkpoint()
    told = node.checkpoint(root=bytes(MerkleTree([b"\x01" * 32] * 5).root()))
    assert slashed(node.conflict(shown, told))
    state = node.node_state()
    assert (state.stake, state.bond) == (0, BondState.UNBONDING)
    assert bytes(node.node.hash_part) not in node.registry_state().nodes


def test_an_honest_log_has_no_conflict(node: World) -> None:
    points = [node.checkpoint()]
    node.chain.warp(5)
    points.append(node.checkpoint())
    node.grow(1)
    points.append(node.checkpoint())
    for first in points:
        for second in points:
            assert node.conflict(first, second).first.exit_code == 328


def test_receipts_of_one_node_do_not_harm_another(node: World) -> None:
    receipt = node.receipt(node=b"\x55" * 32)
    node.chain.warp(DUE)
    assert node.challenge(receipt).first.exit_code == 303
    assert node.node_state().stake == 10 * TON


def test_receipts_of_another_network_do_not_count(node: World) -> None:
    """The key binding is for one network, and the contract keeps bindings of its own network only."""
    foreign = node.binding(global_id=-239)
    receipt = node.receipt(binding_hash=foreign.hash)
    node.chain.warp(DUE)
    assert node.challenge(receipt).first.exit_code == 318
