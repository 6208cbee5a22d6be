"""Wallets: words, addresses, signed messages, and what the real contracts do with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq import WalletV4R2, WalletV5R1
from pytoniq_core import Address, Cell, StateInit, begin_cell

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_ton.emulator import Emulator, MessageNotAcceptedError, TestChain
from cocoon_ton.errors import ChainProofError
from cocoon_ton.messages import Transfer, state_init_cell
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof.boc import parse_boc
from cocoon_ton.values import AccountState, BlockRef
from cocoon_ton.wallet import (
    CODE_HASHES,
    Wallet,
    WalletVersion,
    faucet_wallet,
    new_mnemonic,
    parse_mnemonic,
    wallet_code,
)

GLOBAL_ID = -217
SEED = b"\x05" * 32
BOB = Address((0, b"\xb0" * 32))
both = pytest.mark.parametrize("version", list(WalletVersion))


class TestMnemonic:
    def test_new_words_are_valid(self) -> None:
        words = new_mnemonic()
        assert parse_mnemonic(" ".join(words)) == words
        assert parse_mnemonic("  " + "\n".join(words).upper()) == words
        assert new_mnemonic() != words

    def test_wrong_words_are_named_by_position_only(self) -> None:
        words = [*new_mnemonic()]
        words[3] = "tonn"
        with pytest.raises(MalformedError) as caught:
            parse_mnemonic(" ".join(words))
        assert "[4]" in str(caught.value)
        assert "tonn" not in str(caught.value)

    def test_wrong_order(self) -> None:
        refusals = 0
        words = [*new_mnemonic()]
        for index in range(8):
            swapped = words.copy()
            swapped[index], swapped[index + 8] = swapped[index + 8], swapped[index]
            try:
                parse_mnemonic(" ".join(swapped))
            except MalformedError:
                refusals += 1
        assert refusals >= 6  # one of 256 wrong orders passes TON's check value

    @pytest.mark.parametrize("count", [0, 12, 23, 25])
    def test_wrong_count(self, count: int) -> None:
        with pytest.raises(MalformedError, match="24 words"):
            parse_mnemonic(" ".join(["abandon"] * count))

    @given(st.text(max_size=300))
    def test_any_text(self, text: str) -> None:
        with pytest.raises(MalformedError):
            parse_mnemonic(text)


class TestAddress:
    @both
    def test_like_the_library(self, version: WalletVersion) -> None:
        wallet = Wallet(SEED, global_id=GLOBAL_ID, version=version)
        if version is WalletVersion.V4R2:
            data = WalletV4R2.create_data_cell(wallet.public_key)
        else:
            data = WalletV5R1.create_data_cell(wallet.public_key, network_global_id=GLOBAL_ID)
        expected = state_init_cell(StateInit(code=wallet_code(version), data=data))
        assert wallet.state_init == expected
        assert wallet.address == Address((0, expected.hash))

    def test_known_wallet_ids(self) -> None:
        assert Wallet(SEED, global_id=-239).wallet_id == 2147483409
        assert Wallet(SEED, global_id=-3).wallet_id == 2147483645
        assert Wallet(SEED, global_id=-239, version=WalletVersion.V4R2).wallet_id == 698983191

    def test_version_5_is_bound_to_its_network(self) -> None:
        assert Wallet(SEED, global_id=-3).address != Wallet(SEED, global_id=-239).address

    def test_forms(self) -> None:
        assert Wallet(SEED, global_id=-239).friendly.startswith("UQ")
        assert Wallet(SEED, global_id=-3).friendly.startswith("0Q")

    def test_same_words_same_wallet(self) -> None:
        words = new_mnemonic()
        first, second = (Wallet.from_mnemonic(words, global_id=-3) for _ in range(2))
        assert first.address == second.address

    def test_nothing_secret_is_printed(self) -> None:
        wallet = Wallet(SEED, global_id=-3)
        assert repr(wallet).startswith("<Wallet v5r1 0:")
        assert SEED.hex() not in repr(wallet)
        assert not hasattr(wallet, "__dict__")

    @pytest.mark.parametrize("length", [0, 31, 33, 64])
    def test_seed_length(self, length: int) -> None:
        with pytest.raises(ConfigError):
            Wallet(bytes(length), global_id=-3)

    @both
    def test_code_hashes(self, version: WalletVersion) -> None:
        assert wallet_code(version).hash == CODE_HASHES[version]


def transfer(amount: int = 10**9, to: Address = BOB, **changes: object) -> Transfer:
    return dataclasses.replace(Transfer(destination=to, amount=amount, bounce=False), **changes)  # type: ignore[arg-type]


@dataclasses.dataclass
class Bank:
    """A wallet on an emulated chain."""

    chain: TestChain
    wallet: Wallet

    def send(self, *transfers: Transfer, seqno: int, valid_for: int = 60, deploy: bool = False) -> None:
        message = self.wallet.sign(
            transfers, seqno=seqno, valid_until=self.chain.now + valid_for, deploy=deploy
        )
        self.chain.send_message(parse_boc(message.boc)[0])

    def state(self) -> AccountState:
        view = self.chain.account(self.wallet.address)
        block = BlockRef(seqno=1, root_hash=b"", file_hash=b"", utime=0)
        return AccountState(
            address=self.wallet.address,
            status=view.status,  # type: ignore[arg-type]
            balance=view.balance,
            code=view.code,
            data=view.data,
            last_tx_lt=0,
            last_tx_hash=bytes(32),
            block=block,
            shard_utime=self.chain.now,
        )


@pytest.fixture(params=list(WalletVersion))
def bank(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Bank]:
    chain = TestChain(emulator=emulator)
    wallet = Wallet(SEED, global_id=GLOBAL_ID, version=request.param)
    chain.add_account(wallet.address, 100 * 10**9)
    chain.add_account(BOB, 1)
    yield Bank(chain, wallet)
    assert chain.total_balance() + chain.collected_fees == chain.minted


class TestOnTheRealContract:
    def test_first_message_deploys(self, bank: Bank) -> None:
        assert bank.wallet.seqno(bank.state()) == 0
        bank.send(transfer(), seqno=0, deploy=True)
        assert bank.chain.balance(BOB) == 10**9 + 1
        assert bank.wallet.seqno(bank.state()) == 1
        assert bank.state().code_hash == CODE_HASHES[bank.wallet.version]

    def test_four_transfers_in_order(self, bank: Bank) -> None:
        bank.send(*(transfer(i, Address((0, bytes([i]) * 32))) for i in range(1, 5)), seqno=0, deploy=True)
        for i in range(1, 5):
            assert bank.chain.balance(Address((0, bytes([i]) * 32))) == i

    def test_replay_is_refused(self, bank: Bank) -> None:
        bank.send(transfer(), seqno=0, deploy=True)
        with pytest.raises(MessageNotAcceptedError):
            bank.send(transfer(), seqno=0)
        with pytest.raises(MessageNotAcceptedError):
            bank.send(transfer(), seqno=2)
        bank.send(transfer(), seqno=1)
        assert bank.chain.balance(BOB) == 2 * 10**9 + 1

    def test_expired_message_is_refused_from_the_second_it_names(self, bank: Bank) -> None:
        with pytest.raises(MessageNotAcceptedError):
            bank.send(transfer(), seqno=0, deploy=True, valid_for=0)
        bank.send(transfer(), seqno=0, deploy=True, valid_for=1)

    def test_another_key_is_refused(self, bank: Bank) -> None:
        other = Wallet(b"\x06" * 32, global_id=GLOBAL_ID, version=bank.wallet.version)
        message = other.sign([transfer()], seqno=0, valid_until=bank.chain.now + 60, deploy=False)
        body = parse_boc(message.boc)[0].refs[-1]
        with pytest.raises(MessageNotAcceptedError):
            bank.chain.send_external(bank.wallet.address, body, init=bank.wallet.state_init)

    def test_too_large_a_transfer_uses_up_the_seqno_and_sends_nothing(self, bank: Bank) -> None:
        """Why the outbox looks for each message in the transaction."""
        bank.send(transfer(10**15), transfer(5), seqno=0, deploy=True)
        assert bank.wallet.seqno(bank.state()) == 1
        assert bank.chain.balance(BOB) == 6

    def test_body_and_state_init_arrive(self, bank: Bank) -> None:
        code = Cell.empty()
        init = state_init_cell(StateInit(code=code, data=begin_cell().store_uint(1, 8).end_cell()))
        child = Address((0, init.hash))
        body = begin_cell().store_uint(0xABCD, 32).store_ref(Cell.empty()).end_cell()
        bank.send(transfer(10**9, child, body=body, state_init=init), seqno=0, deploy=True)
        assert bank.chain.account(child).active

    def test_signed_for_another_network(self, bank: Bank) -> None:
        """Version 5 refuses it; version 4 cannot tell, which is why it is not the default."""
        other = Wallet(SEED, global_id=-239, version=bank.wallet.version)
        message = other.sign([transfer()], seqno=0, valid_until=bank.chain.now + 60, deploy=False)
        body = parse_boc(message.boc)[0].refs[-1]
        if bank.wallet.version is WalletVersion.V5R1:
            with pytest.raises(MessageNotAcceptedError):
                bank.chain.send_external(bank.wallet.address, body, init=bank.wallet.state_init)
        else:
            bank.chain.send_external(bank.wallet.address, body, init=bank.wallet.state_init)


class TestSign:
    @both
    @pytest.mark.parametrize("count", [0, 5])
    def test_number_of_transfers(self, version: WalletVersion, count: int) -> None:
        wallet = Wallet(SEED, global_id=-3, version=version)
        with pytest.raises(ConfigError):
            wallet.sign([transfer()] * count, seqno=0, valid_until=1, deploy=False)

    @pytest.mark.parametrize(("seqno", "valid_until"), [(-1, 1), (1 << 32, 1), (0, -1), (0, (1 << 32) - 1)])
    def test_no_message_without_an_end(self, seqno: int, valid_until: int) -> None:
        with pytest.raises(ConfigError):
            Wallet(SEED, global_id=-3).sign(
                [transfer()], seqno=seqno, valid_until=valid_until, deploy=False
            )

    @both
    def test_is_deterministic(self, version: WalletVersion) -> None:
        wallet = Wallet(SEED, global_id=-3, version=version)
        first, second = (wallet.sign([transfer()], seqno=3, valid_until=99, deploy=False) for _ in range(2))
        assert first == second
        cell = parse_boc(first.boc)[0]
        assert cell.hash == first.hash
        assert cell.refs[-1].hash == first.body_hash


class TestSeqno:
    def test_other_code(self, bank: Bank) -> None:
        bank.send(transfer(), seqno=0, deploy=True)
        state = dataclasses.replace(bank.state(), code=Cell.empty())
        with pytest.raises(ChainProofError, match="other code"):
            bank.wallet.seqno(state)

    def test_another_key(self, bank: Bank) -> None:
        bank.send(transfer(), seqno=0, deploy=True)
        other = Wallet(b"\x06" * 32, global_id=GLOBAL_ID, version=bank.wallet.version)
        with pytest.raises(ChainProofError, match="another key"):
            other.seqno(bank.state())

    def test_malformed_data(self, bank: Bank) -> None:
        bank.send(transfer(), seqno=0, deploy=True)
        state = dataclasses.replace(bank.state(), data=Cell.empty())
        with pytest.raises(ChainProofError, match="malformed"):
            bank.wallet.seqno(state)


class TestFaucet:
    def network(self, faucet: dict[str, str] | None) -> NetworkConfig:
        from .test_network import network

        return network(faucet=faucet)

    def test_from_a_seed(self) -> None:
        wallet = faucet_wallet(self.network({"seed": SEED.hex()}))
        assert wallet.address == Wallet(SEED, global_id=GLOBAL_ID, version=WalletVersion.V4R2).address

    def test_from_words(self) -> None:
        words = new_mnemonic()
        faucet = {"mnemonic": " ".join(words), "wallet": "v5r1"}
        assert (
            faucet_wallet(self.network(faucet)).address
            == Wallet.from_mnemonic(words, global_id=GLOBAL_ID).address
        )

    def test_none(self) -> None:
        with pytest.raises(ConfigError, match="no faucet"):
            faucet_wallet(self.network(None))
