"""Tables of the outbox. A change needs a new file format and a migration; there is none so far."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (only INTEGER PRIMARY KEY CHECK (only = 1), name TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY,
    seqno INTEGER NOT NULL,
    valid_until INTEGER NOT NULL,
    start_lt INTEGER NOT NULL,
    boc BLOB NOT NULL,
    body_hash BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'done', 'void'))
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_open_batch ON batches (state) WHERE state = 'open';
CREATE TABLE IF NOT EXISTS operations (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('transfer', 'external')),
    destination TEXT NOT NULL,
    amount INTEGER NOT NULL,
    bounce INTEGER NOT NULL,
    body BLOB NOT NULL,
    state_init BLOB,
    body_hash BLOB NOT NULL,
    not_after INTEGER,
    state TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'seen', 'failed')),
    batch INTEGER REFERENCES batches (id),
    start_lt INTEGER,
    tx_lt INTEGER,
    tx_hash BLOB,
    message_hash BLOB,
    error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS pending_operations ON operations (kind, state) WHERE state IN ('queued', 'sent');
"""
