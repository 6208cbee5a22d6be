"""The end of channels: the watcher notices what others began, finishes what is due, and keeps the ledger right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cocoon_attestation.errors import PaymentError, UnavailableError
from cocoon_proxy import events as e
from cocoon_ton.channel import CLOSED, ChannelState, finish_close_body, parse_channel, start_close_body
from cocoon_ton.errors import MessageFailedError

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

    from cocoon_proxy.client import AsyncClient

CHAT = "/v1/chat/completions"
TON = 10**9


class Channel:
    """One channel on the fake chain, which does what the contract does."""

    def __init__(self, network: Network, harness: Any, id: bytes) -> None:
        self.network, self.harness, self.id = network, harness, id
        data = self.account.data
        assert data is not None
        self.start = ChannelState(identity=parse_channel(data).identity, paid=0, close_at=0)
        self.bodies: list[bytes] = []
        network.treasury.pay = self.pay  # type: ignore[method-assign]

    @property
    def account(self) -> Any:
        return self.network.chain.accounts[self.id]

    def close_at(self, when: int) -> None:
        self.account.data = self.harness.channel_data(self.start, close_at=when)

    @property
    def now(self) -> int:
        return int(self.network.clock()) + self.network.chain.clock_offset

    async def pay(self, *, key: str, body: Any, **_: Any) -> None:
        self.bodies.append(bytes(body.hash))
        if body.hash == start_close_body().hash:
            self.close_at(self.now + 600)
        elif body.hash == finish_close_body().hash:
            self.close_at(CLOSED)
        else:
            raise MessageFailedError(f"{key}: refused")


async def one_channel(client: AsyncClient, network: Network, harness: Any) -> Channel:
    await client.complete(CHAT, harness.body())
    (row,) = await client.channels()
    return Channel(network, harness, row.id)


async def state(client: AsyncClient) -> str:
    (row,) = await client.channels()
    return row.state


async def test_a_close_that_somebody_else_began_is_noticed_and_finished(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        channel = await one_channel(client, network, harness)
        await client._closing.watch()
        assert (await state(client), channel.bodies) == ("open", [])
        when = channel.now + 600
        channel.close_at(when)
        for _ in range(3):
            await client._closing.watch()
        assert await state(client) == "closing"
        (told,) = network.of(e.ChannelClosing)
        assert (told.channel, told.close_at) == (channel.id.hex(), when)
        network.chain.clock_offset = 601
        before = channel.account.balance
        await client._closing.watch()
        await client._closing.watch()
        assert channel.bodies == [finish_close_body().hash]
        assert await state(client) == "closed"
        (told,) = network.of(e.ChannelClosed)
        assert told.returned == before


async def test_a_channel_that_the_node_closed_is_marked(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        channel = await one_channel(client, network, harness)
        channel.close_at(CLOSED)
        await client._closing.watch()
        assert (await state(client), channel.bodies) == ("closed", [])
        (told,) = network.of(e.ChannelClosed)
        assert told.returned == 0


async def test_a_closing_channel_pays_no_request_and_takes_no_top_up(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        channel = await one_channel(client, network, harness)
        pay = type(network.treasury).pay
        channel.close_at(channel.now + 600)
        with pytest.raises(PaymentError, match="closing"):
            await client.top_up(channel.id, TON)
        network.treasury.pay = pay.__get__(network.treasury)  # type: ignore[method-assign]
        await client.complete(CHAT, harness.body())
        rows = await client.channels()
    assert sorted(row.state for row in rows) == ["closing", "open"]


async def test_a_top_up_that_is_refused_on_chain_is_forgotten(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    """The close overtakes the top-up: the money comes back, and the ledger does not count it."""
    async with network.client() as client:
        channel = await one_channel(client, network, harness)
        (before,) = await client.channels()
        with pytest.raises(MessageFailedError):
            await client.top_up(channel.id, TON)
        (after,) = await client.channels()
        assert (after.deposit, after.pending_top_up, after.top_ups) == (before.deposit, 0, 1)


async def test_what_was_begun_before_a_crash_is_finished_by_the_next_start(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    """The intention is on disk before the message: a client that died in between goes on by itself."""
    async with network.client() as client:
        channel = await one_channel(client, network, harness)
        client.ledger.set_channel_state(channel.id, "closing")
    async with network.client() as client:
        await client._closing.watch()
        assert channel.bodies == [start_close_body().hash]
        assert await state(client) == "closing"


async def test_the_watcher_goes_on_after_a_failure(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        channel = await one_channel(client, network, harness)
        network.chain.fail = UnavailableError("away")
        with pytest.raises(UnavailableError):
            await client._closing.watch()
        network.chain.fail = None
        del network.chain.accounts[channel.id]
        await client._closing.watch()
        assert await state(client) == "open"
        with pytest.raises(UnavailableError, match="open channel"):
            await client.close_channel(channel.id)


async def test_a_channel_that_never_came_to_be_is_closed_without_a_message(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        client.ledger.plan_channel(
            id=b"\x09" * 32, node=enclave.node, salt=1, initial_data=b"", deposit=TON, now=1
        )
        assert (await client.close_channel(b"\x09" * 32)).state == "closed"
        assert network.treasury.done == {}
        with pytest.raises(PaymentError):
            await client.close_channel(b"\x08" * 32)
