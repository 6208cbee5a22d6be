"""What the ledger stores: tables, and the rows as values."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass, field
from typing import Final

from cocoon_proxy.accounts import ChannelAccount

SCHEMA_VERSION: Final = 2
ADDED_IN_2: Final = {"top_ups": "INTEGER NOT NULL DEFAULT 0", "pending_top_up": "TEXT NOT NULL DEFAULT '0'"}
"""Columns of ``channels`` that came with version 2, and what they are in a file of version 1."""

SCHEMA: Final = """
CREATE TABLE channels (
  id BLOB PRIMARY KEY, node BLOB NOT NULL, salt INTEGER NOT NULL, initial_data BLOB NOT NULL,
  state TEXT NOT NULL, deposit TEXT NOT NULL, cap TEXT NOT NULL, cumulative TEXT NOT NULL,
  verified TEXT NOT NULL, lost TEXT NOT NULL, in_flight TEXT NOT NULL, top_ups INTEGER NOT NULL,
  pending_top_up TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX channels_node ON channels (node, state);
CREATE TABLE requests (
  id BLOB PRIMARY KEY, run TEXT NOT NULL, created_at INTEGER NOT NULL, node BLOB NOT NULL,
  channel BLOB NOT NULL REFERENCES channels (id), endpoint TEXT NOT NULL, model TEXT NOT NULL,
  state TEXT NOT NULL, worst TEXT NOT NULL, spent INTEGER NOT NULL, salt BLOB NOT NULL,
  commitment BLOB NOT NULL, error TEXT NOT NULL
) STRICT;
CREATE INDEX requests_state ON requests (state, channel);
CREATE INDEX requests_created ON requests (created_at);
CREATE TABLE receipts (
  id BLOB PRIMARY KEY, request BLOB NOT NULL UNIQUE REFERENCES requests (id), node BLOB NOT NULL,
  binding_hash BLOB NOT NULL, log_index INTEGER NOT NULL, issued_at INTEGER NOT NULL,
  anchor_by INTEGER NOT NULL, amount TEXT NOT NULL, status INTEGER NOT NULL, boc BLOB NOT NULL,
  signature BLOB NOT NULL, simulated INTEGER NOT NULL
) STRICT;
CREATE INDEX receipts_issued ON receipts (issued_at);
CREATE TABLE evidence (
  binding_hash BLOB NOT NULL, kind TEXT NOT NULL, node BLOB NOT NULL, evidence BLOB NOT NULL,
  challenge BLOB NOT NULL, policy_digest BLOB NOT NULL, seen_at INTEGER NOT NULL,
  PRIMARY KEY (binding_hash, kind)
) STRICT;
CREATE TABLE disputes (
  request BLOB PRIMARY KEY REFERENCES requests (id), boc BLOB NOT NULL, signature BLOB NOT NULL,
  failed TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRow:
    """A payment channel as the ledger knows it."""

    id: bytes
    """Account id, 32 bytes."""
    node: bytes
    salt: int
    initial_data: bytes = field(repr=False)
    """Bag of cells: what the address is computed from."""
    state: str
    """``planned``, ``open``, ``refused`` (by its node), ``closing`` or ``closed``."""
    deposit: int
    """Nanoton put in so far."""
    account: ChannelAccount
    top_ups: int
    """Top-ups that were begun."""
    pending_top_up: int
    """Nanoton of the top-up that was begun last and not seen to be done; 0 if there is none."""
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A request that was authorized."""

    id: bytes
    """Request id, 16 bytes."""
    created_at: int
    node: bytes
    channel: bytes
    endpoint: str
    model: str
    worst: int
    """Most that it may cost, nanoton."""
    salt: bytes = field(repr=False)
    """Salt of the receipt's commitments, 32 bytes."""
    commitment: bytes
    """Commitment to the request body."""
    state: str = "prepared"
    """``prepared``, ``completed``, ``refused``, ``unknown``, or ``resolved`` (was unknown)."""
    error: str = ""
    """Code of the error that ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRow:
    """A verified receipt with what is needed to prove it."""

    id: bytes
    """Representation hash of the receipt cell."""
    request: bytes
    node: bytes
    binding_hash: bytes
    log_index: int
    issued_at: int
    anchor_by: int
    amount: int
    status: int
    boc: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    simulated: bool
    salt: bytes = field(repr=False)
    model: str
    endpoint: str

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form; bytes in hex."""
        return {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRow:
    """Evidence that was appraised."""

    binding_hash: bytes
    kind: str
    """``session`` (answer to this client's nonce) or ``published`` (recorded on chain)."""
    node: bytes
    evidence: bytes = field(repr=False)
    challenge: bytes
    policy_digest: bytes
    seen_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeRow:
    """A signed receipt that failed its checks: proof against the node."""

    request: bytes
    boc: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    failed: str
    """Ids of the failed checks, separated by commas."""


def channel_row(row: sqlite3.Row) -> ChannelRow:
    """A row of ``channels``."""
    account = {key: int(row[key]) for key in ("cap", "cumulative", "verified", "lost", "in_flight")}
    return ChannelRow(
        id=row["id"],
        node=row["node"],
        salt=row["salt"],
        initial_data=row["initial_data"],
        state=row["state"],
        deposit=int(row["deposit"]),
        account=ChannelAccount(**account),
        top_ups=row["top_ups"],
        pending_top_up=int(row["pending_top_up"]),
        created_at=row["created_at"],
    )


def receipt_row(row: sqlite3.Row) -> ReceiptRow:
    """A row of ``receipts`` joined with its request."""
    values = dict(row)
    values["amount"] = int(values["amount"])
    values["simulated"] = bool(values["simulated"])
    return ReceiptRow(**values)
