"""The chain: takes messages, makes blocks, answers for every block it ever made."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from typing import Final, cast

from pytoniq_core import Cell, begin_cell

from cocoon_ton.devnet import blocks, states, worldview
from cocoon_ton.devnet.blocktree import COLLAPSE_LEVEL, BlockTree
from cocoon_ton.devnet.cells import read_boc, write_boc
from cocoon_ton.devnet.collation import Collation, account_entry, destination
from cocoon_ton.devnet.genesis import ConfigDict, find_library
from cocoon_ton.devnet.store import Commit, Store
from cocoon_ton.devnet.values import (
    BASECHAIN,
    MASTERCHAIN,
    AccountEntry,
    Block,
    BlockId,
    account_key,
    workchain_of,
)
from cocoon_ton.emulator import EMPTY_ACCOUNT, Emulator, EmulatorError, PrevBlocks

LT_ALIGN: Final = 1_000_000
_CACHED_STATES: Final = 64
_CACHED_ACCOUNTS: Final = 2048


class Chain:
    """One masterchain and one basechain shard with a block each per `tick`.

    Opens the chain in `store`, or makes a new one with the accounts of `genesis` (account name to
    ``ShardAccount``) if the store is empty. `clock` gives Unix time; virtual time is ahead of it by
    what `warp` added, and never goes back.
    """

    def __init__(
        self,
        store: Store,
        *,
        identity: blocks.Identity,
        config: ConfigDict,
        genesis: Mapping[bytes, Cell],
        libraries: Cell | None = None,
        clock: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.store = store
        self.identity = identity
        self.config = config
        self.libraries = libraries
        self.emulator = Emulator(config.root, libraries=libraries)
        self.on_work: Callable[[], None] = lambda: None
        self._clock = clock
        self._random = random
        self._key: Block | None = None
        if store.head(MASTERCHAIN) is None:
            self._make_genesis(genesis)
        self.reload()

    # ---- opening

    def _make_genesis(self, genesis: Mapping[bytes, Cell]) -> None:
        entries, bocs = {}, {}
        for account, shard_account in genesis.items():
            entries[account] = account_entry(shard_account, whole=True)
            cell = shard_account.refs[0]
            bocs[bytes(cell.hash)] = write_boc([cell])
        accounts = states.by_workchain(entries.items())
        shard_cell = self._shard_state(0, 0, 0, accounts[BASECHAIN], None)
        shard = blocks.zero_block(BASECHAIN, shard_cell, 0)
        master_cell = self._master_state(0, 0, 0, shard, accounts, BlockTree())
        master = blocks.zero_block(MASTERCHAIN, master_cell, 0)
        self.store.commit(Commit(seqno=0, blocks=(shard, master), changed=entries, account_bocs=bocs))

    def reload(self) -> None:
        """Read the newest state from the store, as after a restart. Messages that waited are lost."""
        self._external: deque[Cell] = deque()
        self._states: OrderedDict[tuple[int, int], Cell] = OrderedDict()
        self._full: OrderedDict[bytes, Cell] = OrderedDict()
        self._prev: dict[int, PrevBlocks] = {}
        self._offset = int(self.store.get_meta("time_offset") or b"0")
        self.shard = self._require(BASECHAIN, None)
        self.master = self._require(MASTERCHAIN, None)
        self.zero = self._require(MASTERCHAIN, 0)
        self._accounts = states.by_workchain(self.store.accounts_at(self.master.seqno))
        self._queue = deque(read_boc(boc) for boc in self.store.queue())
        self._tree = self._tree_before(self.master.seqno + 1)
        self._key = self.store.block(MASTERCHAIN, 1)

    def _require(self, workchain: int, seqno: int | None) -> Block:
        block = self.store.head(workchain) if seqno is None else self.store.block(workchain, seqno)
        if block is None:
            raise KeyError(f"no block {workchain}:{seqno}")
        return block

    def old_blocks(self, seqno: int, wanted: Collection[int]) -> tuple[Cell, list[tuple[int, ...]]]:
        """The dictionary of the blocks below `seqno`, with the paths to the blocks `wanted`, all open."""
        tree = self._tree_before(seqno)
        paths = [tree.path(number) for number in wanted]
        opened = tree.opened(wanted, lambda number: self._require(MASTERCHAIN, number), self.store.subtrees)
        root, _, _ = opened.cell()
        if root is None:
            raise KeyError(f"no block below {seqno}")
        return root, paths

    def _tree_before(self, seqno: int) -> BlockTree:
        """The dictionary of the masterchain blocks below `seqno`."""
        tree = BlockTree()
        complete = seqno >> COLLAPSE_LEVEL
        for part in self.store.subtrees(complete):
            tree, _ = tree.join(part)
        for number in range(complete << COLLAPSE_LEVEL, seqno):
            tree, _ = tree.append(self._require(MASTERCHAIN, number))
        return tree

    def fork(self, store: Store) -> Chain:
        """A chain in `store` (empty) with this one's past and validator, and from now on blocks of its own."""
        self.store.copy_into(store)
        return Chain(
            store,
            identity=self.identity,
            config=self.config,
            libraries=self.libraries,
            genesis={},
            clock=self._clock,
            random=self._random,
        )

    # ---- time

    def now(self) -> int:
        """Virtual Unix time: never behind the newest block."""
        return max(int(self._clock()) + self._offset, self.master.utime)

    def warp(self, seconds: int) -> None:
        """Move virtual time forward, for good."""
        if seconds < 0:
            raise ValueError("time only moves forward")
        self._offset += seconds
        self.store.set_meta("time_offset", str(self._offset).encode())

    # ---- messages

    @property
    def has_work(self) -> bool:
        """Whether a message waits for a block."""
        return bool(self._external or self._queue)

    def send(self, message: Cell) -> None:
        """Take an external message for the next block.

        It is run against the present state first, as a real node does. Raises
        MessageNotAcceptedError if the contract refuses it, EmulatorError if it is no message for an
        account of this chain.
        """
        account = destination(message)
        if account is None or message.begin_parse().load_uint(2) != 2:
            raise EmulatorError("not an external message for the basechain or the masterchain")
        self.emulator.transaction(
            self.shard_account(account),
            message,
            self.now(),
            self._next_lt() + 1,
            prev_blocks=self.prev_blocks(self.master.seqno),
        )
        self._external.append(message)
        self.on_work()

    def _next_lt(self) -> int:
        return (self.shard.end_lt // LT_ALIGN + 1) * LT_ALIGN

    # ---- blocks

    def tick(self) -> Block:
        """Make the next block of both chains; returns the masterchain block."""
        start = self._next_lt()
        collation = Collation(
            self.emulator,
            self.shard_account,
            utime=self.now(),
            lt=start + 1,
            seed=self._random(32),
            prev_blocks=self.prev_blocks(self.master.seqno),
        )
        external, queue = deque(self._external), deque(self._queue)
        collation.run(external, queue)
        self._seal(collation, start, queue)
        self._external, self._queue = external, queue
        return self.master

    def _seal(self, collation: Collation, start: int, queue: deque[Cell]) -> None:
        """Make the blocks of finished work, write them, and only then show them."""
        seqno, utime, end = self.shard.seqno + 1, collation.utime, max(collation.lt, start + 1)
        accounts = dict(self._accounts)
        for account, entry in collation.changed.items():
            states.change(accounts, account, entry)
        frame = blocks.Frame(utime=utime, start_lt=start, end_lt=end, seed=collation.seed)
        shard_cell = self._shard_state(seqno, utime, end, accounts[BASECHAIN], self.master)
        done = collation.block_transactions
        shard = blocks.shard_block(
            self.identity, frame, self.shard, self.master, shard_cell, done(BASECHAIN)
        )
        master_cell = self._master_state(seqno, utime, end, shard, accounts, self._tree)
        master = blocks.master_block(
            self.identity, frame, self.master, shard, master_cell, self.config.root, done(MASTERCHAIN)
        )
        tree, subtree = self._tree.append(master)
        self.store.commit(
            Commit(
                seqno=seqno,
                blocks=(shard, master),
                transactions=collation.records(seqno),
                changed=collation.changed,
                account_bocs=collation.account_bocs,
                queue=[write_boc([message]) for message in queue],
                subtree=subtree,
            )
        )
        self._remember(shard, shard_cell)
        self._remember(master, master_cell)
        self.shard, self.master, self._accounts, self._tree = shard, master, accounts, tree
        self._key = self._key or master
        for account, cell in collation.accounts_after.items():
            self._remember_account(account, cell)

    # ---- reading

    def key_block(self) -> Block | None:
        """The key block (masterchain block 1), None before it exists."""
        return self._key

    def library(self, hash: bytes) -> Cell | None:
        """The public library with this hash."""
        return find_library(self.libraries, hash)

    def block(self, workchain: int, seqno: int) -> Block | None:
        """A block by number."""
        for head in (self.shard, self.master):
            if head.id.workchain == workchain and head.seqno == seqno:
                return head
        return self.store.block(workchain, seqno)

    def shard_account(self, account: bytes, seqno: int | None = None) -> Cell:
        """``ShardAccount`` after block `seqno` (None: the newest); `EMPTY_ACCOUNT` if there is none."""
        if seqno is None and account in self._full:
            self._full.move_to_end(account)
            return self._full[account]
        entry = self.account(account, seqno)
        if entry is None:
            return cast(Cell, EMPTY_ACCOUNT)
        cell = read_boc(self.store.account_boc(entry.account.hash))
        builder = begin_cell().store_ref(cell).store_bytes(entry.last_hash).store_uint(entry.last_lt, 64)
        result = builder.end_cell()
        if seqno is None:
            self._remember_account(account, result)
        return cast(Cell, result)

    def account(self, account: bytes, seqno: int | None = None) -> AccountEntry | None:
        """The dictionary entry of an account after block `seqno` (None: the newest)."""
        if seqno is None or seqno == self.shard.seqno:
            return self._accounts[workchain_of(account)].get(account_key(account))
        return self.store.account_at(account, seqno)

    def accounts_at(self, workchain: int, seqno: int) -> states.AccountDict:
        """All accounts of a workchain after block `seqno`."""
        return self._all_accounts_at(seqno)[workchain]

    def _all_accounts_at(self, seqno: int) -> dict[int, states.AccountDict]:
        accounts = dict(self._accounts)
        if seqno < self.shard.seqno:
            for account in self.store.changed_since(seqno):
                states.change(accounts, account, self.store.account_at(account, seqno))
        return accounts

    def state(self, block: Block) -> Cell:
        """The state after a block, made again if it is an old one."""
        key = (block.id.workchain, block.seqno)
        if key in self._states:
            self._states.move_to_end(key)
            return self._states[key]
        accounts = self._all_accounts_at(block.seqno)
        if block.id.workchain == BASECHAIN:
            master = self._require(MASTERCHAIN, block.seqno - 1) if block.seqno else None
            own = accounts[BASECHAIN]
            cell = self._shard_state(block.seqno, block.utime, block.end_lt, own, master)
        else:
            shard = self._require(BASECHAIN, block.seqno)
            tree = self._tree_before(block.seqno)
            cell = self._master_state(block.seqno, block.utime, block.end_lt, shard, accounts, tree)
        if cell.hash != block.state.hash:
            raise RuntimeError(f"the state of block {key} cannot be made again")
        self._remember(block, cell)
        return cell

    def prev_blocks(self, seqno: int) -> PrevBlocks:
        """What contracts learn of the masterchain when block `seqno` is the newest."""
        if seqno not in self._prev:
            key = self._key if self._key is not None and seqno else self.zero
            self._prev = {seqno: worldview.prev_blocks(seqno, key.id, self._master_id)}
        return self._prev[seqno]

    def seen_blocks(self, seqno: int) -> set[int]:
        """The blocks below `seqno` that contracts learn of when it is the newest."""
        return worldview.seen_blocks(seqno, self._key.seqno if self._key is not None else 0)

    def _master_id(self, seqno: int) -> BlockId:
        if seqno == self.master.seqno:
            return self.master.id
        id = self.store.block_id(MASTERCHAIN, seqno)
        if id is None:
            raise KeyError(f"no masterchain block {seqno}")
        return id

    # ---- states

    def _shard_state(
        self, seqno: int, utime: int, lt: int, accounts: states.AccountDict, master: Block | None
    ) -> Cell:
        return states.shard_state(
            global_id=self.identity.global_id,
            seqno=seqno,
            utime=utime,
            lt=lt,
            accounts=accounts,
            master=master,
        )

    def _master_state(
        self,
        seqno: int,
        utime: int,
        lt: int,
        shard: Block,
        accounts: Mapping[int, states.AccountDict],
        previous: BlockTree,
    ) -> Cell:
        return states.master_state(
            global_id=self.identity.global_id,
            seqno=seqno,
            utime=utime,
            lt=lt,
            shard=shard,
            accounts=accounts[MASTERCHAIN],
            basechain_total=states.total_balance(accounts[BASECHAIN]),
            config=self.config.root,
            libraries=self.libraries,
            previous=previous,
            key_block=self._key if seqno > 1 else None,
        )

    def _remember(self, block: Block, state: Cell) -> None:
        self._states[block.id.workchain, block.seqno] = state
        while len(self._states) > _CACHED_STATES:
            self._states.popitem(last=False)

    def _remember_account(self, account: bytes, shard_account: Cell) -> None:
        self._full[account] = shard_account
        self._full.move_to_end(account)
        while len(self._full) > _CACHED_ACCOUNTS:
            self._full.popitem(last=False)
