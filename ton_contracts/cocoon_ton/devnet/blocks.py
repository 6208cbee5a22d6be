"""Blocks of both workchains as cells (``Block`` of ``block.tlb``).

What a client checks is exact: block info, account blocks with their transactions, masterchain extra,
state update hashes. What nobody can check against anything else is empty: value flow, message
descriptors, and the content of the state update (both sides are pruned branches).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from pytoniq_core import Builder, Cell, begin_cell

from cocoon_ton.devnet.cells import Stub, merkle_update, write_boc
from cocoon_ton.devnet.dictionary import AugDict
from cocoon_ton.devnet.genesis import validator_set_hash
from cocoon_ton.devnet.states import shard_hashes
from cocoon_ton.devnet.values import (
    BASECHAIN,
    CONFIG_ADDRESS,
    MASTERCHAIN,
    Block,
    BlockId,
    account_key,
    block_ref,
    store_currency,
    store_shard_ident,
)

GLOBAL_VERSION: Final = 12
CAPABILITIES: Final = 0x1EE


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTransaction:
    """A transaction inside a block: its cell, fees, and the account's hashes before and after."""

    account: bytes
    lt: int
    cell: Cell
    fees: int
    old_hash: bytes
    new_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who makes the blocks: the validator's public key and the chain's global id."""

    validator: bytes
    global_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Times of a pair of blocks, and the 32 random bytes in them."""

    utime: int
    start_lt: int
    end_lt: int
    seed: bytes


class _TransactionAugmentation:
    """``^Transaction`` with its fees."""

    def extra_of(self, value: BlockTransaction) -> int:
        return value.fees

    def merge(self, left: int, right: int) -> int:
        return left + right

    def store_extra(self, builder: Builder, extra: int) -> None:
        store_currency(builder, extra)

    def store_value(self, builder: Builder, value: BlockTransaction) -> None:
        builder.store_ref(value.cell)


class _AccountBlockAugmentation:
    """``AccountBlock`` with the fees of its transactions."""

    def extra_of(self, value: Sequence[BlockTransaction]) -> int:
        return sum(transaction.fees for transaction in value)

    def merge(self, left: int, right: int) -> int:
        return left + right

    def store_extra(self, builder: Builder, extra: int) -> None:
        store_currency(builder, extra)

    def store_value(self, builder: Builder, value: Sequence[BlockTransaction]) -> None:
        inner = AugDict(64, _TransactionAugmentation()).built((format(t.lt, "064b"), t) for t in value)
        update = begin_cell().store_uint(0x72, 8).store_bytes(value[0].old_hash)
        builder.store_uint(5, 4).store_bytes(value[0].account[-32:])
        if inner.root is not None:  # an account block has a transaction
            builder.store_cell(inner.root.cell)
        builder.store_ref(update.store_bytes(value[-1].new_hash).end_cell())


def account_blocks(transactions: Sequence[BlockTransaction]) -> Cell:
    """``ShardAccountBlocks``."""
    by_account: dict[bytes, list[BlockTransaction]] = {}
    for transaction in transactions:
        by_account.setdefault(transaction.account, []).append(transaction)
    tree: AugDict[Sequence[BlockTransaction], int] = AugDict(256, _AccountBlockAugmentation())
    tree = tree.built((account_key(account), items) for account, items in by_account.items())
    if tree.root is None:
        return store_currency(begin_cell().store_bit(0), 0).end_cell()
    return store_currency(begin_cell().store_bit(1).store_ref(tree.root.cell), tree.root.extra).end_cell()


def shard_block(
    identity: Identity,
    frame: Frame,
    previous: Block,
    master: Block,
    state: Cell,
    transactions: Sequence[BlockTransaction],
) -> Block:
    """The next block of the basechain; `master` is the masterchain block it refers to.

    `transactions` are those of the basechain.
    """
    info = _info(identity, BASECHAIN, previous, frame)
    info.store_ref(block_ref(master)).store_ref(block_ref(previous))
    extra = _extra(identity, account_blocks(transactions), frame.seed).store_bit(0)
    return _finish(identity, frame, previous, state, info, extra)


