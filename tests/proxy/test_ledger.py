"""The ledger file: durable, exact, shared between processes, and silent about content."""

from __future__ import annotations

import multiprocessing
import secrets
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cocoon.v1 import record_pb2
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import PaymentError, ReceiptRejectedError, UnavailableError
from cocoon_attestation.receipt import Receipt, sign_receipt
from cocoon_proxy.accounts import ChannelAccount
from cocoon_proxy.errors import SpendLimitError, UnknownReceiptError
from cocoon_proxy.ledger import LOST_S, EvidenceRow, Ledger, RequestRow

CHANNEL, NODE = b"\x01" * 32, b"\x02" * 32
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NOW = 1_800_000_000


def opened(directory: Path) -> Ledger:
    ledger = Ledger(directory)
    if not ledger.channels():
        ledger.plan_channel(
            id=CHANNEL, node=NODE, salt=2**63 - 1, initial_data=b"d", deposit=10**18, now=NOW
        )
    return ledger


def request(worst: int = 100, at: int = NOW) -> RequestRow:
    return RequestRow(
        id=secrets.token_bytes(16),
        created_at=at,
        node=NODE,
        channel=CHANNEL,
        endpoint="/v1/chat/completions",
        model="tiny",
        worst=worst,
        salt=bytes(32),
        commitment=bytes(32),
    )


def receipt(amount: int, cumulative: int, index: int = 0) -> Receipt:
    return Receipt(
        node=NODE, binding_hash=bytes(32), request_commitment=bytes(32), response_commitment=bytes(32),
        model=bytes(32), prompt_tokens=1, cached_tokens=0, completion_tokens=1, status=200, channel=CHANNEL,
        amount=amount, cumulative=cumulative, index=index, issued_at=NOW + index, anchor_by=NOW + 3600,
    )  # fmt: skip


def complete(ledger: Ledger, row: RequestRow, made: Receipt) -> None:
    def check(account: ChannelAccount) -> tuple[Receipt, CheckList]:
        checks = CheckList()
        account.check_receipt(checks, worst=row.worst, amount=made.amount, cumulative=made.cumulative)
        if not checks.accepted:
            raise ReceiptRejectedError("no", checks=checks)
        return made, checks

    ledger.complete(row.id, check, signed=sign_receipt(made, KEY), simulated=True)


def test_a_request_from_authorization_to_receipt(tmp_path: Path) -> None:
    ledger, row = opened(tmp_path), request()
    assert ledger.reserve(row, daily_cap=1000) == 100
    assert ledger.channel(CHANNEL).account == ChannelAccount(cap=100, in_flight=100)
    made = receipt(40, 40)
    complete(ledger, row, made)
    ledger.close()
    ledger = opened(tmp_path)
    assert ledger.channel(CHANNEL).account == ChannelAccount(cap=100, cumulative=40, verified=40)
    stored = ledger.receipt(made.id)
    assert (stored.amount, stored.salt, stored.boc, stored.simulated) == (40, row.salt, made.to_boc(), True)
    assert ledger.spent_since(0) == 40
    with pytest.raises(PaymentError):
        complete(ledger, row, made)
    ledger.close()


def test_a_refused_receipt_changes_nothing(tmp_path: Path) -> None:
    ledger, row = opened(tmp_path), request()
    ledger.reserve(row, daily_cap=1000)
    with pytest.raises(ReceiptRejectedError):
        complete(ledger, row, receipt(40, 41))
    assert ledger.channel(CHANNEL).account.in_flight == 100
    assert ledger.receipts() == ()
    ledger.dispute(row.id, record_pb2.SignedReceipt(receipt=b"r", signature=b"s"), "receipt.cumulative")
    assert ledger.channel(CHANNEL).account.lost == 100
    assert [found.failed for found in ledger.disputes()] == ["receipt.cumulative"]
    ledger.close()


