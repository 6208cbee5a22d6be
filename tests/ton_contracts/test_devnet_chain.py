"""The chain without a network: blocks, money, persistence, old states, time, speed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from pytoniq_core import Address, Cell, begin_cell
from pytoniq_core.tlb.block import Block as ParsedBlock
from pytoniq_core.tlb.block import ShardStateUnsplit

from cocoon_attestation.errors import ConfigError, UnsupportedError
from cocoon_ton.devnet.blocks import Identity
from cocoon_ton.devnet.cells import Keep, prune
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.collation import MAX_TRANSACTIONS
from cocoon_ton.devnet.faucet import FAUCET_BALANCE, Faucet
from cocoon_ton.devnet.genesis import make_config, public_key, short_key_id, validator_set_hash
from cocoon_ton.devnet.keys import ChainKeys, load_keys
from cocoon_ton.devnet.proofs import account_proof
from cocoon_ton.devnet.store import Store
from cocoon_ton.devnet.values import BASECHAIN, MASTERCHAIN, Block
from cocoon_ton.emulator import (
    EMPTY_ACCOUNT,
    EmulatorError,
    MessageNotAcceptedError,
    external_message,
    find_sandbox,
    internal_message,
    make_account,
    view_account,
)

TON = 10**9
VALIDATOR = SigningKey(b"\x01" * 32)
FAUCET = Faucet(SigningKey(b"\x02" * 32))
START = 1_790_000_000.0


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))


def address(number: int) -> Address:
    return Address((0, hashlib.sha256(b"%d" % number).digest()))


@contextmanager
def opened(
    path: Path | None = None,
    *,
    accounts: dict[bytes, Cell] | None = None,
    clock: Callable[[], float] = lambda: START,
) -> Iterator[Chain]:
    """A chain with a faucet; its blocks and states are the same in every run."""
    store = Store(path)
    identity = Identity(validator=public_key(VALIDATOR), global_id=-217)
    genesis = {FAUCET.address.hash_part: FAUCET.genesis_account()} | (accounts or {})
    config = make_config(public_key(VALIDATOR), -217)
    try:
        yield Chain(
            store, identity=identity, config=config, genesis=genesis, clock=clock, random=lambda n: bytes(n)
        )
    finally:
        store.close()


@pytest.fixture
def chain() -> Iterator[Chain]:
    with opened() as chain:
        chain.tick()
        yield chain


def pay(chain: Chain, to: Address, amount: int = TON) -> Block:
    chain.send(FAUCET.transfer(chain, to, amount))
    return chain.tick()


def balance(chain: Chain, account: Address, seqno: int | None = None) -> int:
    entry = chain.account(account.hash_part, seqno)
    return 0 if entry is None else entry.balance


class TestGenesis:
    def test_key_block_is_block_one(self, chain: Chain) -> None:
        key = chain.key_block()
        assert key is not None
        assert key.seqno == 1
        parsed = ParsedBlock.deserialize(key.cell.begin_parse())
        assert parsed.info.key_block
        assert parsed.extra.custom.config.config[19].load_int(32) == -217
        assert not ParsedBlock.deserialize(chain.tick().cell.begin_parse()).info.key_block

    def test_configuration_names_the_validator(self) -> None:
        config = make_config(public_key(VALIDATOR), -3)
        assert not {32, 33, 35, 36, 37} & set(config.params)
        assert public_key(VALIDATOR) in config.params[34].refs[0].bits.tobytes()

    def test_validator_set_hash(self) -> None:
        # crc32c check value of RFC 3720 through the same code, then a set that tonlib accepted
        from cocoon_ton.devnet.genesis import _crc32c

        assert _crc32c(b"123456789") == 0xE3069283
        assert 0 <= validator_set_hash(public_key(VALIDATOR)) < 1 << 32
        assert validator_set_hash(b"\x01" * 32) != validator_set_hash(b"\x02" * 32)
        assert len(short_key_id(public_key(VALIDATOR))) == 32


class TestBlocks:
    def test_pytoniq_parses_everything(self, chain: Chain) -> None:
        pay(chain, address(1))
        shard = ParsedBlock.deserialize(chain.shard.cell.begin_parse())
        master = ParsedBlock.deserialize(chain.master.cell.begin_parse())
        assert (shard.info.seqno, master.info.seqno) == (2, 2)
        assert shard.info.gen_utime == int(START)
        blocks, fees = shard.extra.account_blocks
        assert set(blocks) == {
            int.from_bytes(account.hash_part, "big") for account in (FAUCET.address, address(1))
        }
        assert fees
        opened_state = prune(chain.state(chain.shard), lambda *_: Keep.OPEN)
        state = ShardStateUnsplit.deserialize(opened_state.begin_parse())
        assert state.seq_no == 2
        assert len(state.accounts[0]) == 2
        top = ShardStateUnsplit.deserialize(chain.state(chain.master).begin_parse())
        assert top.custom.shard_hashes[0].list[0].root_hash == chain.shard.id.root_hash
        assert top.custom.last_key_block.seqno == 1

    def test_blocks_refer_to_each_other(self, chain: Chain) -> None:
        old_shard, old_master = chain.shard, chain.master
        chain.tick()
        update = chain.shard.cell.refs[2]
        assert update.data[1:33] == old_shard.state.hash
        assert update.data[33:65] == chain.shard.state.hash
        assert chain.shard.start_lt > old_shard.end_lt
        assert chain.shard.start_lt % 1_000_000 == 0
        assert chain.master.utime >= old_master.utime
        assert hashlib.sha256(chain.master.boc).digest() == chain.master.id.file_hash

    def test_same_input_same_chain(self) -> None:
        heads = []
        for _ in range(2):
            with opened() as chain:
                chain.tick()
                pay(chain, address(1))
                heads.append(chain.master.id)
        assert heads[0] == heads[1]

    def test_money_is_conserved(self, chain: Chain) -> None:
        fees = 0
        for number in range(5):
            pay(chain, address(number), 7 * TON)
            for record in chain.store.transactions_in(BASECHAIN, chain.shard.seqno):
                cell = Cell.one_from_boc(record.boc)
                fees += _fees(cell)
        total = sum(balance(chain, address(n)) for n in range(5)) + balance(chain, FAUCET.address)
        assert total + fees == FAUCET_BALANCE

    def test_a_transaction_is_recorded_once(self, chain: Chain) -> None:
        pay(chain, address(1))
        records = chain.store.transactions_in(BASECHAIN, chain.shard.seqno)
        assert [record.account for record in records] == sorted(record.account for record in records)
        assert {record.seqno for record in records} == {2}
        for record in records:
            assert chain.store.transaction(record.account, record.lt) == record
            assert Cell.one_from_boc(record.boc).hash == record.hash

    def test_message_cells_travel_unchanged(self, chain: Chain) -> None:
        """The in-message of the receiver is the very cell that the sender's transaction holds."""
        pay(chain, address(1))
        sent, received = (
            Cell.one_from_boc(record.boc)
            for record in sorted(chain.store.transactions_in(BASECHAIN, 2), key=lambda record: record.lt)
        )
        outgoing = sent.refs[0].begin_parse()
        outgoing.load_bit()
        outgoing.load_ref()
        messages = outgoing.load_dict(15, value_deserializer=lambda part: part.load_ref())
        assert received.refs[0].refs[0] == messages[0]

    def test_more_work_than_one_block_holds(self, tmp_path: Path) -> None:
        path = tmp_path / "chain"
        with opened(path) as chain:
            chain.tick()
            for number in range(MAX_TRANSACTIONS + 10):
                chain._queue.append(
                    internal_message(
                        source=address(0), destination=address(number), value=TON, bounce=False
                    )
                )
            chain.tick()
            assert chain.has_work
            first = len(chain.store.transactions_in(BASECHAIN, 2))
        with opened(path) as chain:  # what was left over survives a restart
            assert chain.has_work
            chain.tick()
            assert first + len(chain.store.transactions_in(BASECHAIN, 3)) == MAX_TRANSACTIONS + 10
            assert not chain.has_work


