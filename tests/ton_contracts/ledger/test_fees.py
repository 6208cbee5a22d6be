"""The estimate of fees against what the real wallet contracts pay."""

from __future__ import annotations

import pytest
from pytoniq_core import Address, Builder, Cell

from cocoon_ton.emulator import Emulator, TestChain
from cocoon_ton.fees import channel_fee, forward_fee, transfer_fee
from cocoon_ton.messages import Transfer
from cocoon_ton.proof.boc import parse_boc
from cocoon_ton.wallet import Wallet, WalletVersion

TON = 10**9
SMALL = Builder().store_uint(0xC0C30001, 32).store_uint(0, 64).end_cell()
LARGE = Builder().store_bytes(bytes(120)).store_ref(Builder().store_bytes(bytes(100)).end_cell()).end_cell()


@pytest.mark.parametrize("version", list(WalletVersion))
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("body", [Cell.empty(), SMALL, LARGE], ids=["empty", "small", "large"])
def test_the_estimate_covers_what_is_paid_and_not_much_more(
    emulator: Emulator, version: WalletVersion, count: int, body: Cell
) -> None:
    chain = TestChain(emulator=emulator)
    wallet = Wallet(b"\x07" * 32, global_id=-3, version=version)
    chain.add_account(wallet.address, 100 * TON)
    transfers = [
        Transfer(destination=Address((0, bytes([n]) * 32)), amount=TON, body=body, bounce=False)
        for n in range(1, count + 1)
    ]
    for seqno in range(2):
        before = chain.balance(wallet.address)
        message = wallet.sign(transfers, seqno=seqno, valid_until=chain.now + 60, deploy=seqno == 0)
        assert chain.send_message(parse_boc(message.boc)[0]).first.success
        paid = before - chain.balance(wallet.address) - count * TON
        estimate = transfer_fee(wallet, transfers, deploy=seqno == 0)
        assert paid <= estimate <= paid * 3 // 2


def test_equal_cells_are_counted_once() -> None:
    leaf = Builder().store_bytes(bytes(60)).end_cell()
    twice = Builder().store_ref(leaf).store_ref(leaf).end_cell()
    once = Builder().store_ref(leaf).end_cell()
    assert forward_fee(twice) == forward_fee(once)
    assert forward_fee(None) == 400_000
    assert forward_fee(once) == 400_000 + 2 * 40_000 + 480 * 400


def test_channels_are_cheap_to_close() -> None:
    assert channel_fee("top_up") < channel_fee("start_close") < TON // 200
