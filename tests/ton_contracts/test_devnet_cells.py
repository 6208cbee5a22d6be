"""Dictionaries, the tree of blocks, and proofs, against pytoniq-core's readers."""

from __future__ import annotations

import hashlib
import random
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell, HashMap, begin_cell
from pytoniq_core.boc.hashmap.parse import parse_hashmap_aug

from cocoon_ton.devnet.blocktree import BlockTree
from cocoon_ton.devnet.cells import Keep, Stub, merkle_proof, merkle_update, prune, pruned
from cocoon_ton.devnet.dictionary import AugDict, label_bits, plain_dict
from cocoon_ton.devnet.states import account_dict, accounts_cell, total_balance
from cocoon_ton.devnet.values import AccountEntry, Block, BlockId, account_key, store_block_ref
from cocoon_ton.proof.boc import write_boc

EMPTY = begin_cell().end_cell()


class Sums:
    """Values of 32 bits, their sum as the extra."""

    def extra_of(self, value: int) -> int:
        return value

    def merge(self, left: int, right: int) -> int:
        return left + right

    def store_extra(self, builder: Builder, extra: int) -> None:
        builder.store_uint(extra, 64)

    def store_value(self, builder: Builder, value: int) -> None:
        builder.store_uint(value, 32)


def sums(items: dict[str, int], bits: int) -> AugDict[int, int]:
    return AugDict(bits, Sums()).built(items.items())


def keys(bits: int) -> st.SearchStrategy[str]:
    return st.integers(0, (1 << bits) - 1).map(lambda number: format(number, f"0{bits}b"))


def root_hash(tree: AugDict[int, int]) -> bytes | None:
    return None if tree.root is None else bytes(tree.root.cell.hash)


class TestDictionary:
    @given(st.dictionaries(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), min_size=1))
    def test_plain_equals_pytoniq(self, items: dict[int, int]) -> None:
        cells = {key: begin_cell().store_uint(value, 32).end_cell() for key, value in items.items()}
        oracle = HashMap(16, value_serializer=lambda source, target: target.store_ref(source))
        oracle.map = cells
        assert plain_dict(cells.items(), 16) == oracle.serialize()

    @pytest.mark.parametrize(
        ("label", "size", "expected"),
        [
            ("", 0, "00"),
            ("", 8, "00"),
            ("1", 8, "0101"),
            ("0" * 8, 8, "110" + "1000"),
            ("1" * 8, 8, "111" + "1000"),
            ("01010101", 8, "10" + "1000" + "01010101"),
            ("01", 256, "0" + "110" + "01"),
        ],
    )
    def test_labels(self, label: str, size: int, expected: str) -> None:
        assert label_bits(label, size) == expected

    @given(st.dictionaries(keys(12), st.integers(0, 2**32 - 1), min_size=1))
    def test_pytoniq_reads_augmented(self, items: dict[str, int]) -> None:
        tree = sums(items, 12)
        assert tree.root is not None
        part = tree.root.cell.begin_parse()
        parsed = parse_hashmap_aug(part, 12, lambda p: p.load_uint(32), lambda p: p.load_uint(64))
        assert parsed is not None
        found, extras = parsed
        assert found == {int(key, 2): value for key, value in items.items()}
        assert extras[-1] == sum(items.values())
        assert tree.root.extra == sum(items.values())

    @settings(max_examples=60)
    @given(
        st.dictionaries(keys(10), st.integers(0, 99)),
        st.lists(st.tuples(keys(10), st.none() | st.integers(0, 99)), max_size=30),
    )
    def test_every_order_of_changes_gives_the_built_tree(
        self, start: dict[str, int], changes: list[tuple[str, int | None]]
    ) -> None:
        tree, model = sums(start, 10), dict(start)
        for key, value in changes:
            if value is None:
                tree = tree.delete(key)
                model.pop(key, None)
            else:
                tree = tree.set(key, value)
                model[key] = value
            assert tree.get(key) == value
        assert root_hash(tree) == root_hash(sums(model, 10))
        assert all(tree.get(key) == value for key, value in model.items())

    def test_old_versions_stay(self) -> None:
        first = sums({"0000": 1, "0001": 2}, 4)
        second = first.set("0000", 9).delete("0001")
        assert (first.get("0000"), first.get("0001")) == (1, 2)
        assert (second.get("0000"), second.get("0001")) == (9, None)

    def test_a_change_makes_few_cells(self) -> None:
        source = random.Random(1)
        items = {format(source.getrandbits(256), "0256b"): 1 for _ in range(2000)}
        tree = sums(items, 256)
        known = _hashes(tree)
        changed = tree.set(next(iter(items)), 2)
        assert 1 <= len(_hashes(changed) - known) <= 40

    @given(st.dictionaries(keys(8), st.integers(0, 9), min_size=1), keys(8))
    def test_path_leads_to_the_leaf_or_proves_absence(self, items: dict[str, int], key: str) -> None:
        tree = sums(items, 8)
        assert tree.root is not None
        node, rest = tree.root, key
        for index in tree.path(key):
            assert rest.startswith(node.label)
            assert rest[len(node.label)] == str(index)
            rest = rest[len(node.label) + 1 :]
            node = node.children[index]
        present = rest == node.label
        assert present is (key in items)
        assert present is (tree.get(key) is not None)
        if not present:  # the last cell shows that the key is not below it
            assert not rest.startswith(node.label)

    def test_accounts(self) -> None:
        account = begin_cell().store_uint(1, 1).end_cell()
        entry = AccountEntry(account=account, balance=5, last_hash=bytes(32), last_lt=0)
        tree = account_dict([(bytes([number]) * 32, entry) for number in range(20)])
        assert total_balance(tree) == 100
        assert total_balance(account_dict()) == 0
        assert len(accounts_cell(account_dict()).refs) == 0
        tree = tree.delete(account_key(b"\x03" * 32))
        assert total_balance(tree) == 95


