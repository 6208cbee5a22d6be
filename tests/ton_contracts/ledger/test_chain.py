"""`LiteChain` over real connections: trust modes, age, fail-over, reconnection, limits."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from nacl.signing import SigningKey
from pytoniq_core import Cell, begin_cell

from cocoon_attestation.errors import ConfigError
from cocoon_ton.chain import BlockRef, ChainReader, ChainWriter, LiteChain, TrustMode
from cocoon_ton.devnet import Devnet, Faults
from cocoon_ton.devnet.adnl import AdnlServer
from cocoon_ton.devnet.liteserver import LiteServer
from cocoon_ton.errors import (
    ChainProofError,
    ChainUnavailableError,
    MessageRefusedError,
    StaleHeadError,
)
from cocoon_ton.lite import transport
from cocoon_ton.lite.chain import MAX_EXTERNAL
from cocoon_ton.messages import Transfer
from cocoon_ton.network import NetworkConfig
from cocoon_ton.wallet import Wallet, WalletVersion

from .conftest import ALICE, ALICE_BALANCE, NOBODY, network_of


def implements(chain: LiteChain) -> tuple[ChainReader, ChainWriter]:
    """Checked by mypy."""
    return chain, chain


@pytest.fixture
async def chain(network: NetworkConfig) -> AsyncIterator[LiteChain]:
    async with LiteChain(network, head_ttl=0, timeout=2) as chain:
        yield chain


def faucet(devnet: Devnet) -> Wallet:
    return Wallet(devnet.faucet_seed, global_id=devnet.global_id, version=WalletVersion.V4R2)


class TestRead:
    async def test_head(self, devnet: Devnet, chain: LiteChain) -> None:
        head = await chain.head()
        assert head.seqno == devnet.chain.master.seqno
        assert head.root_hash == devnet.chain.master.id.root_hash
        assert head.file_hash == devnet.chain.master.id.file_hash
        assert head.utime == devnet.chain.master.utime
        devnet.tick()
        assert (await chain.head()).seqno == head.seqno + 1

    async def test_head_is_kept_for_a_while(self, devnet: Devnet, network: NetworkConfig) -> None:
        async with LiteChain(network, head_ttl=60) as chain:
            head = await chain.head()
            devnet.tick()
            assert await chain.head() == head

    @pytest.mark.parametrize("signature_mode", ["ordinary", "simplex"])
    async def test_both_consensus_forms(self, sandbox: None, signature_mode: Any) -> None:
        async with (
            Devnet.start(block_interval=None, signature_mode=signature_mode) as devnet,
            LiteChain(network_of(devnet), head_ttl=0) as chain,
        ):
            for _ in range(3):
                seqno = devnet.tick().seqno
                assert (await chain.head()).seqno == seqno
            assert (await chain.head()).seqno == devnet.chain.master.seqno

    async def test_full_size_configuration(self, sandbox: None) -> None:
        async with (
            Devnet.start(block_interval=None, config="default") as devnet,
            LiteChain(network_of(devnet)) as chain,
        ):
            assert (await chain.head()).seqno == devnet.chain.master.seqno

    async def test_accounts(self, devnet: Devnet, chain: LiteChain) -> None:
        assert (await chain.account(ALICE)).balance == ALICE_BALANCE
        assert not (await chain.account(NOBODY)).exists
        assert (await chain.account(devnet.faucet_address)).active

    async def test_account_at_an_older_block(
        self, devnet: Devnet, chain: LiteChain, network: NetworkConfig
    ) -> None:
        before = await chain.head()
        devnet.fund(ALICE, 5)
        assert (await chain.account(ALICE)).balance == ALICE_BALANCE + 5
        assert (await chain.account(ALICE, before)).balance == ALICE_BALANCE
        async with LiteChain(network) as fresh:
            assert (await fresh.account(ALICE, before)).balance == ALICE_BALANCE
            assert (await fresh.account(ALICE, before)).block == before

    async def test_block_that_is_not_on_the_chain(self, devnet: Devnet, chain: LiteChain) -> None:
        before = await chain.head()
        devnet.tick(2)
        for changes in ({"root_hash": bytes(32)}, {"file_hash": bytes(32)}, {"utime": before.utime + 1}):
            values = {name: getattr(before, name) for name in ("seqno", "root_hash", "file_hash", "utime")}
            with pytest.raises((ChainProofError, ChainUnavailableError)):
                await chain.account(ALICE, BlockRef(**(values | changes)))

    async def test_block_of_the_future(self, devnet: Devnet, chain: LiteChain) -> None:
        head = await chain.head()
        later = BlockRef(seqno=head.seqno + 9, root_hash=bytes(32), file_hash=bytes(32), utime=0)
        with pytest.raises(ChainUnavailableError, match="not known"):
            await chain.account(ALICE, later)

    async def test_masterchain_blocks_by_number(self, devnet: Devnet, chain: LiteChain) -> None:
        """What TVM knows of the masterchain is what the client proves: the beacons of attestations."""
        devnet.tick(130)
        known = devnet.chain.prev_blocks(devnet.chain.master.seqno)
        assert [block.seqno for block in known.last_100] == [100, 0]
        for block in (*known.last_100, *known.last[:2]):
            found = await chain.masterchain_block(block.seqno)
            assert (found.seqno, found.root_hash) == (block.seqno, block.root_hash)
        with pytest.raises(ChainUnavailableError):
            await chain.masterchain_block(devnet.chain.master.seqno + 50)

    async def test_transactions_in_pages(self, devnet: Devnet, chain: LiteChain) -> None:
        for amount in range(1, 41):
            devnet.fund(ALICE, amount)
        everything = await chain.transactions(ALICE)
        assert [t.in_msg.value for t in everything if t.in_msg] == list(range(40, 0, -1))
        assert everything[-1].prev_lt == 0
        assert await chain.transactions(ALICE, limit=17) == everything[:17]
        newer = await chain.transactions(ALICE, after_lt=everything[20].lt)
        assert newer == everything[:20]
        assert newer[-1].prev_lt <= everything[20].lt
        assert await chain.transactions(ALICE, after_lt=everything[0].lt) == []
        assert await chain.transactions(NOBODY) == []

    async def test_transactions_up_to_a_block(self, devnet: Devnet, chain: LiteChain) -> None:
        devnet.fund(ALICE, 1)
        before = await chain.head()
        devnet.fund(ALICE, 2)
        assert len(await chain.transactions(ALICE, at=before)) == 1
        assert len(await chain.transactions(ALICE)) == 2


class TestSend:
    async def test_message_is_executed(self, devnet: Devnet, chain: LiteChain) -> None:
        wallet = faucet(devnet)
        state = await chain.account(wallet.address)
        message = wallet.sign(
            [Transfer(destination=ALICE, amount=3, bounce=False)],
            seqno=wallet.seqno(state),
            valid_until=state.shard_utime + 60,
            deploy=False,
        )
        await chain.send(message.boc)
        devnet.tick()
        assert (await chain.account(ALICE)).balance == ALICE_BALANCE + 3
        (transaction,) = await chain.transactions(wallet.address)
        assert transaction.in_msg is not None
        assert transaction.in_msg.hash == message.hash
        assert transaction.in_msg.body.hash == message.body_hash
        with pytest.raises(MessageRefusedError):
            await chain.send(message.boc)

    @pytest.mark.parametrize("boc", [b"", b"junk", begin_cell().end_cell().to_boc()])
    async def test_nonsense_is_refused(self, chain: LiteChain, boc: bytes) -> None:
        with pytest.raises((MessageRefusedError, ChainUnavailableError)):
            await chain.send(boc)

    async def test_too_large(self, chain: LiteChain) -> None:
        with pytest.raises(MessageRefusedError, match="at most"):
            await chain.send(bytes(MAX_EXTERNAL + 1))

    async def test_nobody_there(self, devnet: Devnet, chain: LiteChain) -> None:
        devnet.faults.drop.add("sendMessage")
        started = time.monotonic()
        with pytest.raises(ChainUnavailableError):
            await chain.send(Cell.empty().to_boc())
        assert time.monotonic() - started < 10


class TestAge:
    async def test_old_head_is_refused(self, devnet: Devnet, network: NetworkConfig) -> None:
        now = float(devnet.chain.master.utime)
        async with LiteChain(network, head_ttl=0, max_head_age=30, clock=lambda: now) as chain:
            await chain.head()
            now += 31
            with pytest.raises(StaleHeadError, match="31 s old"):
                await chain.head()
            with pytest.raises(StaleHeadError):
                await chain.account(ALICE)
            devnet.warp(31)
            await chain.head()

    async def test_never_goes_back(self, devnet: Devnet, chain: LiteChain) -> None:
        devnet.tick(3)
        head = await chain.head()
        devnet.faults.stale_head = head.seqno - 2
        assert await chain.head() == head


class TestConnections:
    async def test_connection_that_was_closed_meanwhile(self, devnet: Devnet, chain: LiteChain) -> None:
        await chain.head()
        for server in chain._pool.servers:
            assert server._transport is not None
            server._transport.writer.close()
        assert (await chain.account(ALICE)).exists

    async def test_connection_that_ends_in_the_middle(self, devnet: Devnet, chain: LiteChain) -> None:
        await chain.head()
        devnet.faults.delay = 0.2
        asked = asyncio.create_task(chain.account(ALICE))
        await asyncio.sleep(0.05)
        (server,) = chain._pool.servers
        assert server._transport is not None
        server._transport.writer.transport.abort()
        assert (await asked).exists

    async def test_server_that_comes_back(self, sandbox: None, tmp_path: Any) -> None:
        async with Devnet.start(tmp_path / "net", block_interval=None) as devnet:
            network, port = network_of(devnet), devnet.port
            chain = LiteChain(network, head_ttl=0, max_head_age=1e9, timeout=2)
            seqno = (await chain.head()).seqno
        with pytest.raises(ChainUnavailableError):
            await chain.account(ALICE)
        async with Devnet.start(tmp_path / "net", port=port, block_interval=None) as devnet:
            devnet.tick()
            await _until(lambda: chain.account(ALICE))
            assert (await chain.head()).seqno > seqno
            async with chain:
                pass

    async def test_silent_server_costs_one_timeout(self, devnet: Devnet, network: NetworkConfig) -> None:
        devnet.faults.drop.add("getMasterchainInfo")
        async with LiteChain(network, timeout=0.2) as chain:
            started = time.monotonic()
            with pytest.raises(ChainUnavailableError, match="in time"):
                await chain.head()
            assert time.monotonic() - started < 5

    async def test_a_silent_server_is_asked_ever_more_rarely(
        self, devnet: Devnet, network: NetworkConfig
    ) -> None:
        """One that connects and then says nothing must not cost a timeout for each question."""
        devnet.faults.drop.add("getTime")
        async with LiteChain(network, timeout=0.1) as chain:
            (server,) = chain._pool.servers
            for failures in (1, 2, 3):
                with pytest.raises(ChainUnavailableError, match="in time"):
                    await server.query("getTime", {})
                assert server._failures == failures
                with pytest.raises(ChainUnavailableError, match="again soon"):
                    await server.query("getVersion", {})
                await asyncio.sleep(max(0.0, server._not_before - time.monotonic()))
            await server.query("getVersion", {})  # it lives
            assert server._failures == 0

    async def test_server_that_accepts_and_says_nothing(self, devnet: Devnet) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            network = _moved(network_of(devnet), listener.getsockname()[1])
            async with LiteChain(network, timeout=0.2) as chain:
                with pytest.raises(ChainUnavailableError, match="cannot connect"):
                    await chain.head()

    async def test_nothing_listens(self, devnet: Devnet) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        async with LiteChain(_moved(network_of(devnet), port)) as chain:
            with pytest.raises(ChainUnavailableError, match="cannot connect"):
                await chain.head()
            with pytest.raises(ChainUnavailableError, match="down"):
                await chain.head()

    async def test_another_identity(self, devnet: Devnet, network: NetworkConfig) -> None:
        document = dict(network.global_config)
        key = bytes(SigningKey.generate().verify_key)
        server = dict(document["liteservers"][0], id={"key": base64.b64encode(key).decode()})
        other = NetworkConfig(
            name="x", global_id=-217, registry="", global_config=document | {"liteservers": [server]}
        )
        async with LiteChain(other, timeout=1) as chain:
            with pytest.raises(ChainUnavailableError):
                await chain.head()

    async def test_packet_above_the_limit(
        self, devnet: Devnet, chain: LiteChain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transport, "MAX_PACKET", 200)
        with pytest.raises(ChainUnavailableError):
            await chain.account(ALICE)

    async def test_refusals_are_not_lies(self, devnet: Devnet, chain: LiteChain) -> None:
        devnet.faults.refuse.add("getAccountState")
        with pytest.raises(ChainUnavailableError, match="error -400"):
            await chain.account(ALICE)
        devnet.faults.clear()
        assert (await chain.account(ALICE)).exists

    async def test_parallel_questions_share_a_connection(self, devnet: Devnet, chain: LiteChain) -> None:
        for amount in range(1, 5):
            devnet.fund(ALICE, amount)
        results = await asyncio.gather(*(chain.account(ALICE) for _ in range(20)))
        assert {state.balance for state in results} == {ALICE_BALANCE + 10}

    async def test_no_tasks_stay_behind(self, network: NetworkConfig) -> None:
        before = asyncio.all_tasks()
        async with LiteChain(network) as chain:
            await chain.head()
        await asyncio.sleep(0)
        assert {task for task in asyncio.all_tasks() - before if not task.done()} <= _server_tasks()

    async def test_cancelled_question_does_not_disturb_others(
        self, devnet: Devnet, chain: LiteChain
    ) -> None:
        await chain.head()
        devnet.faults.delay = 0.1
        asked = asyncio.create_task(chain.account(ALICE))
        await asyncio.sleep(0.02)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await chain.account(ALICE)).exists


def _server_tasks() -> set[asyncio.Task[Any]]:
    """Tasks of the development chain's own server."""
    return {task for task in asyncio.all_tasks() if "liteserver reader" not in task.get_name()}


