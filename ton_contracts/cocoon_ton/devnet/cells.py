"""Exotic cells and proofs: pruned branches, Merkle proofs and updates.

pytoniq-core reads these and writes none of them. Layouts: TON whitepaper TVM, 3.1.7, and ``DataCell.cpp``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from pytoniq_core import Cell, begin_cell
from pytoniq_core.boc.builder import Builder
from pytoniq_core.boc.exotic import LevelMask

from cocoon_ton.emulator.boc import read_boc
from cocoon_ton.proof.boc import write_boc

__all__ = [
    "Keep",
    "Path",
    "Stub",
    "merkle_proof",
    "merkle_update",
    "prune",
    "pruned",
    "read_boc",
    "write_boc",
]

Path: TypeAlias = tuple[int, ...]
_LEVEL_0: Final = LevelMask(0)


class Stub:
    """A cell of which only hash and depth are at hand. Good as a child; it has no content to write."""

    __slots__ = ("depth", "hash")

    is_exotic: Final = False
    level_mask: Final = _LEVEL_0

    def __init__(self, hash: bytes, depth: int) -> None:
        self.hash = hash
        self.depth = depth

    @classmethod
    def of(cls, cell: Cell | Stub) -> Stub:
        """The stub of a cell of level 0."""
        return cell if isinstance(cell, Stub) else cls(bytes(cell.get_hash(0)), int(cell.get_depth(0)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stub) and (self.hash, self.depth) == (other.hash, other.depth)

    def __hash__(self) -> int:
        return int.from_bytes(self.hash[:8], "big")

    def get_hash(self, _level: int) -> bytes:
        """Representation hash, at every level."""
        return self.hash

    def get_depth(self, _level: int = 0) -> int:
        """Depth, at every level."""
        return self.depth


class Keep(enum.Enum):
    """What a proof does with a cell."""

    CUT = enum.auto()
    OPEN = enum.auto()
    WHOLE = enum.auto()


def pruned(cell: Cell | Stub) -> Cell:
    """Pruned branch of level 1 that stands for `cell`."""
    builder = Builder(type_=1).store_uint(1, 8).store_uint(1, 8)
    return cast(Cell, builder.store_bytes(cell.get_hash(0)).store_uint(cell.get_depth(0), 16).end_cell())


def merkle_proof(body: Cell) -> Cell:
    """Merkle proof cell around a pruned tree."""
    builder = Builder(type_=3).store_uint(3, 8)
    builder.store_bytes(body.get_hash(0)).store_uint(body.get_depth(0), 16)
    return cast(Cell, builder.store_ref(body).end_cell())


def merkle_update(old: Cell | Stub, new: Cell | Stub) -> Cell:
    """Merkle update that names both states and shows nothing of either."""
    builder = Builder(type_=4).store_uint(4, 8)
    builder.store_bytes(old.get_hash(0)).store_bytes(new.get_hash(0))
    builder.store_uint(old.get_depth(0), 16).store_uint(new.get_depth(0), 16)
    return cast(Cell, builder.store_ref(pruned(old)).store_ref(pruned(new)).end_cell())


def prune(root: Cell, keep: Callable[[Path, Cell], Keep]) -> Cell:
    """The tree with every cell cut for which `keep` says so.

    `keep` gets the path (reference indexes from the root) and the cell. Exotic cells stay as they are.
    """

    def visit(cell: Cell | Stub, path: Path) -> Cell:
        if isinstance(cell, Stub):
            return pruned(cell)
        decision = keep(path, cell)
        if decision is Keep.CUT:
            return pruned(cell)
        if decision is Keep.WHOLE or cell.is_exotic:
            return cell
        builder = begin_cell().store_bits(cell.bits)
        for index, child in enumerate(cell.refs):
            builder.store_ref(visit(child, (*path, index)))
        return cast(Cell, builder.end_cell())

    return visit(root, ())
