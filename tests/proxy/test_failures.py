"""What becomes of a request when a node, the connection, the consumer or this process fails."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.errors import PaymentError
from cocoon_proxy import events as e
from cocoon_proxy.config import ClientConfig, SessionConfig
from cocoon_proxy.errors import (
    NodeBusyError,
    NodeUnavailableError,
    NoEligibleNodeError,
    OutcomeUnknownError,
)
from cocoon_proxy.payments import CHANNEL_RESERVE, MAX_REFUSED
from cocoon_ton.channel import ChannelState, parse_channel

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

CHAT = "/v1/chat/completions"


# ---- moving on, and not


async def test_a_dead_node_is_left_for_another(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    second = await network.add_enclave(
        prices=harness.PriceList(prompt=10**9, cached=10**9, completion=10**9)
    )
    await enclave.stop()
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
        assert answer.completed.node == second.node.hex()
        await client.complete(CHAT, harness.body())
    (moved,) = network.of(e.FailedOver)
    assert (moved.node, moved.code) == (enclave.node.hex(), "node_unavailable")


@pytest.mark.parametrize("evidence", [b"", b"\xff" * 50])
async def test_evidence_that_does_not_parse_is_the_nodes_fault(
    network: Network, enclave: FakeEnclave, harness: Any, evidence: bytes
) -> None:
    enclave.make_evidence = lambda challenge: evidence  # type: ignore[method-assign]
    async with network.client() as client:
        with pytest.raises(NodeUnavailableError, match="malformed"):
            await client.complete(CHAT, harness.body())
    assert not network.of(e.EvidenceChecked)[0].accepted
    assert not enclave.sealed_seen


async def test_an_endpoint_that_is_none_is_skipped(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    listing = enclave.listing
    listing.endpoint = "unix:/etc/passwd"
    network.publish(listing)
    async with network.client() as client:
        with pytest.raises(NodeUnavailableError):
            await client.complete(CHAT, harness.body())


async def test_a_busy_node_is_left_for_another_and_costs_nothing(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    dear = harness.PriceList(prompt=10**9, cached=10**9, completion=10**9)
    second = await network.add_enclave(prices=dear)
    enclave.script.error = ["node_busy"]
    enclave.script.refuse = [(429, "node_busy")]
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
        assert answer.completed.node == second.node.hex()
        network.clock_offset = 10.0
        await client.complete(CHAT, harness.body())
        channels = {row.node: row.account for row in await client.channels()}
    assert channels[enclave.node].verified == channels[enclave.node].in_flight == 0


async def test_only_busy_nodes_give_an_error_that_may_be_retried(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.error = ["node_busy"]
    async with network.client() as client:
        with pytest.raises(NodeBusyError):
            await client.complete(CHAT, harness.body())
        with pytest.raises(NoEligibleNodeError) as caught:
            await client.complete(CHAT, harness.body())
    assert caught.value.details["reasons"] == {enclave.node.hex(): "failed recently (node_busy)"}


async def test_a_channel_that_the_node_has_not_seen_yet_is_waited_for(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.refuse = [(402, "channel_unknown"), (402, "channel_unknown")]
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
    assert answer.status == 200
    assert len(enclave.requests) == 3
    assert len(network.of(e.ReceiptVerified)) == 3


async def test_a_channel_with_too_little_is_topped_up_once(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        (row,) = await client.channels()
        network.chain.accounts[row.id].balance = CHANNEL_RESERVE
        enclave.script.refuse = [(402, "balance_too_low")]
        await client.complete(CHAT, harness.body())
    assert len(network.of(e.ChannelToppedUp)) == 1


async def test_a_node_that_denies_the_deposit_gets_no_second_one(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    """What is in a channel is on chain; the node's word for it moves no money."""
    enclave.script.refuse = [(402, "balance_too_low")] * 2
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
    assert not network.of(e.ChannelToppedUp)
    assert len(network.of(e.ChannelOpened)) == 1