def _fees(transaction: Cell) -> int:
    from pytoniq_core import Transaction

    parsed = Transaction.deserialize(transaction.begin_parse())
    carried = sum(message.info.fwd_fee for message in parsed.out_msgs if message.is_internal)
    return int(parsed.total_fees.grams + carried)


class TestSend:
    def test_refused_message_is_not_queued(self, chain: Chain) -> None:
        with pytest.raises(MessageNotAcceptedError):
            chain.send(external_message(FAUCET.address, begin_cell().store_uint(0, 700).end_cell()))
        assert not chain.has_work

    @pytest.mark.parametrize("kind", ["internal", "workchain 5", "garbage"])
    def test_only_external_messages_for_this_chain(self, chain: Chain, kind: str) -> None:
        message = {
            "internal": internal_message(source=address(1), destination=FAUCET.address, value=1),
            "workchain 5": external_message(Address((5, bytes(32)))),
            "garbage": begin_cell().store_uint(3, 2).end_cell(),
        }[kind]
        with pytest.raises(EmulatorError, match="basechain"):
            chain.send(message)

    def test_dry_run_changes_nothing(self, chain: Chain) -> None:
        before = balance(chain, FAUCET.address)
        chain.send(FAUCET.transfer(chain, address(1), TON))
        assert balance(chain, FAUCET.address) == before
        chain.tick()
        assert balance(chain, FAUCET.address) < before - TON

    def test_the_second_of_two_with_one_seqno_is_lost(self, chain: Chain) -> None:
        for number in (1, 2):
            chain.send(FAUCET.transfer(chain, address(number), TON))
        chain.tick()
        assert [balance(chain, address(number)) > 0 for number in (1, 2)] == [True, False]

    def test_a_message_to_another_workchain_is_dropped(self, chain: Chain) -> None:
        chain.send(FAUCET.transfer(chain, Address((5, bytes(32))), TON))
        chain.tick()
        assert len(chain.store.transactions_in(BASECHAIN, 2)) == 1
        assert not chain.has_work


