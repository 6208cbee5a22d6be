"""What the single parts of the confidential path cost, in microseconds on this machine."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

EVENT = b'data: {"choices":[{"delta":{"content":" token"},"index":0}]}\n\n' * 3


def measure_parts() -> list[dict[str, object]]:
    """One row per part: `part`, `per` (what it is paid for), `microseconds` (best of five)."""
    return [*_per_token(), *_per_request(), _commit()]


def _per_token() -> list[dict[str, object]]:
    from cocoon.v1 import inference_service_pb2 as wire
    from cocoon_attestation.sealing.response import ResponseSealer

    sealer = ResponseSealer(dek=bytes(32), key_id=bytes(32), sealed_hash=bytes(32))
    sealer.head(b"head")
    chunk = sealer.data(EVENT)

    def message() -> object:
        response = wire.SessionResponse()
        for number in range(64):
            response.frames.add(request_number=number, data=chunk)
        return wire.SessionResponse.FromString(response.SerializeToString())

    return [
        _part("seal a chunk", "token", lambda: sealer.data(EVENT), 200),
        _part("frame: put in a message and take out (of 64)", "token", message, 20, divide=64),
    ]


def _per_request() -> list[dict[str, object]]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cocoon_attestation.sealing.keys import generate_seal_keypair, wrap

    pair, key = generate_seal_keypair(), Ed25519PrivateKey.generate()
    public, signature = key.public_key(), key.sign(bytes(32))
    return [
        _part(
            "HPKE wrap (ML-KEM-768 + X25519)", "request", lambda: wrap(pair.public_key, b"i", bytes(32)), 20
        ),
        _part("sign a receipt", "request", lambda: key.sign(bytes(32)), 200),
        _part("verify a receipt", "request", lambda: public.verify(signature, bytes(32)), 200),
    ]


def _commit() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        database = sqlite3.connect(Path(name) / "x.sqlite3", isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (x BLOB)"):
            database.execute(statement)
        insert = "INSERT INTO t VALUES (?)"
        row = _part("durable commit", "request", lambda: database.execute(insert, (bytes(600),)), 5)
        database.close()
    return row


def _part(
    part: str, per: str, work: Callable[[], object], number: int, *, divide: int = 1
) -> dict[str, object]:
    best = min(_timed(work, number) for _ in range(5)) / divide
    return {"part": part, "per": per, "microseconds": round(best * 1e6, 1)}


def _timed(work: Callable[[], object], number: int) -> float:
    started = time.perf_counter()
    for _ in range(number):
        work()
    return (time.perf_counter() - started) / number
