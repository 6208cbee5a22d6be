"""Sealed responses: order, completeness and the state machines of both sides."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import CocoonError, MalformedError, SealingError
from cocoon_attestation.sealing import (
    MAX_CHUNK,
    ResponseOpener,
    ResponseSealer,
    SealKeyPair,
    open_request,
    seal_request,
)
from cocoon_attestation.verified import VerifiedEnclave

NOW = 1_800_000_000
KEYS = [SealKeyPair(bytes([number]) * 32) for number in range(1, 4)]
IssueEnclave = Callable[..., VerifiedEnclave]
Pair = Callable[[], tuple[ResponseSealer, ResponseOpener]]


@pytest.fixture(scope="module")
def enclaves(issue_enclave: IssueEnclave) -> list[VerifiedEnclave]:
    return [issue_enclave(key, now=NOW) for key in KEYS]


@pytest.fixture(scope="module")
def pair(enclaves: list[VerifiedEnclave]) -> Pair:
    def make() -> tuple[ResponseSealer, ResponseOpener]:
        sealed, opener = seal_request(enclaves[:1], b"request", now=NOW)
        return open_request(KEYS, sealed).response_sealer, opener

    return make


@settings(max_examples=50)
@given(head=st.binary(max_size=300), pieces=st.lists(st.binary(max_size=300), max_size=8), tail=st.binary())
def test_round_trip(pair: Pair, head: bytes, pieces: list[bytes], tail: bytes) -> None:
    sealer, opener = pair()
    assert opener.sender is None
    assert opener.head(sealer.head(head)) == head
    assert opener.sender is not None
    assert [opener.data(sealer.data(piece)) for piece in pieces] == pieces
    assert not opener.finished
    assert opener.final(sealer.final(tail)) == tail
    assert opener.finished
    assert sealer.finished
    opener.close()


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_the_client_learns_who_answered(enclaves: list[VerifiedEnclave], chosen: int) -> None:
    sealed, opener = seal_request(enclaves, b"request", now=NOW)
    sealer = open_request([KEYS[chosen]], sealed).response_sealer
    assert opener.head(sealer.head(b"h")) == b"h"
    assert opener.sender is enclaves[chosen]
    assert opener.final(sealer.final(b"f")) == b"f"


def test_closing_early_is_truncation(pair: Pair) -> None:
    sealer, opener = pair()
    with pytest.raises(SealingError):
        opener.close()
    sealer, opener = pair()
    opener.head(sealer.head(b""))
    opener.data(sealer.data(b"x"))
    with pytest.raises(SealingError):
        opener.close()
    with pytest.raises(SealingError):
        opener.final(sealer.final(b""))
    assert not opener.finished


def test_nothing_is_accepted_after_the_final_chunk(pair: Pair) -> None:
    for again in ("head", "data", "final"):
        sealer, opener = pair()
        opener.head(sealer.head(b""))
        final = sealer.final(b"")
        opener.final(final)
        with pytest.raises(SealingError):
            getattr(opener, again)(final)
        assert not opener.finished
        with pytest.raises(SealingError):
            opener.close()


def test_the_first_error_is_the_last_word(pair: Pair) -> None:
    sealer, opener = pair()
    opener.head(sealer.head(b""))
    good = sealer.data(b"x")
    with pytest.raises(SealingError):
        opener.data(good[:-1])
    with pytest.raises(SealingError):
        opener.data(good)


@pytest.mark.parametrize("frame", [b"", bytes(31), bytes(32), bytes(48), bytes(400), bytes(1 << 22)])
def test_garbage_is_refused_in_every_state(pair: Pair, frame: bytes) -> None:
    for method in ("head", "data", "final"):
        sealer, opener = pair()
        if method != "head":
            opener.head(sealer.head(b""))
        with pytest.raises(SealingError):
            getattr(opener, method)(frame)


@settings(max_examples=60)
@given(data=st.data())
def test_every_changed_byte_is_refused(pair: Pair, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["head", "data", "final"]))
    sealer, opener = pair()
    head = sealer.head(b"head")
    if kind != "head":
        opener.head(head)
    frame = bytearray(head if kind == "head" else getattr(sealer, kind)(b"text"))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealingError):
        getattr(opener, kind)(bytes(frame))


def test_errors_say_nothing(pair: Pair) -> None:
    """One message for every cause, and no chained exception that would tell them apart."""
    seen = set()
    for frame in (b"", bytes(500)):
        _, opener = pair()
        with pytest.raises(SealingError) as caught:
            opener.head(frame)
        seen.add(str(caught.value))
        assert caught.value.__cause__ is None
    assert len(seen) == 1


def test_sealer_refuses_wrong_order(pair: Pair) -> None:
    sealer, _ = pair()
    for method in (sealer.data, sealer.final):
        with pytest.raises(CocoonError):
            method(b"")
    sealer.head(b"")
    with pytest.raises(CocoonError):
        sealer.head(b"")
    sealer.final(b"")
    for method in (sealer.head, sealer.data, sealer.final):
        with pytest.raises(CocoonError):
            method(b"")


def test_a_refused_chunk_does_not_cost_a_position(pair: Pair) -> None:
    sealer, opener = pair()
    opener.head(sealer.head(b""))
    with pytest.raises(MalformedError):
        sealer.data(bytes(MAX_CHUNK + 1))
    assert opener.data(sealer.data(bytes(MAX_CHUNK))) == bytes(MAX_CHUNK)


def test_two_answers_to_one_request_have_different_keys(enclaves: list[VerifiedEnclave]) -> None:
    sealed, opener = seal_request(enclaves[:1], b"request", now=NOW)
    first = open_request(KEYS, sealed).response_sealer
    second = open_request(KEYS, sealed).response_sealer
    assert first.head(b"x")[32:] != second.head(b"x")[32:]
    opener.head(open_request(KEYS, sealed).response_sealer.head(b"y"))
    with pytest.raises(SealingError):
        opener.data(first.data(b"x"))


def test_state_cannot_be_copied(pair: Pair) -> None:
    for machine in pair():
        with pytest.raises(TypeError):
            copy.deepcopy(machine)
        with pytest.raises(TypeError):
            pickle.dumps(machine)


def test_chunks_of_one_class_have_one_length(pair: Pair) -> None:
    sealer, _ = pair()
    sealer.head(b"")
    assert {len(sealer.data(b"x" * length)) for length in range(61)} == {64 + 16}
