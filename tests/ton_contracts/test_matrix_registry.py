"""Negative matrix of Registry: operation x fault, and change x fault."""

from __future__ import annotations

import dataclasses
import functools

import pytest
from pytoniq_core import Address, Builder, Cell

from cocoon_ton import node_messages, opcodes, registry_messages
from cocoon_ton.cells import begin, finish
from cocoon_ton.code import channel_code, node_code, registry_code
from cocoon_ton.emulator import Emulator
from cocoon_ton.registry import EntryState
from cocoon_ton.registry_messages import Removal

from .conftest import MODEL, PARAMETERS, POLICY, PRICES, RELEASE, RULE, TON, World
from .matrix_kit import (
    Harmless,
    Make,
    Message,
    NotApplicable,
    Prepare,
    Refused,
    Row,
    accepted,
    after,
    built,
    by,
    cells,
    check,
    copied,
    operations,
    stranger,
    worth,
)
from .test_registry import update_head

LITTLE = TON // 100
"""Less than gas, one event and one answer cost."""
NEW = b"\xbb" * 32
NOT_SIGNED = NotApplicable("governance is an address: its own contract checks what its people sign")
BY_ADDRESS = NotApplicable("a node is known by its address, which follows from code and identity")
NO_TIME = NotApplicable("has no time of its own; the change's times are those of RegistryExecute")
ON_THIS_CHAIN = NotApplicable("nothing signed travels: the sender's contract acts on this chain only")


def too_little(honest: Make) -> Refused:
    return Refused(216, worth(honest, LITTLE))


again = functools.partial(after, lambda world: world.registry)


def governs(body: Cell) -> Make:
    return lambda world: Message(sender=world.governance, body=body)


def anybody(body: Cell) -> Make:
    return lambda world: Message(sender=world.stranger, body=body)


CHANGE = registry_messages.set_model(NEW, "new@test")
announce = governs(registry_messages.announce_body(CHANGE))
execute = anybody(registry_messages.execute_body(CHANGE.hash))
cancel = governs(registry_messages.cancel_body(CHANGE.hash))
remove = governs(registry_messages.remove_body(Removal.CODES, registry_messages.code_version_id(1)))
top_up = anybody(registry_messages.top_up_body())


def announced(change: Cell) -> Prepare:
    return again(governs(registry_messages.announce_body(change)))


def ready(change: Cell) -> Prepare:
    def prepare(world: World) -> None:
        announced(change)(world)
        world.chain.warp(PARAMETERS.timelock)

    return prepare


def before_time(world: World) -> None:
    world.chain.now -= 1


def after_time(world: World) -> None:
    world.chain.warp(30 * 86_400 + 2)


def accept(world: World) -> Message:
    return Message(sender=world.client, body=registry_messages.accept_governance_body())


def named(world: World) -> None:
    """Governance named the client as the next one."""
    change = registry_messages.set_governance(world.client)
    ready(change)(world)
    again(anybody(registry_messages.execute_body(change.hash)))(world)


def update(world: World, **changes: object) -> Message:
    identity = dataclasses.replace(world.node_identity, **changes)  # type: ignore[arg-type]
    terms = node_messages.offered_terms_cell(endpoint="a:1", models=[MODEL], prices=PRICES, simulated=True)
    entry = Builder().store_ref(identity.cell).store_coins(11 * TON).store_ref(terms)
    body = finish(update_head().store_ref(finish(entry)).store_bit(0))
    return Message(sender=identity.address, body=body)


def leave(world: World, **changes: object) -> Message:
    identity = dataclasses.replace(world.node_identity, **changes)  # type: ignore[arg-type]
    body = finish(begin(opcodes.REGISTRY_NODE_LEAVE).store_uint(0, 64).store_ref(identity.cell))
    return Message(sender=identity.address, body=body)


def not_the_node(honest: Make) -> tuple[Refused, ...]:
    others = (by(lambda w: w.owner), by(lambda w: w.governance), by(lambda w: w.registry), stranger)
    return tuple(Refused(209, change(honest)) for change in others)


