"""The Node contract: stake, terms, keys, anchors, settlements."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from cocoon_attestation.checkpoint import sign_checkpoint
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.payment import PriceList
from cocoon_ton import node_messages, opcodes, registry_messages
from cocoon_ton.cells import Reader, begin, finish
from cocoon_ton.code import node_code, state_init
from cocoon_ton.emulator import Emulator, MessageNotAcceptedError, SendResult, TestChain
from cocoon_ton.node import BondState, NodeTerms
from cocoon_ton.registry_messages import Removal

from .conftest import MODEL, PARAMETERS, PRICES, TON, World, is_bounce, key, network_config, public

Send = Callable[[World], SendResult]
CHEAPER = PriceList(prompt=90, cached=9, completion=300)


def events(result: SendResult) -> list[int]:
    """Opcodes of the events, in order."""
    return [Reader(body).uint(32) for body in result.events]


# ---- joining


def test_join_puts_up_stake_and_lists_the_node(world: World) -> None:
    world.deploy_registry()
    owner = world.chain.balance(world.owner)
    result = world.join()
    assert result.success
    assert result.exit_codes == [0, 0, 0, 0]
    assert events(result) == [opcodes.NODE_LISTED, opcodes.NODE_BOND_CHANGED]
    state = world.node_state()
    assert state.identity == world.node_identity
    assert (state.bond, state.stake, state.unlock_at) == (BondState.ACTIVE, 10 * TON, 0)
    assert state.parameters == PARAMETERS
    assert state.key is None
    assert state.terms == NodeTerms(
        endpoint="host:1",
        models=(MODEL,),
        simulated=True,
        prices=PRICES,
        next_prices=PRICES,
        prices_effective_at=world.chain.now,
    )
    entry = world.registry_state().nodes[bytes(world.node.hash_part)]
    assert (entry.identity, entry.stake, entry.terms, entry.key) == (
        state.identity,
        state.stake,
        state.terms,
        None,
    )
    assert entry.address == world.node
    assert world.chain.balance(world.node) >= 10 * TON
    assert owner - world.chain.balance(world.owner) < 10 * TON + TON // 8, "the rest came back"


def test_a_refused_join_returns_the_stake(world: World) -> None:
    world.deploy_registry()
    owner = world.chain.balance(world.owner)
    result = world.join(stake=9 * TON)
    assert result[1].exit_code == 214
    state = world.node_state()
    assert (state.bond, state.stake) == (BondState.IDLE, 0)
    assert owner - world.chain.balance(world.owner) < TON // 7
    assert world.join(stake=10 * TON).success, "and may try again"


def test_join_without_a_registry_returns_the_stake(world: World) -> None:
    owner = world.chain.balance(world.owner)
    result = world.join()
    assert result[1].exit_code is None
    assert world.node_state().bond is BondState.IDLE
    assert owner - world.chain.balance(world.owner) < TON // 7


def test_join_needs_the_value_that_it_names(world: World) -> None:
    world.deploy_registry()
    result = world.join(stake=10 * TON, value=10 * TON + TON // 100)
    assert result.first.exit_code == 316
    assert is_bounce(result[1])


def test_the_recommended_values_suffice(world: World) -> None:
    world.deploy_registry()
    assert world.join(value=10 * TON + node_messages.NODE_MESSAGE_VALUE).success
    body = node_messages.attest_body(
        key_binding=world.binding().to_boc(),
        evidence_digest=b"\x08" * 32,
        attested_until=world.chain.now + 3600,
    )
    assert world.to_node(world.owner, body, node_messages.NODE_MESSAGE_VALUE).success
    assert world.to_node(world.owner, node_messages.unbond_body(), node_messages.NODE_MESSAGE_VALUE).success


def test_join_twice_is_refused(active: World) -> None:
    assert active.join().first.exit_code == 304


@pytest.mark.parametrize(
    ("endpoint_bits", "models_bits"), [(0, 256), (7, 256), (8, 0), (8, 255), (8, 512 + 8)]
)
def test_terms_out_of_form_are_refused(world: World, endpoint_bits: int, models_bits: int) -> None:
    world.deploy_registry()
    good = node_messages.offered_terms_cell(endpoint="h:1", models=[MODEL], prices=PRICES, simulated=False)
    terms = Builder().store_bits(good.bits[: 8 + 192])
    terms.store_ref(zeros(endpoint_bits)).store_ref(zeros(models_bits))
    body = begin(opcodes.NODE_JOIN).store_uint(0, 64).store_coins(10 * TON).store_ref(finish(terms))
    init = state_init(node_code().cell, world.node_identity.initial_data)
    result = world.chain.send_from(world.owner, world.node, 11 * TON, finish(body), init=init)
    assert result.first.exit_code == 305


def zeros(bits: int) -> Cell:
    """A cell of zero bits."""
    return finish(Builder().store_bits("0" * bits))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda w: node_messages.unbond_body(), id="unbond"),
        pytest.param(lambda w: node_messages.withdraw_body(), id="withdraw"),
        pytest.param(lambda w: node_messages.add_stake_body(1), id="add stake"),
        pytest.param(
            lambda w: node_messages.update_terms_body(
                endpoint="evil:1", models=[MODEL], prices=PRICES, simulated=False
            ),
            id="terms",
        ),
        pytest.param(
            lambda w: node_messages.attest_body(
                key_binding=w.binding().to_boc(), evidence_digest=bytes(32), attested_until=w.chain.now + 10
            ),
            id="attest",
        ),
        pytest.param(
            lambda w: node_messages.settle_body(claim=w.claim(TON), authorization=w.authorization(TON)),
            id="settle",
        ),
        pytest.param(
            lambda w: node_messages.join_body(
                stake=1, endpoint="e:1", models=[MODEL], prices=PRICES, simulated=False
            ),
            id="join",
        ),
    ],
)
def test_only_the_owner(active: World, body: Callable[[World], Cell]) -> None:
    before = active.node_state()
    for sender in (active.stranger, active.governance, active.registry):
        result = active.chain.send_internal(active.node, TON, body(active), sender=sender)
        assert result.first.exit_code == 300
    assert active.node_state() == before


def test_only_the_registry_acknowledges(world: World) -> None:
    world.deploy_registry()
    world.join()
    hostile = dataclasses.replace(PARAMETERS, challenge_window=29 * 86_400)
    body = finish(begin(opcodes.REGISTRY_ACKNOWLEDGE).store_uint(0, 64 + 256).store_ref(hostile.cell))
    for sender in (world.owner, world.stranger):
        assert world.to_node(sender, body).first.exit_code == 301
    assert world.node_state().parameters == PARAMETERS


@pytest.mark.parametrize(
    "changes",
    [
        {"challenge_window": 31 * 86_400},
        {"anchor_within": 8 * 86_400},
        {"timelock": 0},
        {"response_window": 2**32 - 1},
    ],
)
def test_a_registry_gone_mad_cannot_lock_the_stake(active: World, changes: dict[str, int]) -> None:
    hostile = dataclasses.replace(PARAMETERS, **changes)  # type: ignore[arg-type]
    body = finish(begin(opcodes.REGISTRY_ACKNOWLEDGE).store_uint(0, 64 + 256).store_ref(hostile.cell))
    result = active.chain.send_internal(active.node, TON, body, sender=active.registry)
    assert result.first.exit_code == 305
    assert active.node_state().parameters == PARAMETERS


# ---- keys


def test_attest_records_the_binding_and_updates_the_entry(active: World) -> None:
    state = active.node_state()
    binding = active.binding()
    assert state.key is not None
    assert state.key.binding_hash == binding.hash
    assert state.key.receipt_key == public(active.receipt_key)
    assert (state.key.not_before, state.key.not_after) == (binding.not_before, binding.not_after)
    assert state.key.evidence_digest == b"\x08" * 32
    assert state.key.previous is None
    entry = active.registry_state().nodes[bytes(active.node.hash_part)]
    assert entry.key == state.key
    assert entry.is_attested(active.chain.now)
    assert not entry.is_attested(state.key.attested_until)


def test_attest_emits_an_event(active: World) -> None:
    active.chain.warp(10)
    result = active.attest()
    assert events(result) == [opcodes.NODE_LISTED, opcodes.NODE_ATTESTED]


def test_a_new_binding_moves_the_old_one_back_and_the_oldest_out(active: World) -> None:
    first = active.binding()
    for number in (3, 4):
        active.chain.warp(60)
        active.receipt_key = key(number)
        assert active.attest().success
    state = active.node_state()
    assert state.key is not None
    assert state.key.previous is not None
    assert state.key.receipt_key == public(key(4))
    assert state.key.previous.receipt_key == public(key(3))
    assert state.key.previous.previous is None
    assert first.hash not in (state.key.binding_hash, state.key.previous.binding_hash)


def test_the_same_binding_renews_its_evidence(active: World) -> None:
    binding = active.binding()
    active.chain.warp(60)
    assert active.attest(binding, until=active.chain.now + 5000).success
    state = active.node_state()
    assert state.key is not None
    assert state.key.attested_until == active.chain.now + 5000
    assert state.key.previous is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node": b"\x09" * 32}, 303),
        ({"global_id": -239}, 302),
        ({"not_after": 0}, 306),
        ({"not_before": 301}, 306),
        ({"not_after": 86_401}, 306),
        ({"not_before": -2, "not_after": 86_000}, 308),
    ],
)
def test_bindings_out_of_form_are_refused(active: World, changes: dict[str, object], code: int) -> None:
    shifted = {
        name: value + active.chain.now if name.startswith("not_") else value  # type: ignore[operator]
        for name, value in changes.items()
    }
    before = active.node_state()
    result = active.attest(active.binding(**shifted))
    assert result.first.exit_code == code
    assert active.node_state() == before


@pytest.mark.parametrize("until", [0, -1])
def test_evidence_that_counts_no_more_is_refused(active: World, until: int) -> None:
    assert active.attest(until=active.chain.now + until).first.exit_code == 307


def test_the_attestation_ends_with_the_keys_at_the_latest(active: World) -> None:
    assert active.attest(until=active.chain.now + 200_000).success
    state = active.node_state()
    assert state.key is not None
    assert state.key.attested_until == state.key.not_after


def test_another_record_is_not_a_binding(active: World) -> None:
    body = node_messages.attest_body(
        key_binding=active.checkpoint().to_boc(),
        evidence_digest=bytes(32),
        attested_until=active.chain.now + 9,
    )
    assert active.to_node(active.owner, body).first.exit_code == 303


def test_attest_needs_an_active_bond(active: World) -> None:
    assert active.to_node(active.owner, node_messages.unbond_body()).success
    assert active.attest().first.exit_code == 304


def test_a_removed_node_is_refused_by_the_registry(active: World) -> None:
    id = bytes(active.node.hash_part)
    assert active.to_registry(active.governance, registry_messages.remove_body(Removal.NODE, id)).success
    active.chain.warp(5)
    owner = active.chain.balance(active.owner)
    assert active.attest()[1].exit_code == 213
    assert owner - active.chain.balance(active.owner) < TON // 20
    assert id not in active.registry_state().nodes
    assert active.change(registry_messages.allow(Removal.NODE, id)).success
    assert active.attest().success
    assert id in active.registry_state().nodes


# ---- terms


def test_prices_change_with_delay_and_the_endpoint_at_once(active: World) -> None:
    body = node_messages.update_terms_body(
        endpoint="new:2", models=[MODEL, b"\x0b" * 32], prices=CHEAPER, simulated=False
    )
    assert active.to_node(active.owner, body).success
    terms = active.registry_state().nodes[bytes(active.node.hash_part)].terms
    assert (terms.endpoint, terms.models, terms.simulated) == ("new:2", (MODEL, b"\x0b" * 32), False)
    now = active.chain.now
    assert terms.prices_at(now) == terms.prices_at(now + 299) == PRICES
    assert terms.prices_at(now + 300) == CHEAPER
    # the same prices again do not move the date
    active.chain.warp(100)
    assert active.to_node(active.owner, body).success
    state = active.node_state()
    assert state.terms is not None
    assert state.terms.prices_effective_at == now + 300
    # once they count, a further change starts from them
    active.chain.warp(200)
    third = PriceList(prompt=1, cached=1, completion=1)
    body = node_messages.update_terms_body(endpoint="new:2", models=[MODEL], prices=third, simulated=False)
    assert active.to_node(active.owner, body).success
    state = active.node_state()
    assert state.terms is not None
    assert (state.terms.prices, state.terms.next_prices) == (CHEAPER, third)


def test_a_change_before_the_last_one_counts_keeps_the_old_prices(active: World) -> None:
    for prices in (CHEAPER, PriceList(prompt=500, cached=500, completion=500)):
        body = node_messages.update_terms_body(
            endpoint="a:1", models=[MODEL], prices=prices, simulated=False
        )
        assert active.to_node(active.owner, body).success
    state = active.node_state()
    assert state.terms is not None
    assert state.terms.prices == PRICES


# ---- stake


def test_more_stake(active: World) -> None:
    assert active.to_node(active.owner, node_messages.add_stake_body(5 * TON), 6 * TON).success
    assert active.node_state().stake == 15 * TON
    assert active.registry_state().nodes[bytes(active.node.hash_part)].stake == 15 * TON
    assert active.chain.balance(active.node) >= 15 * TON
    short = active.to_node(active.owner, node_messages.add_stake_body(5 * TON), 5 * TON)
    assert short.first.exit_code == 316


def test_the_stake_leaves_after_the_last_receipt_can_be_challenged(active: World) -> None:
    assert active.to_node(active.owner, node_messages.withdraw_body()).first.exit_code == 304
    result = active.to_node(active.owner, node_messages.unbond_body())
    assert result.success
    assert bytes(active.node.hash_part) not in active.registry_state().nodes
    state = active.node_state()
    assert state.bond is BondState.UNBONDING
    assert state.key is not None
    assert state.unlock_at == state.key.not_after + 3600 + 7200 + 1800
    active.chain.warp(state.unlock_at - active.chain.now - 1)
    assert active.to_node(active.owner, node_messages.withdraw_body()).first.exit_code == 315
    active.chain.warp(1)
    owner = active.chain.balance(active.owner)
    assert active.to_node(active.owner, node_messages.withdraw_body()).success
    assert active.chain.balance(active.owner) > owner + 10 * TON - TON // 50
    state = active.node_state()
    assert (state.bond, state.stake, state.unlock_at) == (BondState.IDLE, 0, 0)
    assert state.log == active.node_state().log
    # the reserve that stayed can be taken too, and the node can join again
    assert active.to_node(active.owner, node_messages.withdraw_body()).success
    assert active.chain.balance(active.node) == 0
    assert active.join().success


def test_unbonding_waits_for_the_longer_lived_of_both_bindings(active: World) -> None:
    first_end = active.chain.now + 86_400
    active.chain.warp(60)
    active.receipt_key = key(3)
    assert active.attest(active.binding(not_after=active.chain.now + 4000)).success
    assert active.to_node(active.owner, node_messages.unbond_body()).success
    assert active.node_state().unlock_at == first_end + 3600 + 7200 + 1800


def test_unbond_twice_is_refused(active: World) -> None:
    assert active.to_node(active.owner, node_messages.unbond_body()).success
    assert active.to_node(active.owner, node_messages.unbond_body()).first.exit_code == 304


def test_the_log_outlives_the_bond(active: World) -> None:
    active.grow(3)
    active.chain.send_from(active.stranger, active.node, TON)
    active.anchor()
    active.to_node(active.owner, node_messages.unbond_body())
    active.chain.warp(200_000)
    active.to_node(active.owner, node_messages.withdraw_body())
    active.join()
    assert active.node_state().log.tree_size == 3


def test_messages_that_cannot_pay_for_themselves_are_refused(active: World) -> None:
    small = TON // 100
    bodies = [
        node_messages.unbond_body(),
        node_messages.update_terms_body(endpoint="a:1", models=[MODEL], prices=PRICES, simulated=False),
        node_messages.settle_body(claim=active.claim(1), authorization=active.authorization(1)),
    ]
    for body in bodies:
        assert active.to_node(active.owner, body, small).first.exit_code == 317


# ---- anchors


def fund(world: World) -> None:
    """Working balance for anchors."""
    assert world.to_node(world.stranger, node_messages.top_up_body()).success


def test_anchor_by_external_message(active: World) -> None:
    fund(active)
    active.grow(5)
    result = active.anchor()
    assert result.success
    assert events(result) == [opcodes.NODE_ANCHORED]
    log = active.node_state().log
    assert (log.tree_size, log.root, log.anchored_at) == (5, active.tree.root(), active.chain.now)
    active.grow(8)
    assert active.anchor().success
    assert active.node_state().log.tree_size == 13


def test_anchor_by_message_at_the_senders_expense(active: World) -> None:
    active.grow(5)
    node, stranger = active.chain.balance(active.node), active.chain.balance(active.stranger)
    result = active.anchor_by_message()
    assert result.success
    assert events(result) == [opcodes.NODE_ANCHORED]
    assert active.node_state().log.root == active.tree.root()
    assert active.chain.balance(active.node) >= node
    assert stranger - active.chain.balance(active.stranger) < TON // 50
    active.grow(8)
    assert active.anchor_by_message().success


def not_accepted(world: World, send: Callable[[], SendResult]) -> int | None:
    """The external message was refused without costing the node anything. Returns the exit code."""
    before = world.chain.shard_account(world.node).hash
    with pytest.raises(MessageNotAcceptedError) as caught:
        send()
    assert world.chain.shard_account(world.node).hash == before
    return caught.value.vm_exit_code


def test_an_anchor_is_worth_nothing_the_second_time(active: World) -> None:
    fund(active)
    active.grow(5)
    order = active.anchor_order()
    assert active.anchor(order).success
    assert not_accepted(active, lambda: active.anchor(order)) == 312


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node": b"\x09" * 32}, 303),
        ({"global_id": -239}, 302),
        ({"tree_size": 4}, 311),
        ({"tree_size": 5}, 311),
    ],
)
def test_checkpoints_for_others_or_not_newer_are_refused(
    active: World, changes: dict[str, object], code: int
) -> None:
    fund(active)
    active.grow(5)
    assert active.anchor().success
    active.grow(5)
    point = active.checkpoint(**changes)
    order = dataclasses.replace(active.anchor_order(), checkpoint=point)
    assert not_accepted(active, lambda: active.anchor(order)) == code
    signed = sign_checkpoint(point, active.receipt_key)
    assert active.anchor_by_message(signed=signed).first.exit_code == code


def test_an_anchor_by_another_key_is_refused(active: World) -> None:
    fund(active)
    active.grow(5)
    assert not_accepted(active, lambda: active.anchor(signer=key(9))) == 310
    real, active.receipt_key = active.receipt_key, key(9)
    assert active.anchor_by_message().first.exit_code == 310
    active.receipt_key = real


def test_the_previous_key_may_anchor_and_the_one_before_may_not(active: World) -> None:
    fund(active)
    first = active.receipt_key
    for number in (3, 4):
        active.chain.warp(60)
        active.receipt_key = key(number)
        assert active.attest().success
    active.grow(5)
    assert not_accepted(active, lambda: active.anchor(signer=first)) == 310
    assert active.anchor(signer=key(3)).success


def test_an_anchor_before_any_binding_is_refused(world: World) -> None:
    world.deploy_registry()
    world.join()
    fund(world)
    world.grow(1)
    assert not_accepted(world, lambda: world.anchor()) == 309


def test_a_changed_proof_does_not_cost_the_node_anything(active: World) -> None:
    fund(active)
    active.grow(5)
    active.anchor()
    active.grow(5)
    order = active.anchor_order()
    changed = dataclasses.replace(order, proof=(bytes(32), *order.proof[1:]))
    body = node_messages.anchor_external_body(
        anchor=changed.cell.to_boc(), signature=order.sign(active.receipt_key)
    )
    assert not_accepted(active, lambda: active.chain.send_external(active.node, body)) == 310


def test_a_rewritten_log_is_refused(active: World) -> None:
    fund(active)
    active.grow(5)
    active.anchor()
    rewritten = MerkleTree([(99).to_bytes(32), *(i.to_bytes(32) for i in range(1, 9))])
    point = active.checkpoint(tree_size=9, root=bytes(rewritten.root()))
    proof = rewritten.consistency_proof(5, 9)
    assert active.anchor_by_message(point, proof=proof).first.exit_code == 313
    log = active.node_state().log
    assert log.tree_size == 5
    order = dataclasses.replace(active.anchor_order(), checkpoint=point, proof=proof)
    assert active.anchor(order).first.exit_code == 313
    assert active.node_state().log == log


def test_a_node_without_working_balance_refuses_external_anchors(active: World) -> None:
    active.grow(5)
    order = active.anchor_order()
    node = active.chain.account(active.node)
    stake = active.node_state().stake
    active.chain.add_account(active.node, stake + TON // 1000, code=node.code, data=node.data)
    assert not_accepted(active, lambda: active.anchor(order)) == 314
    fund(active)
    assert active.anchor(order).success


def test_anchors_never_eat_the_stake(active: World) -> None:
    fund(active)
    for _ in range(400):
        active.grow(1)
        try:
            active.anchor()
        except MessageNotAcceptedError as error:
            last = error.vm_exit_code
            break
    else:
        pytest.fail("the working balance never ran out")
    assert last == 314
    assert active.chain.balance(active.node) >= active.node_state().stake


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(st.integers(1, 200), st.integers(1, 200)).filter(lambda s: s[0] < s[1]),
    fault=st.integers(0, 40),
)
def test_consistency_on_chain_is_that_of_rfc_9162(
    emulator: Emulator, log_template: World, sizes: tuple[int, int], fault: int
) -> None:
    first, second = sizes
    world = with_log(emulator, log_template, first)
    world.grow(second - first)
    proof = list(world.anchor_order().proof)
    if fault < len(proof):
        proof[fault] = bytes(a ^ 1 for a in proof[fault])
    elif fault == 37:
        proof.append(bytes(32))
    elif fault == 38 and proof:
        proof.pop()
    elif fault == 39:
        proof.insert(0, bytes(32))
    good = proof == list(world.anchor_order().proof)
    result = world.anchor_by_message(proof=tuple(proof))
    assert (result.first.exit_code == 0) is good
    assert world.node_state().log.tree_size == (second if good else first)
    if not good:
        assert result.first.exit_code in (9, 313)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 2),
        (1, 3),
        (2, 3),
        (3, 4),
        (4, 8),
        (6, 8),
        (7, 8),
        (8, 9),
        (127, 128),
        (128, 129),
        (255, 1024),
        (1000, 1023),
    ],
)
def test_consistency_at_the_edges(emulator: Emulator, log_template: World, first: int, second: int) -> None:
    world = with_log(emulator, log_template, first)
    world.grow(second - first)
    assert world.anchor_by_message().success


@pytest.fixture
def log_template(active: World) -> World:
    """A world whose node is copied into a fresh chain for every example."""
    return active


def with_log(emulator: Emulator, template: World, size: int, tree: MerkleTree | None = None) -> World:
    """A new chain with the template's node, and `size` leaves (or `tree`) anchored."""
    chain = TestChain(emulator=emulator, now=template.chain.now)
    node = template.chain.account(template.node)
    chain.add_account(template.node, node.balance, code=node.code, data=node.data)
    world = World(
        chain=chain,
        genesis=template.genesis,
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
        tree=tree or MerkleTree(),
    )
    world.grow(size)
    assert world.anchor_by_message().success
    return world


