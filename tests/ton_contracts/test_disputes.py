"""The Node contract holds its owner to signed receipts: challenges, answers, penalties, conflicts."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, InternalMsgInfo

from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.receipt import Receipt
from cocoon_ton import node_messages, opcodes, registry_messages
from cocoon_ton.cells import Reader
from cocoon_ton.emulator import Emulator, SendResult
from cocoon_ton.node import BondState

from .conftest import PARAMETERS, TON, TREASURY, World, is_bounce, key, public
from .test_node import fund, not_accepted, with_log

WINDOW = PARAMETERS.challenge_window
ANSWER = PARAMETERS.response_window


def events(result: SendResult) -> list[int]:
    return [Reader(body).uint(32) for body in result.events]


def paid(result: SendResult, to: object) -> int:
    """Nanoton that reached an account with the messages of a dispute."""
    total = 0
    for transaction in result:
        if transaction.address == to and transaction.in_opcode == opcodes.NODE_DISPUTE_PAID:
            message = transaction.incoming
            assert message is not None
            assert isinstance(message.info, InternalMsgInfo)
            total += message.info.value_coins
    return total


def close(value: int, expected: int) -> bool:
    """Equal but for storage and forwarding fees."""
    return abs(value - expected) < TON // 1000


@pytest.fixture
def anchored(active: World) -> tuple[World, Receipt]:
    """A log of eight with a receipt in its middle, anchored in time; the receipt is due since a minute."""
    fund(active)
    active.grow(3)
    receipt = active.issue()
    active.grow(4)
    assert active.anchor().success
    active.chain.warp(PARAMETERS.anchor_within + 60)
    return active, receipt


@pytest.fixture
def withheld(active: World) -> tuple[World, Receipt]:
    """A receipt that the client holds and that the log anchored in time does not reach."""
    fund(active)
    active.grow(3)
    assert active.anchor().success
    receipt = active.receipt()
    active.chain.warp(PARAMETERS.anchor_within + 60)
    return active, receipt


@pytest.fixture
def replaced(active: World) -> tuple[World, Receipt]:
    """A receipt in whose place the anchored log has another one."""
    fund(active)
    active.grow(3)
    receipt = active.receipt()
    active.grow(5)
    assert active.anchor().success
    active.chain.warp(PARAMETERS.anchor_within + 60)
    return active, receipt


# ---- the honest case


def test_a_challenge_is_recorded_with_its_deposit(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    node, client = world.chain.balance(world.node), world.chain.balance(world.client)
    result = world.challenge(receipt)
    assert result.success
    state = world.node_state()
    (challenge,) = state.challenges
    assert challenge.receipt_hash == receipt.hash
    assert challenge.challenger == world.client
    assert (challenge.index, challenge.tree_size, challenge.root) == (3, 8, state.log.root)
    assert challenge.deadline == world.chain.now + ANSWER
    assert not challenge.slashed
    assert challenge.awaits_answer(challenge.deadline)
    assert not challenge.awaits_answer(challenge.deadline + 1)
    assert (state.open_challenges, state.deposits) == (1, challenge.deposit)
    assert challenge.deposit <= node_messages.CHALLENGE_DEPOSIT_VALUE
    assert close(world.chain.balance(world.node), node + challenge.deposit)
    assert client - world.chain.balance(world.client) < challenge.deposit + TON // 50, "the rest came back"
    assert state.held == state.stake + challenge.deposit


def test_an_answer_ends_the_challenge_and_earns_half_of_the_deposit(
    anchored: tuple[World, Receipt],
) -> None:
    world, receipt = anchored
    node = world.chain.balance(world.node)
    world.challenge(receipt)
    deposit = world.node_state().deposits
    owner = world.chain.balance(world.owner)
    result = world.respond(receipt)
    assert result.success
    state = world.node_state()
    assert (state.challenges, state.open_challenges, state.deposits) == ((), 0, 0)
    assert state.stake == 10 * TON
    assert paid(result, world.client) <= deposit // 2
    assert paid(result, world.client) > deposit // 2 - TON // 1000
    assert world.chain.balance(world.owner) > owner, "half of the deposit pays for the answer"
    assert close(world.chain.balance(world.node), node)


def test_anybody_may_answer(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    assert world.respond(receipt, sender=world.stranger).success


def test_an_answer_is_for_the_tree_of_the_challenge_whatever_is_anchored_since(
    anchored: tuple[World, Receipt],
) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    world.grow(9)
    assert world.anchor().success
    assert world.respond(receipt).success


def test_a_receipt_may_be_in_a_log_that_was_anchored_again_too_late(active: World) -> None:
    """In time counts the anchor whose size covers the index, though the proof is for the newest tree."""
    fund(active)
    receipt = active.issue()
    assert active.anchor().success
    active.chain.warp(PARAMETERS.anchor_within + 1)
    active.grow(100)
    assert active.anchor().success
    assert active.challenge(receipt).success
    assert active.respond(receipt).success


def test_the_same_receipt_can_be_asked_for_again_after_an_answer(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    for _ in range(2):
        assert world.challenge(receipt).success
        assert world.respond(receipt).success


# ---- refused challenges


def test_a_receipt_is_not_due_before_its_deadline(active: World) -> None:
    receipt = active.receipt()
    active.chain.warp(PARAMETERS.anchor_within)
    assert active.challenge(receipt).first.exit_code == 319
    active.chain.warp(1)
    assert active.challenge(receipt).success


def test_the_window_ends(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    world.chain.warp(WINDOW - 60 + 1)
    assert world.challenge(receipt).first.exit_code == 320
    assert world.node_state().stake == 10 * TON


def test_the_last_second_of_the_window(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    world.chain.warp(WINDOW - 60)
    assert world.challenge(receipt).success
    assert world.node_state().stake == 8 * TON


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"node": b"\x09" * 32}, 303), ({"binding_hash": b"\x09" * 32}, 318)],
)
def test_receipts_of_others_are_refused(
    withheld: tuple[World, Receipt], changes: dict[str, bytes], code: int
) -> None:
    world, receipt = withheld
    assert world.challenge(dataclasses.replace(receipt, **changes)).first.exit_code == code  # type: ignore[arg-type]


def test_a_forged_receipt_is_refused(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    assert world.challenge(receipt, signer=key(9)).first.exit_code == 310
    signed = world.signed(receipt)
    signed.receipt = dataclasses.replace(receipt, index=99).to_boc()
    body = node_messages.challenge_body(signed)
    assert world.to_node(world.client, body).first.exit_code == 310
    assert world.node_state().stake == 10 * TON


def test_another_record_is_not_a_receipt(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    checkpoint = world.checkpoint()
    signed = world.signed(receipt)
    signed.receipt, signed.signature = checkpoint.to_boc(), world.receipt_key.sign(checkpoint.hash)
    result = world.to_node(world.client, node_messages.challenge_body(signed))
    assert result.first.exit_code == 310


def test_one_challenge_per_receipt(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    assert world.challenge(receipt).success
    before = world.node_state()
    stranger = world.chain.balance(world.stranger)
    assert world.challenge(receipt, sender=world.stranger).first.exit_code == 321
    assert world.node_state() == before
    assert stranger - world.chain.balance(world.stranger) < TON // 50


def test_a_challenge_must_bring_its_deposit(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    _, _, deposit = world.chain.get(world.node, "nodeDisputes")
    assert isinstance(deposit, int)
    assert 0 < deposit <= node_messages.CHALLENGE_DEPOSIT_VALUE
    result = world.challenge(receipt, value=deposit)
    assert result.first.exit_code == 317
    assert is_bounce(result[1])
    assert world.challenge(receipt, value=node_messages.challenge_value(0)).success


def test_nothing_is_at_stake_before_and_after_the_bond(world: World) -> None:
    world.deploy_registry()
    world.join()
    world.attest()
    receipt = world.receipt()
    world.to_node(world.owner, node_messages.unbond_body())
    world.chain.warp(world.node_state().unlock_at - world.chain.now)
    world.to_node(world.owner, node_messages.withdraw_body())
    late = dataclasses.replace(receipt, anchor_by=world.chain.now - 1)
    assert world.challenge(late).first.exit_code == 327


def test_open_challenges_are_bounded_and_get_dearer(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    deposits: list[int] = []
    for number in range(33):
        due = dataclasses.replace(receipt, prompt_tokens=number + 100)
        before = world.node_state().deposits
        value = node_messages.challenge_value(number)
        assert world.challenge(due, value=value).success
        deposits.append(world.node_state().deposits - before)
    assert deposits == [deposits[0] << (number // 16) for number in range(33)]
    state = world.node_state()
    assert state.open_challenges == 33
    # what the next one costs follows from how many are open, up to the end
    full = crowd(world, 240)
    assert full.challenge(receipt, value=2_000 * TON).first.exit_code == 322
    assert crowd(world, 239).challenge(receipt, value=2_000 * TON).success


def crowd(world: World, count: int) -> World:
    """The same node with another number of open challenges in its counter."""
    account = world.chain.account(world.node)
    data = account.data
    assert data is not None
    state = world.node_state()
    at = 32 + 8 + 32
    for coins in (state.stake, state.deposits):
        at += 4 + 8 * ((coins.bit_length() + 7) // 8)
    bits = data.bits.to01()
    changed = bits[:at] + format(count, "08b") + bits[at + 8 :]
    builder = Builder().store_bits(changed)
    for ref in data.refs:
        builder.store_ref(ref)
    world.chain.add_account(world.node, account.balance, code=account.code, data=builder.end_cell())
    assert world.node_state().open_challenges == count
    return world


# ---- refused answers


def test_a_proof_of_something_else_is_refused(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    good = world.proof(receipt)
    for bad in (
        (),
        good[:-1],
        (*good, bytes(32)),
        good[::-1],
        (bytes(32), *good[1:]),
        tuple(world.tree.inclusion_proof(4, 8)),
        tuple(world.tree.inclusion_proof(3, 7)),
    ):
        assert world.respond(receipt, bad).first.exit_code in (9, 324)
    assert world.node_state().open_challenges == 1
    assert world.respond(receipt, good).success


def test_another_receipt_in_its_place_is_no_answer(replaced: tuple[World, Receipt]) -> None:
    world, receipt = replaced
    assert world.challenge(receipt).success
    assert world.respond(receipt).first.exit_code == 324


def test_nobody_answers_what_nobody_asked(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    assert world.respond(receipt, ()).first.exit_code == 323
    assert world.slash(receipt).first.exit_code == 323


def test_an_answer_comes_in_time_or_not_at_all(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    world.chain.warp(ANSWER)
    assert world.slash(receipt).first.exit_code == 326
    world.chain.warp(1)
    assert world.respond(receipt).first.exit_code == 325
    assert world.slash(receipt).success


def test_an_answer_must_pay_for_itself(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    assert world.respond(receipt, value=TON // 200).first.exit_code == 317


# ---- penalties


def test_a_missed_deadline_costs_the_penalty(replaced: tuple[World, Receipt]) -> None:
    world, receipt = replaced
    assert world.challenge(receipt).success
    deposit = world.node_state().deposits
    world.chain.warp(ANSWER + 1)
    node, stranger = world.chain.balance(world.node), world.chain.balance(world.stranger)
    result = world.slash(receipt)
    assert opcodes.NODE_SLASHED in events(result)
    state = world.node_state()
    # 10 TON were the least stake: the node is out of the registry
    assert (state.stake, state.bond, state.deposits, state.open_challenges) == (
        8 * TON,
        BondState.UNBONDING,
        0,
        0,
    )
    assert bytes(world.node.hash_part) not in world.registry_state().nodes
    assert TON + deposit - TON // 1000 < paid(result, world.client) <= TON + deposit
    assert TON - TON // 1000 < paid(result, TREASURY) <= TON
    assert stranger - world.chain.balance(world.stranger) < TON // 10
    spent = node - world.chain.balance(world.node)
    assert spent <= 2 * TON + deposit
    assert world.chain.balance(world.node) >= state.held
    (record,) = state.challenges
    assert (record.slashed, record.deposit) == (True, 0)


def test_a_receipt_beyond_every_anchor_in_time_is_proof_enough(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    result = world.challenge(receipt)
    assert opcodes.NODE_SLASHED in events(result)
    state = world.node_state()
    assert (state.stake, state.deposits, state.open_challenges) == (8 * TON, 0, 0)
    assert TON - TON // 1000 < paid(result, world.client) <= TON
    assert TON - TON // 1000 < paid(result, TREASURY) <= TON


def test_an_anchor_after_the_deadline_does_not_help(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    world.tree.append(receipt.hash)
    assert world.anchor().success
    assert world.challenge(receipt).success
    assert world.node_state().stake == 8 * TON


def test_an_anchor_in_the_last_second_helps(active: World) -> None:
    fund(active)
    receipt = active.issue()
    active.chain.warp(PARAMETERS.anchor_within)
    assert active.anchor().success
    active.chain.warp(60)
    assert active.challenge(receipt).success
    assert active.respond(receipt).success


def test_nobody_is_paid_for_one_receipt_twice(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    world.challenge(receipt)
    assert world.challenge(receipt).first.exit_code == 321
    assert world.slash(receipt).first.exit_code == 323
    assert world.respond(receipt, ()).first.exit_code == 323
    assert world.node_state().stake == 8 * TON


def test_every_withheld_receipt_costs_until_nothing_is_left(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    for number in range(5):
        due = dataclasses.replace(receipt, index=receipt.index + number)
        assert opcodes.NODE_SLASHED in events(world.challenge(due))
    state = world.node_state()
    assert state.stake == 0
    more = dataclasses.replace(receipt, index=100)
    assert world.challenge(more).first.exit_code == 327
    assert world.chain.balance(world.node) > 0, "the working balance is not part of the stake"


def test_a_stake_above_the_minimum_stays_in_the_registry(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    assert world.to_node(world.owner, node_messages.add_stake_body(5 * TON), 6 * TON).success
    world.challenge(receipt)
    state = world.node_state()
    assert (state.stake, state.bond) == (13 * TON, BondState.ACTIVE)
    assert bytes(world.node.hash_part) in world.registry_state().nodes


def test_what_a_penalty_leaves_waits_and_comes_back(withheld: tuple[World, Receipt]) -> None:
    world, receipt = withheld
    world.challenge(receipt)
    state = world.node_state()
    assert state.key is not None
    assert state.unlock_at == state.key.not_after + PARAMETERS.anchor_within + WINDOW + ANSWER
    assert world.to_node(world.owner, node_messages.withdraw_body()).first.exit_code == 315
    world.chain.warp(state.unlock_at - world.chain.now)
    owner = world.chain.balance(world.owner)
    assert world.to_node(world.owner, node_messages.withdraw_body()).success
    assert world.chain.balance(world.owner) > owner + 8 * TON - TON // 50
    state = world.node_state()
    assert (state.bond, state.challenges) == (BondState.IDLE, ())
    assert world.join().success


def test_a_penalty_is_limited_by_what_is_there(withheld: tuple[World, Receipt]) -> None:
    """Storage fees of a neglected node may have eaten into the stake."""
    world, receipt = withheld
    account = world.chain.account(world.node)
    world.chain.add_account(world.node, TON, code=account.code, data=account.data)
    result = world.challenge(receipt)
    assert opcodes.NODE_SLASHED in events(result)
    assert paid(result, world.client) + paid(result, TREASURY) <= TON
    assert world.chain.balance(world.node) < TON // 10


def test_a_slash_must_pay_for_itself(replaced: tuple[World, Receipt]) -> None:
    world, receipt = replaced
    world.challenge(receipt)
    world.chain.warp(ANSWER + 1)
    assert world.slash(receipt, value=TON // 50).first.exit_code == 317
    assert world.slash(receipt).success


# ---- the stake waits


def test_the_stake_waits_for_open_challenges(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    assert world.to_node(world.owner, node_messages.unbond_body()).success
    unlock = world.node_state().unlock_at
    # an attested enclave gives no receipt such a deadline; a key that its owner made up may
    late = dataclasses.replace(receipt, anchor_by=unlock - 10)
    world.tree.append(late.hash)
    world.chain.warp(unlock - world.chain.now - 5)
    assert world.challenge(dataclasses.replace(late, index=2)).success
    world.chain.warp(10)
    assert world.to_node(world.owner, node_messages.withdraw_body()).first.exit_code == 330
    world.chain.warp(ANSWER)
    assert world.slash(dataclasses.replace(late, index=2)).success
    assert world.to_node(world.owner, node_messages.withdraw_body()).success


def test_a_node_that_left_can_still_be_challenged(replaced: tuple[World, Receipt]) -> None:
    world, receipt = replaced
    world.to_node(world.owner, node_messages.unbond_body())
    assert world.challenge(receipt).success
    world.chain.warp(ANSWER + 1)
    assert world.slash(receipt).success
    assert world.node_state().stake == 8 * TON


def test_deposits_do_not_pay_for_anchors(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    state, account = world.node_state(), world.chain.account(world.node)
    world.chain.add_account(world.node, state.held + TON // 1000, code=account.code, data=account.data)
    world.grow(1)
    assert not_accepted(world, lambda: world.anchor()) == 314


# ---- keys that were rotated out


def test_receipts_of_retired_keys_can_be_challenged(active: World) -> None:
    fund(active)
    first, binding = active.receipt_key, active.binding_hash
    receipt = active.receipt()
    for number in (3, 4, 5):
        active.chain.warp(60)
        active.receipt_key = key(number)
        assert active.attest().success
    state = active.node_state()
    assert state.receipt_key(binding) == public(first)
    assert set(state.retired.keys.values()) == {public(first), public(key(3))}
    active.chain.warp(PARAMETERS.anchor_within)
    assert active.challenge(receipt, signer=key(3)).first.exit_code == 310
    assert active.challenge(receipt, signer=first).success
    assert active.node_state().stake == 8 * TON


def test_retired_keys_are_kept_until_their_receipts_are_safe_and_then_dropped(active: World) -> None:
    first = active.binding_hash
    ends = active.chain.now + 86_400
    kept = PARAMETERS.anchor_within + WINDOW
    number = 10
    while active.chain.now <= ends + kept:
        number += 1
        active.receipt_key = key(number)
        active.chain.warp(20_000)
        assert active.attest().success
        if active.chain.now <= ends + kept:
            assert active.node_state().receipt_key(first) is not None
    for _ in range(8):
        number += 1
        active.receipt_key = key(number)
        active.chain.warp(20_000)
        assert active.attest().success
    state = active.node_state()
    assert state.receipt_key(first) is None
    assert len(state.retired.keys) < 20


def test_too_many_keys_at_once_are_refused_and_none_is_lost(active: World) -> None:
    first = active.binding_hash
    count = 0
    for number in range(200):
        active.chain.warp(1)
        active.receipt_key = key(2 + number)
        result = active.attest()
        if not result.success:
            assert result.first.exit_code == 329
            break
        count += 1
    assert 64 <= count <= 130
    assert active.node_state().receipt_key(first) is not None
    active.chain.warp(86_400 + PARAMETERS.anchor_within + WINDOW)
    assert active.attest().success
    active.chain.warp(1)
    active.receipt_key = key(250)
    assert active.attest().success


def test_unbonding_waits_for_retired_keys(active: World) -> None:
    ends = active.chain.now + 86_400
    for number in (3, 4, 5):
        active.chain.warp(60)
        active.receipt_key = key(number)
        assert active.attest(active.binding(not_after=active.chain.now + 4000)).success
    active.to_node(active.owner, node_messages.unbond_body())
    assert active.node_state().unlock_at == ends + PARAMETERS.anchor_within + WINDOW + ANSWER


# ---- two checkpoints of one size


def test_two_roots_of_one_size_cost_everything(active: World) -> None:
    fund(active)
    active.grow(4)
    result = active.conflict(active.checkpoint(), active.checkpoint(root=b"\x01" * 32))
    assert events(result)[0] == opcodes.NODE_SLASHED
    state = active.node_state()
    assert (state.stake, state.bond) == (0, BondState.UNBONDING)
    assert 5 * TON - TON // 1000 < paid(result, active.stranger) <= 5 * TON
    assert 5 * TON - TON // 1000 < paid(result, TREASURY) <= 5 * TON
    assert bytes(active.node.hash_part) not in active.registry_state().nodes
    again = active.conflict(active.checkpoint(), active.checkpoint(root=b"\x02" * 32))
    assert again.first.exit_code == 327


def test_a_conflict_between_two_keys_of_the_node(active: World) -> None:
    old_key, old_hash = active.receipt_key, active.binding_hash
    active.chain.warp(5)
    active.receipt_key = key(3)
    active.attest()
    active.grow(2)
    one, other = active.checkpoint(), active.checkpoint(root=b"\x01" * 32)
    signers, bindings = (old_key, key(3)), (old_hash, active.binding_hash)
    assert active.conflict(one, other, signers=signers, bindings=bindings[::-1]).first.exit_code == 310
    assert opcodes.NODE_SLASHED in events(active.conflict(one, other, signers=signers, bindings=bindings))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 328),
        ({"issued_at": 5}, 328),
        ({"tree_size": 5, "root": b"\x01" * 32}, 328),
        ({"root": b"\x01" * 32, "node": b"\x09" * 32}, 303),
        ({"root": b"\x01" * 32, "global_id": -239}, 302),
    ],
)
def test_checkpoints_that_do_not_contradict_each_other(
    active: World, changes: dict[str, object], code: int
) -> None:
    active.grow(4)
    result = active.conflict(active.checkpoint(), active.checkpoint(**changes))
    assert result.first.exit_code == code
    assert active.node_state().stake == 10 * TON


def test_a_forged_conflict_is_refused(active: World) -> None:
    active.grow(4)
    one, other = active.checkpoint(), active.checkpoint(root=b"\x01" * 32)
    for signers in ((active.receipt_key, key(9)), (key(9), active.receipt_key)):
        assert active.conflict(one, other, signers=signers).first.exit_code == 310
    for bindings in ((active.binding_hash, b"\x01" * 32), (b"\x01" * 32, active.binding_hash)):
        assert active.conflict(one, other, bindings=bindings).first.exit_code == 318
    assert active.conflict(one, other, value=TON // 50).first.exit_code == 317
    assert active.node_state().stake == 10 * TON


def test_a_conflict_leaves_open_challenges_their_deposits(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    deposit = world.node_state().deposits
    world.conflict(world.checkpoint(), world.checkpoint(root=b"\x01" * 32))
    assert world.node_state().deposits == deposit
    world.chain.warp(ANSWER + 1)
    result = world.slash(receipt)
    assert result.success
    assert deposit - TON // 1000 < paid(result, world.client) <= deposit
    assert world.node_state().held == 0


# ---- history


def test_history_says_what_was_anchored_when(active: World) -> None:
    fund(active)
    assert active.node_state().history.size_by(active.chain.now) == 0
    expected: list[tuple[int, int]] = []
    for number in range(1, 45):
        active.grow(number % 3 + 1)
        assert active.anchor().success
        expected.append((active.chain.now, active.tree.size))
        active.chain.warp(30)
    history = active.node_state().history
    assert [(e.anchored_at, e.tree_size) for e in history.entries] == [(0, 0), *expected]
    for at, size in expected:
        assert history.size_by(at) == size
        assert history.size_by(at + 29) == size
    assert history.size_by(expected[0][0] - 1) == 0
    # the contract agrees at every boundary: a receipt at index `size` was not anchored by then
    for at, size in expected[5::13]:
        inside = active.receipt(index=size - 1, anchor_by=at)
        outside = active.receipt(index=size, anchor_by=at)
        before = active.node_state()
        assert active.challenge(inside).success
        assert active.node_state().open_challenges == before.open_challenges + 1
        assert opcodes.NODE_SLASHED in events(active.challenge(outside))


def test_anchors_in_one_second_count_as_one(active: World) -> None:
    fund(active)
    for _ in range(3):
        active.grow(1)
        assert active.anchor().success
    history = active.node_state().history
    assert [(e.anchored_at, e.tree_size) for e in history.entries] == [(0, 0), (active.chain.now, 3)]


def test_history_is_pruned_but_covers_the_window(active: World) -> None:
    active.to_node(active.stranger, node_messages.top_up_body(), 50 * TON)
    longest = 0
    for _ in range(120):
        active.grow(1)
        assert active.anchor().success
        history = active.node_state().history
        longest = max(longest, len(history.entries))
        oldest = history.entries[0].anchored_at
        assert oldest <= active.chain.now - WINDOW or oldest == 0
        active.chain.warp(600)
    # two windows of two hours at one anchor in ten minutes
    assert longest <= 2 * (WINDOW // 600 + 2)


def test_what_the_history_does_not_know_is_not_held_against_the_node(active: World) -> None:
    """After governance made the window longer, the history does not reach back as far yet."""
    active.to_node(active.stranger, node_messages.top_up_body(), 50 * TON)
    receipt = active.issue()
    for _ in range(60):
        active.anchor()
        active.chain.warp(600)
        active.grow(1)
    longer = dataclasses.replace(PARAMETERS, challenge_window=20 * 86_400)
    assert active.change(registry_messages.set_parameters(longer)).success
    assert active.attest().success
    assert active.node_state().parameters == longer
    assert active.challenge(receipt).first.exit_code == 320


def test_a_node_that_never_anchored(active: World) -> None:
    receipt = active.receipt()
    active.chain.warp(PARAMETERS.anchor_within + 1)
    assert opcodes.NODE_SLASHED in events(active.challenge(receipt))


# ---- inclusion proofs


@pytest.fixture
def log_template(active: World) -> World:
    return active


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 130), data=st.data(), fault=st.integers(0, 30))
def test_inclusion_on_chain_is_that_of_rfc_9162(
    emulator: Emulator, log_template: World, size: int, data: st.DataObject, fault: int
) -> None:
    index = data.draw(st.integers(0, size - 1))
    template = log_template
    receipt = template.receipt(index=index, anchor_by=template.chain.now)
    leaves = [n.to_bytes(32) for n in range(size)]
    leaves[index] = receipt.hash
    template.tree = MerkleTree(leaves)
    world = with_log(emulator, template, 0, tree=template.tree)
    world.chain.warp(1)
    assert world.challenge(receipt).success
    proof = list(world.proof(receipt))
    good = tuple(proof)
    if fault < len(proof):
        proof[fault] = bytes(a ^ 1 for a in proof[fault])
    elif fault == 28:
        proof.append(bytes(32))
    elif fault == 29 and proof:
        proof.pop()
    elif fault == 30:
        proof.insert(0, bytes(32))
    result = world.respond(receipt, tuple(proof))
    assert (result.first.exit_code == 0) is (tuple(proof) == good)


def test_the_dispute_getter_agrees_with_the_data(anchored: tuple[World, Receipt]) -> None:
    world, receipt = anchored
    world.challenge(receipt)
    state = world.node_state()
    count, deposits, following = world.chain.get(world.node, "nodeDisputes")
    assert (count, deposits, following) == (1, state.deposits, state.deposits)
