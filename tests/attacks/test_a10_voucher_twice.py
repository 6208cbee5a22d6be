"""A10, on chain: the same voucher pays once, whoever sends it, however often, in whatever order."""

from __future__ import annotations

import itertools

import pytest

from cocoon_ton import channel

from ..ton_contracts.conftest import (  # noqa: F401  (fixtures)
    TON,
    World,
    active,
    emulator,
    paying,
    world,
)


@pytest.fixture
def victim(paying: World) -> World:  # noqa: F811
    """A channel with plenty of money and one settled voucher over 1 TON."""
    assert paying.to_channel(paying.client, channel.top_up_body(), 50 * TON).success
    return paying


def test_replay_by_the_node(victim: World) -> None:
    claim, authorization = victim.claim(TON), victim.authorization(TON)
    assert victim.settle(TON, claim=claim, authorization=authorization).success
    deposit = victim.chain.balance(victim.channel)
    for final in (False, True, False):
        result = victim.settle(TON, claim=claim, authorization=authorization, final=final)
        assert victim.channel_state().paid == TON
        if final:
            assert result.success, "closing takes nothing"
            assert victim.chain.balance(victim.channel) == 0
        else:
            assert not result[1].success
            assert victim.chain.balance(victim.channel) in (deposit, 0)


def test_replay_of_the_forwarded_message_by_others(victim: World) -> None:
    """The message between the contracts is public: its copy is worth nothing from anybody else."""
    authorization = victim.authorization(TON)
    assert victim.settle_direct(TON, authorization=authorization).success
    for sender in (victim.owner, victim.stranger, victim.client, victim.channel):
        assert (
            victim.settle_direct(2 * TON, authorization=authorization, sender=sender).first.exit_code == 401
        )
    assert victim.channel_state().paid == TON


def test_replay_into_a_second_channel_of_the_same_client(victim: World) -> None:
    """Same client key, same node, other salt: the voucher names the first channel only."""
    claim, authorization = victim.claim(TON), victim.authorization(TON)
    first = victim.channel_identity
    second = channel.ChannelIdentity(
        global_id=first.global_id,
        client=first.client,
        client_key=first.client_key,
        node=first.node,
        salt=first.salt + 1,
        close_delay=first.close_delay,
    )
    init = channel.channel_state_init(second).serialize()
    opened = victim.chain.send_from(
        victim.client, second.address, 5 * TON, channel.top_up_body(), init=init
    )
    assert opened.success
    # the node contract sends the claim only to the channel that it names ...
    assert victim.settle(TON, claim=claim, authorization=authorization).success
    # ... and the second channel knows that the authorization is not for it
    body = channel.settle_body(
        used=TON,
        final=False,
        payout=victim.owner,
        authorization=channel.signed_authorization_cell(authorization),
    )
    result = victim.chain.send_internal(second.address, TON, body, sender=victim.node)
    assert result.first.exit_code == 403


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_vouchers_in_any_order_pay_the_largest_once(victim: World, order: tuple[int, ...]) -> None:
    vouchers = {used: (victim.claim(used * TON), victim.authorization(used * TON)) for used in order}
    before = victim.chain.balance(victim.channel)
    for used in order * 2:
        claim, authorization = vouchers[used]
        victim.settle(0, claim=claim, authorization=authorization)
    assert victim.channel_state().paid == 3 * TON
    assert before - victim.chain.balance(victim.channel) == 3 * TON


def test_two_settlements_in_one_block(victim: World) -> None:
    """Both messages are under way before either is executed: the second finds nothing due."""
    claim, authorization = victim.claim(2 * TON), victim.authorization(2 * TON)
    results = [victim.settle(0, claim=claim, authorization=authorization) for _ in range(2)]
    assert [r[1].exit_code for r in results] == [0, 406]
    assert victim.channel_state().paid == 2 * TON


def test_replay_after_the_channel_was_closed_and_funded_again(victim: World) -> None:
    claim, authorization = (
        victim.claim(TON),
        victim.authorization(TON, valid_until=victim.chain.now + 10**6),
    )
    assert victim.settle(TON, claim=claim, authorization=authorization, final=True).success
    reopened = victim.open_channel()
    assert not reopened.first.success
    result = victim.settle(TON, claim=claim, authorization=authorization)
    assert result[1].exit_code == 411
