"""Bags of cells from strangers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell, begin_cell

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.boc import parse_boc, parse_canonical, write_boc
from cocoon_ton.proof.tree import ProofTree, merkle_proof, pruned_branch


def leaf(number: int) -> Cell:
    cell: Cell = begin_cell().store_uint(number, 32).end_cell()
    return cell


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    """Trees and DAGs of ordinary cells."""
    made: list[Cell] = []
    for _ in range(draw(st.integers(1, 12))):
        builder = begin_cell().store_bits(draw(st.text("01", max_size=40)))
        for _ in range(draw(st.integers(0, min(4, len(made))))):
            builder.store_ref(made[draw(st.integers(0, len(made) - 1))])
        made.append(builder.end_cell())
    return made[-1]


class TestRoundTrip:
    @given(cells())
    def test_like_the_library(self, cell: Cell) -> None:
        ours, theirs = write_boc([cell]), cell.to_boc()
        assert Cell.one_from_boc(ours) == cell
        assert parse_boc(theirs)[0] == cell
        assert parse_canonical(ours) == cell

    @given(cells())
    def test_every_field_is_the_librarys(self, cell: Cell) -> None:
        """Plain cells are put together without the library's constructor."""
        (made,) = parse_boc(write_boc([cell]))
        for ours, theirs in zip(_all(made), _all(cell), strict=True):
            assert ours.level_mask.mask == theirs.level_mask.mask
            fields = set(vars(theirs)) - {"refs", "level_mask"}
            assert {name: vars(ours)[name] for name in fields} == {n: vars(theirs)[n] for n in fields}

    @given(cells(), cells())
    def test_known_cells_are_used_again(self, first: Cell, second: Cell) -> None:
        known: dict[bytes, Cell] = {}
        (one,) = parse_boc(write_boc([first]), known=known)
        both = begin_cell().store_ref(first).store_ref(second).end_cell()
        (again,) = parse_boc(write_boc([both]), known=known)
        assert again == both
        assert again.refs[0] is one

    def test_depth_is_bounded(self) -> None:
        cell = leaf(0)
        for _ in range(1023):
            cell = begin_cell().store_ref(cell).end_cell()
        assert parse_boc(write_boc([cell]))[0] == cell
        data = write_boc([cell])
        root = bytes([1, 0]) + (1).to_bytes(2)  # one reference, no data
        count = int.from_bytes(data[6:8])
        body = b"".join(_shifted(data, count))
        deeper = b"\xb5\xee\x9c\x72\x02\x02" + (count + 1).to_bytes(2) + b"\0\1\0\0"
        deeper += (len(root) + len(body)).to_bytes(2) + b"\0\0" + root + body
        with pytest.raises(ChainProofError, match="too deep"):
            parse_boc(deeper)

    @given(cells())
    def test_with_index_and_checksum(self, cell: Cell) -> None:
        assert parse_boc(cell.to_boc(has_idx=False, hash_crc32=True))[0] == cell

    @given(cells(), cells())
    def test_several_roots(self, first: Cell, second: Cell) -> None:
        second = begin_cell().store_ref(second).store_bits("1").end_cell()
        assert parse_boc(write_boc([first, second]), roots=2) == [first, second]
        assert parse_boc(write_boc([second, second]), roots=None) == [second, second]

    def test_same_cell_is_written_once(self) -> None:
        child = leaf(1)
        cell = begin_cell().store_ref(child).store_ref(leaf(1)).end_cell()
        assert len(parse_boc(write_boc([cell]))[0].refs) == 2
        assert write_boc([cell]).count(bytes(leaf(1).data)) == 1

    def test_shared_cells_take_no_exponential_time(self) -> None:
        cell = leaf(0)
        for _ in range(500):
            cell = begin_cell().store_ref(cell).store_ref(cell).store_ref(cell).store_ref(cell).end_cell()
        started = time.monotonic()
        data = write_boc([cell])
        assert parse_boc(data)[0] == cell
        assert time.monotonic() - started < 2
        assert len(data) < 20_000

    def test_large_input_takes_linear_time(self) -> None:
        cell = leaf(0)
        rows = [begin_cell().store_uint(i, 512).store_ref(cell).end_cell() for i in range(4096)]
        while len(rows) > 1:
            groups = [rows[i : i + 4] for i in range(0, len(rows), 4)]
            rows = [_fork(group) for group in groups]
        started = time.monotonic()
        assert parse_boc(write_boc(rows))[0] == rows[0]
        assert time.monotonic() - started < 5