def _moved(network: NetworkConfig, port: int) -> NetworkConfig:
    document = dict(network.global_config)
    document["liteservers"] = [dict(document["liteservers"][0], port=port)]
    return NetworkConfig(name="moved", global_id=network.global_id, registry="", global_config=document)


async def _until(ask: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await ask()
        except ChainUnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


@dataclass
class Trio:
    """One chain, three servers."""

    devnet: Devnet
    faults: list[Faults]
    network: NetworkConfig


class TestSeveralServers:
    """Three servers over one chain, each with lies of its own."""

    @pytest.fixture
    async def trio(self, devnet: Devnet) -> AsyncIterator[Trio]:
        keys = [SigningKey.generate() for _ in range(3)]
        faults = [Faults() for _ in keys]
        validator = devnet._keys.validator
        servers = [
            AdnlServer(key, LiteServer(devnet.chain, validator, mode="ordinary", faults=fault).query)
            for key, fault in zip(keys, faults, strict=True)
        ]
        config = dict(devnet.config)
        config["liteservers"] = [
            {
                "ip": 0x7F000001,
                "port": await server.start(0),
                "id": {"key": base64.b64encode(bytes(key.verify_key)).decode()},
            }
            for server, key in zip(servers, keys, strict=True)
        ]
        yield Trio(devnet, faults, network_of(devnet, config=config))
        for server in servers:
            await server.stop()

    async def test_newest_head_wins(self, trio: Trio) -> None:
        trio.devnet.tick(4)
        newest = trio.devnet.chain.master.seqno
        trio.faults[0].stale_head, trio.faults[1].stale_head = newest - 2, newest - 1
        async with LiteChain(trio.network) as chain:
            assert (await chain.head()).seqno == newest

    async def test_one_is_down(self, trio: Trio) -> None:
        trio.faults[0].drop.add("getMasterchainInfo")
        trio.faults[1].refuse.add("getAccountState")
        async with LiteChain(trio.network, timeout=0.3) as chain:
            assert (await chain.account(ALICE)).exists

    async def test_one_lies(self, trio: Trio) -> None:
        trio.faults[0].hidden_accounts.add(ALICE.hash_part)
        async with LiteChain(trio.network, head_ttl=0) as chain:
            assert (await chain.account(ALICE)).exists
            assert [server.trusted for server in chain._pool.servers] == [False, True, True]

    async def test_one_lies_about_the_head(self, trio: Trio) -> None:
        trio.faults[1].duplicate_signatures = 2
        trio.faults[2].rewrite["getMasterchainInfo"] = lambda _, answer: (
            answer | {"last": answer["last"] | {"seqno": answer["last"]["seqno"] + 1000}}
        )
        async with LiteChain(trio.network, head_ttl=0) as chain:
            assert (await chain.head()).seqno == trio.devnet.chain.master.seqno

    async def test_all_lie(self, trio: Trio) -> None:
        for fault in trio.faults:
            fault.hidden_accounts.add(ALICE.hash_part)
        async with LiteChain(trio.network, head_ttl=0) as chain:
            for _ in range(2):
                with pytest.raises(ChainProofError):
                    await chain.account(ALICE)

    async def test_message_goes_to_all(self, trio: Trio) -> None:
        wallet = faucet(trio.devnet)
        message = wallet.sign(
            [Transfer(destination=ALICE, amount=3, bounce=False)],
            seqno=0,
            valid_until=trio.devnet.chain.now() + 60,
            deploy=False,
        )
        trio.faults[0].drop.add("sendMessage")
        trio.faults[1].refuse.add("sendMessage")
        async with LiteChain(trio.network, timeout=0.3) as chain:
            await chain.send(message.boc)
            trio.faults[2].refuse.add("sendMessage")
            with pytest.raises(MessageRefusedError):
                await chain.send(message.boc)

    async def test_prove_mode_takes_what_two_thirds_have(self, trio: Trio) -> None:
        trio.devnet.tick(4)
        newest = trio.devnet.chain.master.seqno
        trio.faults[0].stale_head = newest - 2
        async with LiteChain(trio.network, trust=TrustMode.PROVE, head_ttl=0) as chain:
            assert (await chain.head()).seqno == newest - 2
            trio.faults[0].stale_head = None
            assert (await chain.head()).seqno == newest
            assert (await chain.account(ALICE)).exists

    async def test_prove_mode_needs_agreement(self, trio: Trio) -> None:
        trio.faults[1].rewrite["lookupBlock"] = lambda _, answer: (
            answer | {"id": answer["id"] | {"root_hash": "00" * 32}}
        )
        async with LiteChain(trio.network, trust=TrustMode.PROVE, head_ttl=0) as chain:
            with pytest.raises(ChainUnavailableError, match="do not agree"):
                await chain.head()

    async def test_prove_mode_compares_the_number(self, trio: Trio) -> None:
        for fault in trio.faults:
            fault.rewrite["lookupBlock"] = lambda _, answer: answer | {"id": answer["id"] | {"seqno": 1}}
        async with LiteChain(trio.network, trust=TrustMode.PROVE, head_ttl=0) as chain:
            with pytest.raises(ChainProofError, match="another block"):
                await chain.head()

    async def test_prove_mode_needs_three(self, network: NetworkConfig) -> None:
        with pytest.raises(ConfigError, match="needs 3"):
            LiteChain(network, trust=TrustMode.PROVE)

    async def test_observe_mode_still_proves_accounts(self, trio: Trio) -> None:
        async with LiteChain(trio.network, trust=TrustMode.OBSERVE, head_ttl=0) as chain:
            assert (await chain.account(ALICE)).exists
            for fault in trio.faults:
                fault.hidden_accounts.add(ALICE.hash_part)
            with pytest.raises(ChainProofError):
                await chain.account(ALICE)


async def test_two_signed_blocks_with_one_number(sandbox: None, tmp_path: Any) -> None:
    async with Devnet.start(tmp_path / "a", block_interval=None) as first:
        first.copy_to(tmp_path / "b")
        async with Devnet.start(tmp_path / "b", block_interval=None) as second:
            first.tick()  # a restarted chain makes a block of its own
            async with LiteChain(network_of(first, second), head_ttl=0) as chain:
                assert first.chain.master.seqno == second.chain.master.seqno
                with pytest.raises(ChainProofError, match="forked"):
                    await chain.head()
