"""The scale benchmark on a smaller network: what it builds is real, and discovery is one proved read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_ton.channel import ChannelStatus, parse_channel
from cocoon_ton.node import BondState, parse_node

if TYPE_CHECKING:
    from benchmarks.scale import GOAL_S, discovery, settle_one
    from benchmarks.scale_world import DEPOSIT, STAKE, ScaleWorld, empty_world
else:
    from scale import GOAL_S, discovery, settle_one
    from scale_world import DEPOSIT, STAKE, ScaleWorld, empty_world

NODES, CHANNELS = 120, 120


@pytest.fixture
async def world(sandbox: None) -> Any:
    """A chain with its nodes and channels."""
    async with empty_world(max_nodes=NODES) as world:
        world.add_nodes(NODES)
        world.add_channels(CHANNELS)
        yield world


async def test_a_network_of_many_nodes_and_channels(world: ScaleWorld) -> None:
    state = world.registry_state()
    assert len(state.usable_nodes(world.net.chain.now())) == NODES
    for node in world.nodes:
        found = parse_node(world.data(node.address))
        assert (found.bond, found.stake) == (BondState.ACTIVE, STAKE)
    for identity in world.channels:
        channel = parse_channel(world.data(identity.address))
        assert (channel.status, channel.identity) == (ChannelStatus.OPEN, identity)
    account = world.net.chain.account(world.channels[-1].address.hash_part)
    assert account is not None
    assert DEPOSIT * 0.99 < account.balance <= DEPOSIT

    async with asyncio.timeout(60):
        found_by_client = await discovery(world, 3)
    assert found_by_client["candidates"] == NODES
    assert found_by_client["skipped"] == 0
    assert found_by_client["queries_per_discovery"]["getAccountState"] == 1
    assert found_by_client["cold_median_s"] < GOAL_S
    # the registry is all that grows with the network, and it is read once
    assert found_by_client["bytes_read_per_discovery"] < found_by_client["registry_bytes"] + 20_000

    assert settle_one(world, CHANNELS - 1)["works"]
    # the list is bounded: one node more stays out, with its stake
    world.add_nodes(1, owners="late")
    assert parse_node(world.data(world.nodes[-1].address)).bond is BondState.IDLE
    assert len(world.registry_state().nodes) == NODES
