"""A13: a liteserver lies: forged chain, hidden account, stale head, lying getter. The client refuses.

Every attack is mounted by a real liteserver over ADNL; the client is the one that money depends on, in
its default mode. `test_the_attacks_work_on_a_client_that_checks_less` shows that the attacks are real.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from pytoniq import LiteClient
from pytoniq_core import Address
from pytoniq_core.tlb.vm_stack import VmStack

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.errors import ChainProofError, ChainUnavailableError, StaleHeadError
from cocoon_ton.messages import Transfer
from cocoon_ton.network import NetworkConfig
from cocoon_ton.outbox import OperationState, Outbox, TransferOperation
from cocoon_ton.proof import verify_chain_facts
from cocoon_ton.proof.boc import parse_boc, write_boc
from cocoon_ton.wallet import Wallet, WalletVersion

VICTIM = Address((0, b"\x71" * 32))
MONEY = 500 * 10**9


@pytest.fixture(autouse=True)
def sandbox() -> None:
    """Skip where the emulator is not installed."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
async def devnet() -> AsyncIterator[Devnet]:
    async with Devnet.start(block_interval=None, accounts={VICTIM: MONEY}) as net:
        yield net


def network_of(devnet: Devnet, config: dict[str, object] | None = None) -> NetworkConfig:
    return NetworkConfig(
        name="victim", global_id=devnet.global_id, registry="", global_config=config or devnet.config
    )


@asynccontextmanager
async def client(devnet: Devnet, config: dict[str, object] | None = None) -> AsyncIterator[LiteChain]:
    async with LiteChain(network_of(devnet, config), head_ttl=0, timeout=2) as chain:
        yield chain


class TestForgedChain:
    async def test_own_validators_under_our_init_block(self, devnet: Devnet) -> None:
        async with Devnet.start(block_interval=None, accounts={VICTIM: 1}) as forger:
            forger.faults.claimed_key_block = devnet.init_block
            async with client(devnet, forger.config_claiming(devnet)) as chain:
                with pytest.raises(ChainProofError):
                    await chain.account(VICTIM)

    async def test_own_chain_without_any_claim(self, devnet: Devnet) -> None:
        async with (
            Devnet.start(block_interval=None, accounts={VICTIM: 1}) as forger,
            client(devnet, forger.config_claiming(devnet)) as chain,
        ):
            with pytest.raises((ChainProofError, ChainUnavailableError)):
                await chain.account(VICTIM)

    async def test_another_network_with_the_same_validator(self, tmp_path: Path) -> None:
        """Same keys, other global id: a testnet's blocks shown as the mainnet's."""
        async with Devnet.start(tmp_path / "one", block_interval=None, global_id=-217) as first:
            keys = (tmp_path / "one" / "keys.json").read_text()
            (tmp_path / "two").mkdir(mode=0o700)
            (tmp_path / "two" / "keys.json").write_text(keys)
            async with Devnet.start(tmp_path / "two", block_interval=None, global_id=-218) as second:
                second.faults.claimed_key_block = first.init_block
                async with client(first, second.config_claiming(first)) as chain:
                    with pytest.raises(ChainProofError):
                        await chain.head()
                second.faults.clear()
                async with client(first, second.config) as chain:  # even with the anchor replaced
                    with pytest.raises(ChainProofError, match="another network"):
                        await chain.head()

    async def test_repeated_signature(self, devnet: Devnet) -> None:
        devnet.faults.duplicate_signatures = 2
        async with client(devnet) as chain:
            with pytest.raises(ChainProofError):
                await chain.head()

    async def test_signature_taken_from_an_older_block(self, devnet: Devnet) -> None:
        async with client(devnet) as chain:
            await chain.head()
            kept: list[object] = []

            def reuse(_: dict[str, object], answer: dict[str, object]) -> dict[str, object]:
                steps = answer["steps"]
                assert isinstance(steps, list)
                if not kept:
                    kept.append(steps[-1]["signatures"])
                steps[-1]["signatures"] = kept[0]
                return answer

            devnet.faults.rewrite["getBlockProof"] = reuse
            devnet.tick()
            proved = await chain.head()
            devnet.tick()
            assert await chain.head() == proved  # the block with the old signature is not taken
        async with client(devnet) as fresh:
            with pytest.raises(ChainProofError):
                await fresh.head()


class TestHiddenAccount:
    async def test_without_a_proof(self, devnet: Devnet) -> None:
        devnet.faults.hidden_accounts.add(VICTIM.hash_part)
        async with client(devnet) as chain:
            with pytest.raises(ChainProofError):
                await chain.account(VICTIM)
            with pytest.raises(ChainProofError):
                await chain.transactions(VICTIM)
            with pytest.raises(ChainProofError):
                await chain.export_proof([VICTIM])

    async def test_with_the_absence_proof_of_a_neighbour(self, devnet: Devnet) -> None:
        neighbour = bytearray(VICTIM.hash_part)
        neighbour[-1] ^= 1
        honest = devnet.liteservers[0].server._answers.methods["getAccountState"]

        def other(query: dict[str, object], _: dict[str, object]) -> dict[str, object]:
            account = {"workchain": 0, "id": bytes(neighbour).hex()}
            return honest(dict(query, account=account))[1]

        devnet.faults.rewrite["getAccountState"] = other
        async with client(devnet) as chain:
            with pytest.raises(ChainProofError):
                await chain.account(VICTIM)

    async def test_shown_with_less_money(self, devnet: Devnet) -> None:
        async with Devnet.start(block_interval=None, accounts={VICTIM: 1}) as forger:
            account = forger.chain.shard_account(VICTIM.hash_part).refs[0]
        devnet.faults.forged_accounts[VICTIM.hash_part] = write_boc([account])
        async with client(devnet) as chain:
            with pytest.raises(ChainProofError):
                await chain.account(VICTIM)

    async def test_transaction_left_out_of_the_history(self, devnet: Devnet) -> None:
        for amount in (1, 2, 3):
            devnet.fund(VICTIM, amount)

        def thin_out(_: dict[str, object], answer: dict[str, object]) -> dict[str, object]:
            data = answer["transactions"]
            assert isinstance(data, bytes)
            cells = parse_boc(data, roots=None)
            return answer | {"transactions": write_boc([cells[0], *cells[2:]])}

        async with client(devnet) as chain:
            assert len(await chain.transactions(VICTIM)) == 3
            devnet.faults.rewrite["getTransactions"] = thin_out
            with pytest.raises(ChainProofError):
                await chain.transactions(VICTIM)


