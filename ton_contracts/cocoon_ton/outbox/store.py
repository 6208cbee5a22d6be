"""The outbox's table: SQLite, every change one transaction, on disk before the next step.

One message of the wallet (a *batch*) is open at a time; a unique index enforces it. An operation points to
the batch that carries it. All state lives here, so a process may be killed between any two statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoon_attestation.errors import ConfigError, UnavailableError
from cocoon_ton.address import parse_address, raw_address
from cocoon_ton.errors import OutboxConflictError
from cocoon_ton.messages import ExternalMessage, Transfer
from cocoon_ton.outbox.operation import (
    MAX_KEY,
    ExternalOperation,
    Operation,
    OperationState,
    OperationStatus,
    TransferOperation,
    operation_digest,
)
from cocoon_ton.outbox.schema import SCHEMA
from cocoon_ton.proof.boc import parse_boc, write_boc


@contextmanager
def _storage() -> Iterator[None]:
    """A full disk or a locked database is a reason to try again, not a crash."""
    try:
        yield
    except sqlite3.Error as error:
        raise UnavailableError(f"outbox database: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One signed message of the wallet."""

    id: int
    seqno: int
    valid_until: int
    start_lt: int
    """Last transaction of the wallet when the message was signed; it can only be executed later."""
    boc: bytes
    body_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A stored operation that is not final."""

    number: int
    key: str
    state: OperationState
    operation: Operation
    start_lt: int
    """External: the destination's transactions up to this logical time do not hold the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one operation ended."""

    number: int
    state: OperationState
    tx_lt: int | None = None
    tx_hash: bytes | None = None
    message_hash: bytes | None = None
    error: str = ""


