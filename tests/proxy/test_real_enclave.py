"""The client against the real enclave service with a scripted engine: both sides agree on every rule."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cocoon.v1 import host_service_pb2
from cocoon_attestation.payment import PriceList
from cocoon_proxy import events as e
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.gateway import gateway

sys.path[:0] = [str(Path(__file__).parents[1] / "enclave"), str(Path(__file__).parent)]
if TYPE_CHECKING:
    from tests.enclave.enclave_testkit import config, platform_dir, start_node, tiny_model
    from tests.proxy.real_enclave import Live, running
else:
    from enclave_testkit import config, platform_dir, start_node, tiny_model
    from real_enclave import Live, running

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]  # fixtures

CHAT = "/v1/chat/completions"


@pytest.fixture
async def live(harness: Any, tmp_path: Path, config: Any, start_node: Any) -> AsyncIterator[Live]:
    async with running(harness, tmp_path / "net", config, start_node) as found:
        yield found


async def test_a_conversation(live: Live, harness: Any) -> None:
    async with live.network.client() as client:
        for stream in (True, False):
            answer = await client.complete(CHAT, harness.body("hello", stream=stream))
            assert answer.status == 200
            assert answer.completed.usage.completion == 5
            assert answer.completed.amount > 0
        assert answer.text == "hello"
        (row,) = await client.channels()
    assert row.account.verified == row.account.cumulative
    assert row.account.lost == 0


async def test_many_at_once_some_cancelled(live: Live, harness: Any) -> None:
    live.engine.step_s = 0.002
    live.engine.repeat = 50

    async def whole(client: Any, number: int) -> None:
        await client.complete(CHAT, harness.body(f"n{number}", max_tokens=20))

    async def broken_off(client: Any, number: int) -> None:
        events = client.stream(CHAT, harness.body(f"c{number}", max_tokens=200))
        for _ in range(3):
            await anext(events)
        await events.aclose()

    async with live.network.client() as client:
        await whole(client, 0)
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(whole(client, number))
                group.create_task(broken_off(client, number))
        async with asyncio.timeout(10):
            while client.ledger.channels()[0].account.in_flight:  # noqa: ASYNC110  # there is no event
                await asyncio.sleep(0.02)
        (row,) = await client.channels()
        assert row.account.lost == 0
        assert row.account.verified == row.account.cumulative
        statuses = {receipt.status for receipt in client.ledger.receipts()}
    assert statuses == {200, 499}


async def test_what_the_engine_cannot_finish_costs_nothing_and_says_so(live: Live, harness: Any) -> None:
    live.engine.crash_after = 3
    async with (
        live.network.client() as client,
        gateway(client, GatewayConfig(port=0, grpc_port=0)) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as http,
    ):
        got = await http.post("/chat/completions", content=harness.body("hello"))
        assert b"[DONE]" not in got.content
        assert b"engine_crashed" in got.content
        (done,) = live.network.of(e.ReceiptVerified)
        assert done.amount == 0


async def test_limits_of_the_model_are_answers(live: Live, harness: Any) -> None:
    async with live.network.client() as client:
        answer = await client.complete(CHAT, harness.body("hello", max_tokens=100_000))
        assert answer.status == 400
        assert answer.completed.amount == 0
        assert b"context_length_exceeded" in answer.body


async def test_a_draining_node_is_not_asked_twice(live: Live, harness: Any) -> None:
    async with live.network.client() as client:
        await client.complete(CHAT, harness.body("hello"))
        await live.node.host.SetTerms(host_service_pb2.SetTermsRequest(drain=True))
        with pytest.raises(Exception, match="drain"):
            await client.complete(CHAT, harness.body("hello"))
        (row,) = await client.channels()
    assert row.account.in_flight == row.account.lost == 0


async def test_prices_above_the_listed_ones_are_not_accepted(live: Live, harness: Any) -> None:
    async with live.network.client() as client:
        await client.complete(CHAT, harness.body("hello"))
        dearer = PriceList(prompt=1_000_001, cached=500_000, completion=2_000_000).to_proto()
        await live.node.host.SetTerms(host_service_pb2.SetTermsRequest(prices=dearer))
        with pytest.raises(Exception, match="price_above_limit"):
            await client.complete(CHAT, harness.body("hello"))
