"""Certificates cut into cells so that the contracts can walk them.

``contracts/lib/der.tolk`` skips values across cells but reads every value inside one cell. So cells end
where nothing is read: this module knows which bytes are read together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytoniq_core import Builder, Cell

from cocoon_attestation.errors import MalformedError

CELL_BYTES: Final = 127
_SGX: Final = bytes.fromhex("06092a864886f84d010d01")
_MAX_TBS: Final = 8192
Piece = tuple[int, bool]
"""Length in bytes, and whether the contract reads it as one."""


def snake(data: bytes, lengths: tuple[int, ...]) -> Cell:
    """Bytes as a snake of cells with these lengths in bytes, which must add up."""
    if sum(lengths) != len(data) or max(lengths) > CELL_BYTES:
        raise MalformedError("snake: the cells do not fit the data")
    cell: Cell | None = None
    end = len(data)
    for length in reversed(lengths):
        builder = Builder().store_bytes(data[end - length : end])
        cell = (builder if cell is None else builder.store_ref(cell)).end_cell()
        end -= length
    return cell if cell is not None else Builder().end_cell()


def certificate_cell(tbs: bytes) -> Cell:
    """The signed part of a certificate as a snake that ``walkCertificate`` can read.

    Raises:
        MalformedError: not the DER of a TBSCertificate of the usual form.
    """
    if len(tbs) > _MAX_TBS:
        raise MalformedError(f"certificate: at most {_MAX_TBS} bytes expected")
    return snake(tbs, _pack(list(_certificate(_Der(tbs)))))


def _pack(pieces: list[Piece]) -> tuple[int, ...]:
    """Fills cells greedily; only pieces that are skipped are split."""
    cells: list[int] = []
    room = 0
    for length, together in pieces:
        if together:
            if length > room:
                cells.append(0)
                room = CELL_BYTES
            cells[-1] += length
            room -= length
            continue
        while length:
            if not room:
                cells.append(0)
                room = CELL_BYTES
            part = min(length, room)
            cells[-1] += part
            room -= part
            length -= part
    return tuple(cells)


def _certificate(der: _Der) -> Iterator[Piece]:
    """The order of reads in ``lib/x509.tolk`` and ``lib/sgx.tolk``."""
    head, _ = der.header()
    yield head + 5, True
    der.skip(5)
    yield from der.value()  # serial number
    yield 12, True
    der.skip(12)
    yield from der.value()  # issuer
    head, _ = der.header()
    yield head, True
    for _ in range(2):
        yield 15, True
        der.skip(15)
    yield from der.value()  # subject
    yield 27 + 32, True
    der.skip(27 + 32)
    yield 32, False
    der.skip(32)
    for _ in range(2):
        head, _ = der.header()
        yield head, True
    while der.left:
        yield from _extension(der)


def _extension(der: _Der) -> Iterator[Piece]:
    head, length = der.header()
    if not der.starts_with(_SGX):
        together = min(length, 18)
        yield head + together, True
        yield length - together, False
        der.skip(length)
        return
    yield head + len(_SGX), True
    der.skip(len(_SGX))
    for _ in range(2):
        head, _ = der.header()
        yield head, True
    while der.left:
        yield from _sgx_entry(der)


def _sgx_entry(der: _Der) -> Iterator[Piece]:
    head, length = der.header()
    if der.peek(11) != 2:
        together = min(length, 30)
        yield head + together, True
        yield length - together, False
        der.skip(length)
        return
    yield head + 12, True
    der.skip(12)
    head, _ = der.header()
    yield head, True
    for _ in range(17):
        start = der.at
        der.skip(der.header()[1])
        yield der.at - start, True
    yield from der.value()


class _Der:
    """A cursor over DER."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self.at

    def skip(self, length: int) -> None:
        if length > self.left:
            raise MalformedError("certificate: truncated")
        self.at += length

    def peek(self, offset: int) -> int:
        if offset >= self.left:
            raise MalformedError("certificate: truncated")
        return self._data[self.at + offset]

    def starts_with(self, prefix: bytes) -> bool:
        return self._data.startswith(prefix, self.at)

    def header(self) -> tuple[int, int]:
        """Reads tag and length; returns the size of both together, and the length of the value."""
        first = self.peek(1)
        width = first - 0x80 if first > 0x80 else 0
        if first == 0x80 or width > 2:
            raise MalformedError("certificate: length of a value not supported")
        length = int.from_bytes(self._data[self.at + 2 : self.at + 2 + width]) if width else first
        self.skip(2 + width)
        return 2 + width, length

    def value(self) -> Iterator[Piece]:
        """Reads a whole value: its header together, its content not."""
        head, length = self.header()
        self.skip(length)
        yield head, True
        yield length, False
