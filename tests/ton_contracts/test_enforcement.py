"""Codecs of what a node keeps to hold its owner to receipts, against cells written here by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_ton import enforcement
from cocoon_ton.cells import finish, write_dict
from cocoon_ton.enforcement import (
    AnchorEntry,
    AnchorHistory,
    parse_challenges,
    parse_history,
    parse_retired,
)
from cocoon_ton.node_messages import CHALLENGE_DEPOSIT_VALUE, NODE_MESSAGE_VALUE, challenge_value

BYTES32 = st.binary(min_size=32, max_size=32)
few = settings(max_examples=60, deadline=None)


def page(
    entries: list[tuple[int, int]], *, older: Cell | None = None, previous: Cell | None = None
) -> Cell:
    builder = Builder().store_maybe_ref(older).store_maybe_ref(previous)
    builder.store_uint(entries[0][0] if entries else 0, 32)
    for at, size in entries:
        builder.store_uint(at, 32).store_uint(size, 64)
    return finish(builder)


def chain(pages: list[list[tuple[int, int]]], *, older: Cell | None = None) -> Cell:
    """Pages of one generation, oldest first; `older` goes into the newest."""
    cell: Cell | None = None
    for number, entries in enumerate(pages, start=1):
        cell = page(entries, previous=cell, older=older if number == len(pages) else None)
    assert cell is not None
    return cell


@few
@given(
    steps=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 50)), min_size=1, max_size=60),
    per_page=st.integers(1, 10),
    older_pages=st.integers(0, 3),
    probe=st.integers(0, 40_000),
)
def test_history(steps: list[tuple[int, int]], per_page: int, older_pages: int, probe: int) -> None:
    at, size, entries = 0, 0, [(0, 0)]
    for seconds, leaves in steps:
        at, size = at + seconds, size + leaves
        entries.append((at, size))
    pages = [entries[i : i + per_page] for i in range(0, len(entries), per_page)]
    cut = min(older_pages, len(pages) - 1)
    cell = chain(pages[cut:], older=chain(pages[:cut]) if cut else None)
    history = parse_history(cell)
    assert [(e.anchored_at, e.tree_size) for e in history.entries] == entries
    assert history.size_by(probe) == max(s for a, s in entries if a <= probe)


def test_history_that_was_cut_off_says_that_it_does_not_know() -> None:
    history = AnchorHistory((AnchorEntry(anchored_at=100, tree_size=7),))
    assert history.size_by(99) is None
    assert history.size_by(100) == 7
    assert AnchorHistory().size_by(5) == 0
    assert parse_history(None) == AnchorHistory()


@pytest.mark.parametrize(
    "cell",
    [
        page([]),
        page([(5, 2), (4, 3)]),
        page([(5, 2), (6, 2)]),
        page([(5, 2), (6, 1)]),
        page([(5, 9)], previous=page([(6, 1)])),
        page([(5, 9)], previous=page([(1, 1)], older=page([(0, 0)]))),
        finish(Builder().store_bits("00").store_uint(1, 32).store_uint(1, 97)),
        finish(Builder()),
        finish(Builder().store_bits("10").store_uint(1, 32).store_uint(1, 96)),
        finish(
            Builder().store_bits("00").store_uint(1, 32).store_uint(1, 96).store_ref(Builder().end_cell())
        ),
    ],
)
def test_broken_history_is_malformed(cell: Cell) -> None:
    with pytest.raises(MalformedError):
        parse_history(cell)


def test_endless_history_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = page([(1, 1)])
    for number in range(2, 400):
        cell = page([(number, number)], previous=cell)
    assert len(parse_history(cell).entries) == 399
    monkeypatch.setattr(enforcement, "MAX_PAGES", 100)
    with pytest.raises(MalformedError):
        parse_history(cell)


def keys(entries: dict[bytes, bytes]) -> Cell | None:
    table = {int.from_bytes(hash): value for hash, value in entries.items()}
    return write_dict(table, 256, lambda value: finish(Builder().store_bytes(value)))


def retired(recent: dict[bytes, bytes], older: dict[bytes, bytes], count: int) -> Cell:
    builder = Builder().store_uint(50, 32).store_uint(40, 32).store_uint(count, 8)
    return finish(builder.store_dict(keys(recent)).store_dict(keys(older)))


@few
@given(st.dictionaries(BYTES32, BYTES32, max_size=8), st.dictionaries(BYTES32, BYTES32, max_size=8))
def test_retired_keys(recent: dict[bytes, bytes], older: dict[bytes, bytes]) -> None:
    found = parse_retired(retired(recent, older, len(recent)))
    assert found.keys == older | recent
    assert found.until == 50
    if recent:
        with pytest.raises(MalformedError):
            parse_retired(retired(recent, older, len(recent) - 1))


def test_no_retired_keys() -> None:
    found = parse_retired(None)
    assert (found.keys, found.until) == ({}, 0)


@few
@given(
    st.dictionaries(
        BYTES32,
        st.tuples(
            BYTES32,
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**64 - 1),
            BYTES32,
            st.booleans(),
            st.integers(0, 2**32 - 1),
        ),
        max_size=6,
    )
)
def test_challenges(entries: dict[bytes, tuple[bytes, int, int, int, bytes, bool, int]]) -> None:
    def cell(entry: tuple[bytes, int, int, int, bytes, bool, int]) -> Cell:
        challenger, deposit, index, size, root, slashed, deadline = entry
        builder = Builder().store_address(Address((0, challenger))).store_uint(deposit, 64)
        builder.store_uint(index, 64).store_uint(size, 64).store_bytes(root)
        return finish(builder.store_bool(slashed).store_uint(deadline, 32))

    found = parse_challenges(write_dict({int.from_bytes(h): e for h, e in entries.items()}, 256, cell))
    assert {
        c.receipt_hash: (
            bytes(c.challenger.hash_part),
            c.deposit,
            c.index,
            c.tree_size,
            c.root,
            c.slashed,
            c.deadline,
        )
        for c in found
    } == entries
    for challenge in found:
        assert challenge.awaits_answer(challenge.deadline) is not challenge.slashed
        assert not challenge.awaits_answer(challenge.deadline + 1)


def test_the_value_of_a_challenge_doubles_with_every_sixteen() -> None:
    for opened, factor in ((0, 1), (15, 1), (16, 2), (31, 2), (32, 4), (239, 1 << 14)):
        assert challenge_value(opened) == NODE_MESSAGE_VALUE + factor * CHALLENGE_DEPOSIT_VALUE
