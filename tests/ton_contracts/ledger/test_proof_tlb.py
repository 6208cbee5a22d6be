"""Dictionaries, shard trees and other structures that proofs lead through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Address, Cell, begin_cell

from cocoon_ton.devnet.dictionary import plain_dict
from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.proof.tlb import Header, bits_of, find_shard, lookup, read_master_state
from cocoon_ton.proof.tree import ProofTree, merkle_proof
from cocoon_ton.values import BlockId

from .conftest import Smith


def tree_of(root: Cell) -> ProofTree:
    return ProofTree(merkle_proof(root), bytes(root.hash))


class TestLookup:
    @given(st.dictionaries(st.integers(0, 255), st.integers(0, 1000), min_size=1), st.integers(0, 255))
    def test_like_a_dictionary(self, content: dict[int, int], key: int) -> None:
        cells = [
            (number, begin_cell().store_uint(value, 32).end_cell()) for number, value in content.items()
        ]
        root = plain_dict(cells, 8)
        leaf = lookup(tree_of(root), root, format(key, "08b"))
        found = None if leaf is None else leaf.load_ref().begin_parse().load_uint(32)
        assert found == content.get(key)

    @given(st.dictionaries(st.integers(0, 255), st.integers(0, 9), min_size=1), st.integers(0, 255))
    def test_proof_of_absence_and_presence_is_the_path(self, content: dict[int, int], key: int) -> None:
        cells = [
            (number, begin_cell().store_uint(value, 32).end_cell()) for number, value in content.items()
        ]
        root = plain_dict(cells, 8)
        tree = tree_of(root)
        lookup(tree, root, format(key, "08b"))
        cut = ProofTree(tree.minimal(), bytes(root.hash))
        again = lookup(cut, cut.root, format(key, "08b"))
        assert (again is not None) == (key in content)
        for other in content:
            if other != key:
                try:
                    lookup(cut, cut.root, format(other, "08b"))
                except ChainProofError:
                    continue  # the path is pruned: no answer, rather than a wrong one

    @pytest.mark.parametrize(
        "bits", ["", "0", "01111", "10", "1011111111", "11", "1111111", "0" + "1" * 40]
    )
    def test_malformed_labels(self, bits: str) -> None:
        cell = begin_cell().store_bits(bits).end_cell()
        with pytest.raises(ChainProofError), proof_seam("label"):
            lookup(tree_of(cell), cell, "00000000")

    def test_pruned_path_is_no_proof_of_absence(self) -> None:
        cells = [(number, begin_cell().store_uint(number, 32).end_cell()) for number in range(8)]
        root = plain_dict(cells, 8)
        tree = tree_of(root)
        lookup(tree, root, format(0, "08b"))
        cut = ProofTree(tree.minimal(), bytes(root.hash))
        with pytest.raises(ChainProofError, match="must show"):
            lookup(cut, cut.root, format(7, "08b"))


def description(seqno: int, *, tag: int = 0xA) -> Cell:
    """A leaf of the shard tree."""
    part = begin_cell().store_bit(0).store_uint(tag, 4).store_uint(seqno, 32).store_uint(0, 160)
    cell: Cell = part.store_bytes(bytes([seqno]) * 32).store_bytes(bytes([seqno + 1]) * 32).end_cell()
    return cell


def fork(left: Cell, right: Cell) -> Cell:
    cell: Cell = begin_cell().store_bit(1).store_ref(left).store_ref(right).end_cell()
    return cell


def shard_of(shards: Cell | None, address: Address) -> BlockId:
    smith = Smith.__new__(Smith)
    smith.global_id, smith.blocks = -217, []
    state = smith._state(5, shards)
    tree = tree_of(state)
    with proof_seam("shards"):
        return find_shard(tree, read_master_state(tree).shard_hashes, address)


LOW, MIDDLE, HIGH = (Address((0, bytes([first]) + bytes(31))) for first in (0x10, 0x90, 0xF0))


class TestShards:
    def test_one_shard(self) -> None:
        found = shard_of(plain_dict([(0, description(3))], 32), HIGH)
        assert found == BlockId(
            workchain=0, shard=-(1 << 63), seqno=3, root_hash=b"\x03" * 32, file_hash=b"\x04" * 32
        )

    def test_uneven_split(self) -> None:
        shards = plain_dict([(0, fork(description(1), fork(description(2), description(3))))], 32)
        assert [shard_of(shards, address).seqno for address in (LOW, MIDDLE, HIGH)] == [1, 2, 3]
        assert shard_of(shards, LOW).shard == 0x4000000000000000
        assert shard_of(shards, MIDDLE).shard == 0xA000000000000000 - (1 << 64)
        assert shard_of(shards, HIGH).shard == 0xE000000000000000 - (1 << 64)

    def test_other_workchain(self) -> None:
        shards = plain_dict([(0, description(1)), (5, description(2))], 32)
        assert shard_of(shards, Address((5, bytes(32)))).seqno == 2
        with pytest.raises(ChainProofError, match="does not list"):
            shard_of(shards, Address((6, bytes(32))))

    def test_none_at_all(self) -> None:
        with pytest.raises(ChainProofError, match="no shards"):
            shard_of(None, LOW)

    def test_wrong_tag(self) -> None:
        with pytest.raises(ChainProofError, match="wrong tag"):
            shard_of(plain_dict([(0, description(1, tag=0xC))], 32), LOW)

    def test_too_deep(self) -> None:
        node = description(1)
        for _ in range(61):
            node = fork(node, description(2))
        with pytest.raises(ChainProofError, match="too deep"):
            shard_of(plain_dict([(0, node)], 32), Address((0, bytes(32))))


@pytest.mark.parametrize(
    ("prefix", "workchain", "inside"),
    [
        ("", 0, True),
        ("1001", 0, True),
        ("1000", 0, False),
        ("", -1, False),
        (bits_of(b"\x90")[:8], 0, True),
    ],
)
def test_which_accounts_a_block_holds(prefix: str, workchain: int, inside: bool) -> None:
    header = Header(
        global_id=0,
        workchain=workchain,
        shard_prefix=prefix,
        seqno=1,
        key_block=False,
        utime=0,
        prev_key_seqno=0,
        state_hash=bytes(32),
    )
    assert header.contains(MIDDLE) is inside
