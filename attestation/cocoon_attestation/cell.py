"""Cells of TON: just enough to build, hash, carry and read the records of this project.

A cell is up to 1023 bits and up to four references. Its *representation hash* is the identity of a
record and what signatures cover. Only ordinary cells of level 0 exist here. A *bag of cells* (BoC) is
accepted only in one form (one root, no index, no checksum, cells in reverse post-order, at most 4 KiB),
so a record has one encoding. See docs/spec/records.md and the TVM white paper, section 3.1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, Self

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import exact_bytes, nanoton, sint, uint

MAX_BITS: Final = 1023
MAX_REFS: Final = 4
MAX_DEPTH: Final = 512
"""Deepest tree; also TON's limit for a message."""
MAX_BOC: Final = 4096
"""Longest bag of cells, in bytes."""

_MAGIC: Final = bytes.fromhex("b5ee9c72")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """An ordinary cell. Two cells are equal if their representation hashes are."""

    data: bytes
    """The bits, most significant first, padded with zero bits to whole bytes."""
    bit_length: int
    """Number of bits, 0 to 1023."""
    refs: tuple[Cell, ...] = ()
    """Referenced cells, at most 4."""
    hash: bytes = field(init=False)
    """Representation hash, 32 bytes."""
    depth: int = field(init=False)
    """Length of the longest path below, 0 for a leaf."""

    def __post_init__(self) -> None:
        """Check the limits and compute hash and depth.

        Raises:
            MalformedError: too many bits or references, too deep, or padding that is not zero.
        """
        if not 0 <= self.bit_length <= MAX_BITS or len(self.refs) > MAX_REFS:
            raise MalformedError("cell: at most 1023 bits and 4 references")
        spare = -self.bit_length % 8
        if len(self.data) != (self.bit_length + 7) // 8 or (spare and self.data[-1] & ((1 << spare) - 1)):
            raise MalformedError("cell: padding bits must be zero")
        depth = max((ref.depth for ref in self.refs), default=-1) + 1
        if depth > MAX_DEPTH:
            raise MalformedError("cell: tree too deep")
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "hash", hashlib.sha256(self.representation).digest())

    @property
    def representation(self) -> bytes:
        """The bytes that are hashed: descriptors, completed data, depths and hashes of the references."""
        parts = [_descriptors(self), _completed(self)]
        parts += [ref.depth.to_bytes(2) for ref in self.refs]
        parts += [ref.hash for ref in self.refs]
        return b"".join(parts)

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, Cell) else NotImplemented

    def __hash__(self) -> int:
        return int.from_bytes(self.hash[:8])

    def to_boc(self) -> bytes:
        """Serialize the tree in the one form that `parse_boc` accepts.

        Raises:
            MalformedError: the bag would be longer than 4 KiB.
        """
        order = _reverse_post_order(self)
        if len(order) > MAX_BOC:
            raise MalformedError("bag of cells: too large")
        position = {cell.hash: index for index, cell in enumerate(order)}
        ref_size = _byte_width(len(order))
        payload = b"".join(
            _descriptors(cell)
            + _completed(cell)
            + b"".join(position[ref.hash].to_bytes(ref_size) for ref in cell.refs)
            for cell in order
        )
        offset_size = _byte_width(len(payload))
        counts = len(order).to_bytes(ref_size) + (1).to_bytes(ref_size) + (0).to_bytes(ref_size)
        header = _MAGIC + bytes([ref_size, offset_size]) + counts
        boc = header + len(payload).to_bytes(offset_size) + (0).to_bytes(ref_size) + payload
        if len(boc) > MAX_BOC:
            raise MalformedError("bag of cells: too large")
        return boc

    def read(self) -> CellReader:
        """Start reading at the first bit and the first reference."""
        return CellReader(self)


