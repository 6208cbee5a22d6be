"""The BoC writer and the stack codec, against pytoniq-core and the TVM itself."""

from __future__ import annotations

import base64
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Address, Cell, Slice, begin_cell
from pytoniq_core.tlb.vm_stack import VmStack

from cocoon_ton.emulator.boc import from_base64, to_base64
from cocoon_ton.emulator.errors import EmulatorError
from cocoon_ton.emulator.stack import StackInput, read_stack, write_stack, write_value
from cocoon_ton.proof.boc import write_boc


def _cell(bits: str, refs: list[Cell]) -> Cell:
    builder = begin_cell().store_bits(bits)
    for ref in refs[:4]:
        builder.store_ref(ref)
    return cast(Cell, builder.end_cell())


cells = st.recursive(
    st.builds(_cell, st.text("01", max_size=80), st.just([])),
    lambda children: st.builds(_cell, st.text("01", max_size=80), st.lists(children, max_size=4)),
    max_leaves=12,
)
integers = st.integers(-(1 << 256), (1 << 256) - 1)
values = st.recursive(
    st.none() | integers | cells,
    lambda children: st.lists(children, max_size=6).map(tuple),
    max_leaves=12,
)


class TestBoc:
    @given(cells)
    def test_pytoniq_reads_it(self, cell: Cell) -> None:
        assert Cell.one_from_boc(write_boc([cell])) == cell
        assert from_base64(to_base64(cell)) == cell

    @given(st.lists(cells, min_size=1, max_size=4))
    def test_several_roots(self, roots: list[Cell]) -> None:
        assert Cell.from_boc(write_boc(roots)) == roots

    @given(cells)
    def test_equal_cells_are_written_once(self, cell: Cell) -> None:
        twice = begin_cell().store_ref(cell).store_ref(cell).end_cell()
        once = begin_cell().store_ref(cell).end_cell()
        assert len(write_boc([twice])) == len(write_boc([once])) + 1

    def test_shared_children_take_linear_time(self) -> None:
        cell = begin_cell().end_cell()
        for _ in range(200):  # 2^200 paths
            cell = begin_cell().store_ref(cell).store_ref(cell).end_cell()
        assert len(write_boc([cell])) < 2000

    @pytest.mark.parametrize("count", [1, 255, 256, 300])
    def test_index_width(self, count: int) -> None:
        cell = begin_cell().end_cell()
        for number in range(count):
            cell = begin_cell().store_uint(number, 16).store_ref(cell).end_cell()
        assert Cell.one_from_boc(write_boc([cell])) == cell


class TestStack:
    @given(st.lists(values, max_size=6))
    def test_round_trip(self, stack: list[StackInput]) -> None:
        assert read_stack(write_stack(stack)) == stack

    @given(st.lists(integers, max_size=6))
    def test_pytoniq_agrees(self, stack: list[int]) -> None:
        assert write_stack(stack) == VmStack.serialize(list(stack))
        assert VmStack.deserialize(write_stack(stack).begin_parse()) == stack

    def test_slices_and_addresses(self) -> None:
        address = Address((0, b"\x01" * 32))
        cell = begin_cell().store_address(address).store_ref(begin_cell().end_cell()).end_cell()
        rest = cell.begin_parse()
        rest.load_bits(3)
        stack = read_stack(write_stack([address, rest, True, begin_cell().store_uint(5, 8)]))
        assert isinstance(stack[0], Slice)
        assert stack[0].load_address() == address
        assert isinstance(stack[1], Slice)
        assert len(stack[1].bits) == 264
        assert len(stack[1].refs) == 1
        assert stack[2] == 1
        assert stack[3].end_cell().bits.to01() == "00000101"  # type: ignore[union-attr]

    def test_slice_window(self) -> None:
        """A slice value names a part of a cell; only the part comes back."""
        inner = begin_cell().store_uint(0xABCD, 16).store_ref(begin_cell().end_cell()).end_cell()
        value = begin_cell().store_uint(4, 8).store_ref(inner).store_uint(4, 10).store_uint(12, 10)
        value.store_uint(1, 3).store_uint(1, 3)
        empty = begin_cell().end_cell()
        stack = begin_cell().store_uint(1, 24).store_ref(empty).store_cell(value.end_cell()).end_cell()
        part = read_stack(stack)[0]
        assert isinstance(part, Slice)
        assert part.bits.to01() == "10111100"
        assert part.refs == []

    @pytest.mark.parametrize("tag", [6, 8, 0xFF])
    def test_values_without_a_python_form(self, tag: int) -> None:
        empty = begin_cell().end_cell()
        stack = begin_cell().store_uint(1, 24).store_ref(empty).store_uint(tag, 8).end_cell()
        with pytest.raises(EmulatorError):
            read_stack(stack)

    def test_not_a_number(self) -> None:
        empty = begin_cell().end_cell()
        stack = begin_cell().store_uint(1, 24).store_ref(empty).store_uint(0x02FF, 16).end_cell()
        with pytest.raises(EmulatorError):
            read_stack(stack)

    def test_small_integers_are_short(self) -> None:
        assert len(write_value(-(1 << 63)).bits) == 72
        assert len(write_value(1 << 63).bits) == 272
        assert base64.b64decode(to_base64(write_value(1)))[-9:] == b"\x01" + bytes(7) + b"\x01"