# ---- settlements


@pytest.mark.parametrize(
    ("settle", "code"),
    [
        pytest.param(lambda w: w.settle(TON, claim=w.claim(TON, signer=key(9))), 310, id="forged claim"),
        pytest.param(lambda w: w.settle(TON, claim=w.claim(TON, global_id=-239)), 302, id="mainnet claim"),
        pytest.param(lambda w: w.settle(TON, sender=w.client), 300, id="client settles"),
        pytest.param(lambda w: w.settle(TON, sender=w.stranger), 300, id="stranger settles"),
    ],
)
def test_claims_that_the_node_refuses(paying: World, settle: Send, code: int) -> None:
    result = settle(paying)
    assert result.first.exit_code == code
    assert paying.channel_state().paid == 0


def test_an_authorization_is_not_a_claim(paying: World) -> None:
    """The receipt key signs records of several kinds: the tag separates them."""
    checkpoint = paying.checkpoint()
    claim = paying.claim(TON)
    claim.claim, claim.signature = checkpoint.to_boc(), paying.receipt_key.sign(checkpoint.hash)
    assert paying.settle(TON, claim=claim).first.exit_code == 310


def test_a_claim_by_the_previous_key_is_paid(paying: World) -> None:
    claim = paying.claim(TON)
    paying.chain.warp(60)
    paying.receipt_key = key(3)
    assert paying.attest().success
    assert paying.settle(TON, claim=claim).success
    paying.chain.warp(60)
    paying.receipt_key = key(4)
    assert paying.attest().success
    assert paying.settle(TON, claim=claim).first.exit_code == 310


