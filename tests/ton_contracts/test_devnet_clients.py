"""Unmodified pytoniq works against the development chain at every trust level."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nacl.signing import SigningKey
from pytoniq import LiteBalancer, LiteClient, WalletV4R2
from pytoniq.liteclient.client import LiteServerError
from pytoniq_core import Address, begin_cell

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import contract_address, external_message, find_sandbox, state_init

TON = 10**9
FULL = -(1 << 63)
ABSENT = Address((0, b"\x07" * 32))

pytestmark = pytest.mark.asyncio(loop_scope="module")
logging.getLogger("LiteClient").setLevel(logging.CRITICAL)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    async with Devnet.start(tmp_path_factory.mktemp("devnet") / "chain", block_interval=0.05) as net:
        yield net


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # pytoniq writes .blockstore where it stands


@asynccontextmanager
async def client(net: Devnet, trust: int) -> AsyncIterator[Any]:
    connection = LiteClient.from_config(net.config, 0, trust_level=trust)
    await connection.connect()
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def balancer(net: Devnet, trust: int) -> AsyncIterator[Any]:
    connection = LiteBalancer.from_config(net.config, trust_level=trust)
    await connection.start_up()
    try:
        yield connection
    finally:
        await connection.close_all()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0.02)


CONNECTIONS = [(client, 2), (client, 1), (client, 0), (balancer, 1)]
NAMES = ["trust2", "trust1", "trust0", "balancer"]


@pytest.mark.parametrize(("connect", "trust"), CONNECTIONS, ids=NAMES)
async def test_a_wallet_from_deployment_to_history(net: Devnet, connect: Any, trust: int) -> None:
    key = SigningKey(hashlib.sha256(connect.__name__.encode() + b"%d" % trust).digest())
    public = bytes(key.verify_key)
    target = Address((0, hashlib.sha256(public).digest()))
    async with connect(net, trust) as connection:
        wallet = await WalletV4R2.from_data(
            connection, public_key=public, private_key=bytes(key) + public, wc=0, wallet_id=698983191
        )
        net.fund(wallet.address, 100 * TON)

        async def balance(address: Address) -> int:
            return int((await connection.get_account_state(address)).balance)

        async def funded() -> bool:
            return await balance(wallet.address) > 0

        async def active() -> bool:
            return bool((await connection.get_account_state(wallet.address)).is_active())

        async def arrived() -> bool:
            return await balance(target) > 0

        await until(funded)
        await wallet.deploy_via_external()
        await until(active)
        await wallet.transfer(target, TON)
        await until(arrived)
        assert await connection.run_get_method(wallet.address, "seqno", []) == [2]
        history = await connection.get_transactions(wallet.address, 10)
        assert len(history) == 3
        assert await balance(ABSENT) == 0
        assert (await connection.get_account_state(ABSENT)).state.type_ == "uninitialized"


@pytest.mark.parametrize("trust", [2, 1, 0])
async def test_blocks_and_transactions(net: Devnet, trust: int) -> None:
    net.fund(Address((0, bytes([trust]) * 32)), TON)
    async with client(net, trust) as connection:
        history = await connection.get_transactions(net.faucet_address, 3)
        lt = history[0].lt
        shard, header = await connection.lookup_block(0, FULL, lt=lt)
        assert header.info.start_lt <= lt <= header.info.end_lt
        listed = await connection.raw_get_block_transactions(shard)
        whole = await connection.raw_get_block_transactions_ext(shard)
        assert {item["lt"] for item in listed} == {transaction.lt for transaction in whole}
        assert lt in {item["lt"] for item in listed}
        assert await connection.raw_get_block_transactions(shard, count=1) == listed  # pages of one
        assert (await connection.get_one_transaction(net.faucet_address, lt, shard)).lt == lt
        assert await connection.get_one_transaction(net.faucet_address, lt + 1, shard) is None
        assert (await connection.raw_get_block_header(shard)).info.seqno == shard.seqno
        block = await connection.raw_get_block(shard)
        assert int.from_bytes(net.faucet_address.hash_part, "big") in block.extra.account_blocks[0]
        master, found = await connection.lookup_block(-1, FULL, seqno=2)
        assert master.seqno == found.info.seqno == 2
        _, first = await connection.lookup_block(-1, FULL, utime=found.info.gen_utime)
        assert first.info.gen_utime >= found.info.gen_utime


@pytest.mark.parametrize("trust", [2, 1, 0])
async def test_shards_and_configuration(net: Devnet, trust: int) -> None:
    async with client(net, trust) as connection:
        (shard,) = await connection.get_all_shards_info()
        assert (shard.workchain, shard.shard) == (0, FULL)
        assert (await connection.raw_get_shard_info()).seq_no == shard.seqno
        await connection.get_shard_block_proof(shard)
        some = await connection.get_config_params([8, 34])
        assert some[8].version == 12
        assert len(some[34].cur_validators.list) == 1
        everything = await connection.get_config_all()
        assert everything[19].load_int(32) == net.global_id


async def test_old_states_are_served(net: Devnet) -> None:
    target = Address((0, b"\x31" * 32))
    net.fund(target, TON)
    async with client(net, 0) as connection:
        before = connection.last_mc_block
        money = (await connection.get_account_state(target)).balance
        net.fund(target, TON)
        net.tick(70)  # more than the states that are kept in memory
        account, _ = await connection.raw_get_account_state(target, before)
        assert account.storage.balance.grams == money


async def test_messages_are_checked_before_they_are_taken(net: Devnet) -> None:
    async with client(net, 1) as connection:
        bad = external_message(net.faucet_address, begin_cell().store_uint(0, 700).end_cell())
        with pytest.raises(LiteServerError, match="not accepted"):
            await connection.raw_send_message(bad.to_boc())
        with pytest.raises(LiteServerError, match="basechain"):
            await connection.raw_send_message(begin_cell().store_uint(3, 2).end_cell().to_boc())
        with pytest.raises(LiteServerError, match="bag of cells"):
            await connection.raw_send_message(b"no cells here")


async def test_contracts_know_the_masterchain(net: Devnet) -> None:
    """A getter answers with PREVMCBLOCKS; a client finds these very blocks."""
    code = begin_cell().store_bytes(bytes.fromhex("30F83400")).end_cell()
    data = begin_cell().end_cell()
    address = contract_address(code, data)
    async with client(net, 2) as connection:
        net.send(net.faucet.transfer(net.chain, address, TON, init=state_init(code, data)))
        net.tick()
        await connection.update_last_blocks()
        result = await connection.run_get_method(address, "x", [])
        newest = result[0][0]
        assert newest[2] == connection.last_mc_block.seqno
        assert newest[3] == int.from_bytes(connection.last_mc_block.root_hash, "big")


async def test_getter_of_nothing(net: Devnet) -> None:
    async with client(net, 2) as connection:
        with pytest.raises(Exception, match="-256"):
            await connection.run_get_method(ABSENT, "x", [])


async def test_time_and_version(net: Devnet) -> None:
    async with client(net, 1) as connection:
        before = (await connection.get_time())["now"]
        net.warp(3600)
        assert (await connection.get_time())["now"] >= before + 3600
        assert (await connection.get_version())["capabilities"] == 7
        info = await connection.get_masterchain_info_ext()
        assert info["last_utime"] >= before + 3600
        await connection.update_last_blocks()
        header = await connection.raw_get_block_header(connection.last_mc_block)
        assert header.info.gen_utime >= before + 3600


async def test_an_idle_chain_keeps_clients_alive(tmp_path: Path) -> None:
    async with Devnet.start() as net, client(net, 1) as connection:
        seqno = connection.last_mc_block.seqno
        await asyncio.sleep(4)
        assert connection.last_mc_block.seqno > seqno


async def test_simplex_is_beyond_pytoniq(tmp_path: Path) -> None:
    """At trust 0 unmodified pytoniq knows ordinary signatures only; below that it does not look."""
    async with Devnet.start(signature_mode="simplex") as net:
        async with client(net, 1) as connection:
            assert connection.last_mc_block.seqno >= 3
        broken = LiteClient.from_config(net.config, 0, trust_level=0)
        with pytest.raises(Exception, match="signature"):
            await broken.connect()
        await broken.close()