def _all(cell: Cell) -> list[Cell]:
    return [cell, *(below for ref in cell.refs for below in _all(ref))]


def _shifted(data: bytes, count: int) -> Iterator[bytes]:
    """The cells of a chain of cells with every index one higher."""
    at = len(data) - (count - 1) * 4 - len(bytes(leaf(0).data)) - 2
    for number in range(count - 1):
        yield data[at : at + 2] + (number + 2).to_bytes(2)
        at += 4
    yield data[at:]


def _fork(children: list[Cell]) -> Cell:
    builder = begin_cell()
    for child in children:
        builder.store_ref(child)
    cell: Cell = builder.end_cell()
    return cell


class TestHostile:
    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        _parse_or_reject(data)

    @given(st.binary(max_size=100))
    def test_any_body_behind_a_header(self, body: bytes) -> None:
        _parse_or_reject(b"\xb5\xee\x9c\x72\x01\x01\x02\x01\x00" + bytes([len(body)]) + b"\x00" + body)

    @given(cells(), st.data())
    def test_every_flipped_bit(self, cell: Cell, data: st.DataObject) -> None:
        raw = bytearray(write_boc([cell]))
        position = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[position // 8] ^= 1 << position % 8
        try:
            changed = parse_canonical(bytes(raw))
        except ChainProofError:
            return
        assert changed != cell

    @given(cells(), st.data())
    def test_every_truncation(self, cell: Cell, data: st.DataObject) -> None:
        raw = write_boc([cell])
        with pytest.raises(ChainProofError):
            parse_boc(raw[: data.draw(st.integers(0, len(raw) - 1))])

    @given(cells(), st.binary(min_size=1, max_size=4))
    def test_spare_bytes(self, cell: Cell, spare: bytes) -> None:
        with pytest.raises(ChainProofError):
            parse_boc(write_boc([cell]) + spare)

    def test_too_large(self) -> None:
        with pytest.raises(ChainProofError, match="too large"):
            parse_boc(bytes(101), max_bytes=100)

    def test_too_many_cells(self) -> None:
        cell = _fork([leaf(1), leaf(2), leaf(3)])
        with pytest.raises(ChainProofError, match="number of cells"):
            parse_boc(write_boc([cell]), max_cells=3)

    def test_too_deep(self) -> None:
        body, count = b"", 1100
        for index in range(count - 1):
            body += b"\x01\x00" + (index + 1).to_bytes(2, "big")
        body += b"\x00\x00"
        header = b"\xb5\xee\x9c\x72\x02\x02" + count.to_bytes(2, "big") + b"\x00\x01\x00\x00"
        with pytest.raises(ChainProofError):
            parse_boc(header + len(body).to_bytes(2, "big") + b"\x00\x00" + body)

    def test_unexpected_number_of_roots(self) -> None:
        with pytest.raises(ChainProofError, match="number of cells"):
            parse_boc(write_boc([leaf(1), leaf(2)]))

    @pytest.mark.parametrize("reference", [0, 1], ids=["itself", "beyond the end"])
    def test_references_must_go_forward(self, reference: int) -> None:
        body = b"\x01\x00" + bytes([reference])
        data = b"\xb5\xee\x9c\x72\x01\x01\x01\x01\x00" + bytes([len(body)]) + b"\x00" + body
        with pytest.raises(ChainProofError, match="order"):
            parse_boc(data)

    @pytest.mark.parametrize("last", [0x00, 0x80], ids=["no end mark", "mark without a bit"])
    def test_wrong_padding(self, last: int) -> None:
        body = b"\x00\x01" + bytes([last])
        data = b"\xb5\xee\x9c\x72\x01\x01\x01\x01\x00" + bytes([len(body)]) + b"\x00" + body
        with pytest.raises(ChainProofError, match="padding"):
            parse_boc(data)

    def test_wrong_level(self) -> None:
        body = b"\x20\x02\x00"
        data = b"\xb5\xee\x9c\x72\x01\x01\x01\x01\x00" + bytes([len(body)]) + b"\x00" + body
        with pytest.raises(ChainProofError, match="wrong level"):
            parse_boc(data)

    def test_pruned_root(self) -> None:
        with pytest.raises(ChainProofError, match="pruned root"):
            parse_boc(write_boc([pruned_branch(leaf(1))]))


def _parse_or_reject(data: bytes) -> None:
    try:
        parse_boc(data, roots=None)
    except ChainProofError:
        return
    assert parse_boc(data, roots=None)


def exotic(kind: int, data: bytes, *refs: Cell) -> Cell:
    builder = Builder(type_=kind).store_bytes(bytes([kind]) + data)
    for ref in refs:
        builder.store_ref(ref)
    cell: Cell = builder.end_cell()
    return cell


class TestExotic:
    @pytest.mark.parametrize(
        "cell",
        [
            exotic(3, bytes(32) + bytes(2), leaf(1)),
            exotic(3, bytes(leaf(1).hash) + b"\x00\x01", leaf(1)),
            exotic(3, bytes(leaf(1).hash) + bytes(3), leaf(1)),
            exotic(4, bytes(64) + bytes(4), leaf(1), leaf(2)),
            exotic(2, bytes(31)),
        ],
        ids=["proof of another hash", "another depth", "too long", "update of others", "short library"],
    )
    def test_malformed(self, cell: Cell) -> None:
        with pytest.raises(ChainProofError, match="exotic"):
            parse_boc(write_boc([cell]))

    def test_well_formed(self) -> None:
        library = exotic(2, bytes(32))
        assert parse_boc(write_boc([library]))[0] == library
        proof = merkle_proof(pruned_branch(leaf(1)))
        assert parse_boc(write_boc([proof]))[0] == proof

    def test_unknown_kind(self) -> None:
        body = b"\x08\x02\x09"
        data = b"\xb5\xee\x9c\x72\x01\x01\x01\x01\x00" + bytes([len(body)]) + b"\x00" + body
        with pytest.raises(ChainProofError, match="exotic"):
            parse_boc(data)


class TestProofTree:
    def test_shows_only_what_was_read(self) -> None:
        inner = begin_cell().store_ref(leaf(3)).store_uint(9, 8).end_cell()
        root = begin_cell().store_ref(leaf(1)).store_ref(inner).end_cell()
        tree = ProofTree(merkle_proof(root), bytes(root.hash))
        tree.open(tree.open(tree.root).refs[1])
        cut = tree.minimal()
        assert cut.refs[0].get_hash(0) == root.hash
        again = ProofTree(parse_boc(write_boc([cut]))[0], bytes(root.hash))
        assert again.open(again.open(again.root).refs[1]).load_uint(8) == 9
        for hidden in (again.root.refs[0], again.root.refs[1].refs[0]):
            with pytest.raises(ChainProofError, match="must show"):
                again.open(hidden)

    def test_nothing_read(self) -> None:
        root = _fork([leaf(1)])
        tree = ProofTree(merkle_proof(root), bytes(root.hash))
        assert write_boc([tree.minimal()]) == write_boc([merkle_proof(pruned_branch(root))])

    def test_update_is_cut_too(self) -> None:
        old, new = _fork([leaf(1)]), _fork([leaf(2)])
        sides = [merkle_side(old), merkle_side(new)]
        data = b"".join(bytes(side.get_hash(0)) for side in sides)
        data += b"".join(int(side.get_depth(0)).to_bytes(2, "big") for side in sides)
        update = exotic(4, data, *sides)
        root = begin_cell().store_ref(update).end_cell()
        tree = ProofTree(merkle_proof(root), bytes(root.hash))
        assert tree.update_target(tree.open(tree.root).refs[0]) == new.hash
        cut = parse_boc(write_boc([tree.minimal()]))[0]
        again = ProofTree(cut, bytes(root.hash))
        assert again.update_target(again.open(again.root).refs[0]) == new.hash
        assert not again.root.refs[0].refs[0].refs
        assert write_boc([again.minimal()]) == write_boc([cut])

    def test_update_must_be_one(self) -> None:
        root = _fork([leaf(1)])
        tree = ProofTree(merkle_proof(root), bytes(root.hash))
        with pytest.raises(ChainProofError, match="state update"):
            tree.update_target(tree.root.refs[0])


def merkle_side(state: Cell) -> Cell:
    """One side of an update that shows the state's root and prunes its child."""
    return Cell(state.bits, [pruned_branch(state.refs[0])], -1)
