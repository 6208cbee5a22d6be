"""One regression test for each way in which the library underneath would have been fooled.

The numbers are those of the list in ``docs/spec/ledger-client.md#the-library-underneath``.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Cell, begin_cell
from pytoniq_core.tl.generator import TlError, TlGenerator
from pytoniq_core.tlb.vm_stack import VmStack

from cocoon_ton.chain import BlockRef, LiteChain, TrustMode
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import Emulator
from cocoon_ton.errors import ChainProofError, ChainUnavailableError
from cocoon_ton.lite.transport import MAX_PACKET, Transport
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.wallet import Wallet, WalletVersion

from .conftest import ALICE, ALICE_BALANCE, network_of


@pytest.fixture
async def chain(network: NetworkConfig) -> AsyncIterator[LiteChain]:
    async with LiteChain(network, head_ttl=0, timeout=2) as chain:
        yield chain


async def test_1_configuration_of_another_chain(devnet: Devnet) -> None:
    """A chain of the attacker's own that claims to descend from our init block."""
    async with Devnet.start(block_interval=None) as forger:
        forger.faults.claimed_key_block = devnet.init_block
        network = network_of(devnet, config=forger.config_claiming(devnet))
        async with LiteChain(network) as chain:
            with pytest.raises(ChainProofError, match="something else"):
                await chain.head()


async def test_2_one_signature_many_times(devnet: Devnet, chain: LiteChain) -> None:
    devnet.faults.duplicate_signatures = 3
    with pytest.raises(ChainProofError, match="twice"):
        await chain.head()


async def test_3_simplex_signatures_are_understood(sandbox: None) -> None:
    async with (
        Devnet.start(block_interval=None, signature_mode="simplex") as devnet,
        LiteChain(network_of(devnet)) as chain,
    ):
        assert (await chain.head()).seqno == devnet.chain.master.seqno


@pytest.mark.parametrize("keep_proof", [False, True])
async def test_4_hidden_account(devnet: Devnet, chain: LiteChain, keep_proof: bool) -> None:
    if keep_proof:
        devnet.faults.rewrite["getAccountState"] = lambda _, answer: answer | {"state": b""}
    else:
        devnet.faults.hidden_accounts.add(ALICE.hash_part)
    with pytest.raises(ChainProofError, match=r"without a proof|hides"):
        await chain.account(ALICE)


async def test_5_getters_are_run_here(devnet: Devnet, chain: LiteChain) -> None:
    """There is no remote getter to believe; the same question is answered from the proved account."""
    lie = VmStack.serialize([999]).to_boc()
    devnet.faults.rewrite["runSmcMethod"] = lambda _, answer: answer | {"result": lie}
    assert not hasattr(chain, "run_get_method")
    state = await chain.account(devnet.faucet_address)
    assert state.code is not None
    assert state.data is not None
    result = Emulator("slim").get_method(
        state.code,
        state.data,
        "seqno",
        (),
        address=state.address,
        now=state.shard_utime,
        balance=state.balance,
    )
    wallet = Wallet(devnet.faucet_seed, global_id=devnet.global_id, version=WalletVersion.V4R2)
    assert result.unwrap() == [wallet.seqno(state)] == [0]


async def test_6_older_blocks_are_proved_from_the_head(devnet: Devnet, chain: LiteChain) -> None:
    before = await chain.head()
    devnet.tick(2)
    async with Devnet.start(block_interval=None) as forger:
        forger.tick(5)
        fake = forger.chain.block(-1, before.seqno)
        assert fake is not None
    claimed = BlockRef(
        seqno=before.seqno, root_hash=fake.id.root_hash, file_hash=fake.id.file_hash, utime=fake.utime
    )
    async with LiteChain(network_of(devnet), head_ttl=0) as fresh:
        assert (await fresh.account(ALICE, before)).balance == ALICE_BALANCE
        with pytest.raises((ChainProofError, ChainUnavailableError)):
            await fresh.account(ALICE, claimed)


async def test_7_shard_block_is_compared(devnet: Devnet, chain: LiteChain) -> None:
    devnet.faults.rewrite["getAccountState"] = lambda _, answer: (
        answer | {"shardblk": answer["shardblk"] | {"root_hash": "00" * 32}}
    )
    with pytest.raises(ChainProofError, match="another shard block"):
        await chain.account(ALICE)


