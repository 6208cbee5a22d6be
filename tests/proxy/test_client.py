"""The client against a network in this process: every step of a request, and what each failure becomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_proxy import events as e

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

CHAT = "/v1/chat/completions"


async def collect(client: Any, body: bytes) -> list[e.StreamEvent]:
    return [event async for event in client.stream(CHAT, body)]


async def test_a_streamed_answer_arrives_with_a_verified_receipt(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    request = harness.body()
    async with network.client() as client:
        got = await collect(client, request)
        assert isinstance(got[0], e.Head)
        assert (got[0].status, got[0].content_type) == (200, "text/event-stream")
        assert [event.last for event in got if isinstance(event, e.Data)] == [False, False, False, True]
        done = got[-1]
        assert isinstance(done, e.Completed)
        assert enclave.requests[0].body == request
        assert done.amount == enclave.receipts[0].amount > 0
        assert (done.node, done.simulated) == (enclave.node.hex(), True)
        stored = await client.receipt(done.receipt_id)
        assert stored["amount"] == done.amount
    kinds = [type(event) for event in network.events]
    for kind in (e.RegistryRead, e.EvidenceChecked, e.ChannelOpened, e.RequestSealed, e.FirstData, e.ReceiptVerified):
        assert kind in kinds
    checks = network.of(e.EvidenceChecked)[0].checks
    assert "tls.spki" in {check.id for check in checks}
