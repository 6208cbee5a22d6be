"""Accounts and their absence, from the answers of a liteserver that may lie."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pytoniq_core import Address, Cell, begin_cell

from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet
from cocoon_ton.devnet.dictionary import plain_dict
from cocoon_ton.errors import ChainProofError
from cocoon_ton.lite.server import Server
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof.accounts import AccountProof, ProvedAccount, verify_account
from cocoon_ton.proof.answers import block_id_query, compare_shard_block, parse_account_answer
from cocoon_ton.proof.blocks import ProvedBlock, open_header
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.proof.tree import merkle_proof
from cocoon_ton.values import BlockRef

from .conftest import ALICE, ALICE_BALANCE, GLOBAL_ID, NOBODY, Smith


@dataclasses.dataclass
class Material:
    """One proved block and the liteserver's honest answers under it."""

    block: ProvedBlock
    global_id: int
    answers: dict[Address, dict[str, Any]]

    def proof(self, address: Address, **changes: Any) -> AccountProof:
        return parse_account_answer(self.answers[address] | changes, self.block.ref, address)

    def verify(self, address: Address, proof: AccountProof | None = None) -> ProvedAccount:
        return verify_account(
            self.block.ref, self.block.header, self.global_id, address, proof or self.proof(address)
        )

    def refused(self, address: Address, proof: AccountProof) -> str:
        with pytest.raises(ChainProofError) as caught:
            self.verify(address, proof)
        return str(caught.value)


async def gather(devnet: Devnet, network: NetworkConfig) -> Material:
    addresses = [ALICE, NOBODY, devnet.faucet_address]
    async with LiteChain(network) as chain:
        block = await chain._heads.head()
        server = Server(network.liteservers[0], 5)
        answers = {}
        for address in addresses:
            query = {"id": block_id_query(block.ref.id), "account": address.to_tl_account_id()}
            answers[address] = await server.query("getAccountState", query)
        await server.close()
    return Material(block, network.global_id, answers)


@pytest.fixture
async def material(devnet: Devnet, network: NetworkConfig) -> Material:
    return await gather(devnet, network)


@pytest.fixture
async def later(devnet: Devnet, network: NetworkConfig, material: Material) -> Material:
    """The same after Alice got money."""
    devnet.fund(ALICE, 7)
    return await gather(devnet, network)


async def test_present_and_absent(devnet: Devnet, material: Material) -> None:
    alice = material.verify(ALICE).state
    assert (alice.status, alice.balance, alice.exists, alice.active) == (
        "uninit",
        ALICE_BALANCE,
        True,
        False,
    )
    assert alice.code_hash is None
    faucet = material.verify(devnet.faucet_address).state
    assert faucet.active
    assert faucet.code is not None
    assert faucet.code_hash == faucet.code.hash
    nobody = material.verify(NOBODY).state
    assert (nobody.exists, nobody.last_tx_lt, nobody.last_tx_hash) == (False, 0, bytes(32))
    assert alice.shard_utime == devnet.chain.shard.utime


async def test_cut_down_proof_verifies_alike(material: Material) -> None:
    for address in (ALICE, NOBODY):
        proved = material.verify(address)
        again = material.verify(address, proved.proof)
        assert again.state == proved.state
        assert write_boc([again.proof.path]) == write_boc([proved.proof.path])


async def test_hidden_account(material: Material) -> None:
    assert "hides" in material.refused(ALICE, dataclasses.replace(material.proof(ALICE), state=None))


async def test_hidden_behind_the_proof_of_another(material: Material) -> None:
    """Where the neighbour's path passes Alice's leaf she is seen on it, elsewhere she is not shown."""
    proof = dataclasses.replace(material.proof(NOBODY), state=None)
    message = material.refused(ALICE, proof)
    assert "must show" in message or "hides" in message


async def test_invented_account(material: Material) -> None:
    invented = dataclasses.replace(material.proof(NOBODY), state=material.proof(ALICE).state)
    assert "does not have" in material.refused(NOBODY, invented)


