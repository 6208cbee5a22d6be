"""A9: a relay drops, reorders, truncates, replays or splices the chunks of one or two streams.

The relay sees frames and may do with them what it likes. Whatever it does, the client either shows a
prefix of the true answer and then an error, or the whole true answer; never a wrong answer, and never an
incomplete one as complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import SealingError
from cocoon_attestation.sealing import ResponseOpener, SealKeyPair, open_request, seal_request
from cocoon_attestation.verified import VerifiedEnclave

NOW = 1_800_000_000
KEY = SealKeyPair(b"\x01" * 32)
IssueEnclave = Callable[..., VerifiedEnclave]
Frame = tuple[str, bytes]


@dataclass(frozen=True)
class Stream:
    """One answer as it left the enclave, and the client that waits for it."""

    opener: ResponseOpener
    frames: list[Frame]
    plain: list[bytes]


Answer = Callable[[str, int], Stream]


@pytest.fixture(scope="module")
def answer(issue_enclave: IssueEnclave) -> Answer:
    enclave = issue_enclave(KEY, now=NOW)
    return lambda name, pieces: make_answer(enclave, name, pieces)


def make_answer(enclave: VerifiedEnclave, name: str, pieces: int) -> Stream:
    sealed, opener = seal_request([enclave], b"request " + name.encode(), now=NOW)
    sealer = open_request([KEY], sealed).response_sealer
    texts = [f"{name} {number}".encode() for number in range(pieces)]
    frames = [("head", sealer.head(b"head " + name.encode()))]
    frames += [("data", sealer.data(text)) for text in texts]
    frames.append(("final", sealer.final(b"final " + name.encode())))
    return Stream(opener, frames, [b"head " + name.encode(), *texts, b"final " + name.encode()])


def deliver(opener: ResponseOpener, frames: Sequence[Frame]) -> tuple[list[bytes], bool]:
    """What a client shows, and whether it calls it complete."""
    shown = []
    try:
        for kind, frame in frames:
            shown.append(getattr(opener, kind)(frame))
        opener.close()
    except SealingError:
        return shown, False
    return shown, opener.finished


def test_untouched_stream(answer: Answer) -> None:
    stream = answer("a", 4)
    assert deliver(stream.opener, stream.frames) == (stream.plain, True)


@pytest.mark.parametrize("position", range(6))
def test_drop(answer: Answer, position: int) -> None:
    stream = answer("a", 4)
    shown, complete = deliver(stream.opener, stream.frames[:position] + stream.frames[position + 1 :])
    assert not complete
    assert shown == stream.plain[:position]


@pytest.mark.parametrize("length", range(6))
def test_truncate(answer: Answer, length: int) -> None:
    stream = answer("a", 4)
    assert deliver(stream.opener, stream.frames[:length]) == (stream.plain[:length], False)


@pytest.mark.parametrize("position", range(5))
def test_reorder(answer: Answer, position: int) -> None:
    stream = answer("a", 4)
    frames = list(stream.frames)
    frames[position], frames[position + 1] = frames[position + 1], frames[position]
    assert deliver(stream.opener, frames) == (stream.plain[:position], False)


@pytest.mark.parametrize("position", range(6))
def test_replay_within_a_stream(answer: Answer, position: int) -> None:
    stream = answer("a", 4)
    frames = [*stream.frames[: position + 1], *stream.frames[position:]]
    assert deliver(stream.opener, frames) == (stream.plain[: position + 1], False)


@pytest.mark.parametrize("position", range(6))
def test_splice_from_another_answer(answer: Answer, position: int) -> None:
    """Also when both answers come from one enclave to one client, chunk for chunk."""
    stream, other = answer("a", 4), answer("b", 4)
    frames = [*stream.frames[:position], *other.frames[position:]]
    assert deliver(stream.opener, frames) == (stream.plain[:position], False)


@pytest.mark.parametrize("position", range(1, 6))
def test_splice_from_a_second_run_of_the_same_request(issue_enclave: IssueEnclave, position: int) -> None:
    """A host that makes the enclave answer one request twice cannot mix the two answers."""
    enclave = issue_enclave(KEY, now=NOW)
    sealed, opener = seal_request([enclave], b"request", now=NOW)
    runs: list[list[Frame]] = []
    for name in (b"x", b"y"):
        sealer = open_request([KEY], sealed).response_sealer
        run = [("head", sealer.head(name)), *(("data", sealer.data(name)) for _ in range(4))]
        runs.append([*run, ("final", sealer.final(name))])
    shown, complete = deliver(opener, [*runs[0][:position], *runs[1][position:]])
    assert not complete
    assert shown == [b"x"] * position


def test_replay_of_a_whole_old_answer(answer: Answer) -> None:
    old, new = answer("old", 2), answer("new", 2)
    assert deliver(new.opener, old.frames) == ([], False)


@pytest.mark.parametrize("claimed", ["head", "data", "final"])
@pytest.mark.parametrize("position", range(6))
def test_a_frame_passed_off_as_another_type(answer: Answer, position: int, claimed: str) -> None:
    """Above all: a data chunk passed off as the final one would end the answer early."""
    stream = answer("a", 4)
    kind, frame = stream.frames[position]
    if kind == claimed:
        return
    shown, complete = deliver(stream.opener, [*stream.frames[:position], (claimed, frame)])
    assert (shown, complete) == (stream.plain[:position], False)


@pytest.mark.parametrize("extra", ["head", "data", "final"])
def test_frames_after_the_end(answer: Answer, extra: str) -> None:
    stream = answer("a", 1)
    shown, complete = deliver(stream.opener, [*stream.frames, (extra, stream.frames[1][1])])
    assert (shown, complete) == (stream.plain, False)


@settings(max_examples=150)
@given(data=st.data())
def test_any_schedule_of_a_relay(answer: Answer, data: st.DataObject) -> None:
    """Any sequence of frames of two streams: a true prefix and an error, or the whole true answer."""
    stream, other = answer("a", 3), answer("b", 3)
    pool = stream.frames + other.frames
    start = data.draw(st.integers(0, len(stream.frames)))
    rest = data.draw(st.lists(st.sampled_from(pool), max_size=8))
    schedule = [*stream.frames[:start], *rest]
    shown, complete = deliver(stream.opener, schedule)
    assert shown == stream.plain[: len(shown)]
    assert complete == (schedule == stream.frames)
    assert stream.opener.finished == complete