def _descriptors(cell: Cell) -> bytes:
    return bytes([len(cell.refs), cell.bit_length // 8 + (cell.bit_length + 7) // 8])


def _completed(cell: Cell) -> bytes:
    """Data with the completion tag: a one bit behind the last bit if that is not at a byte's end."""
    spare = -cell.bit_length % 8
    return cell.data[:-1] + bytes([cell.data[-1] | 1 << (spare - 1)]) if spare else cell.data


def _byte_width(value: int) -> int:
    return (value.bit_length() + 7) // 8


def _reverse_post_order(root: Cell) -> list[Cell]:
    """Each distinct cell once, parents before children; children are visited last to first.

    Same order as the common libraries of TON produce for small trees.
    """
    seen: set[bytes] = set()
    done: list[Cell] = []
    stack: list[tuple[Cell, bool]] = [(root, False)]
    while stack:
        cell, expanded = stack.pop()
        if expanded:
            done.append(cell)
        elif cell.hash not in seen:
            seen.add(cell.hash)
            stack.append((cell, True))
            stack.extend((ref, False) for ref in cell.refs)
    done.reverse()
    return done


def parse_boc(boc: bytes | memoryview) -> Cell:
    """Read the root of a bag of cells.

    Raises:
        MalformedError: not a bag of cells, not in the one accepted form, or longer than 4 KiB.
    """
    boc = bytes(boc)
    if len(boc) > MAX_BOC:
        raise MalformedError("bag of cells: too large")
    stream = _Bytes(boc)
    if stream.take(4) != _MAGIC:
        raise MalformedError("bag of cells: wrong magic")
    ref_size, offset_size = stream.take(2)  # index, checksum and cache flags share the first byte: zero
    if ref_size not in (1, 2) or offset_size not in (1, 2):
        raise MalformedError("bag of cells: unsupported form")
    count, roots, absent = (stream.uint(ref_size) for _ in range(3))
    size, root_index = stream.uint(offset_size), stream.uint(ref_size)
    if roots != 1 or absent or root_index or not count or size != stream.left:
        raise MalformedError("bag of cells: one root, at the front, expected")
    raw = [_parse_cell(stream, ref_size, index, count) for index in range(count)]
    cells: dict[int, Cell] = {}
    for index in reversed(range(count)):  # references point forward only: no recursion, no cycles
        data, bits, refs = raw[index]
        cells[index] = Cell(data=data, bit_length=bits, refs=tuple(cells[ref] for ref in refs))
    root = cells[0]
    if root.to_boc() != boc:
        raise MalformedError("bag of cells: not in canonical form")
    return root


def _parse_cell(stream: _Bytes, ref_size: int, index: int, count: int) -> tuple[bytes, int, list[int]]:
    ref_count, bits_descriptor = stream.take(2)
    if ref_count > MAX_REFS:
        raise MalformedError("bag of cells: only ordinary cells of level 0 are accepted")
    data = stream.take((bits_descriptor + 1) // 2)
    bit_length = 8 * len(data)
    if bits_descriptor % 2:
        last = data[-1]
        if last in (0, 0x80):
            raise MalformedError("bag of cells: wrong completion tag")
        spare = (last & -last).bit_length()  # the tag is the lowest one bit
        bit_length -= spare
        data = data[:-1] + bytes([last & (last - 1)])
    refs = [stream.uint(ref_size) for _ in range(ref_count)]
    if any(not index < ref < count for ref in refs):
        raise MalformedError("bag of cells: references must point forward")
    return data, bit_length, refs


class _Bytes:
    """A cursor over bytes that raises `MalformedError` at the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise MalformedError("bag of cells: truncated")
        self._at += length
        return self._data[self._at - length : self._at]

    def uint(self, length: int) -> int:
        return int.from_bytes(self.take(length))


class CellBuilder:
    """Writes bits and references; every method returns the builder.

    Raises `MalformedError` for a value out of range; `build` also for a cell over its limits.
    """

    __slots__ = ("_bits", "_refs", "_value")

    def __init__(self) -> None:
        self._value = 0
        self._bits = 0
        self._refs: list[Cell] = []

    def uint(self, value: int, bits: int) -> Self:
        """Append an unsigned integer, big-endian."""
        self._value = self._value << bits | uint(value, bits, "cell field")
        self._bits += bits
        return self

    def sint(self, value: int, bits: int) -> Self:
        """Append a signed integer in two's complement, big-endian."""
        return self.uint(sint(value, bits, "cell field") & ((1 << bits) - 1), bits)

    def raw(self, value: bytes, length: int) -> Self:
        """Append exactly `length` bytes."""
        return self.uint(int.from_bytes(exact_bytes(value, length, "cell field")), 8 * length)

    def coins(self, amount: int) -> Self:
        """Append nanoton as TL-B ``Coins``: 4-bit length in bytes, then that many bytes."""
        width = _byte_width(nanoton(amount, "cell field"))
        return self.uint(width, 4).uint(amount, 8 * width)

    def ref(self, cell: Cell) -> Self:
        """Append a reference."""
        self._refs.append(cell)
        return self

    def build(self) -> Cell:
        """The finished cell."""
        spare = -self._bits % 8
        data = (self._value << spare).to_bytes((self._bits + 7) // 8)
        return Cell(data=data, bit_length=self._bits, refs=tuple(self._refs))


class CellReader:
    """Reads bits and references in order; `end` proves that nothing is left.

    Every method raises `MalformedError` when the cell holds less than is asked for.
    """

    __slots__ = ("_at", "_cell", "_ref", "_value")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._value = int.from_bytes(cell.data) >> (-cell.bit_length % 8)
        self._at = 0
        self._ref = 0

    def uint(self, bits: int) -> int:
        """Read an unsigned integer, big-endian."""
        self._at += bits
        if self._at > self._cell.bit_length:
            raise MalformedError("cell: too few bits")
        return self._value >> (self._cell.bit_length - self._at) & ((1 << bits) - 1)

    def sint(self, bits: int) -> int:
        """Read a signed integer in two's complement, big-endian."""
        value = self.uint(bits)
        return value - (1 << bits) if value >> (bits - 1) else value

    def raw(self, length: int) -> bytes:
        """Read `length` bytes."""
        return self.uint(8 * length).to_bytes(length)

    def coins(self) -> int:
        """Read TL-B ``Coins`` as nanoton; a leading zero byte is not canonical and refused."""
        width = self.uint(4)
        value = self.uint(8 * width)
        if _byte_width(value) != width:
            raise MalformedError("cell: amount not in canonical form")
        return value

    def tag(self, expected: int) -> None:
        """Read a 32-bit constructor tag and require its value."""
        if self.uint(32) != expected:
            raise MalformedError("cell: another record's tag")

    def ref(self) -> CellReader:
        """Read a reference and start reading the cell behind it."""
        return self.ref_cell().read()

    def ref_cell(self) -> Cell:
        """Read a reference."""
        if self._ref >= len(self._cell.refs):
            raise MalformedError("cell: too few references")
        self._ref += 1
        return self._cell.refs[self._ref - 1]

    def end(self) -> None:
        """Require that all bits and references were read."""
        if self._at != self._cell.bit_length or self._ref != len(self._cell.refs):
            raise MalformedError("cell: trailing bits or references")
