"""A14: vouchers of another network, channel or time, above the cap, or after the close. The contracts refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from cocoon.v1 import payment_pb2
from cocoon_ton import channel, node_messages
from cocoon_ton.channel import CLOSED, ChannelIdentity
from cocoon_ton.emulator import Emulator, SendResult, TestChain

from ..ton_contracts.conftest import (  # noqa: F401  (fixtures)
    GLOBAL_ID,
    TON,
    World,
    active,
    emulator,
    key,
    network_config,
    paying,
    world,
)

MAINNET = -239


@pytest.fixture
def victim(paying: World) -> World:  # noqa: F811
    """A channel with plenty of money."""
    assert paying.to_channel(paying.client, channel.top_up_body(), 50 * TON).success
    return paying


def refused(world: World, result: SendResult, code: int) -> None:  # noqa: F811
    """The last contract that was asked refused with `code`; the channel paid nothing and kept its money."""
    codes = [t.exit_code for t in result if t.address in (world.node, world.channel)]
    assert code in codes, codes
    assert world.channel_state().paid == 0
    assert world.chain.balance(world.channel) > 54 * TON


# ---- another network


def moved(victim: World, global_id: int) -> World:
    """The victim's accounts, byte for byte, on a chain with another network id."""
    other = TestChain(emulator=Emulator(network_config(global_id)), now=victim.chain.now)
    for address in (victim.registry, victim.node, victim.channel):
        account = victim.chain.account(address)
        other.add_account(address, account.balance, code=account.code, data=account.data)
    return World(
        chain=other,
        genesis=victim.genesis,
        owner=other.treasury("owner"),
        client=other.treasury("client"),
        stranger=other.treasury("stranger"),
    )


def test_a_testnet_voucher_on_mainnet(victim: World) -> None:
    """Same keys, same code, same initial data: the same addresses. The contracts know where they run."""
    claim, authorization = victim.claim(TON), victim.authorization(TON)
    mainnet = moved(victim, MAINNET)
    assert mainnet.channel == victim.channel
    refused(mainnet, mainnet.settle(0, claim=claim, authorization=authorization), 302)
    refused(mainnet, mainnet.settle_direct(TON, authorization=authorization), 402)
    # with the records rewritten for mainnet the accounts still are those of testnet
    for_mainnet = mainnet.authorization(TON, global_id=MAINNET)
    refused(mainnet, mainnet.settle(0, claim=mainnet.claim(TON, global_id=MAINNET)), 302)
    refused(mainnet, mainnet.settle_direct(TON, authorization=for_mainnet), 402)
    # and where it belongs, the same voucher pays
    assert victim.settle(0, claim=claim, authorization=authorization).success


def test_mainnet_records_in_a_testnet_channel(victim: World) -> None:
    refused(victim, victim.settle(TON, claim=victim.claim(TON, global_id=MAINNET)), 302)
    foreign = victim.authorization(TON, global_id=MAINNET)
    refused(victim, victim.settle(TON, authorization=foreign), 402)


def test_a_channel_of_another_network_takes_no_deposit(victim: World) -> None:
    mainnet = moved(victim, MAINNET)
    result = mainnet.to_channel(mainnet.client, channel.top_up_body(), TON)
    assert result.first.exit_code == 402


# ---- another channel, another key


def other_channel(victim: World, **changes: object) -> ChannelIdentity:
    """A second channel, open and funded."""
    identity = dataclasses.replace(victim.channel_identity, **changes)  # type: ignore[arg-type]
    init = channel.channel_state_init(identity).serialize()
    opened = victim.chain.send_from(
        victim.client, identity.address, 5 * TON, channel.top_up_body(), init=init
    )
    assert opened.success
    return identity


@pytest.mark.parametrize(
    "changes",
    [{"salt": 12}, {"close_delay": 700}, {"client_key": key(8).public_key().public_bytes_raw()}],
    ids=["salt", "delay", "client"],
)
def test_a_voucher_for_a_foreign_channel(victim: World, changes: dict[str, object]) -> None:
    identity = other_channel(victim, **changes)
    id = bytes(identity.address.hash_part)
    before = victim.chain.balance(identity.address)
    # claim for the other channel, authorization for the first
    result = victim.settle(
        TON, claim=victim.claim(TON, channel=id), authorization=victim.authorization(TON)
    )
    assert not result[1].success
    assert result[1].exit_code in (403, 405)
    # claim for the first channel, authorization for the other
    refused(victim, victim.settle(TON, authorization=victim.authorization(TON, channel=id)), 403)
    assert victim.chain.balance(identity.address) <= before
    assert victim.chain.balance(identity.address) > before - TON // 1000


def test_a_channel_with_another_node_is_not_served(victim: World) -> None:
    """The client pays node B; node A's enclave claims from that channel."""
    stranger = dataclasses.replace(victim.node_identity, salt=99)
    identity = other_channel(victim, node=stranger.address)
    id = bytes(identity.address.hash_part)
    result = victim.settle(
        TON, claim=victim.claim(TON, channel=id), authorization=victim.authorization(TON, channel=id)
    )
    assert result[1].exit_code == 401
    assert victim.chain.balance(identity.address) > 4 * TON