MATRIX = {
    "RegistryAnnounce": Row(
        honest=announce,
        sender=(Refused(200, stranger(announce)), Refused(200, by(lambda w: w.node)(announce))),
        signature=NOT_SIGNED,
        replay=Refused(203, prepare=again(announce)),
        expiry=NO_TIME,
        value=too_little(announce),
        network=ON_THIS_CHAIN,
    ),
    "RegistryExecute": Row(
        honest=execute,
        prepare=ready(CHANGE),
        sender=NotApplicable("anybody may carry out what governance announced in time"),
        signature=NOT_SIGNED,
        replay=Refused(205, prepare=again(execute)),
        expiry=(Refused(206, prepare=before_time), Refused(207, prepare=after_time)),
        value=too_little(execute),
        network=ON_THIS_CHAIN,
    ),
    "RegistryCancel": Row(
        honest=cancel,
        prepare=announced(CHANGE),
        sender=Refused(200, stranger(cancel)),
        signature=NOT_SIGNED,
        replay=Refused(205, prepare=again(cancel)),
        expiry=NotApplicable("a change may be withdrawn as long as it is pending"),
        value=too_little(cancel),
        network=ON_THIS_CHAIN,
    ),
    "RegistryRemove": Row(
        honest=remove,
        sender=(Refused(200, stranger(remove)), Refused(200, by(lambda w: w.owner)(remove))),
        signature=NOT_SIGNED,
        replay=Refused(208, prepare=again(remove)),
        expiry=NotApplicable("a removal counts at once and for ever"),
        value=too_little(remove),
        network=ON_THIS_CHAIN,
    ),
    "RegistryAcceptGovernance": Row(
        honest=accept,
        prepare=named,
        sender=(Refused(201, stranger(accept)), Refused(201, by(lambda w: w.governance)(accept))),
        signature=NOT_SIGNED,
        replay=Refused(201, prepare=again(accept)),
        expiry=NotApplicable("the offer stands until another governance is named"),
        value=too_little(accept),
        network=ON_THIS_CHAIN,
    ),
    "RegistryNodeUpdate": Row(
        honest=update,
        sender=not_the_node(update),
        signature=BY_ADDRESS,
        replay=NotApplicable("an update states what the node's contract holds now; the last one counts"),
        expiry=NotApplicable("the entry carries its own expiry, which readers apply"),
        value=too_little(update),
        network=(
            Refused(210, abroad=True),
            Refused(210, lambda w: update(w, global_id=-239)),
            Refused(211, lambda w: update(w, registry=w.stranger)),
            Refused(212, lambda w: update(w, code_version=2)),
        ),
    ),
    "RegistryNodeLeave": Row(
        honest=leave,
        sender=not_the_node(leave),
        signature=BY_ADDRESS,
        replay=Harmless(prepare=again(leave)),
        expiry=NotApplicable("a node may leave the list at any time"),
        value=too_little(leave),
        network=(
            Refused(210, abroad=True),
            Refused(210, lambda w: leave(w, global_id=-239)),
            Refused(211, lambda w: leave(w, registry=w.stranger)),
            Refused(212, lambda w: leave(w, code_version=2)),
        ),
    ),
    "RegistryTopUp": Row(
        honest=top_up,
        sender=NotApplicable("anybody may pay for the registry's storage"),
        signature=NOT_SIGNED,
        replay=NotApplicable("a second payment is another payment, with its own money"),
        expiry=NO_TIME,
        value=too_little(top_up),
        network=ON_THIS_CHAIN,
    ),
}

CHANGES = {
    "SetRelease": registry_messages.set_release(RELEASE, EntryState.DEPRECATED),
    "SetModel": CHANGE,
    "SetPolicy": registry_messages.set_policy(dataclasses.replace(POLICY, min_tcb_evaluation=18)),
    "SetParameters": registry_messages.set_parameters(dataclasses.replace(PARAMETERS, max_nodes=9)),
    "SetCodes": registry_messages.set_codes(2, node_code().cell, channel_code().cell),
    "Allow": registry_messages.allow(Removal.NODE, NEW),
    "SetGovernance": registry_messages.set_governance(Address((0, NEW))),
    "Upgrade": registry_messages.upgrade(registry_code().cell),
    "SetRule": registry_messages.set_rule(RULE),
}


def change_row(change: Cell) -> Row:
    """Carrying out one kind of change."""
    honest = anybody(registry_messages.execute_body(change.hash))
    proposed = governs(registry_messages.announce_body(change))

    def instead(world: World) -> Message:
        """Somebody else announces it; nothing was announced before that could be executed."""
        return stranger(proposed)(world)

    return Row(
        honest=honest,
        prepare=ready(change),
        sender=Refused(200, instead),
        signature=NOT_SIGNED,
        replay=(Refused(203, proposed), Refused(205, prepare=again(honest))),
        expiry=(Refused(206, prepare=before_time), Refused(207, prepare=after_time)),
        value=too_little(honest),
        network=ON_THIS_CHAIN,
    )


ROWS = MATRIX | {name: change_row(change) for name, change in CHANGES.items()}


@pytest.fixture(scope="module")
def template(emulator: Emulator) -> World:
    """A registry with one node."""
    return built(emulator, World.deploy_registry, World.join, World.attest)


@pytest.fixture
def active(template: World) -> World:
    """A copy for each test."""
    return copied(template)


@pytest.mark.parametrize(("operation", "fault"), cells(ROWS))
def test_matrix(active: World, operation: str, fault: str) -> None:
    check(active, active.registry, ROWS[operation], fault)


@pytest.mark.parametrize("operation", ROWS)
def test_the_honest_message_is_accepted(active: World, operation: str) -> None:
    accepted(active, active.registry, ROWS[operation])


def test_every_operation_has_its_row() -> None:
    assert sorted(MATRIX) == sorted(operations("registry", "RegistryMessage"))
    assert list(CHANGES) == operations("registry", "RegistryChange")
