"""A registry that several people govern through TON's own multisig contracts: k of n approve what it is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.errors import MalformedError, UnsupportedError
from cocoon_ton import multisig, opcodes, registry_messages
from cocoon_ton.cells import Reader, finish
from cocoon_ton.code import contract_address, registry_code, state_init
from cocoon_ton.emulator import SendResult
from cocoon_ton.emulator import multisig as official
from cocoon_ton.messages import Transfer
from cocoon_ton.multisig import MultisigConfig, MultisigState, OrderState, parse_multisig, parse_order
from cocoon_ton.registry import EntryState
from cocoon_ton.registry_messages import Removal

from .conftest import MODEL, PARAMETERS, TON, World, is_bounce

NEW = b"\xbb" * 32
MONTH = 30 * 86_400
REJECTED = 0xAFAF283E
"""Opcode of the message in which an order says why it did not count an approval."""


@dataclasses.dataclass
class Council:
    """Three people of whom two govern, and the registry of `world`."""

    world: World
    people: tuple[Address, ...]
    config: MultisigConfig

    @property
    def address(self) -> Address:
        return contract_address(official.multisig_code(), self.config.initial_data)

    @property
    def state(self) -> MultisigState:
        return parse_multisig(self.world.data(self.address))

    def deploy(self) -> None:
        init = state_init(official.multisig_code(), self.config.initial_data)
        funded = self.world.chain.send_from(self.people[0], self.address, 20 * TON, Cell.empty(), init=init)
        assert funded.success

    def propose(
        self,
        who: int,
        body: Cell,
        *,
        to: Address | None = None,
        value: int = TON,
        until: int = MONTH,
        sender: Address | None = None,
        paid: int = multisig.NEW_ORDER_VALUE,
    ) -> SendResult:
        message = Transfer(destination=to or self.world.registry, amount=value, body=body)
        order = multisig.new_order_body([message], signer=who, expires_at=self.world.chain.now + until)
        return self.world.chain.send_from(sender or self.people[who], self.address, paid, order)

    def order(self, number: int) -> Address:
        return multisig.order_address(self.address, number)

    def order_state(self, number: int) -> OrderState:
        return parse_order(self.world.data(self.order(number)))

    def approve(self, who: int, number: int, *, sender: Address | None = None) -> SendResult:
        return self.world.chain.send_from(
            sender or self.people[who],
            self.order(number),
            multisig.APPROVE_VALUE,
            multisig.approve_body(who, 4),
        )

    def carry(self, body: Cell) -> SendResult:
        """Two of three send a message to the registry."""
        number = self.state.next_order
        assert number is not None
        assert self.propose(0, body).success
        return self.approve(1, number)


@pytest.fixture
def council(world: World) -> Council:
    """A registry whose governance is a multisig of two of three, from its first day."""
    try:
        world.chain.libraries = official.order_library()
    except UnsupportedError as error:
        pytest.skip(str(error))
    people = tuple(world.chain.treasury(f"signer {number}") for number in range(3))
    made = Council(world, people, MultisigConfig(signers=people, threshold=2))
    world.genesis = dataclasses.replace(world.genesis, governance=made.address)
    made.deploy()
    init = state_init(registry_code().cell, world.genesis.initial_data)
    body = registry_messages.top_up_body()
    assert world.chain.send_from(people[0], world.registry, TON, body, init=init).success
    return made


def events(result: SendResult) -> list[int]:
    return [Reader(body).uint(32) for body in result.events]


def rejections(result: SendResult) -> list[int]:
    """Why orders did not count approvals."""
    found = []
    for transaction in result:
        if transaction.in_opcode == REJECTED and transaction.incoming is not None:
            reader = Reader(transaction.incoming.body)
            reader.uint(32 + 64)
            found.append(reader.uint(32))
    return found


# ---- the code


def test_the_package_holds_the_code_of_mainnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    try:
        assert official.multisig_code().hash == multisig.MULTISIG_CODE_HASH
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert official.order_code().hash == multisig.ORDER_CODE_HASH
    monkeypatch.setattr(official, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(UnsupportedError):
        official._code("Order", multisig.ORDER_CODE_HASH)
    folder = tmp_path / "node_modules" / official.PACKAGE / "dist" / "build"
    folder.mkdir(parents=True)
    for text in ("", "{}", json.dumps({"hex": "00"}), json.dumps({"hex": Cell.empty().to_boc().hex()})):
        (folder / "Order.compiled.json").write_text(text)
        with pytest.raises(UnsupportedError):
            official._code("Order", multisig.ORDER_CODE_HASH)


# ---- governance


def test_two_of_three_add_a_model_through_the_timelock(council: Council) -> None:
    world = council.world
    change = registry_messages.set_model(NEW, "new@test")
    assert council.propose(0, registry_messages.announce_body(change)).success
    assert world.registry_state().pending == {}
    order = council.order_state(0)
    assert (order.multisig, order.number, order.signers) == (council.address, 0, council.people)
    assert order.approvals == {0}
    assert (order.threshold, order.executed) == (2, False)
    (action,) = order.actions
    assert (action.to, action.value) == (world.registry, TON)
    assert action.body.hash == registry_messages.announce_body(change).hash

    second = council.approve(2, 0)
    assert second.success
    assert opcodes.CHANGE_ANNOUNCED in events(second)
    assert council.order_state(0).executed
    assert change.hash in world.registry_state().pending
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
    assert council.propose(0, remove).success
    assert rejections(council.approve(0, 0)) == [107]
    # one's own place cannot be filled by somebody else, nor another's by oneself
    assert council.approve(1, 0, sender=council.people[0]).first.exit_code == 106
    assert council.approve(1, 0, sender=world.stranger).first.exit_code == 106
    assert world.registry_state().models[MODEL].state is EntryState.ACTIVE
    assert council.order_state(0).approvals == {0}


def test_strangers_propose_nothing(council: Council) -> None:
    body = registry_messages.remove_body(Removal.MODEL, MODEL)
    assert council.propose(0, body, sender=council.world.stranger).first.exit_code == 1007
    assert council.state.next_order == 0


def test_a_removal_needs_no_timelock_but_all_approvals(council: Council) -> None:
    assert council.carry(registry_messages.remove_body(Removal.MODEL, MODEL)).success
    assert council.world.registry_state().models[MODEL].state is EntryState.REVOKED


def test_an_announced_change_can_be_withdrawn(council: Council) -> None:
    change = registry_messages.set_parameters(dataclasses.replace(PARAMETERS, max_nodes=9))
    council.carry(registry_messages.announce_body(change))
    assert change.hash in council.world.registry_state().pending
    council.carry(registry_messages.cancel_body(change.hash))
    assert council.world.registry_state().pending == {}


def test_an_order_is_carried_out_once_and_in_its_time(council: Council) -> None:
    world = council.world
    balance = world.chain.balance(world.stranger)
    council.propose(0, Cell.empty(), to=world.stranger, value=3 * TON)
    assert council.approve(1, 0).success
    assert rejections(council.approve(2, 0)) == [112]
    assert world.chain.balance(world.stranger) - balance == pytest.approx(3 * TON, abs=TON // 1000)
    council.propose(0, Cell.empty(), to=world.stranger, value=3 * TON, until=60)
    world.chain.warp(61)
    assert 111 in council.approve(1, 1).exit_codes
    assert world.chain.balance(world.stranger) - balance < 4 * TON


def test_a_council_hands_over_to_another(council: Council) -> None:
    world = council.world
    people = (council.people[0], world.chain.treasury("signer 9"))
    following = Council(world, people, MultisigConfig(signers=people, threshold=2))
    following.deploy()
    change = registry_messages.set_governance(following.address)
    council.carry(registry_messages.announce_body(change))
    world.chain.warp(PARAMETERS.timelock)
    assert world.to_registry(world.stranger, registry_messages.execute_body(change.hash)).success
    # the old council still governs until the new one accepts
    assert world.registry_state().governance == council.address
    assert following.carry(registry_messages.accept_governance_body()).success
    assert world.registry_state().governance == following.address
    result = council.carry(registry_messages.remove_body(Removal.MODEL, MODEL))
    assert 200 in result.exit_codes
    assert following.carry(registry_messages.remove_body(Removal.MODEL, MODEL)).success


def test_values_suffice_and_the_rest_comes_back(council: Council) -> None:
    body = registry_messages.announce_body(registry_messages.set_model(NEW, "new@test"))
    assert council.propose(0, body, paid=TON // 100).first.exit_code == 100
    before = sum(council.world.chain.balance(person) for person in council.people)
    safe = council.world.chain.balance(council.address)
    assert council.carry(body).success
    spent = before - sum(council.world.chain.balance(person) for person in council.people)
    assert spent < multisig.NEW_ORDER_VALUE + multisig.APPROVE_VALUE
    # the value of the order's message is kept by the registry or came back; the order's own rest comes to the multisig
    assert council.world.chain.balance(council.address) > safe - TON // 10


def test_what_the_registry_refuses_comes_back(council: Council) -> None:
    balance = council.world.chain.balance(council.address)
    result = council.carry(finish(Builder().store_uint(0xDEADBEEF, 32).store_uint(0, 64)))
    assert any(is_bounce(t) for t in result if t.address == council.address)
    assert council.world.chain.balance(council.address) > balance - TON // 50


# ---- codecs

ADDRESSES = st.lists(
    st.binary(min_size=32, max_size=32).map(lambda raw: Address((0, raw))),
    min_size=1,
    max_size=40,
    unique=True,
)


@settings(max_examples=30, deadline=None)
@given(signers=ADDRESSES, data=st.data())
def test_initial_data_round_trips(signers: list[Address], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, len(signers)))
    config = MultisigConfig(signers=tuple(signers), threshold=threshold)
    assert parse_multisig(config.initial_data) == MultisigState(config=config, proposers=(), next_order=0)


@pytest.mark.parametrize(
    ("signers", "threshold"), [((), 0), ((bytes(32),), 0), ((bytes(32),), 2), ((bytes(32), bytes(32)), 1)]
)
def test_configurations_out_of_form(signers: tuple[bytes, ...], threshold: int) -> None:
    with pytest.raises(MalformedError):
        MultisigConfig(signers=tuple(Address((0, raw)) for raw in signers), threshold=threshold)


def test_orders_out_of_form() -> None:
    with pytest.raises(MalformedError):
        multisig.new_order_body([], signer=0, expires_at=1)
    message = Transfer(destination=Address((0, bytes(32))), amount=1)
    for wrong in ({"signer": 256}, {"expires_at": 1 << 48}):
        with pytest.raises(MalformedError):
            multisig.new_order_body([message], **({"signer": 0, "expires_at": 1} | wrong))


@settings(max_examples=60, deadline=None)
@given(bits=st.text("01", max_size=1023), count=st.integers(0, 4))
def test_any_cell_is_read_or_refused(bits: str, count: int) -> None:
    builder = Builder().store_bits(bits)
    for _ in range(count):
        builder.store_ref(Builder().store_bits(bits[:200]).end_cell())
    for parse in (parse_multisig, parse_order):
        with pytest.raises(MalformedError):
            parse(builder.end_cell())


def test_flipped_state_is_read_or_refused(council: Council) -> None:
    council.propose(0, registry_messages.announce_body(registry_messages.set_model(NEW, "new@test")))
    data = council.world.data(council.order(0))
    text = data.bits.to01()
    for at in range(0, len(text), 3):
        builder = Builder().store_bits(text[:at] + ("0" if text[at] == "1" else "1") + text[at + 1 :])
        for ref in data.refs:
            builder.store_ref(ref)
        try:
            parse_order(builder.end_cell())
        except MalformedError:
            continue