class TestTime:
    def test_warp_moves_blocks_and_lasts(self, tmp_path: Path) -> None:
        path = tmp_path / "chain"
        with opened(path) as chain:
            chain.warp(1000)
            assert chain.tick().utime == int(START) + 1000
            with pytest.raises(ValueError, match="forward"):
                chain.warp(-1)
        with opened(path) as chain:
            assert chain.now() == int(START) + 1000

    def test_time_never_goes_back(self, tmp_path: Path) -> None:
        path = tmp_path / "chain"
        with opened(path) as chain:
            chain.tick()
        with opened(path, clock=lambda: START - 500) as chain:
            assert chain.now() == int(START)
            assert chain.tick().utime == int(START)

    def test_contracts_see_masterchain_blocks(self, chain: Chain) -> None:
        chain.tick()
        prev = chain.prev_blocks(chain.master.seqno)
        assert prev.last[0].root_hash == chain.master.id.root_hash
        assert [block.seqno for block in prev.last] == [2, 1, 0]
        assert prev.key.seqno == 1
        assert [block.seqno for block in prev.last_100] == [0]
        for _ in range(110):
            chain.tick()
        prev = chain.prev_blocks(chain.master.seqno)
        assert [block.seqno for block in prev.last_100] == [100, 0]
        assert len(prev.last) == 16