def test_endings_are_final(tmp_path: Path) -> None:
    ledger, row = opened(tmp_path), request()
    ledger.reserve(row, daily_cap=1000)
    ledger.refuse(row.id, "node_busy")
    ledger.lose(row.id, "late")
    ledger.refuse(row.id, "again")
    assert ledger.channel(CHANNEL).account == ChannelAccount(cap=100)
    assert ledger.spent_since(0) == 0
    ledger.lose(secrets.token_bytes(16), "unknown")
    ledger.close()


def test_the_daily_cap_counts_what_may_have_been_spent(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    day = NOW - NOW % 86_400
    lost, open_one = request(300, day), request(300, day)
    for row in (lost, open_one):
        ledger.reserve(row, daily_cap=700)
    ledger.lose(lost.id, "cut")
    with pytest.raises(SpendLimitError):
        ledger.reserve(request(101, day), daily_cap=700)
    ledger.reserve(request(100, day), daily_cap=700)
    ledger.reserve(request(700, day + 86_400), daily_cap=700)
    ledger.close()


def test_amounts_beyond_64_bits_are_kept_exactly(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.set_open(CHANNEL, 2**100)
    assert ledger.channel(CHANNEL).deposit == 2**100
    ledger.close()


def crash(directory: Path) -> None:
    ledger = Ledger(directory)
    ledger.reserve(request(), daily_cap=1000)
    import os

    os._exit(9)


def test_requests_of_a_dead_process_are_lost_and_of_a_living_one_not(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    mine = request()
    ledger.reserve(mine, daily_cap=1000)
    process = multiprocessing.get_context("spawn").Process(target=crash, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    other = Ledger(tmp_path)
    assert other.recover() == 1
    assert other.recover() == 0
    account = other.channel(CHANNEL).account
    assert (account.lost, account.in_flight) == (100, 100)
    ledger.close()
    assert other.recover() == 1
    assert other.channel(CHANNEL).account.in_flight == 0
    other.close()
    assert not list((tmp_path / "runs").iterdir())


def test_receipts_are_listed_newest_first(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for index in range(5):
        row = request(10)
        ledger.reserve(row, daily_cap=10**6)
        complete(ledger, row, receipt(1, index + 1, index))
    assert [row.log_index for row in ledger.receipts(limit=3)] == [4, 3, 2]
    assert [row.log_index for row in ledger.receipts(before=NOW + 2)] == [1, 0]
    for unknown in ("", "zz", "00" * 32):
        with pytest.raises(UnknownReceiptError):
            ledger.receipt(unknown)
    ledger.close()


def test_the_newest_evidence_of_a_binding_is_kept(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    row = EvidenceRow(
        binding_hash=b"b" * 32,
        kind="session",
        node=NODE,
        evidence=b"1",
        challenge=b"c",
        policy_digest=b"p",
        seen_at=1,
    )
    ledger.put_evidence(row)
    ledger.put_evidence(replace(row, evidence=b"2"))
    found = ledger.evidence(b"b" * 32, "session")
    assert found is not None
    assert found.evidence == b"2"
    assert ledger.evidence(b"b" * 32, "published") is None
    ledger.close()


def test_a_newer_or_broken_file_is_not_touched(tmp_path: Path) -> None:
    opened(tmp_path).close()
    db = sqlite3.connect(tmp_path / "ledger.sqlite3")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(UnavailableError):
        Ledger(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ledger.sqlite3").write_bytes(b"not a database, " * 100)
    with pytest.raises(UnavailableError):
        Ledger(tmp_path / "other")


def test_unknown_channels_are_errors(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with pytest.raises(PaymentError):
        ledger.channel(bytes(32))
    assert ledger.channels(node=bytes(32)) == ()
    assert ledger.channels(states=("open",)) == ()
    ledger.set_channel_state(CHANNEL, "open")
    assert [row.id for row in ledger.channels(node=NODE, states=("open",))] == [CHANNEL]
    ledger.close()


def test_a_top_up_is_begun_once_and_finished_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    begun = ledger.begin_top_up(CHANNEL, 7)
    assert (begun.top_ups, begun.pending_top_up, begun.deposit) == (1, 7, 10**18)
    with pytest.raises(PaymentError):
        ledger.begin_top_up(CHANNEL, 8)
    ledger.close()
    ledger = opened(tmp_path)
    assert ledger.channel(CHANNEL).pending_top_up == 7
    done = ledger.finish_top_up(CHANNEL)
    assert (done.top_ups, done.pending_top_up, done.deposit) == (1, 0, 10**18 + 7)
    assert ledger.begin_top_up(CHANNEL, 8).top_ups == 2
    ledger.close()


def test_doubts_about_lost_requests_end_when_they_can_cost_nothing_more(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    old, young = request(100, NOW - LOST_S - 1), request(100, NOW - 60)
    for lost in (old, young):
        ledger.reserve(lost, daily_cap=10**6)
        ledger.lose(lost.id, "cut")
    row = request(50)
    ledger.reserve(row, daily_cap=10**6)
    complete(ledger, row, receipt(10, 70))
    assert ledger.channel(CHANNEL).account.lost == 200
    later = request(50)
    ledger.reserve(later, daily_cap=10**6)
    complete(ledger, later, receipt(10, 80, LOST_S + 1))
    account = ledger.channel(CHANNEL).account
    assert (account.lost, account.verified, account.cumulative, account.exposure) == (0, 80, 80, 80)
    ledger.close()


CHANNELS_1 = """
CREATE TABLE channels (
  id BLOB PRIMARY KEY, node BLOB NOT NULL, salt INTEGER NOT NULL, initial_data BLOB NOT NULL,
  state TEXT NOT NULL, deposit TEXT NOT NULL, cap TEXT NOT NULL, cumulative TEXT NOT NULL,
  verified TEXT NOT NULL, lost TEXT NOT NULL, in_flight TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;
INSERT INTO channels VALUES (x'01', x'02', 7, x'03', 'open', '1000', '500', '40', '30', '20', '10', 99);
"""
"""Version 1 as it was first; later files of version 1 had the columns of version 2 already."""


def _version_1(directory: Path, *, with_columns: bool) -> None:
    """A ledger as an older client left it."""
    opened(directory).close()
    with sqlite3.connect(directory / "ledger.sqlite3") as db:
        db.execute("PRAGMA user_version = 1")
        if not with_columns:
            db.execute("DROP TABLE channels")
            db.executescript(CHANNELS_1)
    db.close()


def test_a_ledger_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    _version_1(tmp_path, with_columns=False)
    ledger = Ledger(tmp_path)
    (row,) = ledger.channels()
    assert (row.id, row.salt, row.state, row.deposit, row.created_at) == (b"\x01", 7, "open", 1000, 99)
    assert (row.account.lost, row.account.in_flight, row.top_ups, row.pending_top_up) == (20, 10, 0, 0)
    begun = ledger.begin_top_up(b"\x01", 5)
    assert (begun.top_ups, begun.pending_top_up) == (1, 5)
    assert ledger.finish_top_up(b"\x01").deposit == 1005
    ledger.plan_channel(id=CHANNEL, node=NODE, salt=1, initial_data=b"d", deposit=3, now=NOW)
    assert (ledger.channel(CHANNEL).created_at, ledger.channel(CHANNEL).top_ups) == (NOW, 0)
    ledger.close()
    again = Ledger(tmp_path)  # nothing is done twice
    assert again.channel(b"\x01").top_ups == 1
    again.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    db.close()


def test_a_ledger_of_version_1_that_has_the_columns_keeps_them(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.begin_top_up(CHANNEL, 5)
    ledger.close()
    _version_1(tmp_path, with_columns=True)
    ledger = Ledger(tmp_path)
    assert ledger.channel(CHANNEL).pending_top_up == 5
    ledger.drop_top_up(CHANNEL)
    assert (ledger.channel(CHANNEL).pending_top_up, ledger.channel(CHANNEL).deposit) == (0, 10**18)
    ledger.close()
