"""Negative matrix of Channel: operation x fault."""

from __future__ import annotations

import functools

import pytest

from cocoon_ton import channel
from cocoon_ton.emulator import Emulator

from .conftest import TON, World, key
from .matrix_kit import (
    OUT_OF_GAS,
    Harmless,
    Message,
    NotApplicable,
    Refused,
    Row,
    accepted,
    after,
    built,
    cells,
    check,
    copied,
    operations,
    stranger,
    worth,
)

LITTLE = TON // 2000
"""Buys some gas, and not enough."""
NOT_SIGNED = NotApplicable("carries no signed record")


def top_up(world: World) -> Message:
    return Message(sender=world.client, body=channel.top_up_body())


def start_close(world: World) -> Message:
    return Message(sender=world.client, body=channel.start_close_body())


def finish_close(world: World) -> Message:
    return Message(sender=world.stranger, body=channel.finish_close_body())


def settle(world: World, *, forged: bool = False, used: int = TON, **changes: object) -> Message:
    real = world.client_key
    world.client_key = key(9) if forged else real
    signed = world.authorization(used, **changes)
    world.client_key = real
    body = channel.settle_body(
        used=used,
        final=False,
        payout=world.owner,
        authorization=channel.signed_authorization_cell(signed),
    )
    return Message(sender=world.node, body=body, value=TON // 10)


def closing(world: World) -> None:
    after(lambda w: w.channel, start_close)(world)


def free(world: World) -> None:
    closing(world)
    world.chain.warp(world.channel_identity.close_delay)


again = functools.partial(after, lambda world: world.channel)

MATRIX = {
    "ChannelTopUp": Row(
        honest=top_up,
        sender=NotApplicable("anybody may add to a client's deposit"),
        signature=NOT_SIGNED,
        replay=NotApplicable("a second deposit is another deposit, with its own money"),
        expiry=Refused(408, prepare=closing),
        value=Refused(OUT_OF_GAS, worth(top_up, TON // 10_000)),
        network=Refused(402, abroad=True),
    ),
    "ChannelSettle": Row(
        honest=settle,
        sender=(
            Refused(401, stranger(settle)),
            Refused(401, lambda w: Message(sender=w.owner, body=settle(w).body)),
            Refused(401, lambda w: Message(sender=w.client, body=settle(w).body)),
        ),
        signature=Refused(405, lambda w: settle(w, forged=True)),
        replay=Refused(406, prepare=again(settle)),
        expiry=Refused(404, lambda w: settle(w, valid_until=w.chain.now - 1)),
        value=Refused(OUT_OF_GAS, worth(settle, LITTLE)),
        network=(
            Refused(402, abroad=True),
            Refused(402, lambda w: settle(w, global_id=-239), abroad=True),
            Refused(402, lambda w: settle(w, global_id=-239)),
        ),
    ),
    "ChannelStartClose": Row(
        honest=start_close,
        sender=(
            Refused(400, stranger(start_close)),
            Refused(400, lambda w: Message(sender=w.owner, body=channel.start_close_body())),
            Refused(400, lambda w: Message(sender=w.node, body=channel.start_close_body())),
        ),
        signature=NOT_SIGNED,
        replay=(Refused(408, prepare=again(start_close)), Refused(411, prepare=lambda w: shut(w))),
        expiry=NotApplicable("an open channel may be closed at any time"),
        value=Refused(OUT_OF_GAS, worth(start_close, TON // 10_000)),
        network=NotApplicable("no deposit reaches a channel of another network: see ChannelTopUp"),
    ),
    "ChannelFinishClose": Row(
        honest=finish_close,
        prepare=free,
        sender=NotApplicable("anybody may end a close whose time has come; the money goes to the client"),
        signature=NOT_SIGNED,
        replay=Harmless(prepare=again(finish_close)),
        expiry=Refused(410, prepare=lambda w: early(w)),
        value=Refused(OUT_OF_GAS, worth(finish_close, TON // 10_000)),
        network=NotApplicable("no deposit reaches a channel of another network: see ChannelTopUp"),
    ),
}


def shut(world: World) -> None:
    """Past its end."""
    world.chain.warp(world.channel_identity.close_delay)
    again(finish_close)(world)


def early(world: World) -> None:
    """One second before the time; the preparation of the row has closed the first channel already."""
    world.chain.now -= 1


@pytest.fixture(scope="module")
def template(emulator: Emulator) -> World:
    """A node with an open channel."""
    return built(emulator, World.deploy_registry, World.join, World.attest, World.open_channel)


@pytest.fixture
def paying(template: World) -> World:
    """A copy for each test."""
    return copied(template)


@pytest.mark.parametrize(("operation", "fault"), cells(MATRIX))
def test_matrix(paying: World, operation: str, fault: str) -> None:
    check(paying, paying.channel, MATRIX[operation], fault)


@pytest.mark.parametrize("operation", MATRIX)
def test_the_honest_message_is_accepted(paying: World, operation: str) -> None:
    accepted(paying, paying.channel, MATRIX[operation])


def test_every_operation_has_its_row() -> None:
    assert list(MATRIX) == operations("channel", "ChannelMessage")


def test_finishing_what_nobody_began(paying: World) -> None:
    """The one refusal that is none of the faults: there is nothing to be too early for."""
    row = MATRIX["ChannelFinishClose"]
    assert paying.to_channel(paying.stranger, row.honest(paying).body).first.exit_code == 409
