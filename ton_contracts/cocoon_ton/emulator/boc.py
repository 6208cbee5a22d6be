"""BoC reading and writing: several roots, linear time in the number of distinct cells.

``Cell.to_boc`` of pytoniq-core writes one root only and takes exponential time on cells that share
children, so it must not see cells that others chose. ``Cell.one_from_boc`` copies the input once per cell:
a registry of 1 000 nodes would take seconds.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from weakref import WeakValueDictionary

from pytoniq_core import Cell

from cocoon_ton.proof.boc import parse_boc

_MAGIC = b"\xb5\xee\x9c\x72"
_KNOWN: WeakValueDictionary[bytes, Cell] = WeakValueDictionary()


def write_boc(roots: Sequence[Cell]) -> bytes:
    """Bag of cells (``serialized_boc#b5ee9c72``), no index, no CRC, parents before children."""
    order: list[Cell] = []
    seen: set[bytes] = set()
    for root in roots:
        _post_order(root, seen, order)
    count = len(order)
    position = {cell.hash: count - 1 - i for i, cell in enumerate(order)}
    size = max(1, (count.bit_length() + 7) // 8)
    body = bytearray()
    for cell in reversed(order):
        body += cell._descriptors
        body += cell.data
        for ref in cell.refs:
            body += position[ref.hash].to_bytes(size, "big")
    offset = max(1, (len(body).bit_length() + 7) // 8)
    header = bytearray(_MAGIC)
    header += bytes([size, offset])
    header += count.to_bytes(size, "big") + len(roots).to_bytes(size, "big") + bytes(size)
    header += len(body).to_bytes(offset, "big")
    for root in roots:
        header += position[root.hash].to_bytes(size, "big")
    return bytes(header + body)


def _post_order(root: Cell, seen: set[bytes], order: list[Cell]) -> None:
    stack: list[tuple[Cell, int]] = [(root, 0)]
    while stack:
        cell, index = stack.pop()
        if cell.hash in seen:
            continue
        if index < len(cell.refs):
            stack.append((cell, index + 1))
            child = cell.refs[index]
            if child.hash not in seen:
                stack.append((child, 0))
        else:
            seen.add(cell.hash)
            order.append(cell)


def to_base64(cell: Cell) -> str:
    """One cell as base64 BoC, the form that the emulator takes."""
    return base64.b64encode(write_boc([cell])).decode()


def from_base64(text: str) -> Cell:
    """The single root of a base64 BoC written by the emulator."""
    return read_boc(base64.b64decode(text))


def read_boc(data: bytes) -> Cell:
    """The single root of a BoC, in linear time; cells that are alive already are used again.

    A large account changes in a few cells from one transaction to the next, so its versions share the others.

    Raises:
        ChainProofError: not a well-formed bag of cells with one root of level 0.
    """
    (cell,) = parse_boc(data, known=_KNOWN)
    return cell