async def test_state_of_another_time(material: Material, later: Material) -> None:
    old = dataclasses.replace(later.proof(ALICE), state=material.proof(ALICE).state)
    assert "not the one" in later.refused(ALICE, old)
    for part in ("path", "header", "shards"):
        mixed = dataclasses.replace(later.proof(ALICE), **{part: getattr(material.proof(ALICE), part)})
        assert "something else" in later.refused(ALICE, mixed)


async def test_edited_state(material: Material) -> None:
    true = material.proof(ALICE).state
    assert true is not None
    bits = true.bits.copy()
    bits[-1] ^= 1
    edited = dataclasses.replace(material.proof(ALICE), state=Cell(bits, list(true.refs), -1))
    assert "not the one" in material.refused(ALICE, edited)


async def test_way_from_the_masterchain_is_needed(material: Material) -> None:
    without = dataclasses.replace(material.proof(ALICE), shards=None)
    assert "does not lead" in material.refused(ALICE, without)
    masterchain_account = Address((-1, ALICE.hash_part))
    assert "needs no shard proof" in material.refused(masterchain_account, material.proof(ALICE))
    assert "something else" in material.refused(masterchain_account, without)


async def test_another_workchain(material: Material) -> None:
    assert "does not list" in material.refused(Address((1, ALICE.hash_part)), material.proof(ALICE))


async def test_account_cell_of_another_address_under_the_right_hash(material: Material) -> None:
    """What a broken node could store; the address inside is compared as well."""
    from cocoon_ton.proof import accounts

    state = material.proof(ALICE).state
    assert state is not None
    with pytest.raises(ChainProofError, match="another address"):
        accounts._present(NOBODY, material.block.ref, 0, state, 0, bytes(32))


async def test_masterchain_account(material: Material) -> None:
    """A masterchain account is proved in the masterchain block itself; here there are none."""
    master = material.block
    address = Address((-1, b"\x55" * 32))
    proof = AccountProof(
        shards=None, header=master.proof, path=merkle_proof(begin_cell().end_cell()), state=None
    )
    assert "something else" in material.refused(address, proof)


@pytest.mark.parametrize(("prefix", "held"), [("0", False), ("1", True), ("", True)])
def test_shard_block_must_hold_the_account(smith: Smith, prefix: str, held: bool) -> None:
    """A masterchain that lists a block of the wrong shard under the account's way."""
    shard = smith.add(workchain=0, prefix=prefix)
    part = begin_cell().store_bit(0).store_uint(0xA, 4).store_uint(shard.id.seqno, 32).store_uint(0, 160)
    leaf = part.store_bytes(shard.id.root_hash).store_bytes(shard.id.file_hash).end_cell()
    head = smith.add(shards=plain_dict([(0, leaf)], 32))
    header, _ = open_header(head.proof, head.id, GLOBAL_ID)
    ref = BlockRef(
        seqno=head.id.seqno, root_hash=head.id.root_hash, file_hash=head.id.file_hash, utime=header.utime
    )
    proof = AccountProof(shards=head.state_proof, header=shard.proof, path=shard.state_proof, state=None)
    message = "another shard" if held else "does not hold"  # the state is no shard's: refused later
    with pytest.raises(ChainProofError, match=message):
        verify_account(ref, header, GLOBAL_ID, ALICE, proof)


class TestAnswer:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"state": b"", "proof": b"", "shard_proof": b""}, "without a proof"),
            ({"shard_proof": b""}, "without a shard proof"),
            ({"proof": b"junk"}, "not a bag of cells"),
            ({"shard_proof": b"junk"}, "not a bag of cells"),
            ({"state": b"junk"}, "not a bag of cells"),
            ({"proof": write_boc([Cell.empty()])}, "number of cells"),
            ({"id": {}}, "malformed"),
        ],
    )
    async def test_malformed(self, material: Material, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ChainProofError, match=message):
            material.proof(ALICE, **change)

    async def test_answer_about_another_block(self, material: Material, later: Material) -> None:
        with pytest.raises(ChainProofError, match="another block"):
            later.proof(ALICE, id=material.answers[ALICE]["id"])

    async def test_shard_block_is_compared(self, material: Material, later: Material) -> None:
        compare_shard_block(later.answers[ALICE], later.verify(ALICE))
        with pytest.raises(ChainProofError, match="another shard block"):
            compare_shard_block(material.answers[ALICE], later.verify(ALICE))
