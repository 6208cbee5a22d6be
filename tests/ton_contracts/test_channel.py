"""The Channel contract: who gets what, and who is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder

from cocoon.v1 import payment_pb2
from cocoon_ton import channel, opcodes
from cocoon_ton.channel import CLOSED, ChannelStatus
from cocoon_ton.code import channel_code
from cocoon_ton.emulator import Emulator, SendResult, TestChain

from .conftest import GLOBAL_ID, TON, World, is_bounce, key, network_config

Send = Callable[[World], SendResult]


def refused(result: SendResult, code: int) -> None:
    """The first transaction ended with this exit code, and the value came back."""
    assert result.first.exit_code == code, result.exit_codes
    assert len(result) == 1 or is_bounce(result[1])


def test_open_deploys_and_credits_the_deposit(paying: World) -> None:
    state = paying.channel_state()
    assert state.identity == paying.channel_identity
    assert (state.paid, state.close_at, state.status) == (0, 0, ChannelStatus.OPEN)
    assert 5 * TON - TON // 100 < paying.chain.balance(paying.channel) <= 5 * TON


def test_anybody_may_top_up_with_or_without_a_body(paying: World) -> None:
    before = paying.chain.balance(paying.channel)
    assert paying.to_channel(paying.stranger, channel.top_up_body()).success
    assert paying.chain.send_from(paying.stranger, paying.channel, TON).success
    assert paying.chain.balance(paying.channel) > before + 2 * TON - TON // 100


def test_settle_pays_the_owner_what_was_used(paying: World) -> None:
    owner, deposit = paying.chain.balance(paying.owner), paying.chain.balance(paying.channel)
    result = paying.settle(2 * TON, 3 * TON)
    assert result.success
    assert paying.channel_state().paid == 2 * TON
    assert paying.chain.balance(paying.channel) == deposit - 2 * TON
    gained = paying.chain.balance(paying.owner) - owner
    assert 2 * TON - TON // 50 < gained < 2 * TON
    assert result[2].in_opcode == opcodes.CHANNEL_PAID


def test_settle_pays_the_cap_when_more_was_used(paying: World) -> None:
    assert paying.settle(3 * TON, 2 * TON).success
    assert paying.channel_state().paid == 2 * TON


def test_settle_is_cumulative(paying: World) -> None:
    for used in (TON, 2 * TON, 2 * TON + 1):
        before = paying.chain.balance(paying.channel)
        paid = paying.channel_state().paid
        assert paying.settle(used).success
        assert paying.chain.balance(paying.channel) == before - (used - paid)


def test_the_same_voucher_pays_once(paying: World) -> None:
    claim, authorization = paying.claim(TON), paying.authorization(TON)
    assert paying.settle(TON, claim=claim, authorization=authorization).success
    before = paying.chain.balance(paying.channel)
    again = paying.settle(TON, claim=claim, authorization=authorization)
    assert again[1].exit_code == 406
    assert paying.chain.balance(paying.channel) == before
    assert paying.channel_state().paid == TON


def test_an_older_voucher_pays_nothing(paying: World) -> None:
    older = paying.claim(TON)
    assert paying.settle(2 * TON).success
    assert paying.settle(TON, claim=older)[1].exit_code == 406


def test_settle_beyond_the_deposit_pays_what_is_there(paying: World) -> None:
    assert paying.settle(50 * TON).success
    state = paying.channel_state()
    assert 4 * TON < state.paid < 5 * TON
    left = paying.chain.balance(paying.channel)
    assert 0 < left < TON // 10, "a reserve for storage stays"
    assert paying.settle(50 * TON)[1].exit_code == 407
    # after a top-up the same voucher pays the difference, and not a nanoton more
    assert paying.to_channel(paying.client, channel.top_up_body(), 100 * TON).success
    assert paying.settle(50 * TON).success
    assert paying.channel_state().paid == 50 * TON


def test_a_rejected_settle_returns_the_value_to_the_owner(paying: World) -> None:
    node, owner = paying.chain.balance(paying.node), paying.chain.balance(paying.owner)
    result = paying.settle(TON, authorization=paying.authorization(TON, valid_until=paying.chain.now - 1))
    assert result[1].exit_code == 404
    assert paying.chain.balance(paying.node) >= node - 1
    assert paying.chain.balance(paying.owner) > owner - TON // 20


@pytest.mark.parametrize(
    ("send", "code"),
    [
        pytest.param(lambda w: w.settle_direct(TON, sender=w.owner), 401, id="owner without the node"),
        pytest.param(lambda w: w.settle_direct(TON, sender=w.client), 401, id="client"),
        pytest.param(lambda w: w.settle_direct(TON, sender=w.stranger), 401, id="stranger"),
        pytest.param(
            lambda w: w.settle_direct(TON, authorization=w.authorization(TON, global_id=-239)),
            402,
            id="authorization for mainnet",
        ),
        pytest.param(
            lambda w: w.settle_direct(TON, authorization=w.authorization(TON, channel=b"\x01" * 32)),
            403,
            id="foreign channel",
        ),
        pytest.param(
            lambda w: w.settle_direct(TON, authorization=w.authorization(TON, valid_until=w.chain.now - 1)),
            404,
            id="expired",
        ),
        pytest.param(lambda w: w.settle_direct(0), 406, id="nothing used"),
        pytest.param(lambda w: w.settle_direct(TON, cap=0), 406, id="nothing allowed"),
        pytest.param(lambda w: w.to_channel(w.owner, channel.start_close_body()), 400, id="owner closes"),
        pytest.param(
            lambda w: w.to_channel(w.stranger, channel.start_close_body()), 400, id="stranger closes"
        ),
        pytest.param(lambda w: w.to_channel(w.client, channel.finish_close_body()), 409, id="finish first"),
        pytest.param(lambda w: w.to_channel(w.client, channel.top_up_body()), 0, id="control"),
    ],
)
def test_refusals(paying: World, send: Send, code: int) -> None:
    state = paying.channel_state()
    result = send(paying)
    assert result.first.exit_code == code
    if code:
        assert paying.channel_state() == state


def test_the_last_second_of_an_authorization_counts(paying: World) -> None:
    authorization = paying.authorization(TON, valid_until=paying.chain.now)
    assert paying.settle_direct(TON, authorization=authorization).success


def test_a_signature_by_another_key_is_refused(paying: World) -> None:
    paying.client_key, real = key(9), paying.client_key
    forged = paying.authorization(TON)
    paying.client_key = real
    refused(paying.settle_direct(TON, authorization=forged), 405)


@pytest.mark.parametrize("bit", [0, 7, 255, 256, 511])
def test_a_changed_signature_is_refused(paying: World, bit: int) -> None:
    signed = paying.authorization(TON)
    value = int.from_bytes(signed.signature) ^ 1 << bit
    signed.signature = value.to_bytes(64)
    refused(paying.settle_direct(TON, authorization=signed), 405)


def test_a_changed_authorization_is_refused(paying: World) -> None:
    signed = paying.authorization(TON)
    signed.authorization = paying.authorization(2 * TON).authorization
    refused(paying.settle_direct(2 * TON, authorization=signed), 405)


@pytest.mark.parametrize("body", ["", "00000000", "c0c30002", "c0c30003", "c0c10001" + "00" * 8])
def test_garbage_is_refused_and_returned(paying: World, body: str) -> None:
    cell = Builder().store_uint(int(body, 16), 4 * len(body)).end_cell() if body else None
    before = paying.channel_state()
    result = paying.chain.send_from(paying.stranger, paying.channel, TON, cell)
    assert paying.channel_state() == before
    if body:
        assert result.first.exit_code not in (0, None)
        assert is_bounce(result[1])
    else:
        assert result.success


# ---- closing


def test_the_client_gets_the_rest_after_the_delay(paying: World) -> None:
    assert paying.to_channel(paying.client, channel.start_close_body()).success
    state = paying.channel_state()
    assert state.status is ChannelStatus.CLOSING
    assert state.close_at == paying.chain.now + 600
    refused(paying.to_channel(paying.client, channel.start_close_body()), 408)
    refused(paying.to_channel(paying.client, channel.top_up_body()), 408)
    refused(paying.to_channel(paying.client, channel.finish_close_body()), 410)
    paying.chain.warp(599)
    refused(paying.to_channel(paying.stranger, channel.finish_close_body()), 410)
    paying.chain.warp(1)
    client = paying.chain.balance(paying.client)
    assert paying.to_channel(paying.stranger, channel.finish_close_body()).success
    assert paying.chain.balance(paying.client) > client + 5 * TON
    assert paying.chain.balance(paying.channel) == 0
    assert paying.channel_state().close_at == CLOSED


def test_start_close_returns_what_it_does_not_need(paying: World) -> None:
    client, deposit = paying.chain.balance(paying.client), paying.chain.balance(paying.channel)
    assert paying.to_channel(paying.client, channel.start_close_body()).success
    assert paying.chain.balance(paying.client) > client - TON // 50
    assert paying.chain.balance(paying.channel) == deposit


def test_the_node_may_settle_while_the_channel_closes(paying: World) -> None:
    assert paying.to_channel(paying.client, channel.start_close_body()).success
    assert paying.settle(TON).success
    paying.chain.warp(10_000)
    late = paying.authorization(2 * TON)
    assert paying.settle(2 * TON, authorization=late).success, "until somebody finishes"
    assert paying.channel_state().paid == 2 * TON
    assert paying.channel_state().status is ChannelStatus.CLOSING


def test_nothing_can_be_settled_after_the_close(paying: World) -> None:
    authorization = paying.authorization(TON, valid_until=paying.chain.now + 100_000)
    paying.to_channel(paying.client, channel.start_close_body())
    paying.chain.warp(600)
    assert paying.to_channel(paying.client, channel.finish_close_body()).success
    refused(paying.settle_direct(TON, authorization=authorization), 411)
    # not even when somebody sends the initial state and money again
    refused(paying.open_channel(), 408)
    refused(paying.settle_direct(TON, authorization=authorization), 411)


def test_money_that_reaches_a_closed_channel_goes_to_the_client(paying: World) -> None:
    paying.to_channel(paying.client, channel.start_close_body())
    paying.chain.warp(600)
    paying.to_channel(paying.client, channel.finish_close_body())
    # without bounce a refused message leaves its value behind
    paying.chain.send_from(paying.stranger, paying.channel, 3 * TON, channel.top_up_body(), bounce=False)
    client = paying.chain.balance(paying.client)
    assert paying.to_channel(paying.stranger, channel.finish_close_body(), TON // 10).success
    assert paying.chain.balance(paying.client) > client + 3 * TON


def test_a_final_settle_closes_and_returns_the_rest(paying: World) -> None:
    owner, client = paying.chain.balance(paying.owner), paying.chain.balance(paying.client)
    assert paying.settle(2 * TON, final=True).success
    assert 2 * TON - TON // 50 < paying.chain.balance(paying.owner) - owner < 2 * TON
    assert 3 * TON - TON // 50 < paying.chain.balance(paying.client) - client <= 3 * TON
    assert paying.channel_state().close_at == CLOSED
    assert paying.chain.balance(paying.channel) == 0


def test_a_final_settle_may_take_everything(paying: World) -> None:
    assert paying.settle(50 * TON, final=True).success
    assert paying.chain.balance(paying.channel) == 0


def test_a_final_settle_may_take_nothing(paying: World) -> None:
    client = paying.chain.balance(paying.client)
    assert paying.settle(0, final=True).success
    assert paying.channel_state().paid == 0
    assert paying.chain.balance(paying.client) > client + 5 * TON - TON // 50


def test_a_final_settle_below_what_was_paid_is_refused(paying: World) -> None:
    older = paying.claim(TON)
    assert paying.settle(2 * TON).success
    assert paying.settle(TON, claim=older, final=True)[1].exit_code == 406
    assert paying.channel_state().status is ChannelStatus.OPEN


def test_an_empty_channel_can_still_be_closed(paying: World) -> None:
    assert paying.settle(50 * TON).success
    paying.to_channel(paying.client, channel.start_close_body())
    paying.chain.warp(600)
    assert paying.to_channel(paying.client, channel.finish_close_body()).success
    assert paying.chain.balance(paying.channel) == 0


def test_a_channel_of_another_network_takes_no_money(emulator: Emulator, paying: World) -> None:
    """Same keys, same StateInit, same address on mainnet: the code looks at the network itself."""
    mainnet = TestChain(emulator=Emulator(network_config(-239)), now=paying.chain.now)
    world = World(
        chain=mainnet,
        genesis=paying.genesis,
        owner=mainnet.treasury("owner"),
        client=mainnet.treasury("client"),
        stranger=mainnet.treasury("stranger"),
    )
    assert world.channel == paying.channel
    assert world.open_channel().first.exit_code == 402
    mainnet.add_account(
        world.channel, 5 * TON, code=channel_code().cell, data=world.channel_identity.initial_data
    )
    for authorization in (world.authorization(TON), world.authorization(TON, global_id=-239)):
        assert world.settle_direct(TON, authorization=authorization).first.exit_code == 402
    assert GLOBAL_ID == -3


# ---- any order of events

STEPS = st.one_of(
    st.tuples(st.just("settle"), st.integers(0, 8), st.integers(0, 8), st.booleans()),
    st.tuples(st.just("replay"), st.integers(0, 20)),
    st.tuples(st.just("top_up"), st.integers(1, 5)),
    st.tuples(st.just("start"), st.booleans()),
    st.tuples(st.just("finish"), st.booleans()),
    st.tuples(st.just("forged"), st.integers(0, 8)),
    st.tuples(st.just("warp"), st.integers(1, 900)),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=12))
def test_nobody_gets_more_than_was_signed_for(
    emulator: Emulator, active_data: World, steps: list[tuple[object, ...]]
) -> None:
    world = fresh(emulator, active_data)
    chain = world.chain
    assert world.open_channel(5 * TON).success
    sent: list[tuple[payment_pb2.SignedClaim, payment_pb2.SignedAuthorization]] = []
    signed, received, paid, deposited = 0, 0, 0, chain.balance(world.channel)
    for step in steps:
        owner = chain.balance(world.owner)
        match step:
            case ("settle", int(used), int(cap), bool(final)):
                claim, authorization = world.claim(used * TON), world.authorization(cap * TON)
                signed = max(signed, min(used, cap) * TON)
                sent.append((claim, authorization))
                world.settle(0, claim=claim, authorization=authorization, final=final)
            case ("replay", int(index)) if sent:
                claim, authorization = sent[index % len(sent)]
                world.settle(0, claim=claim, authorization=authorization)
            case ("forged", int(used)):
                forged = world.claim(used * TON, signer=key(5))
                world.settle(0, claim=forged, authorization=world.authorization(used * TON))
            case ("top_up", int(amount)):
                if world.to_channel(world.client, channel.top_up_body(), amount * TON).success:
                    deposited += amount * TON
            case ("start", bool(by_client)):
                world.to_channel(world.client if by_client else world.stranger, channel.start_close_body())
            case ("finish", bool(by_client)):
                world.to_channel(world.client if by_client else world.stranger, channel.finish_close_body())
            case ("warp", int(seconds)):
                chain.warp(seconds)
        received += max(0, chain.balance(world.owner) - owner)
        state = world.channel_state()
        assert paid <= state.paid <= min(signed, deposited), (
            "paid only grows, up to what was signed and there"
        )
        paid = state.paid
        assert received <= paid, "the owner gets what is counted as paid, less fees"
        assert chain.total_balance() + chain.collected_fees == chain.minted
    # whatever happened, the client can always end it and nothing stays behind
    world.to_channel(world.client, channel.start_close_body())
    chain.warp(600)
    assert world.to_channel(world.client, channel.finish_close_body()).success
    assert chain.balance(world.channel) == 0


@pytest.fixture
def active_data(active: World) -> World:
    """A world whose node is copied into a fresh chain for every example."""
    return active


def fresh(emulator: Emulator, template: World) -> World:
    """A new chain with the template's node and nobody else's history."""
    chain = TestChain(emulator=emulator, now=template.chain.now)
    node = template.chain.account(template.node)
    chain.add_account(template.node, node.balance, code=node.code, data=node.data)
    return World(
        chain=chain,
        genesis=template.genesis,
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
