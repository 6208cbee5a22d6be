"""Negative matrix of the development Multisig: operation x fault."""

from __future__ import annotations

import functools

import pytest
from pytoniq_core import Address, Cell

from cocoon_ton import multisig, registry_messages
from cocoon_ton.code import multisig_code, state_init
from cocoon_ton.emulator import Emulator, SendResult
from cocoon_ton.emulator.testchain import DEFAULT_NOW
from cocoon_ton.multisig import MultisigIdentity, Order

from .conftest import GLOBAL_ID, TON, World
from .matrix_kit import (
    Make,
    Message,
    NotApplicable,
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

LITTLE = TON // 200
"""Less than the gas of the dearest message."""
BY_ADDRESS = NotApplicable("signers are addresses: each one's wallet checks its own signature")


def signer(world: World, number: int) -> Address:
    return world.chain.treasury(f"signer {number}")


def identity(world: World) -> MultisigIdentity:
    return MultisigIdentity(
        global_id=GLOBAL_ID, signers=tuple(signer(world, n) for n in range(3)), threshold=2
    )


def contract(world: World) -> Address:
    return identity(world).address


def deploy(world: World) -> SendResult:
    init = state_init(multisig_code().cell, identity(world).initial_data)
    return world.chain.send_from(signer(world, 0), contract(world), 20 * TON, Cell.empty(), init=init)


def order(world: World, salt: int = 1) -> Order:
    return Order(
        to=world.registry,
        value=TON,
        body=registry_messages.top_up_body(),
        valid_until=DEFAULT_NOW + 3600,
        salt=salt,
    )


again = functools.partial(after, contract)


def propose(world: World) -> Message:
    return Message(sender=signer(world, 0), body=multisig.propose_body(order(world)))


def approve(world: World) -> Message:
    return Message(sender=signer(world, 1), body=multisig.approve_body(order(world).cell.hash))


def drop(world: World) -> Message:
    return Message(sender=signer(world, 2), body=multisig.drop_body(order(world).cell.hash))


def same_signer(world: World) -> Message:
    return Message(sender=signer(world, 0), body=approve(world).body)


def late(world: World) -> None:
    world.chain.warp(3601)


def expired(world: World) -> None:
    again(propose)(world)
    late(world)


def on_time(world: World) -> None:
    world.chain.now -= 3601


def outsiders(honest: Make) -> tuple[Refused, ...]:
    return tuple(
        Refused(600, change(honest)) for change in (stranger, by(contract), by(lambda w: w.registry))
    )


MATRIX = {
    "MultisigPropose": Row(
        honest=propose,
        sender=outsiders(propose),
        signature=BY_ADDRESS,
        replay=Refused(603, prepare=again(propose)),
        expiry=Refused(602, prepare=late),
        value=Refused(608, worth(propose, LITTLE)),
        network=Refused(600, abroad=True),
    ),
    "MultisigApprove": Row(
        honest=approve,
        prepare=again(propose),
        sender=outsiders(approve),
        signature=BY_ADDRESS,
        replay=(Refused(604, same_signer), Refused(601, prepare=again(approve))),
        expiry=Refused(602, prepare=late),
        value=Refused(608, worth(approve, LITTLE)),
        network=Refused(600, abroad=True),
    ),
    "MultisigDrop": Row(
        honest=drop,
        prepare=expired,
        sender=outsiders(drop),
        signature=BY_ADDRESS,
        replay=Refused(601, prepare=again(drop)),
        expiry=Refused(606, prepare=on_time),
        value=Refused(608, worth(drop, LITTLE)),
        network=Refused(600, abroad=True),
    ),
}


@pytest.fixture(scope="module")
def template(emulator: Emulator) -> World:
    """A registry, and a multisignature contract of two of three."""
    return built(emulator, World.deploy_registry, deploy)


@pytest.fixture
def council(template: World) -> World:
    """A copy for each test."""
    return copied(template)


@pytest.mark.parametrize(("operation", "fault"), cells(MATRIX))
def test_matrix(council: World, operation: str, fault: str) -> None:
    check(council, contract(council), MATRIX[operation], fault)


@pytest.mark.parametrize("operation", MATRIX)
def test_the_honest_message_is_accepted(council: World, operation: str) -> None:
    accepted(council, contract(council), MATRIX[operation])


def test_every_operation_has_its_row() -> None:
    assert list(MATRIX) == operations("multisig", "MultisigMessage")
