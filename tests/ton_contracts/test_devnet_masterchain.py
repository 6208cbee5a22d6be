"""Accounts of the masterchain: configuration, elector, wallets; and proofs of old blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from pytoniq import LiteClient
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
from pytoniq_core import Address, Cell, begin_cell

from cocoon_attestation.errors import ConfigError, UnsupportedError
from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet, GenesisAccount
from cocoon_ton.devnet.blocktree import BlockTree, Subtree
from cocoon_ton.devnet.cells import Stub
from cocoon_ton.devnet.faucet import wallet_data
from cocoon_ton.devnet.store import Store
from cocoon_ton.devnet.values import BASECHAIN, CONFIG_ADDRESS, ELECTOR_ADDRESS, MASTERCHAIN, Block, BlockId
from cocoon_ton.emulator import contract_address, external_message, find_sandbox, internal_message
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof import verify_chain_facts

TON = 10**9
CONFIG = Address((MASTERCHAIN, CONFIG_ADDRESS))
ELECTOR = Address((MASTERCHAIN, ELECTOR_ADDRESS))
RICH = Address((MASTERCHAIN, b"\x41" * 32))
SAME_ID = Address((BASECHAIN, b"\x41" * 32))
POOR = Address((MASTERCHAIN, b"\x42" * 32))
OWNER = SigningKey(b"\x43" * 32)


@pytest.fixture
async def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Devnet]:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)  # pytoniq writes .blockstore where it stands
    accounts: dict[Address, int | GenesisAccount] = {
        RICH: 5 * TON,
        SAME_ID: 7 * TON,
        _wallet(): _wallet_account(),
    }
    async with Devnet.start(tmp_path / "chain", block_interval=None, accounts=accounts) as net:
        yield net


def _wallet() -> Address:
    data = wallet_data(bytes(OWNER.verify_key))
    return contract_address(WALLET_V4_R2_CODE, data, MASTERCHAIN)


def _wallet_account() -> GenesisAccount:
    data = wallet_data(bytes(OWNER.verify_key))
    return GenesisAccount(balance=10 * TON, code=WALLET_V4_R2_CODE, data=data)


def _order(net: Devnet, to: Address, amount: int) -> Cell:
    """A signed message of the masterchain wallet."""
    message = internal_message(source=_wallet(), destination=to, value=amount, bounce=False)
    order = begin_cell().store_uint(698983191, 32).store_uint(net.chain.now() + 60, 32)
    payload = order.store_uint(0, 40).store_uint(3, 8).store_ref(message).end_cell()
    signature = bytes(OWNER.sign(bytes(payload.hash)).signature)
    return external_message(_wallet(), begin_cell().store_bytes(signature).store_cell(payload).end_cell())


def network_of(net: Devnet) -> NetworkConfig:
    return NetworkConfig(name="master", global_id=net.global_id, registry="", global_config=net.config)


async def test_one_id_in_two_workchains_is_two_accounts(net: Devnet) -> None:
    async with LiteChain(network_of(net)) as chain:
        assert (await chain.account(RICH)).balance == 5 * TON
        assert (await chain.account(SAME_ID)).balance == 7 * TON
        assert not (await chain.account(POOR)).exists
        document = await chain.export_proof([RICH, SAME_ID, POOR, CONFIG])
    facts = verify_chain_facts(document, network_of(net))
    found = {account.address: account.balance for account in facts.accounts.values()}
    assert (found[RICH], found[SAME_ID]) == (5 * TON, 7 * TON)


async def test_money_goes_both_ways_and_histories_stay_apart(net: Devnet) -> None:
    net.fund(POOR, TON)  # basechain to masterchain
    net.send(_order(net, SAME_ID, TON))  # masterchain to basechain
    net.tick()
    async with LiteChain(network_of(net), head_ttl=0) as chain:
        assert (await chain.account(POOR)).balance == TON
        assert (await chain.account(SAME_ID)).balance == 8 * TON
        (arrived,) = await chain.transactions(SAME_ID)
        assert arrived.in_msg is not None
        assert arrived.in_msg.source == _wallet()
        (sent,) = await chain.transactions(_wallet())
        assert sent.success
        assert await chain.transactions(RICH) == []
    records = [len(net.chain.store.transactions_in(wc, net.chain.master.seqno)) for wc in (0, -1)]
    assert records == [1, 1]


async def test_pytoniq_reads_configuration_and_elector(net: Devnet) -> None:
    net.fund(POOR, TON)
    for trust in (2, 1, 0):
        client = LiteClient.from_config(net.config, 0, trust_level=trust)
        await client.connect()
        try:
            state = await client.get_account_state(CONFIG)
            assert state.state.type_ == "active"
            config = state.state.state_init.data.refs[0]
            assert config.hash == net.chain.config.root.hash
            assert await client.run_get_method(ELECTOR, "active_election_id", []) == [0]
            extended = await client.run_get_method(ELECTOR, "participant_list_extended", [])
            assert extended == [0, 0, 0, 0, None, 0, 0]
            (listed,) = await client.raw_get_block_transactions(client.last_mc_block)
            assert listed["account"] == POOR
            (history,) = await client.get_transactions(POOR, 5)
            assert history.in_msg.info.value.grams == TON
        finally:
            await client.close()


async def test_the_system_takes_gifts_and_no_orders(net: Devnet) -> None:
    net.fund(ELECTOR, TON)
    async with LiteChain(network_of(net), head_ttl=0) as chain:
        before = (await chain.account(ELECTOR)).balance
        assert before > 1000 * TON
        net.fund(ELECTOR, TON, body=begin_cell().store_uint(1, 32).end_cell())
        after = await chain.account(ELECTOR)
        data = await chain.transactions(ELECTOR, limit=1)
        assert not data[0].success
        assert after.balance - before <= TON


async def test_old_states_come_back_after_a_restart(tmp_path: Path, net: Devnet) -> None:
    net.fund(POOR, TON)
    seqno = net.chain.master.seqno
    net.fund(POOR, TON)
    net.tick(70)  # the states in memory are newer
    block = net.chain.block(MASTERCHAIN, seqno)
    assert block is not None
    assert net.chain.state(block).hash == block.state.hash
    net.copy_to(tmp_path / "copy")
    async with Devnet.start(tmp_path / "copy", block_interval=None) as again:
        assert again.chain.state(block).hash == block.state.hash
        entry = again.chain.account(b"\xff" + POOR.hash_part, seqno)
        assert entry is not None
        assert entry.balance == TON


@pytest.fixture(scope="module")
def parts() -> tuple[BlockTree, list[Block], list[Subtree]]:
    tree, blocks = BlockTree(), []
    complete: list[Subtree] = []
    for number in range(256 * 5 + 77):
        name = number.to_bytes(32, "big")
        block = Block(
            id=BlockId(workchain=MASTERCHAIN, seqno=number, root_hash=name, file_hash=name[::-1]),
            start_lt=number,
            end_lt=number + 1,
            utime=0,
            state=Stub(bytes(32), 0),
            boc=b"",
        )
        tree, done = tree.append(block)
        blocks.append(block)
        complete.extend([done] if done is not None else [])
    return tree, blocks, complete


class TestOldBlocks:
    """The dictionary of old blocks keeps only hashes of what is long past, and opens it on demand."""

    @pytest.mark.parametrize(
        "wanted", [[0], [255], [256, 300], [511, 512, 1023], [1024], [1279, 1280, 1356]]
    )
    def test_opened_trees_are_the_same_and_show_the_block(
        self, parts: tuple[BlockTree, list[Block], list[Subtree]], wanted: list[int]
    ) -> None:
        tree, blocks, complete = parts
        closed, _, _ = tree.cell()
        root, _, _ = tree.opened(wanted, blocks.__getitem__, lambda n: complete[:n]).cell()
        assert closed is not None
        assert root is not None
        assert root.hash == closed.hash
        for number in wanted:
            cell = root
            for index in tree.path(number):
                cell = cell.refs[index]
            assert isinstance(cell, Cell)
            assert format(number, "0256b") in cell.bits.to01()  # the root hash that it was given

    def test_a_block_that_is_not_there(self, parts: tuple[BlockTree, list[Block], list[Subtree]]) -> None:
        with pytest.raises(KeyError):
            parts[0].path(len(parts[1]))


def test_chains_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(ConfigError, match="format 1"):
        Store(path)
