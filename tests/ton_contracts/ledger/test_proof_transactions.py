"""The history of an account as a chain of hashes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell

from cocoon_ton.devnet import Devnet
from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.boc import parse_boc, write_boc
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.proof.transactions import parse_message, verify_transactions
from cocoon_ton.proof.tree import merkle_proof

from .conftest import ALICE, NOBODY


@dataclasses.dataclass
class History:
    """Alice's transactions as the chain stores them, newest first."""

    cells: list[Cell]
    lt: int
    hash: bytes


@pytest.fixture
async def history(devnet: Devnet) -> History:
    for amount in (1, 2, 3):
        devnet.fund(ALICE, amount, body=begin_cell().store_uint(0xFEED0000 + amount, 32).end_cell())
    entry = devnet.chain.account(ALICE.hash_part)
    assert entry is not None
    cells, lt = [], entry.last_lt
    while lt:
        record = devnet.chain.store.transaction(ALICE.hash_part, lt)
        assert record is not None
        (cell,) = parse_boc(record.boc)
        cells.append(cell)
        part = cell.begin_parse().skip_bits(4 + 256 + 64 + 256)
        lt = part.load_uint(64)
    return History(cells, entry.last_lt, bytes(entry.last_hash))


def refused(cells: list[Cell], history: History, lt: int | None = None, hash: bytes | None = None) -> str:
    with pytest.raises(ChainProofError) as caught:
        verify_transactions(write_boc(cells), ALICE, history.lt if lt is None else lt, hash or history.hash)
    return str(caught.value)


async def test_newest_first(history: History) -> None:
    found = verify_transactions(write_boc(history.cells), ALICE, history.lt, history.hash)
    assert [t.in_msg.value for t in found if t.in_msg] == [3, 2, 1]
    assert [t.in_msg.opcode for t in found if t.in_msg] == [0xFEED0003, 0xFEED0002, 0xFEED0001]
    assert found[0].hash == history.hash
    assert found[0].prev_lt == found[1].lt
    assert found[0].prev_hash == found[1].hash
    assert found[-1].prev_lt == 0
    message = found[0].in_msg
    assert message is not None
    assert (message.kind, message.destination, message.bounce) == ("internal", ALICE, False)
    assert not found[0].success  # no code to run: a skipped computation is no success
    assert found[0].exit_code is None
    assert found[0].utime > 1_700_000_000


async def test_a_shorter_list_is_fine(history: History) -> None:
    assert len(verify_transactions(write_boc(history.cells[:1]), ALICE, history.lt, history.hash)) == 1


async def test_one_left_out(history: History) -> None:
    assert "names" in refused([history.cells[0], history.cells[2]], history)


async def test_not_the_newest(history: History) -> None:
    assert "names" in refused(history.cells[1:], history)


async def test_another_logical_time(history: History) -> None:
    assert "logical time" in refused(history.cells, history, lt=history.lt + 1)


async def test_goes_on_before_the_first(history: History) -> None:
    assert "before the first" in refused([*history.cells, history.cells[0]], history)


async def test_another_account(history: History) -> None:
    with pytest.raises(ChainProofError, match="another account"):
        verify_transactions(write_boc(history.cells), NOBODY, history.lt, history.hash)


async def test_hidden_in_a_proof(history: History) -> None:
    proof = merkle_proof(history.cells[0])
    assert "not shown" in refused([proof], history, hash=bytes(proof.hash))


async def test_something_else_with_the_right_hash(history: History) -> None:
    cell = begin_cell().store_uint(7, 4).store_uint(0, 900).end_cell()
    assert "malformed" in refused([cell], history, hash=bytes(cell.hash))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(ChainProofError):
        verify_transactions(data, ALICE, 1, bytes(32))


@given(st.text("01", max_size=400))
def test_any_message_cell(bits: str) -> None:
    cell = begin_cell().store_bits(bits).end_cell()
    try:
        with proof_seam("message"):
            parse_message(cell)
    except ChainProofError:
        return


async def test_external_messages(devnet: Devnet) -> None:
    devnet.fund(ALICE, 9)
    entry = devnet.chain.account(devnet.faucet_address.hash_part)
    assert entry is not None
    record = devnet.chain.store.transaction(devnet.faucet_address.hash_part, entry.last_lt)
    assert record is not None
    (transaction,) = verify_transactions(
        record.boc, devnet.faucet_address, entry.last_lt, bytes(entry.last_hash)
    )
    assert transaction.success
    assert transaction.exit_code == 0
    assert transaction.action_code == 0
    assert transaction.total_fees > 0
    assert transaction.in_msg is not None
    assert transaction.in_msg.kind == "external_in"
    assert transaction.in_msg.source is None
    (sent,) = transaction.out_msgs
    assert (sent.kind, sent.source, sent.destination, sent.value) == (
        "internal",
        devnet.faucet_address,
        ALICE,
        9,
    )
