"""Cells and bags of cells against pytoniq_core as an independent implementation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.boc.builder import Builder as OracleBuilder
from pytoniq_core.boc.cell import Cell as OracleCell

from cocoon_attestation.cell import MAX_BOC, MAX_DEPTH, Cell, CellBuilder, parse_boc
from cocoon_attestation.errors import MalformedError


def leaf(bits: str) -> Cell:
    return CellBuilder().uint(int(bits or "0", 2), len(bits)).build()


def with_refs(bits: str, refs: list[Cell]) -> Cell:
    builder = CellBuilder().uint(int(bits or "0", 2), len(bits))
    for ref in refs:
        builder.ref(ref)
    return builder.build()


def oracle(cell: Cell) -> OracleCell:
    builder = OracleBuilder()
    value = cell.read().uint(cell.bit_length)
    if cell.bit_length:
        builder.store_bits(f"{value:0{cell.bit_length}b}")
    for ref in cell.refs:
        builder.store_ref(oracle(ref))
    return builder.end_cell()


def oracle_boc(cell: OracleCell, **options: bool) -> bytes:
    return bytes(cell.to_boc(**options))


bit_strings = st.text(alphabet="01", max_size=120) | st.text(alphabet="01", min_size=1000, max_size=1023)
trees = st.recursive(
    bit_strings.map(leaf),
    lambda children: st.builds(with_refs, bit_strings, st.lists(children, max_size=4)),
    max_leaves=8,
)


@given(trees)
def test_hash_and_bag_agree_with_oracle(cell: Cell) -> None:
    expected = oracle(cell)
    assert cell.hash == expected.hash
    boc = cell.to_boc()
    assert boc == oracle_boc(expected)
    assert parse_boc(boc) == cell


@given(trees)
def test_oracle_reads_our_bags(cell: Cell) -> None:
    assert OracleCell.one_from_boc(cell.to_boc()).hash == cell.hash


def test_shared_cells_are_stored_once() -> None:
    shared = leaf("1" * 100)
    middle = [with_refs("0", [shared]), with_refs("1", [shared])]
    root = with_refs("", [*middle, shared])
    assert len(parse_boc(root.to_boc()).refs) == 3
    assert root.to_boc() == oracle_boc(oracle(root))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_or_canonical(data: bytes) -> None:
    try:
        cell = parse_boc(data)
    except MalformedError:
        return
    assert cell.to_boc() == data


@given(trees, st.data())
def test_mutated_bags_are_malformed_or_canonical(cell: Cell, data: st.DataObject) -> None:
    boc = bytearray(cell.to_boc())
    position = data.draw(st.integers(0, len(boc) - 1))
    boc[position] ^= data.draw(st.integers(1, 255))
    try:
        changed = parse_boc(bytes(boc))
    except MalformedError:
        return
    assert changed.to_boc() == bytes(boc)
    assert changed != cell


@given(trees, st.data())
def test_truncated_and_extended_bags_are_malformed(cell: Cell, data: st.DataObject) -> None:
    boc = cell.to_boc()
    cut = data.draw(st.integers(0, len(boc) - 1))
    with pytest.raises(MalformedError):
        parse_boc(boc[:cut])
    with pytest.raises(MalformedError):
        parse_boc(boc + b"\x00")


@pytest.mark.parametrize(
    "options", [{"has_idx": True}, {"hash_crc32": True}, {"has_idx": True, "hash_crc32": True}]
)
def test_other_forms_of_the_same_bag_are_refused(options: dict[str, bool]) -> None:
    boc = oracle_boc(oracle(with_refs("101", [leaf("11")])), **options)
    with pytest.raises(MalformedError):
        parse_boc(boc)


def hand_made_bag(cells: bytes, count: int) -> bytes:
    header = bytes.fromhex("b5ee9c720101") + bytes([count, 1, 0, len(cells), 0])
    return header + cells


def test_hand_made_bag_is_accepted() -> None:
    assert parse_boc(hand_made_bag(bytes.fromhex("0102aa01" + "0000"), 2)).refs[0].bit_length == 0


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        pytest.param("0102aa00" + "0000", 2, id="reference to itself"),
        pytest.param("010001" + "010000", 2, id="reference backwards"),
        pytest.param("010002" + "0000", 2, id="reference past the end"),
        pytest.param("0802aa", 1, id="exotic cell"),
        pytest.param("2002aa", 1, id="level 1"),
        pytest.param("0500" + "01" * 5 + "0000", 2, id="five references"),
        pytest.param("0001" + "00", 1, id="no completion tag"),
        pytest.param("0001" + "80", 1, id="completion tag without bits"),
        pytest.param("0000" + "0000", 2, id="unreachable cell"),
        pytest.param("0200" + "0201" + "0002bb" + "0002aa", 3, id="children in another order"),
        pytest.param("0200" + "0102" + "0002aa" + "0002aa", 3, id="equal cells stored twice"),
    ],
)
def test_damaged_bags_are_refused(cells: str, count: int) -> None:
    with pytest.raises(MalformedError):
        parse_boc(hand_made_bag(bytes.fromhex(cells), count))


def test_two_roots_are_refused() -> None:
    with pytest.raises(MalformedError):
        parse_boc(bytes.fromhex("b5ee9c720101" + "02" + "02" + "00" + "04" + "00" + "01" + "0000" + "0000"))


def chain(length: int) -> Cell:
    cell = leaf("1")
    for _ in range(length):
        cell = with_refs("", [cell])
    return cell


def test_depth_limit() -> None:
    deepest = chain(MAX_DEPTH)
    assert deepest.depth == MAX_DEPTH
    assert parse_boc(deepest.to_boc()).depth == MAX_DEPTH
    with pytest.raises(MalformedError):
        chain(MAX_DEPTH + 1)


def test_too_deep_bag_is_refused_without_recursion() -> None:
    count = 1300
    cells = b"".join(b"\x01\x00" + (index + 1).to_bytes(2) for index in range(count - 1)) + b"\x00\x00"
    for body in (cells[: MAX_BOC - 20], cells):
        header = bytes.fromhex("b5ee9c720202") + count.to_bytes(2) + b"\x00\x01\x00\x00"
        with pytest.raises(MalformedError):
            parse_boc(header + len(body).to_bytes(2) + b"\x00\x00" + body)


def chain_of_full_cells(count: int) -> Cell:
    cell = leaf(f"{0:01023b}")
    for number in range(1, count):
        cell = with_refs(f"{number:01023b}", [cell])
    return cell


def test_size_limit() -> None:
    largest = chain_of_full_cells(31)
    assert MAX_BOC - 131 < len(largest.to_boc()) <= MAX_BOC
    assert parse_boc(largest.to_boc()) == largest
    too_large = chain_of_full_cells(32)
    with pytest.raises(MalformedError):
        too_large.to_boc()
    with pytest.raises(MalformedError):
        parse_boc(oracle_boc(oracle(too_large)))


def test_exponential_graph_is_handled_in_linear_time() -> None:
    cell = leaf("1")
    for _ in range(200):
        cell = with_refs("", [cell, cell, cell, cell])
    assert parse_boc(cell.to_boc()).depth == 200


def test_cell_limits() -> None:
    with pytest.raises(MalformedError):
        leaf("1" * 1024)
    with pytest.raises(MalformedError):
        with_refs("", [leaf("")] * 5)
    with pytest.raises(MalformedError):
        Cell(data=b"\xff", bit_length=7)
    with pytest.raises(MalformedError):
        Cell(data=b"\xff\x00", bit_length=8)


@given(st.integers(0, 2**120 - 1))
def test_coins_agree_with_oracle(amount: int) -> None:
    cell = CellBuilder().coins(amount).build()
    assert cell.hash == OracleBuilder().store_coins(amount).end_cell().hash
    reader = cell.read()
    assert reader.coins() == amount
    reader.end()


def test_coins_must_be_minimal() -> None:
    padded = CellBuilder().uint(2, 4).uint(5, 16).build()
    with pytest.raises(MalformedError):
        padded.read().coins()
    with pytest.raises(MalformedError):
        CellBuilder().coins(2**120)
    with pytest.raises(MalformedError):
        CellBuilder().coins(-1)


@given(st.integers(-(2**31), 2**31 - 1))
def test_signed_integers(value: int) -> None:
    assert CellBuilder().sint(value, 32).build().read().sint(32) == value


def test_reader_refuses_to_read_past_the_end() -> None:
    reader = with_refs("101", [leaf("1")]).read()
    assert reader.uint(3) == 5
    with pytest.raises(MalformedError):
        reader.uint(1)
    assert reader.ref().uint(1) == 1
    with pytest.raises(MalformedError):
        reader.ref_cell()


def test_end_refuses_leftovers() -> None:
    with pytest.raises(MalformedError):
        leaf("1").read().end()
    with pytest.raises(MalformedError):
        with_refs("", [leaf("1")]).read().end()


@pytest.mark.parametrize("value", [-1, 256, True, "1", 1.0])
def test_builder_refuses_values_out_of_range(value: object) -> None:
    with pytest.raises(MalformedError):
        CellBuilder().uint(value, 8)  # type: ignore[arg-type]
    with pytest.raises(MalformedError):
        CellBuilder().raw(b"\x00", 2)