def master_block(
    identity: Identity,
    frame: Frame,
    previous: Block,
    shard: Block,
    state: Cell,
    config: Cell,
    transactions: Sequence[BlockTransaction],
) -> Block:
    """The next block of the masterchain. Block 1 is the key block and carries the configuration.

    `transactions` are those of the masterchain.
    """
    seqno = previous.seqno + 1
    info = _info(identity, MASTERCHAIN, previous, frame).store_ref(block_ref(previous))
    custom = begin_cell().store_uint(0xCCA5, 16).store_bit(int(seqno == 1))
    custom.store_bit(1).store_ref(shard_hashes(seqno, shard))
    store_currency(store_currency(custom.store_bit(0), 0), 0)
    custom.store_ref(begin_cell().store_uint(0, 3).end_cell())
    if seqno == 1:
        custom.store_bytes(CONFIG_ADDRESS).store_ref(config)
    extra = (
        _extra(identity, account_blocks(transactions), frame.seed).store_bit(1).store_ref(custom.end_cell())
    )
    return _finish(identity, frame, previous, state, info, extra)


def zero_block(workchain: int, state: Cell, utime: int) -> Block:
    """The zerostate, dressed as the block before block 1."""
    boc = write_boc([state])
    return Block(
        id=BlockId(
            workchain=workchain,
            seqno=0,
            root_hash=bytes(state.hash),
            file_hash=hashlib.sha256(boc).digest(),
        ),
        start_lt=0,
        end_lt=0,
        utime=utime,
        state=Stub.of(state),
        boc=boc,
    )


def _info(identity: Identity, workchain: int, previous: Block, frame: Frame) -> Builder:
    """``BlockInfo`` up to its references."""
    seqno, is_shard = previous.seqno + 1, workchain == BASECHAIN
    builder = begin_cell().store_uint(0x9BC7A987, 32).store_uint(0, 32).store_bit(int(is_shard))
    builder.store_uint(0, 5).store_bit(int(not is_shard and seqno == 1)).store_bit(0)
    builder.store_uint(1, 8).store_uint(seqno, 32).store_uint(0, 32)
    store_shard_ident(builder, workchain).store_uint(frame.utime, 32)
    builder.store_uint(frame.start_lt, 64).store_uint(frame.end_lt, 64)
    builder.store_uint(0 if is_shard else validator_set_hash(identity.validator), 32).store_uint(0, 32)
    builder.store_uint(max(seqno - 1, 0), 32).store_uint(0 if seqno <= 1 else 1, 32)
    return cast(
        Builder, builder.store_uint(0xC4, 8).store_uint(GLOBAL_VERSION, 32).store_uint(CAPABILITIES, 64)
    )


def _extra(identity: Identity, accounts: Cell, seed: bytes) -> Builder:
    """``BlockExtra`` up to ``custom``."""
    incoming = store_currency(begin_cell().store_bit(0).store_coins(0), 0).end_cell()
    outgoing = store_currency(begin_cell().store_bit(0), 0).end_cell()
    builder = begin_cell().store_uint(0x4A33F6FD, 32).store_ref(incoming).store_ref(outgoing)
    return cast(Builder, builder.store_ref(accounts).store_bytes(seed).store_bytes(identity.validator))


def _value_flow() -> Cell:
    four = begin_cell()
    for _ in range(4):
        store_currency(four, 0)
    cell = four.end_cell()
    builder = begin_cell().store_uint(0xB8E48DFB, 32).store_ref(cell)
    return cast(Cell, store_currency(builder, 0).store_ref(cell).end_cell())


def _finish(
    identity: Identity, frame: Frame, previous: Block, state: Cell, info: Builder, extra: Builder
) -> Block:
    builder = begin_cell().store_uint(0x11EF55AA, 32).store_int(identity.global_id, 32)
    builder.store_ref(info.end_cell()).store_ref(_value_flow())
    builder.store_ref(merkle_update(previous.state, state)).store_ref(extra.end_cell())
    cell = builder.end_cell()
    boc = write_boc([cell])
    block = Block(
        id=BlockId(
            workchain=previous.id.workchain,
            seqno=previous.seqno + 1,
            root_hash=bytes(cell.hash),
            file_hash=hashlib.sha256(boc).digest(),
        ),
        start_lt=frame.start_lt,
        end_lt=frame.end_lt,
        utime=frame.utime,
        state=Stub.of(state),
        boc=boc,
    )
    block.__dict__["cell"] = cell  # fill the cached property: the cell is at hand
    return block