async def test_a_node_that_refuses_every_channel_gets_no_more_deposits(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        for _ in range(6):
            enclave.script.refuse = [(402, "channel_unusable")] * 2
            with pytest.raises(PaymentError):
                await client.complete(CHAT, harness.body())
            network.clock_offset += 400.0  # it is left alone for some time after each failure
    assert len(network.of(e.ChannelOpened)) == MAX_REFUSED


async def test_an_unusable_channel_is_replaced(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.refuse = [(402, "channel_unusable")]
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        states = sorted(row.state for row in await client.channels())
    assert states == ["open", "refused"]


async def test_an_error_of_the_model_passes_with_its_body(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.refuse = [(400, "context_length_exceeded")]
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["code"] == "context_length_exceeded"
    assert answer.completed.amount == 0


async def test_a_cut_answer_is_never_repeated_by_itself(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    await network.add_enclave()
    for script in (enclave.script, network.enclaves[1].script):
        script.die_after = 2
    async with network.client() as client:
        events = client.stream(CHAT, harness.body())
        got = [await anext(events) for _ in range(3)]
        with pytest.raises(OutcomeUnknownError):
            await anext(events)
        await wait_for(lambda: any(row.account.lost for row in client.ledger.channels()))
        (row,) = await client.channels()
    assert [type(event) for event in got] == [e.Head, e.Data, e.Data]
    assert sum(len(found.requests) for found in network.enclaves) == 1
    assert row.account.lost > 0
    assert row.account.in_flight == 0


async def test_the_cost_of_a_lost_answer_is_known_from_the_next_receipt(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        enclave.script.die_after = 3
        with pytest.raises(OutcomeUnknownError):
            await client.complete(CHAT, harness.body())
        enclave.script.die_after = None
        network.clock_offset = 30.0
        answer = await client.complete(CHAT, harness.body())
        (row,) = await client.channels()
    lost, billed = enclave.receipts[0].amount, enclave.receipts[1].amount
    assert answer.completed.amount == billed
    assert row.account.cumulative == lost + billed
    assert row.account.verified == billed


async def test_a_node_that_stops_answering_is_noticed(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.stall_after = 1
    config = network.client().config
    config = replace(config, session=replace(config.session, stall_seconds=1))
    async with network.client(config) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.complete(CHAT, harness.body())
        await wait_for(lambda: enclave.cancelled == [1])
    assert caught.value.details["reason"] == "stalled"


async def test_closing_the_stream_cancels_the_work_and_still_books_the_receipt(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.words = tuple(f"w{i}" for i in range(50))
    async with network.client() as client:
        events = client.stream(CHAT, harness.body(max_tokens=100))
        await anext(events)
        await anext(events)
        await events.aclose()
        await wait_for(lambda: bool(network.of(e.ReceiptVerified)))
        (row,) = await client.channels()
    assert enclave.cancelled == [1]
    assert row.account.verified == enclave.receipts[0].amount


async def test_a_cancelled_request_without_receipt_is_lost_not_forgotten(
    network: Network, enclave: FakeEnclave, harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocoon_proxy.exchange.DRAIN_S", 0.2)
    enclave.script.stall_after = 1
    async with network.client() as client:
        task = asyncio.create_task(client.complete(CHAT, harness.body()))
        await wait_for(lambda: bool(network.of(e.FirstData)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_for(lambda: client.ledger.channels()[0].account.lost > 0)


async def test_a_client_that_closes_mid_answer_leaves_no_open_request(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.stall_after = 1
    async with network.client() as client:
        task = asyncio.create_task(client.complete(CHAT, harness.body()))
        await wait_for(lambda: bool(network.of(e.FirstData)))
    with pytest.raises(OutcomeUnknownError):
        await task
    async with network.client() as client:
        (row,) = await client.channels()
    assert row.account.in_flight == 0
    assert row.account.lost > 0


async def test_evidence_that_ends_within_seconds_is_not_asked_for_for_ever(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    config = ClientConfig(session=SessionConfig(limit_seconds=3, connect_seconds=5))
    async with network.client(config) as client:
        async with asyncio.timeout(10):
            with pytest.raises(NodeUnavailableError, match="within seconds"):
                await client.complete(CHAT, harness.body())
    assert not enclave.requests


# ---- money that is interrupted


@pytest.mark.parametrize("moment", ["channel-open", "channel-top-up"])
async def test_a_crash_while_paying_pays_once(
    network: Network, enclave: FakeEnclave, harness: Any, moment: str
) -> None:
    if moment == "channel-top-up":
        async with network.client() as client:
            await client.complete(CHAT, harness.body())
            (row,) = await client.channels()
        network.chain.accounts[row.id].balance = CHANNEL_RESERVE
        enclave.script.refuse = [(402, "balance_too_low")]
    network.treasury.crash_after = moment
    with pytest.raises(RuntimeError):
        async with network.client() as client:
            await client.complete(CHAT, harness.body())
    network.treasury.crash_after = ""
    paid = dict(network.treasury.done)
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        (row,) = await client.channels()
    assert network.treasury.done == paid
    assert row.state == "open"


async def test_a_channel_is_closed_in_two_steps(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        (row,) = await client.channels()
        account = network.chain.accounts[row.id]
        assert account.data is not None
        closing = ChannelState(identity=parse_channel(account.data).identity, paid=0, close_at=0)

        async def start(**_: Any) -> None:
            account.data = harness.channel_data(closing, close_at=int(network.clock()) + 600)

        network.treasury.pay = start  # type: ignore[method-assign]
        begun = await client.close_channel(row.id)
        assert (begun.state, begun.close_at > network.clock()) == ("closing", True)
        again = await client.close_channel(row.id)
        assert again == begun
        network.clock_offset = 700.0
        network.chain.clock_offset = 700

        async def finish(**_: Any) -> None:
            account.data = harness.channel_data(closing, close_at=0xFFFFFFFF)

        network.treasury.pay = finish  # type: ignore[method-assign]
        assert (await client.close_channel(row.id)).state == "closed"
        assert (await client.channels())[0].state == "closed"
        assert (await client.close_channel(row.id)).state == "closed"
    assert len(network.of(e.ChannelClosing)) == len(network.of(e.ChannelClosed)) == 1


async def wait_for(condition: Any) -> None:
    """Poll until a condition holds; the test's own timeout ends a hopeless wait."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)


# ---- several frames in one message


async def test_an_answer_in_one_message(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    enclave.script.one_message = True
    async with network.client() as client:
        answers = await asyncio.gather(*(client.complete(CHAT, harness.body()) for _ in range(3)))
        assert all(b'"finish_reason": "stop"' in answer.body for answer in answers)
    assert enclave.sessions == 1
    assert not [ended for ended in network.of(e.SessionEnded) if "protocol" in ended.reason]


async def test_what_came_before_a_bad_frame_counts(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    """The answer was whole before the message broke the rules; the session is over all the same."""
    stranger = wire.ResponseFrame(request_number=99, data=b"x")
    enclave.script.one_message = True
    enclave.script.edit_frames = lambda frames: [*frames, stranger]
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body())
        assert answer.status == 200
        enclave.script.edit_frames = None
        assert (await client.complete(CHAT, harness.body())).status == 200
    assert enclave.sessions == 2
    assert "broke the protocol" in network.of(e.SessionEnded)[0].reason


async def test_an_empty_message_ends_the_session(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.one_message = True
    enclave.script.edit_frames = lambda frames: []
    async with network.client() as client:
        with pytest.raises(OutcomeUnknownError, match="protocol"):
            await client.complete(CHAT, harness.body())