def test_claims_are_paid_after_the_node_left(paying: World) -> None:
    assert paying.to_node(paying.owner, node_messages.unbond_body()).success
    assert paying.settle(TON).success
    paying.chain.warp(200_000)
    assert paying.to_node(paying.owner, node_messages.withdraw_body()).success
    assert paying.to_node(paying.owner, node_messages.withdraw_body()).success
    assert paying.settle(2 * TON).success


def test_a_claim_on_an_account_without_code_comes_back(paying: World) -> None:
    owner = paying.chain.balance(paying.owner)
    result = paying.settle(TON, claim=paying.claim(TON, channel=b"\x0c" * 32))
    assert result[1].compute_skipped == "no_state"
    assert owner - paying.chain.balance(paying.owner) < TON // 50


# ---- other networks


def test_nothing_signed_works_on_another_network(active: World) -> None:
    mainnet = TestChain(emulator=Emulator(network_config(-239)), now=active.chain.now)
    node = active.chain.account(active.node)
    mainnet.add_account(active.node, node.balance, code=node.code, data=node.data)
    world = World(
        chain=mainnet,
        genesis=active.genesis,
        owner=mainnet.treasury("owner"),
        client=mainnet.treasury("client"),
        stranger=mainnet.treasury("stranger"),
    )
    world.grow(3)
    assert world.attest().first.exit_code == 302
    assert world.settle(TON).first.exit_code == 302
    assert world.anchor_by_message().first.exit_code == 302
    assert not_accepted(world, lambda: world.anchor()) == 302


