"""What survives a crash: receipts, claims, checkpoints, and the evidence of every keyset. SQLite.

The host owns the disk, so nothing read from here is believed: `cocoon_enclave.handover` checks it before
anything is served. Writes of one answer (receipt, claim, authorization) are one transaction, on disk before
the client sees the final chunk. No key and no content of any request is ever written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cocoon_attestation.errors import CocoonError, ConfigError
from cocoon_attestation.types import Digest32
from cocoon_enclave.errors import StoreError
from cocoon_enclave.metering import StoredChannel

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE keysets (
  binding_hash BLOB PRIMARY KEY, binding BLOB NOT NULL, evidence BLOB NOT NULL, published INTEGER NOT NULL,
  made_at INTEGER NOT NULL, sequence INTEGER NOT NULL UNIQUE) STRICT, WITHOUT ROWID;
CREATE TABLE receipts (
  position INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, receipt BLOB NOT NULL, signature BLOB NOT NULL)
  STRICT;
CREATE TABLE channels (
  channel BLOB PRIMARY KEY, initial_data BLOB NOT NULL, authorization BLOB NOT NULL,
  authorization_signature BLOB NOT NULL, cap BLOB NOT NULL, used BLOB NOT NULL, claim BLOB NOT NULL,
  claim_signature BLOB NOT NULL, binding_hash BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints (
  tree_size INTEGER PRIMARY KEY, checkpoint BLOB NOT NULL, signature BLOB NOT NULL,
  binding_hash BLOB NOT NULL) STRICT;
"""
_AMOUNT_SIZE: Final = 16
"""Amounts are 16-byte big-endian blobs: they need 120 bits, SQLite's integers have 63."""