class TestPersistence:
    def test_a_restart_continues_the_chain(self, tmp_path: Path) -> None:
        path = tmp_path / "chain"
        with opened(path) as chain:
            chain.tick()
            pay(chain, address(1))
            head, money = chain.master, balance(chain, address(1))
        with opened(path) as chain:
            assert chain.master.id == head.id
            assert chain.key_block() == chain.block(MASTERCHAIN, 1)
            assert balance(chain, address(1)) == money
            pay(chain, address(1))
            assert chain.master.seqno == head.seqno + 1
            assert balance(chain, address(1)) > money
            assert chain.state(chain.block(MASTERCHAIN, 2) or head).hash == head.state.hash

    def test_restarted_and_unbroken_chains_are_equal(self, tmp_path: Path) -> None:
        with opened() as chain:
            for number in range(6):
                chain.tick() if number == 0 else pay(chain, address(number % 3))
            expected = chain.master.id
        for number in range(6):
            with opened(tmp_path / "chain") as chain:
                chain.tick() if number == 0 else pay(chain, address(number % 3))
                found = chain.master.id
        assert found == expected

    def test_every_old_state_can_be_made_again(self, tmp_path: Path) -> None:
        path = tmp_path / "chain"
        balances = []
        with opened(path) as chain:
            chain.tick()
            for number in range(20):
                pay(chain, address(number % 4))
                balances.append([balance(chain, address(n)) for n in range(4)])
        with opened(path) as chain:
            for workchain in (BASECHAIN, MASTERCHAIN):
                for seqno in range(chain.master.seqno + 1):
                    block = chain.block(workchain, seqno)
                    assert block is not None
                    assert chain.state(block).hash == block.state.hash
            for seqno, expected in enumerate(balances, start=2):
                assert [balance(chain, address(n), seqno) for n in range(4)] == expected
                account = chain.shard_account(address(0).hash_part, seqno)
                assert view_account(account).balance == expected[0]
                block = chain.block(BASECHAIN, seqno)
                assert block is not None
                assert account_proof(chain, block, address(0).hash_part)
            assert chain.shard_account(address(0).hash_part, 1) == EMPTY_ACCOUNT

    def test_a_long_chain_restarts_from_its_subtrees(self, tmp_path: Path) -> None:
        path = tmp_path / "chain"
        with opened(path) as chain:
            for _ in range(520):
                chain.tick()
            assert len(chain.store.subtrees(99)) == 2
            assert len(chain.store.subtrees(1)) == 1
            head = chain.master
        with opened(path) as chain:
            for seqno in (0, 1, 255, 256, 257, 511, 512, 513, 520):
                block = chain.block(MASTERCHAIN, seqno)
                assert block is not None
                assert chain.state(block).hash == block.state.hash
            assert chain.tick().seqno == head.seqno + 1
            prev = chain.prev_blocks(chain.master.seqno)
            assert [block.seqno for block in prev.last_100] == [500, 400, 300, 200, 100, 0]

    def test_deleted_accounts_are_gone_and_remembered(self, tmp_path: Path) -> None:
        # SENDRAWMSG mode 128+32 of the whole balance to address(9): the account ends
        body = begin_cell().store_uint(0x10, 6).store_address(address(9)).store_uint(0, 111).end_cell()
        code = begin_cell().store_bytes(bytes.fromhex("ED44D0D4308100A0FB00")).end_cell()
        data = begin_cell().store_ref(body).end_cell()
        account = make_account(address(5), TON, 0, code=code, data=data)
        path = tmp_path / "chain"
        with opened(path, accounts={address(5).hash_part: account}) as chain:
            chain.tick()
            chain.send(FAUCET.transfer(chain, address(5), TON))
            chain.tick()
            assert chain.account(address(5).hash_part) is None
            assert balance(chain, address(9)) > TON
        with opened(path) as chain:
            assert chain.account(address(5).hash_part) is None
            assert balance(chain, address(5), 1) == TON
            for seqno in range(3):
                block = chain.block(BASECHAIN, seqno)
                assert block is not None
                assert chain.state(block).hash == block.state.hash

    def test_a_failed_write_changes_nothing(self, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
        chain.send(FAUCET.transfer(chain, address(1), TON))
        head = chain.master

        def fail(_: object) -> None:
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(chain.store, "commit", fail)
            with pytest.raises(OSError, match="disk full"):
                chain.tick()
        assert chain.master is head
        assert balance(chain, address(1)) == 0
        chain.tick()
        assert balance(chain, address(1)) > 0

    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        with opened(tmp_path / "chain"), pytest.raises(ConfigError), opened(tmp_path / "chain"):
            pass

    def test_unknown_format(self, tmp_path: Path) -> None:
        import sqlite3

        with opened(tmp_path / "chain"):
            pass
        database = sqlite3.connect(tmp_path / "chain")
        database.execute("PRAGMA user_version = 99")
        database.close()
        with pytest.raises(ConfigError, match="format"), opened(tmp_path / "chain"):
            pass

    def test_lookups(self, chain: Chain) -> None:
        for _ in range(3):
            chain.tick()
        second = chain.block(BASECHAIN, 2)
        assert second is not None
        assert chain.store.block_at_lt(BASECHAIN, second.start_lt) == second
        assert chain.store.block_at_lt(BASECHAIN, 10**18) is None
        first = chain.store.block_at_time(MASTERCHAIN, int(START) - 10)
        assert first is not None
        assert first.seqno == 1
        assert chain.store.block_at_time(MASTERCHAIN, int(START) + 10) is None
        assert chain.block(BASECHAIN, 99) is None
        assert chain.block(7, 0) is None


class TestKeys:
    def test_made_once_and_private(self, tmp_path: Path) -> None:
        first, second = load_keys(tmp_path), load_keys(tmp_path)
        assert bytes(first.validator) == bytes(second.validator)
        assert first.control == second.control
        assert (tmp_path / "keys.json").stat().st_mode & 0o77 == 0
        assert bytes(first.faucet).hex() not in repr(first)

    @pytest.mark.parametrize("text", ["", "{}", '{"validator": 1}', '{"validator": "00"}'])
    def test_damaged(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "keys.json").write_text(text)
        with pytest.raises(ConfigError):
            load_keys(tmp_path)

    def test_random(self) -> None:
        assert bytes(ChainKeys.generate().faucet) != bytes(ChainKeys.generate().faucet)


class TestSpeed:
    def test_ten_thousand_accounts_do_not_slow_a_block(self) -> None:
        """Two chains make the same blocks in turn, so that a busy machine slows both alike."""
        code = begin_cell().end_cell()
        with ExitStack() as stack:
            chains = []
            for count in (100, 10_000):
                owners = [address(number) for number in range(count)]
                accounts = {o.hash_part: make_account(o, TON, 0, code=code, data=code) for o in owners}
                chains.append(stack.enter_context(opened(accounts=accounts)))
            times: list[list[float]] = [[], []]
            for block in range(12):
                for chain, spent in zip(chains, times, strict=True):
                    for number in range(5):
                        target = address(block * 5 + number)
                        gift = internal_message(source=target, destination=target, value=TON)
                        chain._queue.append(gift)
                    start = time.perf_counter()
                    chain.tick()
                    spent.append(time.perf_counter() - start)
        few, many = (sorted(spent)[len(spent) // 2] for spent in times)
        assert many < 2 * few
