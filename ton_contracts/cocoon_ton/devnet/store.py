"""The chain on disk: one SQLite file, one transaction for each pair of blocks.

Written with ``synchronous=FULL`` before a block is shown to anybody, so what a client saw in a block
survives ``kill -9`` and power loss. The file is locked for as long as it is open: a second process gets
ConfigError. States are not stored; they follow from blocks and the history of accounts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cocoon_attestation.errors import ConfigError
from cocoon_ton.devnet.blocktree import COLLAPSE_LEVEL, Subtree
from cocoon_ton.devnet.cells import Stub
from cocoon_ton.devnet.values import AccountEntry, Block, BlockId, TransactionRecord, workchain_of

SCHEMA_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (
  workchain INTEGER, seqno INTEGER, root BLOB, file BLOB, start_lt INTEGER, end_lt INTEGER,
  utime INTEGER, state BLOB, depth INTEGER, boc BLOB, PRIMARY KEY (workchain, seqno));
CREATE INDEX blocks_by_lt ON blocks (workchain, end_lt);
CREATE INDEX blocks_by_time ON blocks (workchain, utime);
CREATE TABLE transactions (
  account BLOB, lt INTEGER, hash BLOB, seqno INTEGER, boc BLOB, PRIMARY KEY (account, lt));
CREATE INDEX transactions_by_block ON transactions (seqno, account, lt);
CREATE TABLE history (
  account BLOB, seqno INTEGER, state BLOB, depth INTEGER, balance TEXT, last_hash BLOB, last_lt INTEGER,
  PRIMARY KEY (account, seqno)) WITHOUT ROWID;
CREATE INDEX history_by_block ON history (seqno);
CREATE TABLE accounts (hash BLOB PRIMARY KEY, boc BLOB) WITHOUT ROWID;
CREATE TABLE queue (position INTEGER PRIMARY KEY, boc BLOB);
CREATE TABLE subtrees (
  position INTEGER PRIMARY KEY, left BLOB, left_depth INTEGER, right BLOB, right_depth INTEGER,
  has_key INTEGER, max_lt INTEGER);
"""
_BLOCK: Final = "workchain, seqno, root, file, start_lt, end_lt, utime, state, depth, boc"
_HISTORY: Final = "account, state, depth, balance, last_hash, last_lt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """All that one tick changes. `changed` maps accounts to their new entry, None if they are gone.

    `account_bocs` holds the ``Account`` cells of changed accounts by hash; `queue` replaces the queue.
    """

    seqno: int
    blocks: Sequence[Block]
    transactions: Sequence[TransactionRecord] = ()
    changed: Mapping[bytes, AccountEntry | None] = field(default_factory=dict)
    account_bocs: Mapping[bytes, bytes] = field(default_factory=dict)
    queue: Sequence[bytes] = ()
    subtree: Subtree | None = None


class Store:
    """A chain's file, or a chain in memory (`path` None)."""

    def __init__(self, path: Path | None) -> None:
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=0.5)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._create()
        except sqlite3.OperationalError as error:
            self._db.close()
            raise ConfigError(
                f"cannot open {path}: {error}", hint="another development chain runs in this directory"
            ) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ConfigError(f"{path} does not hold a development chain: {error}") from error

    def _create(self) -> None:
        with self._transaction():
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            self._db.close()
            raise ConfigError(
                f"the chain on disk has format {version}, not {SCHEMA_VERSION}",
                hint="remove its directory to begin a new one",
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file and give up its lock."""
        self._db.close()

    def copy_to(self, path: Path) -> None:
        """A consistent copy of the chain, to start a second chain (a fork) from."""
        target = sqlite3.connect(path)
        try:
            self._db.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, all in it
        finally:
            target.close()

    def copy_into(self, other: Store) -> None:
        """Make `other` a copy of this chain, all or nothing; what it held is gone."""
        self._db.backup(other._db)

    # ---- small values

    def get_meta(self, key: str) -> bytes | None:
        """A stored value."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, key: str, value: bytes) -> None:
        """Store a value, durably."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # ---- writing

    def commit(self, commit: Commit) -> None:
        """Write one tick, all or nothing."""
        with self._transaction():
            self._db.executemany(
                f"INSERT INTO blocks ({_BLOCK}) VALUES (?,?,?,?,?,?,?,?,?,?)",  # noqa: S608 - constant
                [_block_row(block) for block in commit.blocks],
            )
            self._db.executemany(
                "INSERT INTO transactions VALUES (?,?,?,?,?)",
                [(t.account, t.lt, t.hash, t.seqno, t.boc) for t in commit.transactions],
            )
            self._db.executemany(
                "INSERT INTO history VALUES (?,?,?,?,?,?,?)",
                [_history_row(a, commit.seqno, entry) for a, entry in commit.changed.items()],
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO accounts VALUES (?,?)", list(commit.account_bocs.items())
            )
            self._db.execute("DELETE FROM queue")
            self._db.executemany("INSERT INTO queue (boc) VALUES (?)", [(boc,) for boc in commit.queue])
            if commit.subtree is not None:
                self._db.execute(
                    "INSERT INTO subtrees (left, left_depth, right, right_depth, has_key, max_lt)"
                    " VALUES (?,?,?,?,?,?)",
                    _subtree_row(commit.subtree),
                )

    # ---- blocks

    def head(self, workchain: int) -> Block | None:
        """The newest block."""
        return self._block("WHERE workchain = ? ORDER BY seqno DESC LIMIT 1", (workchain,))

    def block(self, workchain: int, seqno: int) -> Block | None:
        """The block (or zerostate) with this number."""
        return self._block("WHERE workchain = ? AND seqno = ?", (workchain, seqno))

    def block_at_lt(self, workchain: int, lt: int) -> Block | None:
        """The first block whose end is not before `lt`; None if `lt` is in the future."""
        where = "WHERE workchain = ? AND seqno > 0 AND end_lt >= ? ORDER BY end_lt LIMIT 1"
        return self._block(where, (workchain, lt))

    def block_at_time(self, workchain: int, utime: int) -> Block | None:
        """The first block that is not older than `utime`; None if `utime` is in the future."""
        where = "WHERE workchain = ? AND seqno > 0 AND utime >= ? ORDER BY utime, seqno LIMIT 1"
        return self._block(where, (workchain, utime))

    def block_id(self, workchain: int, seqno: int) -> BlockId | None:
        """Only the name of a block."""
        row = self._db.execute(
            "SELECT root, file FROM blocks WHERE workchain = ? AND seqno = ?", (workchain, seqno)
        ).fetchone()
        if row is None:
            return None
        return BlockId(workchain=workchain, seqno=seqno, root_hash=row[0], file_hash=row[1])

    def _block(self, where: str, arguments: tuple[int, ...]) -> Block | None:
        row = self._db.execute(f"SELECT {_BLOCK} FROM blocks {where}", arguments).fetchone()  # noqa: S608
        if row is None:
            return None
        workchain, seqno, root, file, start_lt, end_lt, utime, state, depth, boc = row
        return Block(
            id=BlockId(workchain=workchain, seqno=seqno, root_hash=root, file_hash=file),
            start_lt=start_lt,
            end_lt=end_lt,
            utime=utime,
            state=Stub(state, depth),
            boc=boc,
        )

    def subtrees(self, count: int) -> list[Subtree]:
        """The first `count` subtrees of 256 masterchain blocks."""
        rows = self._db.execute("SELECT * FROM subtrees ORDER BY position LIMIT ?", (count,))
        return [
            Subtree(
                level=COLLAPSE_LEVEL,
                has_key=bool(has_key),
                max_lt=max_lt,
                halves=(Stub(left, left_depth), Stub(right, right_depth)),
            )
            for _, left, left_depth, right, right_depth, has_key, max_lt in rows
        ]

    # ---- accounts

    def accounts_at(self, seqno: int) -> list[tuple[bytes, AccountEntry]]:
        """All accounts after block `seqno`."""
        query = f"SELECT {_HISTORY}, max(seqno) FROM history WHERE seqno <= ? GROUP BY account"  # noqa: S608
        rows = self._db.execute(query, (seqno,))
        return [(row[0], _entry(row)) for row in rows if row[1] is not None]

    def changed_since(self, seqno: int) -> list[bytes]:
        """The accounts that blocks after `seqno` changed."""
        rows = self._db.execute("SELECT DISTINCT account FROM history WHERE seqno > ?", (seqno,))
        return [row[0] for row in rows]

    def account_at(self, account: bytes, seqno: int) -> AccountEntry | None:
        """One account after block `seqno`."""
        where = "WHERE account = ? AND seqno <= ? ORDER BY seqno DESC LIMIT 1"
        query = f"SELECT {_HISTORY} FROM history {where}"  # noqa: S608 - constants
        row = self._db.execute(query, (account, seqno)).fetchone()
        return None if row is None or row[1] is None else _entry(row)

    def account_boc(self, hash: bytes) -> bytes:
        """An ``Account`` cell by its hash. KeyError if it is unknown."""
        row = self._db.execute("SELECT boc FROM accounts WHERE hash = ?", (hash,)).fetchone()
        if row is None:
            raise KeyError(hash.hex())
        return bytes(row[0])

    def queue(self) -> list[bytes]:
        """The internal messages that wait for the next block."""
        return [row[0] for row in self._db.execute("SELECT boc FROM queue ORDER BY position")]

    # ---- transactions

    def transaction(self, account: bytes, lt: int) -> TransactionRecord | None:
        """The transaction of an account at `lt`."""
        rows = self._transactions("WHERE account = ? AND lt = ?", (account, lt))
        return rows[0] if rows else None

    def transactions_in(self, workchain: int, seqno: int) -> list[TransactionRecord]:
        """The transactions of a block by account and time."""
        found = self._transactions("WHERE seqno = ? ORDER BY account, lt", (seqno,))
        return [record for record in found if workchain_of(record.account) == workchain]

    def _transactions(self, where: str, arguments: tuple[object, ...]) -> list[TransactionRecord]:
        query = f"SELECT account, lt, hash, seqno, boc FROM transactions {where}"  # noqa: S608
        return [
            TransactionRecord(account=account, lt=lt, hash=hash, seqno=seqno, boc=boc)
            for account, lt, hash, seqno, boc in self._db.execute(query, arguments)
        ]


def _block_row(block: Block) -> tuple[object, ...]:
    id, state = block.id, block.state
    times = (block.start_lt, block.end_lt, block.utime)
    return (id.workchain, id.seqno, id.root_hash, id.file_hash, *times, state.hash, state.depth, block.boc)


def _history_row(account: bytes, seqno: int, entry: AccountEntry | None) -> tuple[object, ...]:
    if entry is None:
        return (account, seqno, None, 0, "0", bytes(32), 0)
    cell = Stub.of(entry.account)
    balance = str(entry.balance)  # may exceed 64 bits
    return (account, seqno, cell.hash, cell.depth, balance, entry.last_hash, entry.last_lt)


def _entry(row: tuple[Any, ...]) -> AccountEntry:
    _, state, depth, balance, last_hash, last_lt = row[:6]
    return AccountEntry(
        account=Stub(state, depth),
        balance=int(balance),
        last_hash=last_hash,
        last_lt=last_lt,
    )


def _subtree_row(part: Subtree) -> tuple[object, ...]:
    left, right = (Stub.of(half) for half in part.halves)
    return (left.hash, left.depth, right.hash, right.depth, int(part.has_key), part.max_lt)
