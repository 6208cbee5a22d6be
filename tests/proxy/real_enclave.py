"""A client's network around a real enclave in this process: its scripted engine is all that is not real."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytoniq_core import Address

from cocoon.v1 import host_service_pb2
from cocoon_attestation.payment import PriceList
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.config import Prices
from cocoon_ton.channel import ChannelIdentity
from cocoon_ton.node import NodeIdentity

if TYPE_CHECKING:
    from tests.proxy.harness import Network

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
    release = changes.get("release", enclave_config.release)
    network.genesis = dataclasses.replace(
        network.genesis,
        models={model.digest: model.name},
        releases=(release,),
        policy=dataclasses.replace(
            network.genesis.policy, tee_kinds=frozenset({release.tee}), recorded={release.tee: 10**10}
        ),
    )
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
