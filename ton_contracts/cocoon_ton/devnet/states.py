"""States of both workchains as cells (``ShardStateUnsplit`` of ``block.tlb``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias, cast

from pytoniq_core import Builder, Cell, begin_cell

from cocoon_ton.devnet.blocktree import BlockTree
from cocoon_ton.devnet.dictionary import AugDict, plain_dict
from cocoon_ton.devnet.values import (
    BASECHAIN,
    CONFIG_ADDRESS,
    FULL_SHARD,
    MASTERCHAIN,
    AccountEntry,
    Block,
    account_key,
    store_block_ref,
    store_currency,
    store_shard_ident,
    workchain_of,
)

_OUT_QUEUE: Final = (
    begin_cell()
    .store_bit(0)  # messages, with the earliest logical time
    .store_uint(0, 64)
    .store_bit(0)  # what other shards have processed
    .store_bit(1)  # OutMsgQueueExtra: deferred messages (none) and the number of messages
    .store_uint(0, 4)
    .store_bit(0)
    .store_uint(0, 64)
    .store_bit(1)
    .store_uint(0, 48)
    .end_cell()
)
"""``OutMsgQueueInfo`` of an empty queue."""


class _AccountAugmentation:
    """``ShardAccount`` with ``DepthBalanceInfo``: the extra is the sum of balances."""

    def extra_of(self, value: AccountEntry) -> int:
        return value.balance

    def merge(self, left: int, right: int) -> int:
        return left + right

    def store_extra(self, builder: Builder, extra: int) -> None:
        store_currency(builder.store_uint(0, 5), extra)

    def store_value(self, builder: Builder, value: AccountEntry) -> None:
        builder.store_ref(cast(Cell, value.account)).store_bytes(value.last_hash).store_uint(
            value.last_lt, 64
        )


AccountDict: TypeAlias = AugDict[AccountEntry, int]


def account_dict(items: Iterable[tuple[bytes, AccountEntry]] = ()) -> AccountDict:
    """``ShardAccounts`` of these accounts."""
    empty: AccountDict = AugDict(256, _AccountAugmentation())
    return empty.built((account_key(account), entry) for account, entry in items)


def by_workchain(items: Iterable[tuple[bytes, AccountEntry]]) -> dict[int, AccountDict]:
    """The accounts of both workchains."""
    parts: dict[int, list[tuple[bytes, AccountEntry]]] = {BASECHAIN: [], MASTERCHAIN: []}
    for account, entry in items:
        parts[workchain_of(account)].append((account, entry))
    return {workchain: account_dict(part) for workchain, part in parts.items()}


def change(accounts: dict[int, AccountDict], account: bytes, entry: AccountEntry | None) -> None:
    """Put an entry in place, or take the account out (None)."""
    workchain, key = workchain_of(account), account_key(account)
    old = accounts[workchain]
    accounts[workchain] = old.delete(key) if entry is None else old.set(key, entry)


def total_balance(accounts: AccountDict) -> int:
    """Sum of all balances."""
    return accounts.root.extra if accounts.root is not None else 0


def accounts_cell(accounts: AccountDict) -> Cell:
    """``HashmapAugE``: root and extra."""
    builder = begin_cell()
    if accounts.root is None:
        builder.store_bit(0)
    else:
        builder.store_bit(1).store_ref(accounts.root.cell)
    return store_currency(builder.store_uint(0, 5), total_balance(accounts)).end_cell()


def _state_head(global_id: int, workchain: int, seqno: int, utime: int, lt: int) -> Builder:
    builder = begin_cell().store_uint(0x9023AFE2, 32).store_int(global_id, 32)
    store_shard_ident(builder, workchain).store_uint(seqno, 32).store_uint(0, 32)
    builder.store_uint(utime, 32).store_uint(lt, 64).store_uint(max(seqno - 1, 0), 32)
    return cast(Builder, builder.store_ref(_OUT_QUEUE).store_bit(0))


def _balances(total: int, master: Block | None, libraries: Cell | None = None) -> Cell:
    builder = begin_cell().store_uint(0, 64).store_uint(0, 64)
    store_currency(store_currency(builder, total), 0)
    if libraries is None:
        builder.store_bit(0)
    else:
        builder.store_bit(1).store_ref(libraries)
    if master is None:
        builder.store_bit(0)
    else:
        store_block_ref(builder.store_bit(1), master)
    return cast(Cell, builder.end_cell())


def shard_state(
    *, global_id: int, seqno: int, utime: int, lt: int, accounts: AccountDict, master: Block | None
) -> Cell:
    """State of the basechain. `master` is the masterchain block it refers to, None at seqno 0."""
    builder = _state_head(global_id, BASECHAIN, seqno, utime, lt)
    builder.store_ref(accounts_cell(accounts)).store_ref(_balances(total_balance(accounts), master))
    return cast(Cell, builder.store_bit(0).end_cell())


def shard_hashes(master_seqno: int, shard: Block) -> Cell:
    """``ShardHashes`` dictionary with the one shard of the basechain."""
    builder = begin_cell().store_uint(0xA, 4).store_uint(shard.seqno, 32).store_uint(master_seqno, 32)
    builder.store_uint(shard.start_lt, 64).store_uint(shard.end_lt, 64)
    builder.store_bytes(shard.id.root_hash).store_bytes(shard.id.file_hash).store_uint(0, 8)
    builder.store_uint(0, 32).store_uint(FULL_SHARD, 64).store_uint(max(master_seqno - 1, 0), 32)
    builder.store_uint(shard.utime, 32).store_bit(0)
    builder.store_ref(store_currency(store_currency(begin_cell(), 0), 0).end_cell())
    leaf = begin_cell().store_bit(0).store_cell(builder.end_cell()).end_cell()
    return plain_dict([(BASECHAIN, leaf)], 32)


def master_state(
    *,
    global_id: int,
    seqno: int,
    utime: int,
    lt: int,
    shard: Block,
    accounts: AccountDict,
    basechain_total: int,
    config: Cell,
    libraries: Cell | None,
    previous: BlockTree,
    key_block: Block | None,
) -> Cell:
    """State of the masterchain after block `seqno`. `key_block` is None up to block 1.

    `accounts` are its own, `basechain_total` the sum of all balances in the basechain. `libraries`: dictionary of the
    public ones.
    """
    builder = _state_head(global_id, MASTERCHAIN, seqno, utime, lt)
    own = total_balance(accounts)
    builder.store_ref(accounts_cell(accounts)).store_ref(_balances(own, None, libraries))
    extra = begin_cell().store_uint(0xCC26, 16)
    extra.store_bit(1).store_ref(shard_hashes(seqno, shard))
    extra.store_bytes(CONFIG_ADDRESS).store_ref(config)
    extra.store_ref(_extra_info(seqno, previous, key_block))
    return cast(
        Cell,
        builder.store_bit(1).store_ref(store_currency(extra, own + basechain_total).end_cell()).end_cell(),
    )


def _extra_info(seqno: int, previous: BlockTree, key_block: Block | None) -> Cell:
    """Flags, validator info, earlier blocks, last key block: the inner cell of ``McStateExtra``."""
    builder = begin_cell().store_uint(0, 16).store_uint(0, 32).store_uint(0, 32).store_bit(0)
    root, has_key, max_lt = previous.cell()
    if root is None:
        builder.store_bit(0)
    else:
        builder.store_bit(1).store_ref(root)
    builder.store_bit(int(has_key)).store_uint(max_lt, 64).store_bit(int(seqno == 1))
    if key_block is None:
        builder.store_bit(0)
    else:
        store_block_ref(builder.store_bit(1), key_block)
    return cast(Cell, builder.end_cell())
