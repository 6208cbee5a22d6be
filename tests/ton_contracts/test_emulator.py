"""The emulator and the in-memory chain: transactions, getters, messages, time, money."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.signing import SigningKey
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
from pytoniq_core import Address, Cell, begin_cell

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.emulator import (
    EMPTY_ACCOUNT,
    Emulator,
    EmulatorError,
    GetMethodError,
    MessageNotAcceptedError,
    TestChain,
    contract_address,
    external_message,
    find_sandbox,
    internal_message,
    make_account,
    method_id,
    state_init,
    view_account,
)
from cocoon_ton.emulator.host import Host, shared_host
from cocoon_ton.emulator.modules import compile_modules
from cocoon_ton.emulator.sandbox import load_sandbox

TON = 10**9
EMPTY = begin_cell().end_cell()
NOBODY = Address((0, b"\x07" * 32))


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator()


@pytest.fixture
def chain(emulator: Emulator) -> Iterator[TestChain]:
    chain = TestChain(emulator=emulator)
    yield chain
    assert chain.total_balance() + chain.collected_fees == chain.minted


def code(text: str) -> Cell:
    """TVM code from hexadecimal."""
    return cast(Cell, begin_cell().store_bytes(bytes.fromhex(text)).end_cell())


# DROP DROP CTOS 4 PUSHINT SDSKIPFIRST LDMSGADDR DROP NEWC 16 PUSHINT SWAP 6 STU STSLICE
# 0 PUSHINT SWAP 111 STU ENDC 64 PUSHINT SENDRAWMSG: sends the value of every message back
ECHO = code("3030D074D721FA4030C8801001CB05CE7001CB6EC98040FB00")
# RANDU256 NEWC 256 STU ENDC c4 POP
STORE_RANDOM = code("F810C8CBFFC9ED54")
THROW_299 = code("F2C12B")


def wallet_data(key: SigningKey) -> Cell:
    builder = begin_cell().store_uint(0, 32).store_uint(698983191, 32)
    return cast(Cell, builder.store_bytes(bytes(key.verify_key)).store_bit(0).end_cell())


def wallet_order(key: SigningKey, seqno: int, until: int, message: Cell) -> Cell:
    order = begin_cell().store_uint(698983191, 32).store_uint(until, 32).store_uint(seqno, 32)
    payload = order.store_uint(0, 8).store_uint(3, 8).store_ref(message).end_cell()
    signature = bytes(key.sign(bytes(payload.hash)).signature)
    return cast(Cell, begin_cell().store_bytes(signature).store_cell(payload).end_cell())


class TestMessages:
    def test_treasury_accepts_and_keeps_the_money(self, chain: TestChain) -> None:
        treasury = chain.treasury()
        before = chain.balance(treasury)
        result = chain.send_internal(treasury, TON, sender=NOBODY)
        assert result.exit_codes == [0]
        assert result.success
        assert len(result) == 1
        assert chain.balance(treasury) == before + TON - result.fees

    def test_same_name_is_the_same_treasury(self, chain: TestChain) -> None:
        assert chain.treasury("a") == chain.treasury("a")
        assert chain.treasury("a") != chain.treasury("b")

    def test_bounce_from_nowhere_comes_back(self, chain: TestChain) -> None:
        treasury = chain.treasury()
        result = chain.send_internal(NOBODY, TON, sender=treasury)
        assert [t.bounced for t in result] == [True, False]
        assert result.first.compute_skipped == "no_state"
        assert result.first.exit_code is None
        assert result.on(treasury)[0].incoming is not None
        assert chain.balance(NOBODY) == 0

    def test_no_bounce_leaves_an_uninit_account(self, chain: TestChain) -> None:
        result = chain.send_internal(NOBODY, TON, sender=chain.treasury(), bounce=False)
        assert len(result) == 1
        assert chain.account(NOBODY).status == "uninit"
        assert 0 < chain.balance(NOBODY) <= TON

    def test_send_from_debits_the_sender(self, chain: TestChain) -> None:
        rich, poor = chain.treasury("rich", 5 * TON), chain.treasury("poor", TON)
        chain.send_from(rich, poor, 2 * TON)
        assert chain.balance(rich) == 3 * TON
        with pytest.raises(EmulatorError, match="holds"):
            chain.send_from(rich, poor, 4 * TON)

    def test_throw_reports_the_exit_code_and_bounces(self, chain: TestChain) -> None:
        treasury = chain.treasury()
        thrower, deployed = chain.deploy(THROW_299, EMPTY, TON, sender=treasury)
        assert deployed.exit_codes[0] == 299
        assert deployed.first.aborted
        assert not deployed.success
        assert deployed.on(treasury)
        assert chain.balance(thrower) == 0

    def test_opcode_of_a_message(self, chain: TestChain) -> None:
        treasury = chain.treasury()
        body = begin_cell().store_uint(0xC0C00001, 32).end_cell()
        result = chain.send_internal(treasury, TON, body, sender=NOBODY)
        assert result.first.in_opcode == 0xC0C00001
        assert result.on(treasury, 0xC0C00001) == [result.first]
        assert result.on(treasury, 1) == []

    def test_cascade_limit(self, chain: TestChain) -> None:
        addresses = []
        for number in (1, 2):
            data = begin_cell().store_uint(number, 8).end_cell()
            addresses.append(contract_address(ECHO, data))
            chain.add_account(addresses[-1], TON, code=ECHO, data=data)
        with pytest.raises(EmulatorError, match="1000"):
            chain.send_internal(addresses[0], 10**4 * TON, sender=addresses[1], bounce=False)
        chain.minted = chain.total_balance() + chain.collected_fees  # a message is still on its way


class TestExternal:
    def test_wallet_lives(self, chain: TestChain) -> None:
        key = SigningKey(b"\x05" * 32)
        wallet, _ = chain.deploy(WALLET_V4_R2_CODE, wallet_data(key), 10 * TON, sender=chain.treasury())
        assert chain.get(wallet, "seqno") == [0]
        public = int.from_bytes(bytes(key.verify_key), "big")
        assert chain.get(wallet, "get_public_key") == [public]
        payment = internal_message(source=wallet, destination=NOBODY, value=TON, bounce=False)
        result = chain.send_external(wallet, wallet_order(key, 0, chain.now + 60, payment))
        assert result.exit_codes == [0, None]
        assert [t.address for t in result] == [wallet, NOBODY]
        assert chain.get(wallet, "seqno") == [1]
        assert chain.balance(NOBODY) > 0

    def test_wrong_signature_changes_nothing(self, chain: TestChain) -> None:
        key = SigningKey(b"\x05" * 32)
        wallet, _ = chain.deploy(WALLET_V4_R2_CODE, wallet_data(key), TON, sender=chain.treasury())
        before = chain.shard_account(wallet).hash
        order = wallet_order(SigningKey(b"\x06" * 32), 0, chain.now + 60, EMPTY)
        with pytest.raises(MessageNotAcceptedError) as caught:
            chain.send_external(wallet, order)
        assert caught.value.vm_exit_code == 35
        assert chain.shard_account(wallet).hash == before

    def test_expiry_follows_virtual_time(self, chain: TestChain) -> None:
        key = SigningKey(b"\x05" * 32)
        wallet, _ = chain.deploy(WALLET_V4_R2_CODE, wallet_data(key), TON, sender=chain.treasury())
        order = wallet_order(key, 0, chain.now + 60, EMPTY)
        chain.warp(61)
        with pytest.raises(MessageNotAcceptedError):
            chain.send_external(wallet, order)

    def test_nobody_does_not_accept(self, chain: TestChain) -> None:
        with pytest.raises(MessageNotAcceptedError) as caught:
            chain.send_external(NOBODY, EMPTY)
        assert caught.value.vm_exit_code is None


class TestGetters:
    def test_arguments_and_results(self, chain: TestChain) -> None:
        treasury = chain.treasury()
        data = chain.account(treasury).data
        assert data is not None
        chain.add_account(treasury, TON, code=code("30"), data=data)  # DROP the method id
        arguments = [1, -5, 1 << 255, None, (1, 2, (3,)), (), data]
        assert chain.get(treasury, "x", *arguments) == arguments

    def test_exit_code_is_an_error(self, chain: TestChain) -> None:
        treasury = chain.treasury()
        chain.add_account(treasury, TON, code=THROW_299, data=EMPTY)
        with pytest.raises(GetMethodError) as caught:
            chain.get(treasury, "x")
        assert caught.value.vm_exit_code == 299
        assert chain.run_getter(treasury, "x").exit_code == 299

    def test_no_code(self, chain: TestChain) -> None:
        with pytest.raises(EmulatorError, match="no code"):
            chain.get(NOBODY, "x")

    def test_method_id(self) -> None:
        assert method_id("seqno") == 85143  # known from every wallet
        assert method_id(5) == 5

    def test_p256(self, chain: TestChain) -> None:
        """OpenSSL inside the emulator asks for random bytes here and fails in silence without."""
        private = ec.generate_private_key(ec.SECP256R1())
        digest = bytes(range(32))
        der = private.sign(digest, ec.ECDSA(hashes.SHA256()))
        signature = b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(der))
        point = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        treasury = chain.treasury()
        chain.add_account(treasury, TON, code=code("30F914"), data=EMPTY)  # P256_CHKSIGNU

        def check(signed: bytes) -> list[Any]:
            parts = [begin_cell().store_bytes(part).end_cell().begin_parse() for part in (signed, point)]
            return chain.get(treasury, "x", int.from_bytes(digest, "big"), *parts)

        assert check(signature) == [-1]
        assert check(signature[::-1]) == [0]

    def test_gas_limit(self, chain: TestChain, emulator: Emulator) -> None:
        arguments: dict[str, Any] = {"address": NOBODY, "now": chain.now, "prev_blocks": chain.prev_blocks}
        enough = emulator.get_method(code("30F83400"), EMPTY, "x", **arguments)
        assert enough.exit_code == 0
        limit = enough.gas_used - 1
        starved = emulator.get_method(code("30F83400"), EMPTY, "x", gas_limit=limit, **arguments)
        assert starved.exit_code == -14


class TestMasterchain:
    @pytest.mark.parametrize(("opcode", "index"), [("F83400", 0), ("F83402", 2)])
    def test_prev_blocks_in_a_transaction_and_a_getter(
        self, chain: TestChain, opcode: str, index: int
    ) -> None:
        treasury = chain.treasury()
        chain.add_account(treasury, TON, code=code("30" + opcode), data=EMPTY)
        expected = chain.prev_blocks.to_stack()[index]
        assert chain.get(treasury, "x") == [expected]
        assert chain.prev_blocks.last[0].seqno == chain.mc_blocks[-1].seqno
        chain.warp(7)
        assert chain.prev_blocks.last[0].seqno == chain.mc_blocks[-1].seqno
        assert chain.get(treasury, "x") == [chain.prev_blocks.to_stack()[index]]

    def test_key_block(self, chain: TestChain) -> None:
        treasury = chain.treasury()
        chain.add_account(treasury, TON, code=code("30F83401"), data=EMPTY)
        assert chain.get(treasury, "x") == [chain.prev_blocks.key.to_stack()]

    def test_blocks_do_not_stick_to_the_emulator(self, chain: TestChain, emulator: Emulator) -> None:
        account = make_account(NOBODY, TON, 0, code=code("F8340030"), data=EMPTY)
        message = internal_message(source=NOBODY, destination=NOBODY, value=TON)

        def run(**arguments: Any) -> int | None:
            return emulator.transaction(account, message, chain.now, 10**6, **arguments).exit_code

        assert run(prev_blocks=chain.prev_blocks) == 0
        assert run() != 0
        assert run(prev_blocks=chain.prev_blocks) == 0

    def test_hundreds(self, chain: TestChain) -> None:
        assert all(block.seqno % 100 == 0 for block in chain.prev_blocks.last_100)
        assert len(chain.prev_blocks.last) == len(chain.prev_blocks.last_100) == 16


class TestEmulator:
    def test_random_seed_makes_it_deterministic(self, emulator: Emulator) -> None:
        account = make_account(NOBODY, TON, 0, code=STORE_RANDOM, data=EMPTY)
        message = internal_message(source=NOBODY, destination=NOBODY, value=TON)

        def data(seed: bytes) -> bytes:
            result = emulator.transaction(account, message, 10**9, 10**6, random_seed=seed)
            view = view_account(result.shard_account)
            assert result.exit_code == 0
            assert view.data is not None
            return bytes(view.data.hash)

        assert data(b"\x01" * 32) == data(b"\x01" * 32)
        assert data(b"\x01" * 32) != data(b"\x02" * 32)

    def test_other_configuration(self) -> None:
        default = Emulator("default")
        account = make_account(NOBODY, TON, 0, code=EMPTY, data=EMPTY)
        message = internal_message(source=NOBODY, destination=NOBODY, value=TON)
        assert default.transaction(account, message, 10**9, 10**6).exit_code == 0
        default.set_config("slim")
        assert default.transaction(account, message, 10**9, 10**6).exit_code == 0

    def test_bad_configuration(self) -> None:
        broken = Emulator(EMPTY)
        with pytest.raises(EmulatorError):
            broken.transaction(EMPTY_ACCOUNT, external_message(NOBODY), 10**9, 10**6)

    @pytest.mark.parametrize("part", ["account", "message"])
    def test_garbage_is_an_error_and_harmless(self, emulator: Emulator, part: str) -> None:
        account = make_account(NOBODY, TON, 0, code=EMPTY, data=EMPTY)
        message = internal_message(source=NOBODY, destination=NOBODY, value=TON)
        state, sent = (EMPTY, message) if part == "account" else (account, EMPTY)
        with pytest.raises(EmulatorError):
            emulator.transaction(state, sent, 10**9, 10**6)
        assert emulator.transaction(account, message, 10**9, 10**6).exit_code == 0

    def test_trap_ends_the_instance_and_emulators_recover(self) -> None:
        sandbox = load_sandbox()
        host = Host(sandbox, compile_modules(sandbox))
        emulator = Emulator(host=host)
        account = make_account(NOBODY, TON, 0, code=EMPTY, data=EMPTY)
        message = internal_message(source=NOBODY, destination=NOBODY, value=TON)
        assert emulator.transaction(account, message, 10**9, 10**6).exit_code == 0
        with pytest.raises(EmulatorError, match="trapped"):
            host.call_text("_emulate_with_emulator", 0x7FFFFFF0, 0, 0x7FFFFFF0, 0x7FFFFFF0, 0x7FFFFFF0)
        assert host.dead
        with pytest.raises(EmulatorError, match="before"):
            host.call_text("_version")
        assert emulator.transaction(account, message, 10**9, 10**6).exit_code == 0  # on the shared one

    def test_memory_grows(self) -> None:
        host = shared_host()
        kept: list[Emulator] = []
        before = host.memory.size
        account = make_account(NOBODY, TON, 0, code=EMPTY, data=EMPTY)
        message = internal_message(source=NOBODY, destination=NOBODY, value=TON)
        while host.memory.size == before and len(kept) < 200:
            kept.append(Emulator("default"))
            assert kept[-1].transaction(account, message, 10**9, 10**6).exit_code == 0
        assert host.memory.size > before
        assert kept[0].transaction(account, message, 10**9, 10**6).exit_code == 0

    def test_emulators_give_their_memory_back(self) -> None:
        host = shared_host()

        def use(count: int) -> int:
            for _ in range(count):
                chain = TestChain()
                chain.send_internal(chain.treasury(), TON, sender=NOBODY)
            gc.collect()
            host.call_text("_version")
            return host.memory.size

        first = use(20)
        assert use(60) <= first + (4 << 20)

    def test_deploy_to_its_address(self, chain: TestChain) -> None:
        data = begin_cell().store_uint(7, 8).end_cell()
        address, result = chain.deploy(EMPTY, data, TON, sender=chain.treasury())
        assert address.hash_part == state_init(EMPTY, data).hash
        assert result.success
        assert chain.account(address).active
        assert chain.account(address).data == data
