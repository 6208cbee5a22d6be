"""``OldMcBlocksInfo``: all earlier masterchain blocks, a dictionary that only grows.

Keys are consecutive, so the dictionary is a row of complete subtrees. Appending a block makes about
log2(n) cells. Subtrees of 256 blocks and more keep only the hashes of their halves (`Stub`), so a
long chain costs little memory, and a restart reads one row for 256 blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from pytoniq_core import Builder, Cell, begin_cell

from cocoon_ton.devnet.cells import Stub
from cocoon_ton.devnet.dictionary import label_bits
from cocoon_ton.devnet.values import Block, store_block_ref

KEY_BITS: Final = 32
COLLAPSE_LEVEL: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtree:
    """2^level blocks. `has_key` and `max_lt` are the extra (``KeyMaxLt``).

    `block` is set at level 0; above it `halves` are the two subtrees' cells or stubs.
    """

    level: int
    has_key: bool
    max_lt: int
    block: Block | None = None
    halves: tuple[Cell | Stub, ...] = ()

    def cell(self, label: str, size: int) -> Cell:
        """The node with this label, for `size` remaining key bits."""
        builder = begin_cell().store_bits(label_bits(label, size))
        for half in self.halves:
            builder.store_ref(half)
        _store_extra(builder, self.has_key, self.max_lt)
        if self.block is not None:
            store_block_ref(builder.store_bit(int(self.block.is_key)), self.block)
        return cast(Cell, builder.end_cell())


class BlockTree:
    """The dictionary of blocks 0 to n - 1. Immutable."""

    __slots__ = ("spine",)

    def __init__(self, spine: Iterable[Subtree] = ()) -> None:
        self.spine = tuple(spine)

    def __len__(self) -> int:
        return sum(1 << part.level for part in self.spine)

    def append(self, block: Block) -> tuple[BlockTree, Subtree | None]:
        """The tree with the next block, and the subtree of 256 blocks that it completed, if any."""
        leaf = Subtree(level=0, has_key=block.is_key, max_lt=block.end_lt, block=block)
        return self.join(leaf)

    def join(self, part: Subtree) -> tuple[BlockTree, Subtree | None]:
        """The tree with a complete subtree after it. Its level must be at most that of the last one."""
        spine = list(self.spine)
        completed = None
        while spine and spine[-1].level == part.level:
            part = _merge(spine.pop(), part)
            if part.level == COLLAPSE_LEVEL:
                completed = part
        return BlockTree([*spine, part]), completed

    def opened(
        self,
        seqnos: Collection[int],
        block: Callable[[int], Block],
        subtrees: Callable[[int], Sequence[Subtree]],
    ) -> BlockTree:
        """The same tree with real cells from the root down to the blocks `seqnos`.

        `block` gives a block by number, `subtrees` the first so many subtrees of 256 blocks.
        """
        spine, start = [], 0
        for part in self.spine:
            spine.append(_opened(part, start, seqnos, block, subtrees))
            start += 1 << part.level
        return BlockTree(spine)

    def path(self, seqno: int) -> tuple[int, ...]:
        """Reference indexes from the root cell to the leaf of block `seqno`. KeyError if it is not there."""
        path: tuple[int, ...] = ()
        for index, part in enumerate(self.spine):
            size = 1 << part.level
            last = index == len(self.spine) - 1
            if seqno < size:
                down = tuple(seqno >> level & 1 for level in reversed(range(part.level)))
                return (*path, *(() if last else (0,)), *down)
            seqno -= size
            path = (*path, 1)
        raise KeyError("no such block in the tree")

    def cell(self) -> tuple[Cell | None, bool, int]:
        """Root of the dictionary (None when empty) and its extra."""
        if not self.spine:
            return None, False, 0
        has_key = any(part.has_key for part in self.spine)
        return self._cell(0, KEY_BITS), has_key, max(part.max_lt for part in self.spine)

    def _cell(self, index: int, size: int) -> Cell:
        part, rest = self.spine[index], self.spine[index + 1 :]
        if not rest:
            return part.cell("0" * (size - part.level), size)
        builder = begin_cell().store_bits(label_bits("0" * (size - part.level - 1), size))
        builder.store_ref(part.cell("", part.level)).store_ref(self._cell(index + 1, part.level))
        here = self.spine[index:]
        _store_extra(builder, any(p.has_key for p in here), max(p.max_lt for p in here))
        return cast(Cell, builder.end_cell())


def _opened(
    part: Subtree,
    start: int,
    seqnos: Collection[int],
    block: Callable[[int], Block],
    subtrees: Callable[[int], Sequence[Subtree]],
) -> Subtree:
    """A subtree whose first block is `start`, with real cells down to those of `seqnos` in it."""
    if part.level < COLLAPSE_LEVEL:
        return part  # it was never collapsed
    half = 1 << (part.level - 1)
    halves = list(part.halves)
    for side, first in enumerate((start, start + half)):
        inside = [seqno for seqno in seqnos if first <= seqno < first + half]
        if not inside:
            continue
        tree = BlockTree()
        if part.level > COLLAPSE_LEVEL:
            for piece in subtrees((first + half) >> COLLAPSE_LEVEL)[first >> COLLAPSE_LEVEL :]:
                tree, _ = tree.join(piece)
        else:
            for number in range(first, first + half):
                tree, _ = tree.append(block(number))
        (child,) = tree.spine
        halves[side] = _opened(child, first, inside, block, subtrees).cell("", child.level)
    return replace(part, halves=tuple(halves))


def _merge(left: Subtree, right: Subtree) -> Subtree:
    level = left.level + 1
    halves: tuple[Cell | Stub, ...] = (left.cell("", left.level), right.cell("", right.level))
    if level >= COLLAPSE_LEVEL:
        halves = tuple(Stub.of(half) for half in halves)
    return Subtree(
        level=level,
        has_key=left.has_key or right.has_key,
        max_lt=max(left.max_lt, right.max_lt),
        halves=halves,
    )


def _store_extra(builder: Builder, has_key: bool, max_lt: int) -> None:
    builder.store_bit(int(has_key)).store_uint(max_lt, 64)