async def test_8_an_error_of_the_server_ends_nothing(devnet: Devnet, chain: LiteChain) -> None:
    head = await chain.head()
    devnet.faults.refuse.add("getMasterchainInfo")
    assert await chain.head() == head  # proved before and still fresh
    devnet.faults.clear()
    devnet.tick()
    assert (await chain.head()).seqno == head.seqno + 1


async def test_9_nothing_is_written_or_downloaded(
    devnet: Devnet, network: NetworkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a download was tried")

    monkeypatch.setattr("requests.get", refuse)
    async with LiteChain(network) as chain:
        await chain.export_proof([ALICE])
    assert os.listdir(tmp_path) == []


async def test_11_heads_between_key_blocks_cost_one_link(devnet: Devnet, chain: LiteChain) -> None:
    await chain.head()
    links: list[int] = []

    def count(_: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        links.append(len(answer["steps"]))
        return answer

    devnet.faults.rewrite["getBlockProof"] = count
    for _ in range(3):
        devnet.tick()
        await chain.head()
    assert links == [1, 1, 1]


async def test_bytes_that_look_like_tl_stay_bytes(devnet: Devnet, chain: LiteChain) -> None:
    tag = TlGenerator.with_default_schemas().generate().get_by_name("liteServer.currentTime").little_id()
    devnet.faults.rewrite["getAccountState"] = lambda _, answer: answer | {"state": tag + bytes(4)}
    with pytest.raises(ChainProofError, match="not a bag of cells"):
        await chain.account(ALICE)


@pytest.mark.parametrize("method", ["getAccountState", "getBlockHeader"])
async def test_answers_about_another_block(devnet: Devnet, chain: LiteChain, method: str) -> None:
    devnet.faults.rewrite[method] = lambda _, answer: (
        answer | {"id": answer["id"] | {"seqno": answer["id"]["seqno"] - 1}}
    )
    if method == "getBlockHeader":
        chain = LiteChain(network_of(devnet), trust=TrustMode.OBSERVE)
    async with chain:
        with pytest.raises(ChainProofError, match="another block"):
            await chain.account(ALICE)


async def test_cells_that_take_exponential_time(devnet: Devnet, chain: LiteChain) -> None:
    cell = Cell.empty()
    for _ in range(60):
        cell = begin_cell().store_ref(cell).store_ref(cell).end_cell()
    devnet.faults.forged_accounts[ALICE.hash_part] = write_boc([cell])
    async with asyncio.timeout(5):
        with pytest.raises(ChainProofError, match="not the one"):
            await chain.account(ALICE)


async def test_a_list_without_end(network: NetworkConfig) -> None:
    """An answer full of small items is read in time that grows with its length only."""
    transport = Transport(network.liteservers[0], 1)
    count = MAX_PACKET // 80 - 1
    tag = transport.schemas.get_by_name("liteServer.transactionList").little_id()
    raw = tag + count.to_bytes(4, "little") + bytes(80 * count) + bytes(4)
    started = time.monotonic()
    answer = transport._parse(raw)
    assert len(answer["ids"]) == count
    assert time.monotonic() - started < 30


async def test_a_list_longer_than_its_packet(network: NetworkConfig) -> None:
    transport = Transport(network.liteservers[0], 1)
    tag = transport.schemas.get_by_name("liteServer.transactionList").little_id()
    with pytest.raises(TlError):
        transport._parse(tag + b"\xff\xff\xff\x7f" + bytes(80))


async def test_15_a_query_that_cannot_be_written(chain: LiteChain) -> None:
    """A number beyond the TL writer: this query fails, and the connection serves the next one."""
    head = await chain.head()
    (server,) = chain._pool.servers
    wanted = {"workchain": -1, "shard": -(1 << 63), "seqno": 1 << 31}
    with pytest.raises(ChainUnavailableError):
        await server.query("lookupBlock", {"mode": 1, "id": wanted, "lt": None, "utime": None})
    assert (await chain.account(ALICE, head)).balance == ALICE_BALANCE


def test_every_point_of_the_list_has_its_test() -> None:
    page = (Path(__file__).parents[3] / "docs/spec/ledger-client.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 19))
    for number, row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, f"point {number} names no test"
        for file, test in named:
            here, above = Path(__file__).with_name(file), Path(__file__).parents[1] / file
            source = (here if here.is_file() else above).read_text(encoding="utf-8")
            assert f"def {test}(" in source, f"{file} has no {test}"
