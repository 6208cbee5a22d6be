"""The outbox against a network that drops, delays, replays and lies about messages."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Cell, begin_cell

from cocoon_attestation.errors import ConfigError, UnavailableError
from cocoon_ton.emulator import Emulator, TestChain
from cocoon_ton.errors import ChainUnavailableError, OutboxConflictError
from cocoon_ton.messages import ExternalMessage, Transfer, external_message
from cocoon_ton.outbox import ExternalOperation, OperationState, Outbox, TransferOperation, find_delivery
from cocoon_ton.outbox.sender import HISTORY_LIMIT, TIME_TO_LIVE
from cocoon_ton.wallet import MAX_TRANSFERS, Wallet, WalletVersion

from .emulated import BLOCK_SECONDS, EmulatedChain

TON = 10**9
WALLET = Wallet(b"\x05" * 32, global_id=-217)
CONTRACT = Wallet(b"\x06" * 32, global_id=-217)
"""Takes external messages: another wallet, which pays to `CAROL`."""
BOB, CAROL = (Address((0, bytes([letter]) * 32)) for letter in (0xB0, 0xCA))
SEEN, FAILED, QUEUED, SENT = (
    OperationState.SEEN,
    OperationState.FAILED,
    OperationState.QUEUED,
    OperationState.SENT,
)


def make_chain(emulator: Emulator, balance: int = 1000 * TON) -> EmulatedChain:
    chain = EmulatedChain(TestChain(emulator=emulator))
    chain.tracked |= {WALLET.address, CONTRACT.address, BOB, CAROL}
    chain.chain.add_account(WALLET.address, balance)
    chain.chain.add_account(CONTRACT.address, 10 * TON)
    chain.block()
    return chain


@pytest.fixture
def chain(emulator: Emulator) -> EmulatedChain:
    return make_chain(emulator)


@pytest.fixture
async def outbox(tmp_path: Path, chain: EmulatedChain) -> AsyncIterator[Outbox]:
    async with open_outbox(tmp_path, chain) as outbox:
        yield outbox


def open_outbox(directory: Path, chain: EmulatedChain, wallet: Wallet = WALLET) -> Outbox:
    return Outbox(directory / "outbox.sqlite", wallet, chain, resend_interval=0.0)


def pay(
    amount: int, to: Address = BOB, *, not_after: int | None = None, body: Cell | None = None
) -> TransferOperation:
    transfer = Transfer(destination=to, amount=amount, body=body or Cell.empty(), bounce=False)
    return TransferOperation(transfer=transfer, not_after=not_after)


def order(chain: EmulatedChain, amount: int, *, seqno: int = 0, valid_for: int = 600) -> ExternalOperation:
    until = chain.chain.now + valid_for
    transfer = Transfer(destination=CAROL, amount=amount, bounce=False)
    message = CONTRACT.sign([transfer], seqno=seqno, valid_until=until, deploy=seqno == 0)
    return ExternalOperation(destination=CONTRACT.address, message=message, not_after=until)


def received(chain: EmulatedChain, who: Address = BOB) -> list[int]:
    """What an account was paid, oldest first."""
    history = chain.history.get(who, [])
    return [transaction.in_msg.value for transaction in reversed(history) if transaction.in_msg]


async def work(outbox: Outbox, chain: EmulatedChain, rounds: int = 12) -> None:
    for _ in range(rounds):
        await outbox.step()
        chain.block()
    await outbox.step()


class TestTransfers:
    async def test_one(self, outbox: Outbox, chain: EmulatedChain) -> None:
        assert outbox.enqueue("a", pay(5)).state is QUEUED
        await outbox.step()
        assert outbox.status("a").state is SENT
        assert outbox.pending == 1
        chain.block()
        await outbox.step()
        status = outbox.status("a")
        assert status.state is SEEN
        assert status.tx_hash == chain.history[WALLET.address][0].hash
        assert status.message_hash == chain.history[WALLET.address][0].out_msgs[0].hash
        assert received(chain) == [5]
        assert outbox.pending == 0

    async def test_same_key_same_operation(self, outbox: Outbox, chain: EmulatedChain) -> None:
        for _ in range(3):
            outbox.enqueue("a", pay(5))
            await work(outbox, chain, 2)
        assert received(chain) == [5]

    @pytest.mark.parametrize(
        "other",
        [pay(6), pay(5, CAROL), pay(5, not_after=1), pay(5, body=begin_cell().store_bit(1).end_cell())],
    )
    async def test_same_key_another_operation(self, outbox: Outbox, other: TransferOperation) -> None:
        outbox.enqueue("a", pay(5))
        with pytest.raises(OutboxConflictError):
            outbox.enqueue("a", other)

    async def test_many_go_four_at_a_time_in_order(self, outbox: Outbox, chain: EmulatedChain) -> None:
        for amount in range(1, 11):
            outbox.enqueue(f"pay {amount}", pay(amount))
        await work(outbox, chain)
        assert received(chain) == list(range(1, 11))
        assert len(chain.history[WALLET.address]) == 3
        assert MAX_TRANSFERS == 4

    async def test_equal_transfers_are_each_paid(self, outbox: Outbox, chain: EmulatedChain) -> None:
        for name in "abc":
            outbox.enqueue(name, pay(7))
        await work(outbox, chain)
        assert received(chain) == [7, 7, 7]
        assert len({outbox.status(name).message_hash for name in "abc"}) == 3

    async def test_version_4_too(self, tmp_path: Path, emulator: Emulator) -> None:
        wallet = Wallet(b"\x05" * 32, global_id=-217, version=WalletVersion.V4R2)
        chain = make_chain(emulator)
        chain.tracked.add(wallet.address)
        chain.chain.add_account(wallet.address, TON)
        chain.block()
        async with open_outbox(tmp_path, chain, wallet) as outbox:
            for amount in range(1, 7):
                outbox.enqueue(f"{amount}", pay(amount))
            await work(outbox, chain)
        assert received(chain) == [1, 2, 3, 4, 5, 6]

    async def test_delivery_can_be_looked_up(self, outbox: Outbox, chain: EmulatedChain) -> None:
        outbox.enqueue("a", pay(5))
        await work(outbox, chain, 2)
        message = outbox.status("a").message_hash
        assert message is not None
        delivery = await find_delivery(chain, BOB, message)
        assert delivery is not None
        assert delivery.in_msg is not None
        assert delivery.in_msg.value == 5
        assert await find_delivery(chain, BOB, bytes(32)) is None


class TestMoney:
    async def test_waits_for_funds(self, outbox: Outbox, chain: EmulatedChain) -> None:
        outbox.enqueue("big", pay(2000 * TON))
        await work(outbox, chain, 3)
        status = outbox.status("big")
        assert status.state is QUEUED
        assert "holds 1000 TON, the transfer needs 2000.02 TON" in status.error
        assert chain.sends == 0
        chain.chain.add_account(WALLET.address, 3000 * TON)
        await work(outbox, chain, 3)
        assert outbox.status("big").state is SEEN
        assert outbox.status("big").error == ""

    async def test_as_many_as_fit(self, outbox: Outbox, chain: EmulatedChain) -> None:
        for name, amount in (("a", 400), ("b", 500), ("c", 600)):
            outbox.enqueue(name, pay(amount * TON))
        await work(outbox, chain, 3)
        assert [outbox.status(name).state for name in "abc"] == [SEEN, SEEN, QUEUED]

    async def test_skipped_by_the_wallet_is_failed_not_seen(
        self, outbox: Outbox, chain: EmulatedChain
    ) -> None:
        outbox.enqueue("a", pay(1))
        outbox.enqueue("b", pay(900 * TON))
        outbox.enqueue("c", pay(2))
        await outbox.step()
        view = chain.chain.account(WALLET.address)
        chain.chain.add_account(WALLET.address, TON, code=view.code, data=view.data)  # spent elsewhere
        chain.block()
        await outbox.step()
        assert [outbox.status(name).state for name in "abc"] == [SEEN, FAILED, SEEN]
        assert "balance" in outbox.status("b").error
        assert received(chain) == [1, 2]

    @pytest.mark.parametrize("amount", [-1, 1 << 63])
    def test_impossible_amounts(self, amount: int) -> None:
        with pytest.raises(ConfigError):
            pay(amount)


class TestNetwork:
    async def test_lost_message_is_sent_again(self, outbox: Outbox, chain: EmulatedChain) -> None:
        chain.take = False
        outbox.enqueue("a", pay(5))
        await work(outbox, chain, 3)
        assert outbox.status("a").state is SENT
        chain.take = True
        await work(outbox, chain, 2)
        assert outbox.status("a").state is SEEN
        assert len(chain.seen) == 1  # the very same message, not a new one

    async def test_expired_message_is_signed_anew(self, outbox: Outbox, chain: EmulatedChain) -> None:
        chain.take = False
        outbox.enqueue("a", pay(5))
        await work(outbox, chain, TIME_TO_LIVE // BLOCK_SECONDS + 1)
        assert len(chain.seen) == 2
        chain.take = True
        chain.replay()
        await work(outbox, chain, 3)
        chain.replay()
        chain.block()
        assert outbox.status("a").state is SEEN
        assert received(chain) == [5]

    async def test_not_signed_anew_a_second_too_early(self, outbox: Outbox, chain: EmulatedChain) -> None:
        chain.take = False
        outbox.enqueue("a", pay(5))
        await outbox.step()
        chain.block(seconds=TIME_TO_LIVE - 1)
        await outbox.step()
        assert len(chain.seen) == 1
        chain.replay()
        chain.take = True
        chain.block(seconds=0)  # still executable in this second
        await outbox.step()
        assert received(chain) == [5]
        assert outbox.status("a").state is SEEN

    async def test_refusal_that_was_none(self, outbox: Outbox, chain: EmulatedChain) -> None:
        chain.admit = False
        outbox.enqueue("a", pay(5))
        await work(outbox, chain, 3)
        assert outbox.status("a").state is SEEN
        assert received(chain) == [5]

    async def test_seqno_used_by_another_program(self, outbox: Outbox, chain: EmulatedChain) -> None:
        chain.take = False
        outbox.enqueue("a", pay(5))
        await outbox.step()
        elsewhere = WALLET.sign(
            [Transfer(destination=CAROL, amount=1, bounce=False)],
            seqno=0,
            valid_until=chain.chain.now + 60,
            deploy=True,
        )
        chain.take = True
        await chain.send(elsewhere.boc)
        chain.block()
        await work(outbox, chain, 3)
        chain.replay()
        chain.block()
        assert outbox.status("a").state is SEEN
        assert received(chain) == [5]
        assert received(chain, CAROL) == [1]

    async def test_old_view_after_a_payment_pays_nothing_twice(
        self, tmp_path: Path, chain: EmulatedChain
    ) -> None:
        async with open_outbox(tmp_path, chain) as outbox:
            outbox.enqueue("a", pay(5))
            await work(outbox, chain, 4)
            assert outbox.status("a").state is SEEN
        chain.lag = len(chain.blocks) - 1  # after a restart the liteserver shows the first block
        async with open_outbox(tmp_path, chain) as outbox:
            outbox.enqueue("b", pay(6))
            await work(outbox, chain, 2)
            chain.lag = 0
            await work(outbox, chain, 4)
            assert outbox.status("b").state is SEEN
        assert received(chain) == [5, 6]

    async def test_old_view_of_an_open_message_decides_nothing(
        self, outbox: Outbox, chain: EmulatedChain
    ) -> None:
        outbox.enqueue("warm up", pay(1))
        await work(outbox, chain, 2)
        outbox.enqueue("a", pay(5))
        await outbox.step()
        chain.lag = len(chain.blocks)
        await work(outbox, chain, 2)
        assert outbox.status("a").state is SENT
        chain.lag = 0
        await outbox.step()
        assert received(chain) == [1, 5]
        assert outbox.status("a").state is SEEN

    async def test_no_chain(self, outbox: Outbox, chain: EmulatedChain) -> None:
        chain.alive = False
        outbox.enqueue("a", pay(5))
        with pytest.raises(ChainUnavailableError):
            await outbox.step()
        assert outbox.status("a").state is QUEUED

    async def test_unfinished_history_decides_nothing(
        self, outbox: Outbox, chain: EmulatedChain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outbox.enqueue("a", pay(5))
        await outbox.step()
        chain.block()

        async def nothing(*_: object, **__: object) -> list[object]:
            return []

        monkeypatch.setattr(chain, "transactions", nothing)
        with pytest.raises(ChainUnavailableError, match="not complete"):
            await outbox.step()
        assert outbox.status("a").state is SENT
        monkeypatch.undo()
        await outbox.step()
        assert outbox.status("a").state is SEEN

    async def test_dust_does_not_hide_the_transaction(self, outbox: Outbox, chain: EmulatedChain) -> None:
        outbox.enqueue("a", pay(5))
        await outbox.step()
        chain.block()
        for _ in range(30):
            chain.dust(WALLET.address)
        chain.block()
        await outbox.step()
        assert outbox.status("a").state is SEEN
        assert HISTORY_LIMIT > 30


class TestDeadlines:
    async def test_not_started_in_time(self, outbox: Outbox, chain: EmulatedChain) -> None:
        outbox.enqueue("late", pay(5, not_after=chain.chain.now - 1))
        outbox.enqueue("in time", pay(6, not_after=chain.chain.now + 100))
        await work(outbox, chain, 2)
        assert outbox.status("late").state is FAILED
        assert "not started in time" in outbox.status("late").error
        assert outbox.status("in time").state is SEEN
        assert received(chain) == [6]


class TestExternal:
    async def test_one(self, outbox: Outbox, chain: EmulatedChain) -> None:
        outbox.enqueue("order", order(chain, 5))
        await outbox.step()
        assert outbox.status("order").state is SENT
        chain.block()
        await outbox.step()
        status = outbox.status("order")
        assert status.state is SEEN
        assert status.tx_hash == chain.history[CONTRACT.address][0].hash
        assert received(chain, CAROL) == [5]

    async def test_sent_until_it_is_seen(self, outbox: Outbox, chain: EmulatedChain) -> None:
        chain.take = False
        outbox.enqueue("order", order(chain, 5))
        await work(outbox, chain, 5)
        assert outbox.status("order").state is SENT
        chain.take = True
        await work(outbox, chain, 2)
        assert outbox.status("order").state is SEEN
        assert received(chain, CAROL) == [5]

    async def test_refusal_is_remembered_and_tried_again(
        self, outbox: Outbox, chain: EmulatedChain
    ) -> None:
        chain.take = chain.admit = False
        outbox.enqueue("order", order(chain, 5))
        await work(outbox, chain, 2)
        assert "cannot apply" in outbox.status("order").error
        chain.take = chain.admit = True
        await work(outbox, chain, 2)
        assert outbox.status("order").state is SEEN

    async def test_gives_up_after_the_deadline(self, outbox: Outbox, chain: EmulatedChain) -> None:
        outbox.enqueue("wrong", order(chain, 5, seqno=9, valid_for=30))
        await work(outbox, chain, 10)
        assert outbox.status("wrong").state is FAILED
        assert "in time" in outbox.status("wrong").error

    async def test_same_content_under_two_keys_is_seen_for_both(
        self, outbox: Outbox, chain: EmulatedChain
    ) -> None:
        operation = order(chain, 5)
        outbox.enqueue("first", operation)
        outbox.enqueue("second", operation)
        await work(outbox, chain, 3)
        assert outbox.status("first").state is SEEN
        assert outbox.status("second").state is SEEN
        assert received(chain, CAROL) == [5]

    async def test_beside_transfers(self, outbox: Outbox, chain: EmulatedChain) -> None:
        outbox.enqueue("order", order(chain, 5))
        outbox.enqueue("transfer", pay(6))
        await work(outbox, chain, 2)
        assert outbox.pending == 0

    async def test_contract_that_fails(self, outbox: Outbox, chain: EmulatedChain) -> None:
        """Accepted, charged, and then an exit code: executed without effect."""
        code = Cell.one_from_boc(_ACCEPT_AND_THROW)
        contract = Address((0, b"\xee" * 32))
        chain.tracked.add(contract)
        chain.chain.add_account(contract, TON, code=code, data=Cell.empty())
        chain.block()
        message: ExternalMessage = external_message(contract, begin_cell().store_uint(1, 32).end_cell())
        outbox.enqueue("throws", ExternalOperation(destination=contract, message=message))
        await work(outbox, chain, 2)
        status = outbox.status("throws")
        assert status.state is FAILED
        assert "exit code 55" in status.error


# SETCP0; ACCEPT; 55 THROW
_ACCEPT_AND_THROW = (
    begin_cell().store_uint(0xFF00, 16).store_uint(0xF800, 16).store_uint(0xF237, 16).end_cell().to_boc()
)


class TestStore:
    async def test_survives_a_restart(self, tmp_path: Path, chain: EmulatedChain) -> None:
        async with open_outbox(tmp_path, chain) as outbox:
            outbox.enqueue("a", pay(5))
            await outbox.step()
        async with open_outbox(tmp_path, chain) as outbox:
            assert outbox.status("a").state is SENT
            chain.block()
            await outbox.step()
            assert outbox.status("a").state is SEEN
        assert received(chain) == [5]

    async def test_one_process_at_a_time(self, tmp_path: Path, chain: EmulatedChain) -> None:
        async with open_outbox(tmp_path, chain):
            with pytest.raises(ConfigError, match="another process"):
                async with open_outbox(tmp_path, chain):
                    pass
        async with open_outbox(tmp_path, chain):
            pass

    async def test_belongs_to_one_wallet_and_network(self, tmp_path: Path, chain: EmulatedChain) -> None:
        async with open_outbox(tmp_path, chain):
            pass
        for other in (CONTRACT, Wallet(b"\x05" * 32, global_id=-3)):
            with pytest.raises(ConfigError, match="another wallet"):
                async with open_outbox(tmp_path, chain, other):
                    pass

    async def test_not_a_database(self, tmp_path: Path, chain: EmulatedChain) -> None:
        (tmp_path / "outbox.sqlite").write_bytes(b"something else" * 1000)
        with pytest.raises(ConfigError, match="cannot open"):
            async with open_outbox(tmp_path, chain):
                pass

    async def test_file_is_private_and_durable(self, tmp_path: Path, outbox: Outbox) -> None:
        assert (tmp_path / "outbox.sqlite").stat().st_mode & 0o777 == 0o600
        assert outbox._store is not None
        database = outbox._store._db
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)

    async def test_one_open_message_is_a_rule_of_the_database(self, outbox: Outbox) -> None:
        assert outbox._store is not None
        insert = (
            "INSERT INTO batches (seqno, valid_until, start_lt, boc, body_hash, state)"
            " VALUES (0, 0, 0, x'', x'', 'open')"
        )
        outbox._store._db.execute(insert)
        with pytest.raises(sqlite3.IntegrityError):
            outbox._store._db.execute(insert)

    async def test_full_disk_is_a_reason_to_try_again(self, outbox: Outbox, chain: EmulatedChain) -> None:
        assert outbox._store is not None
        database = outbox._store._db
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        body = begin_cell().store_uint(0, 1000).end_cell()
        for _ in range(100):
            body = begin_cell().store_uint(_, 1000).store_ref(body).end_cell()
        with pytest.raises(UnavailableError, match="full"):
            outbox.enqueue("a", pay(5, body=body))
        database.execute("PRAGMA max_page_count = 1000000")
        outbox.enqueue("a", pay(5, body=body))
        await work(outbox, chain, 2)
        assert outbox.status("a").state is SEEN

    async def test_unknown_key(self, outbox: Outbox) -> None:
        with pytest.raises(ConfigError, match="no operation"):
            outbox.status("nothing")

    @pytest.mark.parametrize("key", ["", "x" * 201])
    async def test_key_length(self, outbox: Outbox, key: str) -> None:
        with pytest.raises(ConfigError):
            outbox.enqueue(key, pay(5))

    async def test_must_be_open(self, tmp_path: Path, chain: EmulatedChain) -> None:
        with pytest.raises(ConfigError, match="not open"):
            open_outbox(tmp_path, chain).enqueue("a", pay(5))


ACTIONS: dict[str, Callable[[EmulatedChain], None]] = {
    "block": lambda chain: chain.block(),
    "late block": lambda chain: chain.block(seconds=TIME_TO_LIVE),
    "replay": lambda chain: chain.replay(),
    "lose": lambda chain: chain.pool.clear(),
    "deaf": lambda chain: setattr(chain, "take", not chain.take),
    "grumpy": lambda chain: setattr(chain, "admit", not chain.admit),
    "behind": lambda chain: setattr(chain, "lag", 3 - chain.lag),
    "gone": lambda chain: setattr(chain, "alive", not chain.alive),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(st.sampled_from(["pay", "step", "step", "restart", *ACTIONS]), max_size=40))
async def test_whatever_happens_each_is_paid_once(
    emulator: Emulator, tmp_path_factory: pytest.TempPathFactory, script: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("outbox")
    chain = make_chain(emulator)
    outbox = await open_outbox(directory, chain).__aenter__()
    paid: list[int] = []
    for action in script:
        if action == "pay":
            paid.append(len(paid) + 1)
            outbox.enqueue(f"{paid[-1]}", pay(paid[-1]))
        elif action == "step":
            try:
                await outbox.step()
            except ChainUnavailableError:
                assert not chain.alive
        elif action == "restart":
            await outbox.__aexit__(None, None, None)
            outbox = await open_outbox(directory, chain).__aenter__()
        else:
            ACTIONS[action](chain)
        amounts = received(chain)
        assert len(set(amounts)) == len(amounts), "paid twice"
    chain.take = chain.admit = chain.alive = True
    chain.lag = 0
    await work(outbox, chain, 8 + len(paid))
    chain.replay()
    chain.block()
    await outbox.__aexit__(None, None, None)
    assert sorted(received(chain)) == paid