def test_a_voucher_signed_by_somebody_else(victim: World) -> None:
    forged = victim.authorization(TON)
    forged.signature = key(9).sign(b"\x00" * 32)
    refused(victim, victim.settle(TON, authorization=forged), 405)
    refused(victim, victim.settle(TON, claim=victim.claim(TON, signer=key(9))), 310)
    refused(victim, victim.settle(TON, claim=victim.claim(TON, signer=victim.client_key)), 310)


# ---- time


@pytest.mark.parametrize(("late", "paid"), [(0, True), (1, False), (10**6, False)])
def test_an_authorization_ends(victim: World, late: int, paid: bool) -> None:
    voucher = victim.authorization(TON, valid_until=victim.chain.now + 100)
    victim.chain.warp(100 + late)
    result = victim.settle(TON, authorization=voucher)
    if paid:
        assert result.success
        assert victim.channel_state().paid == TON
    else:
        refused(victim, result, 404)


def test_an_expired_authorization_does_not_close_either(victim: World) -> None:
    voucher = victim.authorization(TON, valid_until=victim.chain.now)
    victim.chain.warp(1)
    refused(victim, victim.settle(TON, authorization=voucher, final=True), 404)
    assert victim.channel_state().close_at == 0


# ---- amounts


@pytest.mark.parametrize(("used", "cap"), [(5, 2), (2**119, 2), (2, 2)])
def test_a_claim_above_the_cap_pays_the_cap(victim: World, used: int, cap: int) -> None:
    before = victim.chain.balance(victim.channel)
    claim = victim.claim(used * TON if used < 100 else used)
    assert victim.settle(0, claim=claim, authorization=victim.authorization(cap * TON)).success
    assert victim.channel_state().paid == 2 * TON
    assert before - victim.chain.balance(victim.channel) == 2 * TON


def test_a_cap_above_the_claim_pays_the_claim(victim: World) -> None:
    assert victim.settle(TON, cap=40 * TON).success
    assert victim.channel_state().paid == TON


def test_the_sum_of_all_vouchers_never_exceeds_the_highest_cap(victim: World) -> None:
    for used, cap in ((3, 1), (4, 2), (9, 2), (1, 9), (2, 2), (7, 3)):
        victim.settle(used * TON, cap=cap * TON)
        assert victim.channel_state().paid <= 3 * TON
    assert victim.channel_state().paid == 3 * TON


# ---- after the close


Close = Callable[[World], SendResult]


def close_by_client(world: World) -> SendResult:  # noqa: F811
    assert world.to_channel(world.client, channel.start_close_body()).success
    world.chain.warp(600)
    return world.to_channel(world.stranger, channel.finish_close_body())


def close_by_node(world: World) -> SendResult:  # noqa: F811
    return world.settle(0, cap=0, final=True)


@pytest.mark.parametrize("close", [close_by_client, close_by_node])
def test_nothing_is_settled_after_the_close(victim: World, close: Close) -> None:
    vouchers: list[tuple[payment_pb2.SignedClaim, payment_pb2.SignedAuthorization]] = [
        (victim.claim(n * TON), victim.authorization(n * TON, valid_until=victim.chain.now + 10**6))
        for n in (1, 5)
    ]
    assert close(victim).success
    assert victim.channel_state().close_at == CLOSED
    # somebody sends money there after all: it is the client's, not the node's
    victim.chain.send_from(victim.stranger, victim.channel, 7 * TON, bounce=False)
    assert victim.chain.balance(victim.channel) > 6 * TON
    for claim, authorization in vouchers:
        for final in (False, True):
            result = victim.settle(0, claim=claim, authorization=authorization, final=final)
            assert result[1].exit_code == 411
        assert victim.settle_direct(5 * TON, authorization=authorization).first.exit_code == 411
    client = victim.chain.balance(victim.client)
    assert victim.to_channel(victim.stranger, channel.finish_close_body()).success
    assert victim.chain.balance(victim.client) > client + 7 * TON - TON // 50


def test_the_client_cannot_close_over_a_settlement_in_time(victim: World) -> None:
    """While the close runs, what is owed can be collected; the rest is the client's."""
    assert victim.to_channel(victim.client, channel.start_close_body()).success
    victim.chain.warp(599)
    assert victim.settle(TON).success
    assert victim.channel_state().paid == TON
    assert victim.to_channel(victim.client, channel.finish_close_body()).first.exit_code == 410


def test_a_voucher_is_not_worth_more_through_another_message(victim: World) -> None:
    """Only the node contract may settle; a challenge or an anchor with the same cells does nothing."""
    signed = victim.authorization(TON)
    assert victim.settle_direct(TON, authorization=signed, sender=victim.owner).first.exit_code == 401
    body = node_messages.settle_body(claim=victim.claim(TON), authorization=signed)
    assert victim.to_channel(victim.owner, body).first.exit_code == 0xFFFF
    refused(victim, victim.settle(TON, sender=victim.stranger), 300)


def test_the_network_of_the_tests(victim: World) -> None:
    assert victim.genesis.global_id == GLOBAL_ID != MAINNET