def _hashes(tree: AugDict[int, int]) -> set[bytes]:
    found, todo = set(), [tree.root] if tree.root else []
    while todo:
        node = todo.pop()
        found.add(bytes(node.cell.hash))
        todo.extend(node.children)
    return found


# ---- blocks


def block(seqno: int, key: bool | None = None) -> Block:
    digest = hashlib.sha256(b"%d" % seqno).digest()
    id = BlockId(workchain=-1, seqno=seqno, root_hash=digest, file_hash=digest[::-1])
    return Block(id=id, start_lt=seqno * 10, end_lt=seqno * 10 + 5, utime=0, state=Stub(digest, 0), boc=b"")


class Blocks:
    """``KeyExtBlkRef`` with ``KeyMaxLt``: the oracle for `BlockTree`."""

    def extra_of(self, value: Block) -> tuple[bool, int]:
        return value.is_key, value.end_lt

    def merge(self, left: tuple[bool, int], right: tuple[bool, int]) -> tuple[bool, int]:
        return left[0] or right[0], max(left[1], right[1])

    def store_extra(self, builder: Builder, extra: tuple[bool, int]) -> None:
        builder.store_bit(int(extra[0])).store_uint(extra[1], 64)

    def store_value(self, builder: Builder, value: Block) -> None:
        store_block_ref(builder.store_bit(int(value.is_key)), value)


class TestBlockTree:
    def test_equals_the_dictionary_at_every_size(self) -> None:
        tree = BlockTree()
        oracle: AugDict[Block, tuple[bool, int]] = AugDict(32, Blocks())
        assert tree.cell() == (None, False, 0)
        for seqno in range(600):
            tree, completed = tree.append(block(seqno))
            oracle = oracle.set(format(seqno, "032b"), block(seqno))
            assert oracle.root is not None
            cell, has_key, max_lt = tree.cell()
            assert cell is not None
            assert cell.hash == oracle.root.cell.hash
            assert (has_key, max_lt) == oracle.root.extra
            assert (completed is not None) == (seqno % 256 == 255)
        assert len(tree) == 600

    def test_continues_from_stored_subtrees(self) -> None:
        tree, parts = BlockTree(), []
        for seqno in range(1200):
            tree, part = tree.append(block(seqno))
            if part is not None:
                parts.append(part)
        assert len(parts) == 4
        again = BlockTree()
        for part in parts:
            again, _ = again.join(part)
        for seqno in range(1024, 1200):
            again, _ = again.append(block(seqno))
        assert again.cell()[0] == tree.cell()[0]

    def test_large_parts_hold_no_blocks(self) -> None:
        tree = BlockTree()
        for seqno in range(512):
            tree, _ = tree.append(block(seqno))
        assert all(isinstance(half, Stub) for part in tree.spine for half in part.halves)


# ---- proofs


def sample() -> Cell:
    leaf = [begin_cell().store_uint(number, 8).end_cell() for number in range(4)]
    left = begin_cell().store_ref(leaf[0]).store_ref(leaf[1]).end_cell()
    right = begin_cell().store_uint(7, 8).store_ref(leaf[2]).store_ref(leaf[3]).end_cell()
    return cast(Cell, begin_cell().store_uint(1, 1).store_ref(left).store_ref(right).end_cell())


class TestProofs:
    def test_pruned_tree_has_the_same_hash(self) -> None:
        root = sample()
        part = prune(root, lambda path, _: Keep.OPEN if path in ((), (1,)) else Keep.CUT)
        assert part.get_hash(0) == root.hash
        assert part.hash != root.hash
        assert part.refs[0].type_ == 1
        assert part.refs[1].bits == root.refs[1].bits
        proof = Cell.one_from_boc(write_boc([merkle_proof(part)]))
        assert proof.type_ == 3
        assert proof.refs[0].get_hash(0) == root.hash
        assert proof.data[1:33] == root.hash

    def test_whole_keeps_everything(self) -> None:
        root = sample()
        assert prune(root, lambda *_: Keep.WHOLE) == root
        assert prune(root, lambda path, _: Keep.OPEN if not path else Keep.WHOLE) == root

    def test_pruned_branch(self) -> None:
        cell = sample()
        branch = pruned(cell)
        assert branch.get_hash(0) == cell.hash
        assert branch.get_depth(0) == cell.get_depth(0) == 2
        assert pruned(Stub.of(cell)) == branch

    def test_stub_stands_for_its_cell(self) -> None:
        cell = sample()
        whole, short = begin_cell().store_ref(cell), begin_cell().store_ref(Stub.of(cell))
        assert whole.end_cell().hash == short.end_cell().hash
        assert Stub.of(Stub.of(cell)).hash == cell.hash

    def test_update_names_both_states(self) -> None:
        old, new = sample(), EMPTY
        update = Cell.one_from_boc(write_boc([merkle_update(old, new)]))
        assert update.type_ == 4
        assert update.refs[0].get_hash(0) == old.hash
        assert update.refs[1].get_hash(0) == new.hash
        assert update.level_mask.mask == 0
