"""The client against the real enclave service with a scripted engine: both sides agree on every rule."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pytoniq_core import Address

from cocoon.v1 import host_service_pb2
from cocoon_attestation.payment import PriceList
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.config import Prices
from cocoon_proxy import events as e
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.gateway import gateway
from cocoon_ton.channel import ChannelIdentity
from cocoon_ton.node import NodeIdentity

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))
if TYPE_CHECKING:
    from tests.enclave.enclave_testkit import config, platform_dir, start_node, tiny_model
    from tests.proxy.harness import Network
else:
    from enclave_testkit import config, platform_dir, start_node, tiny_model

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]  # fixtures

CHAT = "/v1/chat/completions"
PRICES = Prices(prompt=1_000_000, cached=500_000, completion=2_000_000)


class Live:
    """A real enclave on a fake chain, with a host that looks channels up."""

    def __init__(self, network: Network, node: Any, engine: Any, owner: Address) -> None:
        self.network, self.node, self.engine, self.owner = network, node, engine, owner

    async def host(self) -> None:
        """Tell the enclave about channels, as the host agent does."""
        known: set[bytes] = set()
        while True:
            status = await self.node.host.GetStatus(host_service_pb2.GetStatusRequest())
            for wanted in status.unknown_channels:
                known.add(bytes(ChannelIdentity.from_proto(wanted).address.hash_part))
            facts = []
            for channel in known:
                account = self.network.chain.accounts.get(channel)
                facts.append(
                    host_service_pb2.ChannelFacts(
                        channel=channel, balance=account.balance if account else 0
                    )
                )
            if facts:
                await self.node.host.SetChannels(host_service_pb2.SetChannelsRequest(channels=facts))
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    harness: Any, tmp_path: Path, enclave_config: Any, start: Any, **changes: Any
) -> AsyncIterator[Live]:
    platform = DevPlatform.load(enclave_config.platform)
    network = harness.Network(platform, tmp_path)
    model = enclave_config.models[0]
    network.genesis = dataclasses.replace(network.genesis, models={model.digest: model.name})
    network.config = dataclasses.replace(
        network.config, registry=f"0:{network.genesis.address.hash_part.hex()}"
    )
    owner = Address((0, hashlib.sha256(b"owner").digest()))
    identity = NodeIdentity(
        global_id=harness.GLOBAL_ID, registry=network.genesis.address, owner=owner, salt=5
    )
    settings = {
        "node": identity.account_id,
        "registry": network.config.registry,
        "global_id": harness.GLOBAL_ID,
        "prices": PRICES,
        **changes,
    }
    async with start(**settings) as (node, engine):
        verified = await node.appraise()
        listing = harness.Listing(
            identity=identity,
            endpoint=f"127.0.0.1:{node.ready.public_port}",
            binding=verified.binding,
            evidence_digest=bytes(32),
            models=(model.digest,),
            prices=PriceList(prompt=PRICES.prompt, cached=PRICES.cached, completion=PRICES.completion),
        )
        network.publish(listing)
        live = Live(network, node, engine, owner)
        host = asyncio.create_task(live.host())
        try:
            yield live
        finally:
            host.cancel()
            await asyncio.gather(host, return_exceptions=True)


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
