"""The client on a real chain: contracts in the real TVM, proofs, wallet, outbox, faucet and channels.

The chain is the development network in this process; only the enclave's service is the harness's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address

from cocoon_attestation.bundle import parse_bundle, verify_bundle
from cocoon_attestation.errors import ConfigError
from cocoon_proxy import events as e
from cocoon_proxy.audit import chain_facts
from cocoon_ton.channel import ChannelStatus, parse_channel
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof import verify_chain_facts

from .devnet_kit import TON, Live, running  # noqa: F401  (fixture `live`)

CHAT = "/v1/chat/completions"


async def test_from_nothing_to_a_bundle_that_proves_the_answer(
    live: Live, harness: Any, tmp_path: Path
) -> None:
    request = harness.body(stream=False)
    async with live.client(tmp_path / "home", chain=live.chain) as client:
        first = await client.complete(CHAT, request)
        answer = await client.complete(CHAT, request)
        created, funded = (event for event in live.events if isinstance(event, e.WalletReady))
        assert created.created
        assert funded.funded > 0
        (row,) = await client.channels()
        state = await live.chain.account(Address((0, row.id)))
        assert state.data is not None
        found = parse_channel(state.data)
        assert (found.status, found.paid) == (ChannelStatus.OPEN, 0)
        assert state.balance >= client.config.payment.deposit
        assert row.account.cumulative == first.completed.amount + answer.completed.amount
        before = row.deposit
        topped = await client.top_up(row.id, TON)
        assert topped.deposit == before + TON
        assert (await live.chain.account(Address((0, row.id)))).balance >= state.balance + TON
        await live.anchor()
        data = await client.export_bundle(
            answer.completed.receipt_id, request=request, response=answer.body
        )
    bundle = parse_bundle(data)
    proved = verify_chain_facts(bundle.chain, live.config)
    facts = chain_facts(
        proved.accounts, network=live.config, node=live.enclave.node, block_time=proved.block.utime
    )
    assert verify_bundle(bundle, facts).accepted


async def test_the_second_start_finds_wallet_and_channel(live: Live, harness: Any, tmp_path: Path) -> None:
    for _ in range(2):
        async with live.client(tmp_path / "home", chain=live.chain) as client:
            await client.complete(CHAT, harness.body())
            rows = await client.channels()
    assert len(rows) == 1
    assert [event.created for event in live.events if isinstance(event, e.WalletReady)] == [True, False]


async def test_the_rest_of_a_channel_comes_back(live: Live, harness: Any, tmp_path: Path) -> None:
    async with live.client(tmp_path / "home", chain=live.chain) as client:
        await client.complete(CHAT, harness.body())
        (row,) = await client.channels()
        begun = await client.close_channel(row.id)
        assert begun.close_at > live.now()
        assert await client.close_channel(row.id) == begun
        live.net.warp(begun.close_at - live.net.chain.now() + 1)
        await asyncio.sleep(0.1)  # longer than the head's life in `chain`
        assert (await client.close_channel(row.id)).state == "closed"
        assert (await client.channels())[0].state == "closed"
        balance = (await live.chain.account(Address((0, row.id)))).balance
        assert balance < TON // 100


async def test_without_wallet_and_faucet_reading_works_and_paying_says_what_to_do(
    live: Live, harness: Any, tmp_path: Path
) -> None:
    live.config = NetworkConfig(
        name="bare",
        global_id=live.config.global_id,
        registry=live.config.registry,
        global_config=live.config.global_config,
        dev_root=live.config.dev_root,
        simulated=True,
    )
    async with live.client(tmp_path / "home", chain=live.chain) as client:
        assert [model.name for model in await client.models()] == ["tiny"]
        with pytest.raises(ConfigError, match="wallet"):
            await client.complete(CHAT, harness.body())
    assert not live.enclave.sealed_seen


async def test_the_client_makes_its_own_chain_client(live: Live, harness: Any, tmp_path: Path) -> None:
    async with live.client(tmp_path / "home") as client:
        await client.complete(CHAT, harness.body())
