"""Strict reading and plain writing of contract cells on top of pytoniq-core.

`Reader` raises `MalformedError` where pytoniq-core's slices return short values, accept unknown address
forms or raise whatever they meet. Dictionaries are read without recursion and with a limit on entries,
so hostile state cannot exhaust the stack. Nothing here knows a contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from pytoniq_core import Address, Builder, Cell, HashMap

from cocoon_attestation.cell import Cell as RecordCell
from cocoon_attestation.errors import MalformedError

MAX_ENTRIES: Final = 65_536
"""Entries read from one dictionary before it is refused."""
_SNAKE_LIMIT: Final = 4096

_T = TypeVar("_T")


class Reader:
    """Reads bits and references of an ordinary cell in order; `end` proves that nothing is left."""

    __slots__ = ("_at", "_bits", "_cell", "_ref", "_value")

    def __init__(self, cell: Cell) -> None:
        """Start at the first bit.

        Raises:
            MalformedError: the cell is exotic (pruned, library, Merkle).
        """
        if cell.is_exotic:
            raise MalformedError("contract cell: exotic cell where data is expected")
        self._cell = cell
        self._bits = len(cell.bits)
        self._value = int.from_bytes(cell.bits.tobytes()) >> (-self._bits % 8)
        self._at = 0
        self._ref = 0

    @property
    def bits_left(self) -> int:
        """Bits not read yet."""
        return self._bits - self._at

    @property
    def refs_left(self) -> int:
        """References not read yet."""
        return len(self._cell.refs) - self._ref

    def uint(self, bits: int) -> int:
        """Read an unsigned integer."""
        self._at += bits
        if self._at > self._bits:
            raise MalformedError("contract cell: too few bits")
        return self._value >> (self._bits - self._at) & ((1 << bits) - 1)

    def sint(self, bits: int) -> int:
        """Read a signed integer in two's complement."""
        value = self.uint(bits)
        return value - (1 << bits) if value >> (bits - 1) else value

    def flag(self) -> bool:
        """Read one bit."""
        return bool(self.uint(1))

    def raw(self, length: int) -> bytes:
        """Read `length` bytes."""
        return self.uint(8 * length).to_bytes(length)

    def coins(self) -> int:
        """Read TL-B ``Coins`` as nanoton, in canonical form."""
        length = self.uint(4)
        value = self.uint(8 * length)
        if (value.bit_length() + 7) // 8 != length:
            raise MalformedError("contract cell: amount not in canonical form")
        return value

    def tag(self, expected: int) -> None:
        """Read a 32-bit constructor tag and require its value."""
        if self.uint(32) != expected:
            raise MalformedError(f"contract cell: tag {expected:08x} expected")

    def address(self) -> Address:
        """Read ``addr_std`` without anycast."""
        if self.uint(3) != 0b100:
            raise MalformedError("contract cell: internal address expected")
        return Address((self.sint(8), self.raw(32)))

    def maybe_address(self) -> Address | None:
        """Read ``addr_none`` or ``addr_std`` without anycast."""
        kind = self.uint(2)
        if kind == 0:
            return None
        if kind != 0b10 or self.uint(1):
            raise MalformedError("contract cell: internal or no address expected")
        return Address((self.sint(8), self.raw(32)))

    def ref(self) -> Cell:
        """Read a reference."""
        if not self.refs_left:
            raise MalformedError("contract cell: too few references")
        self._ref += 1
        cell: Cell = self._cell.refs[self._ref - 1]
        return cell

    def sub(self) -> Reader:
        """Read a reference and start reading the cell behind it."""
        return Reader(self.ref())

    def maybe_ref(self) -> Cell | None:
        """Read ``Maybe ^Cell``."""
        return self.ref() if self.flag() else None

    def rest(self) -> bytes:
        """Read the remaining bits, which must be whole bytes."""
        if self.bits_left % 8:
            raise MalformedError("contract cell: whole bytes expected")
        return self.raw(self.bits_left // 8)

    def end(self) -> None:
        """Require that all bits and references were read."""
        if self.bits_left or self.refs_left:
            raise MalformedError("contract cell: trailing bits or references")


def read_dict(root: Cell | None, key_bits: int, value: Callable[[Reader], _T]) -> dict[int, _T]:
    """Read ``HashmapE key_bits X`` whose root is `root` (None: empty), in ascending order of keys.

    Raises:
        MalformedError: no dictionary, or one with more than `MAX_ENTRIES` entries.
    """
    entries: dict[int, _T] = {}
    stack: list[tuple[Cell, int, int]] = [] if root is None else [(root, key_bits, 0)]
    while stack:
        cell, left, prefix = stack.pop()
        edge = Reader(cell)
        length, label = _label(edge, left)
        left -= length
        prefix = prefix << length | label
        if left:
            zero, one = edge.ref(), edge.ref()
            edge.end()
            stack.append((one, left - 1, prefix << 1 | 1))
            stack.append((zero, left - 1, prefix << 1))
            continue
        if len(entries) >= MAX_ENTRIES:
            raise MalformedError("contract cell: too many dictionary entries")
        entries[prefix] = value(edge)
        edge.end()
    return entries


def _label(edge: Reader, limit: int) -> tuple[int, int]:
    """Length and bits of a dictionary label (``HmLabel ~n m``)."""
    width = limit.bit_length()
    if not edge.flag():
        length = 0
        while edge.flag():
            length += 1
            if length > limit:
                raise MalformedError("contract cell: dictionary label too long")
        return length, edge.uint(length) if length else 0
    if not edge.flag():
        length = edge.uint(width)
        if length > limit:
            raise MalformedError("contract cell: dictionary label too long")
        return length, edge.uint(length) if length else 0
    bit, length = edge.uint(1), edge.uint(width)
    if length > limit:
        raise MalformedError("contract cell: dictionary label too long")
    return length, (1 << length) - 1 if bit else 0


def write_dict(entries: Mapping[int, _T], key_bits: int, value: Callable[[_T], Cell]) -> Cell | None:
    """Build ``HashmapE key_bits X``; `value` gives the bits and references of an entry as a cell."""
    table = HashMap(key_bits, value_serializer=lambda entry, to: to.store_cell(value(entry)))
    for key in sorted(entries):
        table.set_int_key(key, entries[key])
    root: Cell | None = table.serialize()
    return root


def read_text(cell: Cell, limit: int = _SNAKE_LIMIT) -> str:
    """Read UTF-8 text in snake format, at most `limit` bytes.

    Raises:
        MalformedError: not a snake of whole bytes, too long, or not UTF-8.
    """
    data = bytearray()
    following: Cell | None = cell
    while following is not None:
        piece = Reader(following)
        data += piece.rest()
        following = piece.ref() if piece.refs_left else None
        piece.end()
        if len(data) > limit or (following is not None and not len(data)):
            raise MalformedError("contract cell: text too long")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("contract cell: text is not UTF-8") from error


def write_text(text: str) -> Cell:
    """Text as a snake of cells of 127 bytes."""
    data = text.encode()
    pieces = [data[at : at + 127] for at in range(0, len(data), 127)] or [b""]
    cell: Cell | None = None
    for piece in reversed(pieces):
        builder = Builder().store_bytes(piece)
        cell = (builder if cell is None else builder.store_ref(cell)).end_cell()
    return cell if cell is not None else Builder().end_cell()


def begin(tag: int) -> Builder:
    """A builder that starts with a 32-bit tag or opcode."""
    builder: Builder = Builder().store_uint(tag, 32)
    return builder


def finish(builder: Builder) -> Cell:
    """The builder's cell."""
    cell: Cell = builder.end_cell()
    return cell


def record_to_ton(record: RecordCell) -> Cell:
    """A cell of `cocoon_attestation.cell` as a cell of pytoniq-core; the hash stays the same."""
    builder = Builder()
    if record.bit_length:
        value = int.from_bytes(record.data) >> (-record.bit_length % 8)
        builder.store_uint(value, record.bit_length)
    for ref in record.refs:
        builder.store_ref(record_to_ton(ref))
    return finish(builder)


def ton_to_record(cell: Cell) -> RecordCell:
    """A cell of pytoniq-core as a cell of `cocoon_attestation.cell`; the hash stays the same.

    Raises:
        MalformedError: the cell or one below it is exotic, or the tree is too deep.
    """
    if cell.is_exotic or cell.get_depth() > _SNAKE_LIMIT // 8:
        raise MalformedError("contract cell: ordinary cells expected")
    refs = tuple(ton_to_record(ref) for ref in cell.refs)
    return RecordCell(data=cell.bits.tobytes(), bit_length=len(cell.bits), refs=refs)