def test_unknown_messages_bounce(active: World) -> None:
    for opcode in (0, 0xC0C2FFFF, opcodes.CHANNEL_SETTLE):
        result = active.to_node(active.owner, finish(begin(opcode).store_uint(0, 64)))
        assert result.first.exit_code == 0xFFFF
        assert is_bounce(result[1])


def test_the_getter_agrees_with_the_data(active: World) -> None:
    active.grow(2)
    active.anchor_by_message()
    state = active.node_state()
    assert active.chain.get(active.node, "nodeState") == [
        state.bond,
        state.stake,
        state.unlock_at,
        state.log.tree_size,
        int.from_bytes(state.log.root),
        state.log.anchored_at,
    ]


# ---- any order of events

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["join", "attest", "unbond", "withdraw", "anchor", "top up", "allow"]),
            st.just(0),
        ),
        st.tuples(st.just("remove"), st.just(0)),
        st.tuples(st.just("add stake"), st.integers(0, 3)),
        st.tuples(st.just("warp"), st.sampled_from([1, 600, 90_000, 100_000])),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_stake_is_always_there_and_leaves_only_after_its_wait(
    emulator: Emulator, genesis_world: World, steps: list[tuple[str, int]]
) -> None:
    world = copy_registry(emulator, genesis_world)
    chain, id = world.chain, bytes(world.node.hash_part)
    locked_until, promised = 0, 0
    for step, amount in steps:
        owner = chain.balance(world.owner)
        match step:
            case "join":
                world.join()
            case "attest":
                world.attest()
            case "unbond":
                world.to_node(world.owner, node_messages.unbond_body())
            case "withdraw":
                world.to_node(world.owner, node_messages.withdraw_body())
            case "anchor" if chain.account(world.node).data is not None and world.node_state().key:
                world.grow(1)
                world.anchor_by_message()
            case "top up":
                world.to_node(world.stranger, node_messages.top_up_body())
            case "add stake":
                world.to_node(world.owner, node_messages.add_stake_body(amount * TON), 5 * TON)
            case "remove":
                world.to_registry(world.governance, registry_messages.remove_body(Removal.NODE, id))
            case "allow":
                world.change(registry_messages.allow(Removal.NODE, id))
            case "warp":
                chain.warp(amount)
        assert chain.total_balance() + chain.collected_fees == chain.minted
        if chain.account(world.node).data is None:
            continue
        state = world.node_state()
        assert chain.balance(world.node) >= state.stake, "the stake is there"
        assert state.bond is not BondState.JOINING, "every join is answered"
        if chain.now < locked_until:
            assert state.stake >= promised, "no way around the wait"
            assert chain.balance(world.owner) <= owner + 5 * TON
        if state.bond is BondState.UNBONDING:
            assert state.unlock_at >= chain.now or locked_until == state.unlock_at
            locked_until, promised = state.unlock_at, state.stake
        listed = id in world.registry_state().nodes
        assert not listed or state.bond is BondState.ACTIVE
    if chain.account(world.node).data is not None:
        chain.warp(400_000)
        world.to_node(world.owner, node_messages.unbond_body())
        chain.warp(400_000)
        world.to_node(world.owner, node_messages.withdraw_body())
        assert world.to_node(world.owner, node_messages.withdraw_body()).success
        assert chain.balance(world.node) == 0, "nothing stays behind"


@pytest.fixture
def genesis_world(world: World) -> World:
    """A deployed registry that is copied into a fresh chain for every example."""
    assert world.deploy_registry().success
    return world


def copy_registry(emulator: Emulator, template: World) -> World:
    """A new chain with the template's registry."""
    chain = TestChain(emulator=emulator, now=template.chain.now)
    account = template.chain.account(template.registry)
    chain.add_account(template.registry, account.balance, code=account.code, data=account.data)
    chain.treasury("governance")
    return World(
        chain=chain,
        genesis=template.genesis,
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
