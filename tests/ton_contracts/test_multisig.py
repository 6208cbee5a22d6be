"""A registry that several people govern: k of n approve what is announced, removed, or handed on."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_ton import multisig, opcodes, registry_messages
from cocoon_ton.cells import Reader, finish
from cocoon_ton.code import multisig_code, registry_code, state_init
from cocoon_ton.emulator import Emulator, SendResult, TestChain
from cocoon_ton.multisig import MultisigIdentity, MultisigState, Order, parse_multisig
from cocoon_ton.registry import EntryState
from cocoon_ton.registry_messages import Removal

from .conftest import GLOBAL_ID, MODEL, PARAMETERS, TON, World, is_bounce, network_config

NEW = b"\xbb" * 32


@dataclasses.dataclass
class Council:
    """Three people of whom two govern, and the registry of `world`."""

    world: World
    people: tuple[Address, ...]
    identity: MultisigIdentity
    salt: int = 0

    @property
    def address(self) -> Address:
        return self.identity.address

    @property
    def state(self) -> MultisigState:
        return parse_multisig(self.world.data(self.address))

    def order(self, body: Cell, *, to: Address | None = None, value: int = TON, until: int = 3600) -> Order:
        self.salt += 1
        return Order(
            to=to or self.world.registry,
            value=value,
            body=body,
            valid_until=self.world.chain.now + until,
            salt=self.salt,
        )

    def send(self, who: int | Address, body: Cell, value: int = TON) -> SendResult:
        sender = self.people[who] if isinstance(who, int) else who
        return self.world.chain.send_from(sender, self.address, value, body)

    def propose(self, who: int | Address, order: Order) -> SendResult:
        return self.send(who, multisig.propose_body(order, 3))

    def approve(self, who: int | Address, order: Order) -> SendResult:
        return self.send(who, multisig.approve_body(order.cell.hash, 4))

    def carry(self, body: Cell) -> SendResult:
        """Two of three send a message to the registry."""
        order = self.order(body)
        assert self.propose(0, order).success
        return self.approve(1, order)


@pytest.fixture
def council(world: World) -> Council:
    """A registry whose governance is a multisignature contract of two of three, from its first day."""
    people = tuple(world.chain.treasury(f"signer {number}") for number in range(3))
    identity = MultisigIdentity(global_id=GLOBAL_ID, signers=people, threshold=2)
    world.genesis = dataclasses.replace(world.genesis, governance=identity.address)
    funded = world.chain.send_from(
        people[0],
        identity.address,
        20 * TON,
        Cell.empty(),
        init=state_init(multisig_code().cell, identity.initial_data),
    )
    assert funded.success
    init = state_init(registry_code().cell, world.genesis.initial_data)
    deployed = world.chain.send_from(
        people[0], world.registry, TON, registry_messages.top_up_body(), init=init
    )
    assert deployed.success
    return Council(world=world, people=people, identity=identity)


def events(result: SendResult) -> list[int]:
    return [Reader(body).uint(32) for body in result.events]


# ---- governance


def test_two_of_three_add_a_model_through_the_timelock(council: Council) -> None:
    world = council.world
    change = registry_messages.set_model(NEW, "new@test")
    order = council.order(registry_messages.announce_body(change))
    first = council.propose(0, order)
    assert first.success
    assert events(first) == [opcodes.ORDER_PROPOSED, opcodes.ORDER_APPROVED]
    assert world.registry_state().pending == {}
    assert council.state.orders[bytes(order.cell.hash)].approvals == {0}
    second = council.approve(2, order)
    assert second.success
    assert opcodes.CHANGE_ANNOUNCED in events(second)
    assert council.state.orders == {}
    early = world.to_registry(world.stranger, registry_messages.execute_body(change.hash))
    assert early.first.exit_code == 206
    world.chain.warp(PARAMETERS.timelock)
    assert world.to_registry(world.stranger, registry_messages.execute_body(change.hash)).success
    assert world.registry_state().models[NEW].state is EntryState.ACTIVE


def test_no_single_person_governs(council: Council) -> None:
    world = council.world
    remove = registry_messages.remove_body(Removal.MODEL, MODEL)
    for person in council.people:
        assert world.to_registry(person, remove).first.exit_code == 200
    order = council.order(remove)
    assert council.propose(0, order).success
    assert council.approve(0, order).first.exit_code == 604
    assert world.registry_state().models[MODEL].state is EntryState.ACTIVE


def test_a_removal_needs_no_timelock_but_all_approvals(council: Council) -> None:
    assert council.carry(registry_messages.remove_body(Removal.MODEL, MODEL)).success
    assert council.world.registry_state().models[MODEL].state is EntryState.REVOKED


def test_an_announced_change_can_be_withdrawn(council: Council) -> None:
    change = registry_messages.set_parameters(dataclasses.replace(PARAMETERS, max_nodes=9))
    council.carry(registry_messages.announce_body(change))
    assert change.hash in council.world.registry_state().pending
    council.carry(registry_messages.cancel_body(change.hash))
    assert council.world.registry_state().pending == {}


def test_a_council_hands_over_to_another(council: Council) -> None:
    world = council.world
    people = (council.people[0], world.chain.treasury("signer 9"))
    next_council = Council(
        world=world,
        people=people,
        identity=MultisigIdentity(global_id=GLOBAL_ID, signers=people, threshold=2),
    )
    world.chain.send_from(
        people[0],
        next_council.address,
        5 * TON,
        Cell.empty(),
        init=state_init(multisig_code().cell, next_council.identity.initial_data),
    )
    change = registry_messages.set_governance(next_council.address)
    council.carry(registry_messages.announce_body(change))
    world.chain.warp(PARAMETERS.timelock)
    assert world.to_registry(world.stranger, registry_messages.execute_body(change.hash)).success
    # the old council still governs until the new one accepts
    assert world.registry_state().governance == council.address
    assert next_council.carry(registry_messages.accept_governance_body()).success
    assert world.registry_state().governance == next_council.address
    result = council.carry(registry_messages.remove_body(Removal.MODEL, MODEL))
    assert 200 in result.exit_codes
    assert next_council.carry(registry_messages.remove_body(Removal.MODEL, MODEL)).success


# ---- the contract


def test_strangers_have_no_say(council: Council) -> None:
    order = council.order(registry_messages.top_up_body())
    stranger = council.world.stranger
    assert council.propose(stranger, order).first.exit_code == 600
    assert council.propose(0, order).success
    assert council.approve(stranger, order).first.exit_code == 600
    assert council.send(stranger, multisig.drop_body(order.cell.hash)).first.exit_code == 600


def test_an_order_is_sent_once(council: Council) -> None:
    order = council.order(Cell.empty(), to=council.world.stranger, value=3 * TON)
    stranger = council.world.chain.balance(council.world.stranger)
    balance = council.world.chain.balance(council.address)
    council.propose(0, order)
    assert council.propose(1, order).first.exit_code == 603
    assert council.approve(1, order).success
    assert council.approve(2, order).first.exit_code == 601
    gained = council.world.chain.balance(council.world.stranger) - stranger
    assert 3 * TON - TON // 100 < gained <= 3 * TON
    assert abs(balance - 3 * TON - council.world.chain.balance(council.address)) < TON // 100


def test_approvals_end(council: Council) -> None:
    order = council.order(registry_messages.top_up_body(), until=100)
    council.propose(0, order)
    assert council.send(1, multisig.drop_body(order.cell.hash)).first.exit_code == 606
    council.world.chain.warp(101)
    assert council.approve(1, order).first.exit_code == 602
    assert council.propose(1, order).first.exit_code == 602
    assert council.send(1, multisig.drop_body(order.cell.hash)).success
    assert council.state.orders == {}
    assert council.send(1, multisig.drop_body(order.cell.hash)).first.exit_code == 601


def test_open_orders_are_bounded(council: Council) -> None:
    for _ in range(16):
        assert council.propose(0, council.order(registry_messages.top_up_body())).success
    assert council.propose(0, council.order(registry_messages.top_up_body())).first.exit_code == 605
    assert len(council.state.orders) == 16


def test_an_order_beyond_the_balance_waits(council: Council) -> None:
    order = council.order(Cell.empty(), to=council.world.stranger, value=500 * TON)
    council.propose(0, order)
    assert council.approve(1, order).first.exit_code == 607
    council.world.chain.send_from(council.people[0], council.address, 600 * TON)
    assert council.approve(1, order).success


def test_messages_pay_for_themselves(council: Council) -> None:
    order = council.order(registry_messages.top_up_body())
    assert council.send(0, multisig.propose_body(order), TON // 200).first.exit_code == 608
    enough = multisig.MULTISIG_MESSAGE_VALUE
    balance = council.world.chain.balance(council.address)
    assert council.send(0, multisig.propose_body(order), enough).success
    assert council.world.chain.balance(council.address) >= balance - TON // 10_000
    assert council.send(1, multisig.approve_body(order.cell.hash), enough).success


def test_what_a_receiver_refuses_comes_back(council: Council) -> None:
    balance = council.world.chain.balance(council.address)
    result = council.carry(finish(Builder().store_uint(0xDEADBEEF, 32).store_uint(0, 64)))
    assert any(is_bounce(t) for t in result if t.address == council.address)
    assert council.world.chain.balance(council.address) > balance - TON // 50


def test_unknown_messages_bounce(council: Council) -> None:
    result = council.send(0, finish(Builder().store_uint(5, 32).store_uint(0, 64)))
    assert result.first.exit_code == 0xFFFF
    assert council.send(0, finish(Builder().store_uint(5, 8))).first.exit_code == 9


def test_another_network(council: Council) -> None:
    """The same signers and code give the same address on mainnet: there the contract does nothing."""
    mainnet = TestChain(emulator=Emulator(network_config(-239)), now=council.world.chain.now)
    account = council.world.chain.account(council.address)
    mainnet.add_account(council.address, account.balance, code=account.code, data=account.data)
    for number in range(3):
        mainnet.treasury(f"signer {number}")
    order = council.order(registry_messages.top_up_body())
    body = multisig.propose_body(order)
    assert mainnet.send_from(council.people[0], council.address, TON, body).first.exit_code == 600


# ---- codecs

ADDRESSES = st.lists(
    st.binary(min_size=32, max_size=32).map(lambda raw: Address((0, raw))),
    min_size=1,
    max_size=32,
    unique=True,
)


@settings(max_examples=30, deadline=None)
@given(
    signers=ADDRESSES,
    data=st.data(),
    salt=st.integers(0, 2**64 - 1),
    network=st.integers(-(2**31), 2**31 - 1),
)
def test_initial_data_round_trips(
    signers: list[Address], data: st.DataObject, salt: int, network: int
) -> None:
    threshold = data.draw(st.integers(1, len(signers)))
    identity = MultisigIdentity(global_id=network, signers=tuple(signers), threshold=threshold, salt=salt)
    state = parse_multisig(identity.initial_data)
    assert state == MultisigState(identity=identity, orders={})
    assert identity.address.hash_part == state_init(multisig_code().cell, identity.initial_data).hash


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 0},
        {"threshold": 4},
        {"signers": ()},
        {"signers": (Address((0, bytes(32))),) * 3},
        {"signers": (Address((-1, bytes(32))),) * 1, "threshold": 1},
        {"salt": -1},
        {"global_id": 2**31},
    ],
)
def test_identities_out_of_form(council: Council, changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(council.identity, **changes)  # type: ignore[arg-type]


def test_state_that_does_not_add_up(council: Council) -> None:
    order = council.order(registry_messages.top_up_body())
    council.propose(0, order)
    data = council.world.data(council.address)
    assert parse_multisig(data).orders[bytes(order.cell.hash)].order == order
    at = 32 + 32 + 64 + 8
    bits = data.bits.to01()
    wrong = Builder().store_bits(bits[:at] + "00000010" + bits[at + 8 :])
    for ref in data.refs:
        wrong.store_ref(ref)
    for cell in (wrong.end_cell(), Cell.empty(), order.cell):
        with pytest.raises(MalformedError):
            parse_multisig(cell)
