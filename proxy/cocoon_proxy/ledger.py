"""The client's ledger: requests, receipts, evidence and channels in one SQLite file.

Every change is one transaction with full synchronisation, so that what was answered can be proved and
what was spent is known after a crash at any point. It holds no prompt and no answer: commitments, salts,
amounts and identifiers only. Several processes may use one ledger.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cocoon.v1 import record_pb2
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import PaymentError, UnavailableError
from cocoon_attestation.receipt import Receipt
from cocoon_proxy.accounts import ChannelAccount
from cocoon_proxy.errors import SpendLimitError, UnknownReceiptError
from cocoon_proxy.ledger_rows import (
    ADDED_IN_2,
    SCHEMA,
    SCHEMA_VERSION,
    ChannelRow,
    DisputeRow,
    EvidenceRow,
    ReceiptRow,
    RequestRow,
    channel_row,
    receipt_row,
)
from cocoon_proxy.runs import Run

__all__ = ["ChannelRow", "DisputeRow", "EvidenceRow", "Ledger", "ReceiptRow", "RequestRow"]

DAY_S: Final = 86_400
LOST_S: Final = 2 * 3600
"""After this time no enclave charges for a request any more: deadlines are shorter."""


class Ledger:
    """Opens or creates the ledger below `directory`. Thread-safe; every method is one transaction."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / "ledger.sqlite3"
        self._lock = threading.RLock()
        self._run = Run(directory / "runs")
        try:
            self.path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=30.0
            )
            self._db.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate()
        except sqlite3.Error as error:
            self._run.close()
            raise UnavailableError(f"cannot open the ledger {self.path.name}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
            self._run.close()

    # -- channels ---------------------------------------------------------------------------------

    def plan_channel(
        self, *, id: bytes, node: bytes, salt: int, initial_data: bytes, deposit: int, now: int
    ) -> None:
        """Record a channel before money is sent to it."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO channels (id, node, salt, initial_data, state, deposit, cap, cumulative,"
                " verified, lost, in_flight, top_ups, pending_top_up, created_at)"
                " VALUES (?,?,?,?,'planned',?,'0','0','0','0','0',0,'0',?)",
                (id, node, salt, initial_data, str(deposit), now),
            )

    def set_channel_state(self, id: bytes, state: str) -> None:
        """Record what happened to a channel."""
        with self._transaction() as db:
            db.execute("UPDATE channels SET state=? WHERE id=?", (state, id))

    def set_open(self, id: bytes, deposit: int) -> None:
        """Record that the chain shows a channel open, and what was put into it in all.

        One step: a planned channel's deposit is what its deploying transfer is repeated with. While a top-up
        is under way it is not known whether the chain's deposit holds it already, so the known one stays.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE channels SET state='open',"
                " deposit=CASE WHEN pending_top_up='0' THEN ? ELSE deposit END WHERE id=?",
                (str(deposit), id),
            )

    def begin_top_up(self, id: bytes, amount: int) -> ChannelRow:
        """Record a top-up before it is sent. One that was begun before must be finished first."""
        with self._transaction() as db:
            if self._channel(db, id).pending_top_up:
                raise PaymentError("a top-up of this channel is not finished")
            db.execute(
                "UPDATE channels SET top_ups=top_ups+1, pending_top_up=? WHERE id=?", (str(amount), id)
            )
            return self._channel(db, id)

    def finish_top_up(self, id: bytes) -> ChannelRow:
        """Record that the pending top-up was seen on chain."""
        with self._transaction() as db:
            row = self._channel(db, id)
            db.execute(
                "UPDATE channels SET deposit=?, pending_top_up='0' WHERE id=?",
                (str(row.deposit + row.pending_top_up), id),
            )
            return self._channel(db, id)

    def drop_top_up(self, id: bytes) -> None:
        """Record that the pending top-up was refused: its money is in the wallet."""
        with self._transaction() as db:
            db.execute("UPDATE channels SET pending_top_up='0' WHERE id=?", (id,))

    def channel(self, id: bytes) -> ChannelRow:
        """One channel; raises `PaymentError` if it is unknown."""
        with self._lock:
            return self._channel(self._db, id)

    def channels(
        self, *, node: bytes | None = None, states: tuple[str, ...] = ()
    ) -> tuple[ChannelRow, ...]:
        """Channels, newest first, of one node or of all, in the given states or in any."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM channels ORDER BY created_at DESC, id").fetchall()
        found = tuple(channel_row(row) for row in rows)
        return tuple(
            c for c in found if (node is None or c.node == node) and (not states or c.state in states)
        )

    # -- requests ---------------------------------------------------------------------------------

    def reserve(self, request: RequestRow, *, daily_cap: int) -> int:
        """Authorize one request: record it, and return the cap to sign.

        Raises:
            SpendLimitError: the day's requests could cost more than `daily_cap` nanoton.
        """
        with self._transaction() as db:
            spent = self._spent(db, request.created_at - request.created_at % DAY_S)
            if spent + request.worst > daily_cap:
                raise SpendLimitError(
                    "the requests of this day could cost more than payment.daily_cap",
                    details={"spent_or_reserved": spent, "worst_case": request.worst, "cap": daily_cap},
                )
            account = self._channel(db, request.channel).account
            cap = account.cap_for(request.worst)
            self._store(db, request.channel, account.reserve(request.worst, cap))
            db.execute(
                "INSERT INTO requests VALUES (?,?,?,?,?,?,?,'prepared',?,?,?,?,'')",
                (
                    request.id, self._run.id, request.created_at, request.node, request.channel,
                    request.endpoint, request.model, str(request.worst), request.worst, request.salt,
                    request.commitment,
                ),
            )  # fmt: skip
            return cap

    def refuse(self, id: bytes, error: str) -> None:
        """A request ended without charge."""
        with self._transaction() as db:
            row, account = self._unfinished(db, id)
            if row is not None:
                self._store(db, row["channel"], account.release(int(row["worst"])))
                db.execute("UPDATE requests SET state='refused', spent=0, error=? WHERE id=?", (error, id))

    def lose(self, id: bytes, error: str) -> None:
        """A request ended with unknown outcome: its worst case stays counted."""
        with self._transaction() as db:
            self._lose(db, id, error)

    def complete(
        self,
        id: bytes,
        check: Callable[[ChannelAccount], tuple[Receipt, CheckList]],
        *,
        signed: record_pb2.SignedReceipt,
        simulated: bool,
    ) -> tuple[Receipt, CheckList]:
        """Verify a receipt against the channel's account and record it, in one transaction.

        `check` gets the account with this request in flight, and raises to refuse the receipt. When this
        returns, the receipt is on disk.
        """
        with self._transaction() as db:
            row, account = self._unfinished(db, id)
            if row is None:
                raise PaymentError("the request was already finished")
            receipt, checks = check(account)
            settled = account.settle(int(row["worst"]), receipt.amount, receipt.cumulative)
            settled = self._resolved(db, row["channel"], settled, receipt.issued_at)
            self._store(db, row["channel"], settled)
            db.execute("UPDATE requests SET state='completed', spent=? WHERE id=?", (receipt.amount, id))
            db.execute(
                "INSERT INTO receipts VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    receipt.hash, id, receipt.node, receipt.binding_hash, receipt.index,
                    receipt.issued_at, receipt.anchor_by, str(receipt.amount), receipt.status,
                    signed.receipt, signed.signature, int(simulated),
                ),
            )  # fmt: skip
        return receipt, checks

    def dispute(self, id: bytes, signed: record_pb2.SignedReceipt, failed: str) -> None:
        """Keep a receipt that failed its checks, as proof against the node; its request counts as lost."""
        with self._transaction() as db:
            self._lose(db, id, "receipt_rejected")
            db.execute(
                "INSERT OR REPLACE INTO disputes VALUES (?,?,?,?)",
                (id, signed.receipt, signed.signature, failed),
            )

    def disputes(self) -> tuple[DisputeRow, ...]:
        """All receipts that failed their checks."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM disputes").fetchall()
        return tuple(DisputeRow(**dict(row)) for row in rows)

    def recover(self) -> int:
        """Mark unfinished requests of processes that ended as lost; returns how many there were."""
        with self._transaction() as db:
            rows = db.execute("SELECT id, run FROM requests WHERE state='prepared'").fetchall()
            dead = {run for run in {row["run"] for row in rows} if self._run.is_dead(run)}
            lost = [row["id"] for row in rows if row["run"] in dead]
            for id in lost:
                self._lose(db, id, "crashed")
        for run in dead:
            self._run.forget(run)
        return len(lost)

    def spent_since(self, since: int) -> int:
        """Nanoton spent or reserved by requests made since a Unix time."""
        with self._lock:
            return self._spent(self._db, since)

    # -- receipts and evidence --------------------------------------------------------------------

    def receipt(self, id: str) -> ReceiptRow:
        """One receipt by its hex id; raises `UnknownReceiptError`."""
        try:
            key = bytes.fromhex(id)
        except ValueError:
            key = b""
        rows = self._receipts("WHERE receipts.id=?", (key,))
        if not rows:
            raise UnknownReceiptError(f"no receipt {id[:64]}")
        return rows[0]

    def receipts(self, *, limit: int = 100, before: int | None = None) -> tuple[ReceiptRow, ...]:
        """Newest receipts first; `before` is a Unix time."""
        bound = before if before is not None else 2**62
        return self._receipts(
            "WHERE issued_at<? ORDER BY issued_at DESC, log_index DESC LIMIT ?", (bound, limit)
        )

    def put_evidence(self, row: EvidenceRow) -> None:
        """Keep the newest evidence of a key binding."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO evidence VALUES (?,?,?,?,?,?,?)",
                (
                    row.binding_hash,
                    row.kind,
                    row.node,
                    row.evidence,
                    row.challenge,
                    row.policy_digest,
                    row.seen_at,
                ),
            )

    def evidence(self, binding_hash: bytes, kind: str) -> EvidenceRow | None:
        """Evidence of a key binding, if it was kept."""
        with self._lock:
            row = self._db.execute(
                "SELECT * FROM evidence WHERE binding_hash=? AND kind=?", (binding_hash, kind)
            ).fetchone()
        return EvidenceRow(**dict(row)) if row is not None else None

    # -- internals --------------------------------------------------------------------------------

    def _migrate(self) -> None:
        with self._transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise UnavailableError("the ledger was written by a newer version of Cocoon")
            if version == 0:
                for statement in SCHEMA.split(";"):
                    if statement.strip():
                        db.execute(statement)
            elif version == 1:
                known = {row["name"] for row in db.execute("PRAGMA table_info(channels)")}
                for column, definition in ADDED_IN_2.items():
                    if column not in known:  # some files of version 1 have them already
                        db.execute(f"ALTER TABLE channels ADD COLUMN {column} {definition}")
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise UnavailableError(f"the ledger could not be written: {error}") from error

    def _channel(self, db: sqlite3.Connection, id: bytes) -> ChannelRow:
        row = db.execute("SELECT * FROM channels WHERE id=?", (id,)).fetchone()
        if row is None:
            raise PaymentError(f"no channel {id.hex()}")
        return channel_row(row)

    def _store(self, db: sqlite3.Connection, id: bytes, account: ChannelAccount) -> None:
        db.execute(
            "UPDATE channels SET cap=?, cumulative=?, verified=?, lost=?, in_flight=? WHERE id=?",
            (
                str(account.cap), str(account.cumulative), str(account.verified), str(account.lost),
                str(account.in_flight), id,
            ),
        )  # fmt: skip

    def _unfinished(self, db: sqlite3.Connection, id: bytes) -> tuple[sqlite3.Row | None, ChannelAccount]:
        row = db.execute("SELECT * FROM requests WHERE id=? AND state='prepared'", (id,)).fetchone()
        return row, self._channel(db, row["channel"]).account if row is not None else ChannelAccount()

    def _lose(self, db: sqlite3.Connection, id: bytes, error: str) -> None:
        row, account = self._unfinished(db, id)
        if row is not None:
            self._store(db, row["channel"], account.lose(int(row["worst"])))
            db.execute("UPDATE requests SET state='unknown', error=? WHERE id=?", (error, id))

    def _resolved(
        self, db: sqlite3.Connection, channel: bytes, account: ChannelAccount, now: int
    ) -> ChannelAccount:
        """The account without doubts about lost requests, once none of them can be charged any more."""
        if not account.lost or account.in_flight:
            return account
        where = "state='unknown' AND channel=?"
        newest = db.execute(f"SELECT MAX(created_at) FROM requests WHERE {where}", (channel,)).fetchone()[0]  # noqa: S608
        if newest is None or newest + LOST_S > now:
            return account
        db.execute(f"UPDATE requests SET state='resolved' WHERE {where}", (channel,))  # noqa: S608
        return account.resolve()

    def _spent(self, db: sqlite3.Connection, since: int) -> int:
        row = db.execute("SELECT COALESCE(SUM(spent), 0) FROM requests WHERE created_at>=?", (since,))
        return int(row.fetchone()[0])

    def _receipts(self, where: str, values: tuple[Any, ...]) -> tuple[ReceiptRow, ...]:
        query = (
            "SELECT receipts.*, requests.salt, requests.model, requests.endpoint FROM receipts"  # noqa: S608
            f" JOIN requests ON requests.id = receipts.request {where}"
        )
        with self._lock:
            rows = self._db.execute(query, values).fetchall()
        return tuple(receipt_row(row) for row in rows)
