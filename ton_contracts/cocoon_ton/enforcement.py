"""What a node contract keeps to hold its owner to signed receipts. Pure.

When which size of the log was anchored, keys whose receipts may still be challenged, and challenges.
Layouts: ``ton_contracts/cocoon.tlb``. Rules: ``docs/spec/contracts.md``, section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from pytoniq_core import Address, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_ton.cells import Reader, read_dict

MAX_PAGES: Final = 8192
"""Pages of an anchor history that are read before it is refused; contracts keep fewer."""
PAGE_ENTRIES: Final = 10
ENTRY_BITS: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorEntry:
    """A size of the log, and since when it is anchored."""

    anchored_at: int
    """Unix time; 0 with size 0 stands for the time before the first anchor."""
    tree_size: int


@dataclass(frozen=True, slots=True)
class AnchorHistory:
    """Anchors of the past, oldest first. Empty if nothing was ever anchored."""

    entries: tuple[AnchorEntry, ...] = ()

    def size_by(self, time: int) -> int | None:
        """Size of the log as it was anchored at Unix time `time`; None if the history does not go back so far."""
        if not self.entries:
            return 0
        size = None
        for entry in self.entries:
            if entry.anchored_at > time:
                break
            size = entry.tree_size
        return size


@dataclass(frozen=True, slots=True)
class RetiredKeys:
    """Receipt keys beside the current and the previous one whose receipts may still be challenged."""

    keys: Mapping[bytes, bytes] = field(default_factory=dict)
    """By binding hash."""
    until: int = 0
    """Latest end of one of their bindings, Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A demand to show a receipt in the log, or the memory of a receipt that the node was slashed for."""

    receipt_hash: bytes
    challenger: Address
    deposit: int
    """Nanoton; 0 once slashed."""
    index: int
    """Where the receipt must be in the log."""
    tree_size: int
    """Size of the tree that the answer must be for."""
    root: bytes
    """Root of that tree, 32 bytes."""
    slashed: bool
    deadline: int
    """Latest answer, Unix time."""

    def awaits_answer(self, now: int) -> bool:
        """Whether an answer is possible at Unix time `now`."""
        return not self.slashed and now <= self.deadline


def parse_history(head: Cell | None) -> AnchorHistory:
    """Read an anchor history from its newest page (None: nothing was anchored).

    Raises:
        MalformedError: not a history.
    """
    entries: list[AnchorEntry] = []
    older: Cell | None = None
    page, pages = head, 0
    while page is not None:
        pages += 1
        if pages > MAX_PAGES:
            raise MalformedError("anchor history: too many pages")
        reader = Reader(page)
        generation, previous = reader.maybe_ref(), reader.maybe_ref()
        if generation is not None:
            if pages > 1:
                raise MalformedError("anchor history: an older generation is named by the newest page only")
            older = generation
        reader.uint(32)  # since: the time of the generation's first entry
        count, odd = divmod(reader.bits_left, ENTRY_BITS)
        if odd or not 0 < count <= PAGE_ENTRIES:
            raise MalformedError("anchor history: a page holds 1 to 10 entries")
        read = [AnchorEntry(anchored_at=reader.uint(32), tree_size=reader.uint(64)) for _ in range(count)]
        reader.end()
        entries.extend(reversed(read))
        if previous is None:
            previous, older = older, None
        page = previous
    entries.reverse()
    for before, after in pairwise(entries):
        if before.anchored_at > after.anchored_at or before.tree_size >= after.tree_size:
            raise MalformedError("anchor history: entries must grow")
    return AnchorHistory(tuple(entries))


def parse_retired(cell: Cell | None) -> RetiredKeys:
    """Read the retired keys (None: there are none).

    Raises:
        MalformedError: not such a cell.
    """
    if cell is None:
        return RetiredKeys()
    reader = Reader(cell)
    recent_until, older_until, count = reader.uint(32), reader.uint(32), reader.uint(8)
    recent, older = (read_dict(reader.maybe_ref(), 256, lambda r: r.raw(32)) for _ in range(2))
    reader.end()
    if len(recent) > count:
        raise MalformedError("retired keys: more than were counted")
    keys = {hash.to_bytes(32): key for hash, key in (older | recent).items()}
    return RetiredKeys(keys, max(recent_until, older_until))


def parse_challenges(root: Cell | None) -> tuple[Challenge, ...]:
    """Read the dictionary of challenges, ordered by receipt hash.

    Raises:
        MalformedError: not such a dictionary.
    """
    found = read_dict(root, 256, _read_challenge)
    return tuple(
        Challenge(
            receipt_hash=hash.to_bytes(32),
            challenger=challenger,
            deposit=deposit,
            index=index,
            tree_size=size,
            root=tree_root,
            slashed=slashed,
            deadline=deadline,
        )
        for hash, (challenger, deposit, index, size, tree_root, slashed, deadline) in found.items()
    )


def _read_challenge(reader: Reader) -> tuple[Address, int, int, int, bytes, bool, int]:
    return (
        reader.address(),
        reader.uint(64),
        reader.uint(64),
        reader.uint(64),
        reader.raw(32),
        reader.flag(),
        reader.uint(32),
    )
