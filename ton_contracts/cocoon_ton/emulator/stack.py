"""TVM stack values as BoC (``VmStack`` of ``block.tlb``), in both directions.

========================  =============================================
TVM                       Python
========================  =============================================
integer                   int, -2^256 <= value < 2^256
null                      None
cell                      `Cell`
slice                     `Slice`
builder                   `Builder`
tuple                     tuple
========================  =============================================

Continuations and NaN have no Python value: EmulatorError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from pytoniq_core import Address, Builder, Cell, Slice, begin_cell

from cocoon_ton.emulator.errors import EmulatorError

StackValue: TypeAlias = "int | Cell | Slice | Builder | tuple[StackValue, ...] | None"
StackInput: TypeAlias = "int | Cell | Slice | Builder | Address | Sequence[StackInput] | None"


def write_stack(values: Sequence[StackInput]) -> Cell:
    """``vm_stack#_ depth:(## 24) stack:(VmStackList depth)``; the last value is the top."""
    rest = begin_cell().end_cell()
    if not values:
        return cast(Cell, begin_cell().store_uint(0, 24).end_cell())
    for value in values[:-1]:
        rest = begin_cell().store_ref(rest).store_cell(write_value(value)).end_cell()
    top = write_value(values[-1])
    return cast(Cell, begin_cell().store_uint(len(values), 24).store_ref(rest).store_cell(top).end_cell())


def read_stack(cell: Cell) -> list[StackValue]:
    """Inverse of `write_stack`."""
    part = cell.begin_parse()
    values: list[StackValue] = []
    for _ in range(part.load_uint(24)):
        rest = part.load_ref()
        values.append(_read_value(part))
        part = rest.begin_parse()
    values.reverse()
    return values


def write_value(value: StackInput) -> Cell:
    """``VmStackValue``. An `Address` becomes a slice; a list or tuple becomes a tuple."""
    if value is None:
        return cast(Cell, begin_cell().store_uint(0, 8).end_cell())
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            return cast(Cell, begin_cell().store_uint(1, 8).store_int(int(value), 64).end_cell())
        return cast(Cell, begin_cell().store_uint(0x0100, 15).store_int(value, 257).end_cell())
    if isinstance(value, Cell):
        return cast(Cell, begin_cell().store_uint(3, 8).store_ref(value).end_cell())
    if isinstance(value, Address):
        return _write_slice(begin_cell().store_address(value).end_cell())
    if isinstance(value, Slice):
        return _write_slice(value.copy().to_cell())
    if isinstance(value, Builder):
        return cast(Cell, begin_cell().store_uint(5, 8).store_ref(value.end_cell()).end_cell())
    return cast(
        Cell,
        begin_cell().store_uint(7, 8).store_uint(len(value), 16).store_cell(_write_tuple(value)).end_cell(),
    )


def _write_slice(cell: Cell) -> Cell:
    refs = len(cell.refs)
    return cast(
        Cell,
        begin_cell()
        .store_uint(4, 8)
        .store_ref(cell)
        .store_uint(0, 10)
        .store_uint(len(cell.bits), 10)
        .store_uint(0, 3)
        .store_uint(refs, 3)
        .end_cell(),
    )


def _write_tuple(items: Sequence[StackInput]) -> Cell:
    """``VmTuple n``: every further item wraps the ones before it."""
    if not items:
        return cast(Cell, begin_cell().end_cell())
    body = begin_cell().store_ref(write_value(items[0])).end_cell()
    for index, item in enumerate(items[1:], start=1):
        head = body.refs[0] if index == 1 else body  # VmTupleRef 1 is the value itself
        body = begin_cell().store_ref(head).store_ref(write_value(item)).end_cell()
    return cast(Cell, body)


def _read_value(part: Slice) -> StackValue:
    tag = part.load_uint(8)
    if tag == 0:
        return None
    if tag == 1:
        return int(part.load_int(64))
    if tag == 2 and part.load_uint(7) == 0:
        return int(part.load_int(257))
    if tag == 3:
        return part.load_ref()
    if tag == 4:
        return _read_slice(part)
    if tag == 5:
        return cast(StackValue, part.load_ref().to_builder())
    if tag == 7:
        return tuple(_read_tuple(part.load_uint(16), part))
    raise EmulatorError(f"stack value of type {tag:#x} has no Python form")


def _read_slice(part: Slice) -> Slice:
    cell = part.load_ref()
    start, end = part.load_uint(10), part.load_uint(10)
    first, last = part.load_uint(3), part.load_uint(3)
    builder = begin_cell().store_bits(cell.bits[start:end])
    for ref in cell.refs[first:last]:
        builder.store_ref(ref)
    return cast(Slice, builder.end_cell().begin_parse())


def _read_tuple(count: int, part: Slice) -> list[StackValue]:
    if count == 0:
        return []
    if count == 1:
        return [_read_value(part.load_ref().begin_parse())]
    head = part.load_ref()
    last = _read_value(part.load_ref().begin_parse())
    if count == 2:
        return [_read_value(head.begin_parse()), last]
    return [*_read_tuple(count - 1, head.begin_parse()), last]
