"""The Merkle proofs that liteserver answers carry.

Paths are reference indexes. In a block: 0 info, 1 value flow, 2 state update, 3 extra; in its extra: 2
account blocks, 3 the masterchain's own extra, and in that 0 shard hashes, 1 fees and signatures,
2 or 3 configuration. In a masterchain state: 1 accounts, 2 balances, 3 extra; in that 0 shard hashes,
1 configuration, 2 earlier blocks and flags.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

from pytoniq_core import Cell, begin_cell

from cocoon_ton.devnet.cells import Keep, Path, merkle_proof, prune, write_boc
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.values import Block, account_key

_Extra = Callable[[Path, Cell], Keep]


def header_proof(block: Block, extra: _Extra | None = None) -> Cell:
    """Proof of a block's header; `extra` decides about the cells below the block's extra."""

    def keep(path: Path, cell: Cell) -> Keep:
        if path in ((), (2,)):
            return Keep.OPEN
        if path[0] == 0:
            return Keep.WHOLE
        if path[0] == 3 and extra is not None:
            return extra(path, cell)
        return Keep.CUT

    return merkle_proof(prune(block.cell, keep))


def open_shards(path: Path, _cell: Cell) -> Keep:
    """Opens the shard hashes in a masterchain block, and the inner cell that clients parse."""
    if path in ((3,), (3, 3)):
        return Keep.OPEN
    return Keep.WHOLE if path[:3] in ((3, 3, 0), (3, 3, 1)) else Keep.CUT


def open_config(path: Path, _cell: Cell) -> Keep:
    """Opens the configuration in a key block."""
    if path == (3,):
        return Keep.OPEN
    return Keep.WHOLE if path[:2] == (3, 3) else Keep.CUT


def open_transactions(transactions: set[bytes]) -> _Extra:
    """Opens the account blocks down to the transactions with these hashes, which stay pruned."""

    def keep(path: Path, cell: Cell) -> Keep:
        if path == (3,):
            return Keep.OPEN
        if path[:2] != (3, 2) or cell.hash in transactions:
            return Keep.CUT
        return Keep.OPEN

    return keep


def master_state_proof(state: Cell, *, config: bool = False, libraries: bool = False) -> Cell:
    """Proof of the shard hashes in a masterchain state, with configuration or public libraries if asked."""

    def keep(path: Path, _cell: Cell) -> Keep:
        # (3, 2) stays open: pytoniq parses it even where it is pruned
        if path in ((), (2,), (3,), (3, 2)):
            return Keep.OPEN
        if path[:2] == (3, 0) or (config and path[:2] == (3, 1)) or (libraries and path[0] == 2):
            return Keep.WHOLE
        return Keep.CUT

    return merkle_proof(prune(state, keep))


def old_blocks_proof(chain: Chain, block: Block, seqnos: Collection[int], *, config: bool = False) -> Cell:
    """Proof that the state after a masterchain block names the older masterchain blocks `seqnos`.

    With `config`, also of the configuration. The zerostate is always named: the official client asks for it.
    """
    root, paths = chain.old_blocks(block.seqno, {0, *seqnos})
    ways = [(3, 2, 0, *path) for path in paths]
    opened = {way[:length] for way in ways for length in range(len(way) + 1)} | {(3, 1)}

    def keep(at: Path, _cell: Cell) -> Keep:
        # clients unpack (2,) with the state and look at the root of the configuration (3, 1)
        if config and at[:2] in ((3, 0), (3, 1)):
            return Keep.WHOLE
        return Keep.OPEN if at == (2,) or at in opened else Keep.CUT

    return merkle_proof(prune(_with_old_blocks(chain.state(block), root), keep))


def _with_old_blocks(state: Cell, root: Cell) -> Cell:
    """A masterchain state whose dictionary of old blocks can be read where it was only named."""
    extra = state.refs[3]
    info = extra.refs[2]
    return _with_child(state, 3, _with_child(extra, 2, _with_child(info, 0, root)))


def _with_child(cell: Cell, index: int, child: Cell) -> Cell:
    builder = begin_cell().store_bits(cell.bits)
    for at, ref in enumerate(cell.refs):
        builder.store_ref(child if at == index else ref)
    return cast(Cell, builder.end_cell())


def queue_proof(chain: Chain, block: Block) -> bytes:
    """Two roots: header of the block, the message queue (empty) in the state after it."""

    def keep(path: Path, _cell: Cell) -> Keep:
        if path == (0,):
            return Keep.WHOLE
        return Keep.OPEN if path in ((), (2,)) else Keep.CUT

    return write_boc([header_proof(block), merkle_proof(prune(chain.state(block), keep))])


def root_proof(cell: Cell) -> Cell:
    """Proof of a tree of which only the root is shown."""
    return merkle_proof(prune(cell, lambda path, _: Keep.CUT if path else Keep.OPEN))


def shard_proof(chain: Chain, master: Block) -> bytes:
    """Two roots: header of the masterchain block, shard hashes in its state."""
    return write_boc([header_proof(master), master_state_proof(chain.state(master))])


def account_proof(chain: Chain, block: Block, account: bytes) -> bytes:
    """Two roots: header of the block, the account's path in the state after it.

    `block` is one of the account's own workchain. For an account that does not exist the path ends where
    the account would be.
    """
    state = chain.state(block)
    accounts = chain.accounts_at(block.id.workchain, block.seqno)
    way: Path = (1, 0, *accounts.path(account_key(account))) if accounts.root is not None else (1,)

    def keep(path: Path, _cell: Cell) -> Keep:
        return Keep.OPEN if path == way[: len(path)] or path == (2,) else Keep.CUT

    return write_boc([header_proof(block), merkle_proof(prune(state, keep))])
