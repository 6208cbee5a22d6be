"""Accounts that exist from the zerostate on: balances, wallets, contracts in the middle of their lives."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
from pytoniq_core import Address, begin_cell

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet, GenesisAccount
from cocoon_ton.devnet.faucet import WALLET_ID
from cocoon_ton.emulator import contract_address, find_sandbox
from cocoon_ton.messages import Transfer
from cocoon_ton.network import NetworkConfig
from cocoon_ton.wallet import Wallet, WalletVersion

TON = 10**9
GIFT = Address((0, b"\x21" * 32))


@pytest.fixture(autouse=True)
def _installed() -> None:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))


def network_of(net: Devnet) -> NetworkConfig:
    return NetworkConfig(name="genesis", global_id=net.global_id, registry="", global_config=net.config)


@pytest.fixture
def wallet() -> Wallet:
    return Wallet(b"\x31" * 32, global_id=-217, version=WalletVersion.V4R2)


async def test_a_wallet_that_was_used_before_the_chain_began(wallet: Wallet) -> None:
    """Its seqno is 7 although it has no transactions, and its next message is number 7."""
    data = (
        begin_cell().store_uint(7, 32).store_uint(WALLET_ID, 32).store_bytes(wallet.public_key).store_bit(0)
    )
    account = GenesisAccount(balance=9 * TON, code=WALLET_V4_R2_CODE, data=data.end_cell())
    assert wallet.address != contract_address(WALLET_V4_R2_CODE, data.end_cell())
    async with (
        Devnet.start(block_interval=None, accounts={wallet.address: account}) as net,
        LiteChain(network_of(net), head_ttl=0) as chain,
    ):
        state = await chain.account(wallet.address)
        assert (state.balance, wallet.seqno(state)) == (9 * TON, 7)
        assert await chain.transactions(wallet.address) == []
        payment = wallet.sign(
            [Transfer(destination=GIFT, amount=TON, bounce=False)],
            seqno=7,
            valid_until=net.chain.now() + 60,
            deploy=False,
        )
        await chain.send(payment.boc)
        net.tick()
        assert (await chain.account(GIFT)).balance == TON
        after = await chain.account(wallet.address)
        assert wallet.seqno(after) == 8
        assert 8 * TON - TON // 100 < after.balance < 8 * TON  # a fee, and no storage fee since 1970


async def test_a_chain_that_is_continued_keeps_its_own(tmp_path: Path) -> None:
    accounts = {Address((0, number.to_bytes(32, "big"))): number for number in range(1, 300)}
    for genesis in (accounts, {GIFT: TON}):
        async with Devnet.start(tmp_path / "chain", block_interval=None, accounts=genesis) as net:
            for number in (1, 250, 299):
                entry = net.chain.account(number.to_bytes(32, "big"))
                assert entry is not None
                assert entry.balance == number
            assert net.chain.account(GIFT.hash_part) is None