class OutboxStore:
    """The database of one wallet on one network."""

    def __init__(self, path: Path, identity: str) -> None:
        """Open or create. Raises `ConfigError` if the file belongs to another wallet or is no database."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            with self._transaction():
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT OR IGNORE INTO identity VALUES (1, ?)", (identity,))
            (found,) = self._db.execute("SELECT name FROM identity").fetchone()
        except (sqlite3.Error, UnavailableError) as error:
            raise ConfigError(f"cannot open outbox {path}: {error}") from error
        path.chmod(0o600)
        if found != identity:
            self._db.close()
            raise ConfigError(f"outbox {path} belongs to another wallet or network")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _storage():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _query(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with _storage():
            return self._db.execute(statement, parameters).fetchall()

    def add(self, key: str, operation: Operation) -> bool:
        """Store an operation. False if the very same one is there already.

        Raises `OutboxConflictError` if `key` names a different operation.
        """
        if not 0 < len(key) <= MAX_KEY:
            raise ConfigError(f"an operation key has 1 to {MAX_KEY} characters")
        digest = operation_digest(operation)
        with self._transaction():
            row = self._db.execute("SELECT digest FROM operations WHERE key = ?", (key,)).fetchone()
            if row is None:
                self._insert(key, digest, operation)
                return True
        if row[0] != digest:
            raise OutboxConflictError(f"operation key {key!r} is in use for another operation")
        return False

    def _insert(self, key: str, digest: bytes, operation: Operation) -> None:
        values: tuple[object, ...]
        if isinstance(operation, TransferOperation):
            transfer = operation.transfer
            init = None if transfer.state_init is None else write_boc([transfer.state_init])
            values = (
                "transfer",
                raw_address(transfer.destination),
                transfer.amount,
                int(transfer.bounce),
                write_boc([transfer.body]),
                init,
                bytes(transfer.body.hash),
                None,
            )
        else:
            message = operation.message
            destination = raw_address(operation.destination)
            values = ("external", destination, 0, 0, message.boc, None, message.body_hash, message.hash)
        self._db.execute(
            "INSERT INTO operations (state, key, digest, not_after, kind, destination, amount, bounce,"
            " body, state_init, body_hash, message_hash)"
            " VALUES ('queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key, digest, operation.not_after, *values),
        )

    def status(self, key: str) -> OperationStatus | None:
        """The status of an operation, or None if the key is unknown."""
        for state, tx_lt, tx_hash, message_hash, error in self._query(
            "SELECT state, tx_lt, tx_hash, message_hash, error FROM operations WHERE key = ?", (key,)
        ):
            return OperationStatus(
                key=key,
                state=OperationState(state),
                tx_lt=tx_lt,
                tx_hash=tx_hash,
                message_hash=message_hash,
                error=error,
            )
        return None

    def count_pending(self) -> int:
        """How many operations are not final."""
        rows = self._query("SELECT count(*) FROM operations WHERE state IN ('queued', 'sent')")
        return int(rows[0][0])

    def trouble(self) -> str:
        """What holds up the oldest operation that is not final."""
        rows = self._query(
            "SELECT error FROM operations WHERE state IN ('queued', 'sent') ORDER BY number LIMIT 1"
        )
        return str(rows[0][0]) if rows else ""

    def last_emitted(self) -> list[tuple[str, str]]:
        """Destination and key of each transfer of the newest message that the wallet executed."""
        rows = self._query(
            "SELECT destination, key FROM operations WHERE state = 'seen' AND batch ="
            " (SELECT max(id) FROM batches WHERE state = 'done') ORDER BY number"
        )
        return [(str(destination), str(key)) for destination, key in rows]

    def queued_transfers(self) -> list[Pending]:
        """Transfers that no message carries, oldest first."""
        return self._pending("kind = 'transfer' AND state = 'queued'", ())

    def batch_transfers(self, batch: Batch) -> list[Pending]:
        """The transfers that `batch` carries, in the order of its messages."""
        return self._pending("batch = ? AND state = 'sent'", (batch.id,))

    def externals(self) -> list[Pending]:
        """External messages that are not final, oldest first."""
        return self._pending("kind = 'external' AND state IN ('queued', 'sent')", ())

    def _pending(self, condition: str, parameters: tuple[object, ...]) -> list[Pending]:
        # `condition` is one of the constants above, never input.
        rows = self._query(
            "SELECT number, key, state, start_lt, kind, destination, amount, bounce, body, state_init,"  # noqa: S608
            f" body_hash, message_hash, not_after FROM operations WHERE {condition} ORDER BY number",
            parameters,
        )
        return [_pending_from_row(row) for row in rows]

    def open_batch(self) -> Batch | None:
        """The wallet message that may still be executed, if there is one."""
        for number, seqno, valid_until, start_lt, boc, body_hash in self._query(
            "SELECT id, seqno, valid_until, start_lt, boc, body_hash FROM batches WHERE state = 'open'"
        ):
            return Batch(
                id=number,
                seqno=seqno,
                valid_until=valid_until,
                start_lt=start_lt,
                boc=boc,
                body_hash=body_hash,
            )
        return None

    def start_batch(
        self,
        transfers: Sequence[Pending],
        message: ExternalMessage,
        *,
        seqno: int,
        valid_until: int,
        start_lt: int,
    ) -> Batch:
        """Store a signed message before it is sent anywhere."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO batches (seqno, valid_until, start_lt, boc, body_hash, state)"
                " VALUES (?, ?, ?, ?, ?, 'open')",
                (seqno, valid_until, start_lt, message.boc, message.body_hash),
            )
            number = cursor.lastrowid
            self._db.executemany(
                "UPDATE operations SET state = 'sent', batch = ?, error = '' WHERE number = ?",
                [(number, pending.number) for pending in transfers],
            )
        batch = self.open_batch()
        if batch is None or batch.id != number:
            raise ConfigError("outbox database is inconsistent")
        return batch

    def finish_batch(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """The message was executed: record how each of its transfers ended."""
        with self._transaction():
            self._db.execute("UPDATE batches SET state = 'done' WHERE id = ?", (batch.id,))
            for outcome in outcomes:
                self._settle(outcome)

    def void_batch(self, batch: Batch, reason: str) -> None:
        """The message was not executed and never can be: queue its transfers again."""
        with self._transaction():
            self._db.execute("UPDATE batches SET state = 'void' WHERE id = ?", (batch.id,))
            self._db.execute(
                "UPDATE operations SET state = 'queued', batch = NULL, error = ?"
                " WHERE batch = ? AND state = 'sent'",
                (reason, batch.id),
            )

    def settle(self, outcome: Outcome) -> None:
        """Record the end of one operation."""
        with self._transaction():
            self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        self._db.execute(
            "UPDATE operations SET state = ?, tx_lt = ?, tx_hash = ?,"
            " message_hash = coalesce(?, message_hash), error = ? WHERE number = ?",
            (
                str(outcome.state),
                outcome.tx_lt,
                outcome.tx_hash,
                outcome.message_hash,
                outcome.error,
                outcome.number,
            ),
        )

    def note(self, number: int, error: str) -> None:
        """Record what holds an operation up."""
        with self._transaction():
            self._db.execute("UPDATE operations SET error = ? WHERE number = ?", (error, number))

    def external_sent(self, number: int, start_lt: int) -> None:
        """An external message is about to be sent, or its destination was searched up to `start_lt`."""
        with self._transaction():
            self._db.execute(
                "UPDATE operations SET state = 'sent', start_lt = ? WHERE number = ?", (start_lt, number)
            )


def _pending_from_row(row: tuple[Any, ...]) -> Pending:
    number, key, state, start_lt, kind, destination, amount, bounce, body, init, *rest = row
    body_hash, message_hash, not_after = rest
    address = parse_address(destination)
    operation: Operation
    if kind == "transfer":
        transfer = Transfer(
            destination=address,
            amount=amount,
            body=parse_boc(body)[0],
            state_init=None if init is None else parse_boc(init)[0],
            bounce=bool(bounce),
        )
        operation = TransferOperation(transfer=transfer, not_after=not_after)
    else:
        message = ExternalMessage(boc=body, hash=message_hash, body_hash=body_hash)
        operation = ExternalOperation(destination=address, message=message, not_after=not_after)
    return Pending(
        number=number,
        key=key,
        state=OperationState(state),
        operation=operation,
        start_lt=start_lt or 0,
    )
