"""Which masterchain blocks contracts learn of (``PREVMCBLOCKS``, ``PREVKEYBLOCK``, ``PREVMCBLOCKS_100``)."""

from __future__ import annotations

from collections.abc import Callable

from cocoon_ton.devnet.values import BlockId
from cocoon_ton.emulator import PrevBlocks


def prev_blocks(seqno: int, key: BlockId, id_of: Callable[[int], BlockId]) -> PrevBlocks:
    """What contracts see when block `seqno` is the newest and `key` the key block (or the zerostate)."""
    return PrevBlocks(
        last=tuple(id_of(number).to_vm() for number in _newest(seqno)),
        key=key.to_vm(),
        last_100=tuple(id_of(number).to_vm() for number in _hundreds(seqno)),
    )


def seen_blocks(seqno: int, key: int) -> set[int]:
    """The numbers below `seqno` that contracts see when it is the newest; `key` is the key block's."""
    return {number for number in (*_newest(seqno), *_hundreds(seqno), key) if number < seqno}


def _newest(seqno: int) -> range:
    """The 16 newest masterchain blocks when `seqno` is the newest."""
    return range(seqno, -1, -1)[:16]


def _hundreds(seqno: int) -> range:
    """The 16 newest whose number is a multiple of 100."""
    return range(seqno // 100 * 100, -1, -100)[:16]