class TestStaleHead:
    async def test_from_the_start(self, devnet: Devnet) -> None:
        devnet.faults.stale_head = devnet.chain.master.seqno
        shown_at = devnet.chain.master.utime
        devnet.warp(3600)
        async with LiteChain(network_of(devnet), clock=lambda: shown_at + 3600.0) as chain:
            with pytest.raises(StaleHeadError):
                await chain.account(VICTIM)

    async def test_head_taken_back(self, devnet: Devnet) -> None:
        """A withdrawal happened; the server goes back to the block before it."""
        devnet.tick(2)
        async with client(devnet) as chain:
            before = await chain.head()
            devnet.fund(VICTIM, 7)
            assert (await chain.account(VICTIM)).balance == MONEY + 7
            devnet.faults.stale_head = before.seqno
            assert (await chain.head()).seqno > before.seqno
            assert (await chain.account(VICTIM)).balance == MONEY + 7

    async def test_head_with_a_time_of_its_own(self, devnet: Devnet) -> None:
        """The time is read from the signed header, not from what the server says."""
        async with client(devnet) as chain:
            assert (await chain.head()).utime == devnet.chain.master.utime


class TestLyingGetter:
    async def test_is_never_asked(self, devnet: Devnet) -> None:
        asked: list[str] = []

        def lie(_: dict[str, object], answer: dict[str, object]) -> dict[str, object]:
            asked.append("getter")
            return answer | {"result": VmStack.serialize([999]).to_boc()}

        devnet.faults.rewrite["runSmcMethod"] = lie
        wallet = Wallet(devnet.faucet_seed, global_id=devnet.global_id, version=WalletVersion.V4R2)
        async with client(devnet) as chain:
            assert wallet.seqno(await chain.account(wallet.address)) == 0
            devnet.fund(VICTIM, 1)
            assert wallet.seqno(await chain.account(wallet.address)) == 1
        assert asked == []


class TestMoney:
    async def test_no_payment_is_repeated_because_a_server_hides_it(
        self, devnet: Devnet, tmp_path: Path
    ) -> None:
        wallet = Wallet(devnet.faucet_seed, global_id=devnet.global_id, version=WalletVersion.V4R2)
        operation = TransferOperation(transfer=Transfer(destination=VICTIM, amount=9, bounce=False))
        async with client(devnet) as chain:
            async with Outbox(tmp_path / "outbox", wallet, chain, resend_interval=0) as outbox:
                outbox.enqueue("payment", operation)
                await outbox.step()
                hidden = devnet.chain.master.seqno
                devnet.tick()
                devnet.faults.stale_head = hidden
                await outbox.step()
                devnet.faults.clear()
                devnet.faults.hidden_accounts.add(wallet.address.hash_part)
                for _ in range(3):
                    with pytest.raises(ChainProofError):
                        await outbox.step()
                devnet.faults.clear()
                devnet.tick()
                await outbox.step()
                assert outbox.status("payment").state is OperationState.SEEN
            assert (await chain.account(VICTIM)).balance == MONEY + 9


async def test_forged_document(devnet: Devnet) -> None:
    """The same forgeries carried offline: a proof document of the attacker's chain."""
    async with (
        Devnet.start(block_interval=None, accounts={VICTIM: 1}) as forger,
        LiteChain(network_of(forger)) as chain,
    ):
        document = json.loads(json.dumps(await chain.export_proof([VICTIM])))
    with pytest.raises(ChainProofError):
        verify_chain_facts(document, network_of(devnet))


async def test_somebody_elses_server_key(devnet: Devnet) -> None:
    """The connection itself is to the server that the network file names."""
    key = base64.b64encode(bytes(SigningKey.generate().verify_key)).decode()
    config = dict(devnet.config, liteservers=[dict(devnet.config["liteservers"][0], id={"key": key})])
    async with LiteChain(network_of(devnet, config), timeout=1) as chain:
        with pytest.raises(ChainUnavailableError):
            await chain.head()


async def test_the_attacks_work_on_a_client_that_checks_less(devnet: Devnet) -> None:
    """Without our checks the same server hides an account: the fault is really there."""
    devnet.faults.hidden_accounts.add(VICTIM.hash_part)
    naive = LiteClient.from_config(devnet.config, 0, trust_level=1)
    await naive.connect()
    try:
        async with asyncio.timeout(5):
            account, _ = await naive.raw_get_account_state(VICTIM)
    finally:
        await naive.close()
    assert account is None