_COVERS: Final = "excluded.cap >= excluded.used OR excluded.cap >= cap"
"""Which authorization is kept: the newest that covers the use, because it expires last. A higher cap that
was given before is worth nothing once it has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReceipt:
    """A receipt with its signature."""

    index: int
    hash: Digest32
    receipt: bytes
    """Bag of cells."""
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKeyset:
    """The public half of a keyset that this node had, and evidence for it."""

    binding_hash: Digest32
    binding: bytes
    """Bag of cells."""
    evidence: bytes
    """Serialized Evidence: published if it was, else made at boot for a challenge of the enclave's own."""
    published: bool
    made_at: int
    """When the evidence was made, Unix seconds; untrusted like everything here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint that was signed."""

    tree_size: int
    checkpoint: bytes
    signature: bytes
    binding_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one answer adds: a receipt, and the new state of its channel if it cost anything."""

    receipt: StoredReceipt
    channel: StoredChannel | None
    cap: int = 0


class Store:
    """The database of one node. Synchronous; one thread at a time."""

    def __init__(self, directory: Path, *, node: bytes, global_id: int) -> None:
        """Open or create it.

        Raises:
            ConfigError: the directory belongs to another node or network.
            StoreError: it cannot be opened.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(
                directory / "enclave.sqlite3", timeout=1, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open the state directory: {error}") from error
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._open_schema(node, global_id)
        except sqlite3.Error as error:
            self._db.close()
            raise StoreError(f"cannot open the state directory: {error}") from error
        except CocoonError:
            self._db.close()
            raise

    def _open_schema(self, node: bytes, global_id: int) -> None:
        identity = {
            "schema": SCHEMA_VERSION.to_bytes(4),
            "node": bytes(node),
            "global_id": global_id.to_bytes(4, signed=True),
        }
        with self._transaction():
            if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.executemany("INSERT INTO meta VALUES (?, ?)", identity.items())
            found = dict(self._db.execute("SELECT key, value FROM meta"))
        if any(found.get(key) != value for key, value in identity.items()):
            raise ConfigError("the state directory belongs to another node, network or version")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(f"the state could not be written: {error}") from error
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def append(self, entries: Sequence[Entry]) -> None:
        """Write answers in one transaction; on return they are on disk.

        Raises:
            StoreError: nothing was written.
        """
        with self._transaction():
            for entry in entries:
                item = entry.receipt
                self._db.execute(
                    "INSERT INTO receipts VALUES (?, ?, ?, ?)",
                    (item.index, item.hash, item.receipt, item.signature),
                )
                if entry.channel is not None:
                    self._put_channel(entry.channel, entry.cap)

    def _put_channel(self, channel: StoredChannel, cap: int) -> None:
        self._db.execute(
            "INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (channel) DO UPDATE SET "  # noqa: S608
            f"authorization = CASE WHEN {_COVERS} THEN excluded.authorization ELSE authorization END, "
            f"authorization_signature = CASE WHEN {_COVERS} THEN excluded.authorization_signature "
            "ELSE authorization_signature END, "
            f"cap = CASE WHEN {_COVERS} THEN excluded.cap ELSE cap END, used = excluded.used, "
            "claim = excluded.claim, claim_signature = excluded.claim_signature, "
            "binding_hash = excluded.binding_hash",
            (
                channel.channel,
                channel.initial_data,
                channel.authorization,
                channel.authorization_signature,
                cap.to_bytes(_AMOUNT_SIZE),
                channel.used.to_bytes(_AMOUNT_SIZE),
                channel.claim,
                channel.claim_signature,
                channel.binding_hash,
            ),
        )

    def replace_claims(self, channels: Sequence[StoredChannel]) -> None:
        """Replace the claims of channels (same use, newer key), in one transaction.

        A channel whose use has grown since its claim was read keeps what it has.

        Raises:
            StoreError: nothing was written.
        """
        with self._transaction():
            for channel in channels:
                self._db.execute(
                    "UPDATE channels SET claim = ?, claim_signature = ?, binding_hash = ? "
                    "WHERE channel = ? AND used = ?",
                    (
                        channel.claim,
                        channel.claim_signature,
                        channel.binding_hash,
                        channel.channel,
                        channel.used.to_bytes(_AMOUNT_SIZE),
                    ),
                )

    def put_keyset(self, keyset: StoredKeyset) -> None:
        """Write a keyset, or newer evidence for it.

        Raises:
            StoreError: nothing was written.
        """
        with self._transaction():
            self._db.execute(
                "INSERT INTO keysets VALUES "
                "(?, ?, ?, ?, ?, (SELECT ifnull(max(sequence), 0) + 1 FROM keysets)) "
                "ON CONFLICT (binding_hash) DO UPDATE SET evidence = excluded.evidence, "
                "published = excluded.published, made_at = excluded.made_at",
                (
                    keyset.binding_hash,
                    keyset.binding,
                    keyset.evidence,
                    int(keyset.published),
                    keyset.made_at,
                ),
            )

    def put_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Write a checkpoint; a newer one of the same size replaces it.

        Raises:
            StoreError: nothing was written.
        """
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
                (
                    checkpoint.tree_size,
                    checkpoint.checkpoint,
                    checkpoint.signature,
                    checkpoint.binding_hash,
                ),
            )

    def put_anchored(self, size: int) -> None:
        """Remember which size the host reported as anchored.

        Raises:
            StoreError: nothing was written.
        """
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('anchored', ?)", (size.to_bytes(8),))

    def anchored(self) -> int:
        """Size that was last reported as anchored; 0 if none."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'anchored'").fetchone()
        return int.from_bytes(row[0]) if row is not None else 0

    def receipts(self, start: int = 0) -> Iterator[StoredReceipt]:
        """Receipts in order of their index, from `start`."""
        rows = self._db.execute(
            "SELECT position, hash, receipt, signature FROM receipts WHERE position >= ? ORDER BY position",
            (start,),
        )
        for position, hash, receipt, signature in rows:
            yield StoredReceipt(index=position, hash=Digest32(hash), receipt=receipt, signature=signature)

    def index_of(self, hash: bytes) -> int | None:
        """Index of a receipt by its hash."""
        row = self._db.execute("SELECT position FROM receipts WHERE hash = ?", (hash,)).fetchone()
        return int(row[0]) if row is not None else None

    def channels(self) -> tuple[StoredChannel, ...]:
        """Channels with a claim, by account id."""
        rows = self._db.execute(
            "SELECT channel, initial_data, authorization, authorization_signature, used, claim, "
            "claim_signature, binding_hash FROM channels ORDER BY channel"
        )
        return tuple(
            StoredChannel(
                channel=Digest32(row[0]),
                initial_data=row[1],
                authorization=row[2],
                authorization_signature=row[3],
                used=int.from_bytes(row[4]),
                claim=row[5],
                claim_signature=row[6],
                binding_hash=row[7],
            )
            for row in rows
        )

    def keysets(self) -> tuple[StoredKeyset, ...]:
        """Keysets, oldest first."""
        rows = self._db.execute(
            "SELECT binding_hash, binding, evidence, published, made_at FROM keysets ORDER BY sequence"
        )
        return tuple(
            StoredKeyset(
                binding_hash=Digest32(row[0]),
                binding=row[1],
                evidence=row[2],
                published=bool(row[3]),
                made_at=row[4],
            )
            for row in rows
        )

    def checkpoints(self) -> tuple[StoredCheckpoint, ...]:
        """Checkpoints, smallest first."""
        rows = self._db.execute(
            "SELECT tree_size, checkpoint, signature, binding_hash FROM checkpoints ORDER BY tree_size"
        )
        return tuple(
            StoredCheckpoint(tree_size=row[0], checkpoint=row[1], signature=row[2], binding_hash=row[3])
            for row in rows
        )

    def checkpoint(self, tree_size: int) -> StoredCheckpoint | None:
        """The checkpoint of a size; 0 for the largest."""
        where = "tree_size = ?" if tree_size else "tree_size >= ? ORDER BY tree_size DESC LIMIT 1"
        row = self._db.execute(
            f"SELECT tree_size, checkpoint, signature, binding_hash FROM checkpoints WHERE {where}",  # noqa: S608
            (tree_size,),
        ).fetchone()
        if row is None:
            return None
        return StoredCheckpoint(tree_size=row[0], checkpoint=row[1], signature=row[2], binding_hash=row[3])

    def evidence(self, binding_hash: bytes) -> bytes | None:
        """The published evidence of a keyset, byte for byte."""
        row = self._db.execute(
            "SELECT evidence FROM keysets WHERE binding_hash = ? AND published = 1", (binding_hash,)
        ).fetchone()
        return bytes(row[0]) if row is not None else None
