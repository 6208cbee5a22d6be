"""The session state machine: frame order, limits, freshness; arbitrary frames do no harm."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.errors import MalformedError
from cocoon_proxy import session as s
from cocoon_proxy.session import FrameKind, SessionMachine


def machine(expires_at: float = 1000.0) -> SessionMachine:
    return SessionMachine(binding_hash=bytes(32), expires_at=expires_at)


def frame(number: int, kind: str, payload: bytes = b"x") -> wire.ResponseFrame:
    return wire.ResponseFrame(request_number=number, **{kind: payload})  # type: ignore[arg-type]


def error(number: int, code: str = "node_busy") -> wire.ResponseFrame:
    return wire.ResponseFrame(request_number=number, error=wire.SessionError(code=code, message="m"))


def test_an_answer_passes_in_order_and_ends() -> None:
    m = machine()
    number, sent = m.open(b"sealed")
    assert (number, sent.request_number, sent.open) == (1, 1, b"sealed")
    kinds = [m.receive(frame(1, kind))[0].frame.kind for kind in ("head", "data", "data", "final")]
    assert kinds == [FrameKind.HEAD, FrameKind.DATA, FrameKind.DATA, FrameKind.FINAL]
    assert m.in_flight == 0
    assert m.receive(frame(1, "data")) == ()


def test_numbers_are_never_used_twice() -> None:
    m = machine()
    numbers = [m.open(b"")[0] for _ in range(3)]
    for number in numbers:
        m.forget(number)
    assert m.open(b"")[0] == 4


@pytest.mark.parametrize(
    "frames",
    [
        [frame(2, "head")],
        [frame(0, "head")],
        [frame(1, "data")],
        [frame(1, "final")],
        [frame(1, "head"), frame(1, "head")],
        [wire.ResponseFrame(request_number=1)],
    ],
)
def test_frames_against_the_rules_are_refused(frames: list[wire.ResponseFrame]) -> None:
    m = machine()
    m.open(b"")
    for good in frames[:-1]:
        m.receive(good)
    with pytest.raises(MalformedError):
        m.receive(frames[-1])


def test_freshness_has_a_margin_and_an_end() -> None:
    m = machine(expires_at=1000.0)
    assert m.usable(1000.0 - s.RENEW_MARGIN_S - 0.1)
    assert not m.usable(1000.0 - s.RENEW_MARGIN_S)
    m.open(b"")
    assert not m.drained(2000.0)
    m.forget(1)
    assert m.drained(2000.0)
    assert not m.drained(0.0)


def test_closing_loses_what_is_in_flight() -> None:
    m = machine()
    m.open(b"")
    m.open(b"")
    m.receive(error(1))
    lost = m.close("gone")
    assert [(d.number, d.frame.kind, d.frame.message) for d in lost] == [(2, FrameKind.LOST, "gone")]
    assert m.close("again") == ()
    assert m.closed_reason == "gone"
    assert not m.usable(0.0)


def test_cancel_keeps_the_request_until_its_last_frame() -> None:
    m = machine()
    m.open(b"")
    sent = m.cancel(1)
    assert sent is not None
    assert sent.cancel
    assert m.cancel(1) is None
    m.receive(frame(1, "head"))
    (delivery,) = m.receive(frame(1, "final"))
    assert delivery.frame.kind is FrameKind.FINAL
    assert m.cancel(1) is None


def test_an_answer_that_never_ends_is_ended() -> None:
    m = machine()
    m.open(b"")
    m.receive(frame(1, "head"))
    payload = bytes(1 << 20)
    kinds = []
    for _ in range(s.MAX_ANSWER_BYTES // len(payload) + 1):
        kinds += [(d.frame.kind, d.frame.code) for d in m.receive(frame(1, "data", payload))]
        m.consumed(1, len(payload))
    assert kinds[-1] == (FrameKind.LOST, "too_large")
    assert len(kinds) >= s.MAX_ANSWER_BYTES // len(payload)


def test_a_slow_consumer_is_bounded() -> None:
    m = machine()
    m.open(b"")
    m.receive(frame(1, "head"))
    kinds = []
    for _ in range(s.MAX_BUFFERED_BYTES // (1 << 20) + 1):
        kinds += [d.frame.kind for d in m.receive(frame(1, "data", bytes(1 << 20)))]
    assert kinds[-1] is FrameKind.LOST
    assert m.in_flight == 0


def test_a_refused_session_refuses_what_was_not_begun() -> None:
    m = machine()
    m.open(b"")
    m.open(b"")
    m.receive(frame(1, "head"))
    got = {d.number: d.frame.kind for d in m.receive(error(0))}
    assert got == {2: FrameKind.ERROR, 1: FrameKind.LOST}
    assert m.closed_reason


def test_messages_without_frames_or_with_too_many_are_refused() -> None:
    for count in (0, s.MAX_FRAMES + 1):
        with pytest.raises(MalformedError):
            s.frames_of(wire.SessionResponse(frames=[frame(1, "data")] * count))
    full = wire.SessionResponse(frames=[frame(1, "data")] * s.MAX_FRAMES)
    assert len(s.frames_of(full)) == s.MAX_FRAMES


@given(
    st.lists(st.one_of(st.integers(0, 200), st.sampled_from([40_000, 70_000])), min_size=1, max_size=400)
)
def test_what_waits_is_sent_in_order_and_within_the_limits(sizes: list[int]) -> None:
    waiting = deque(
        wire.RequestFrame(request_number=n, open=bytes(size)) for n, size in enumerate(sizes, 1)
    )
    sent: list[int] = []
    while waiting:
        message = s.batch(waiting)
        assert 1 <= len(message.frames) <= s.MAX_FRAMES
        assert len(message.frames) == 1 or message.ByteSize() <= s.MAX_BATCH_BYTES + 4 * s.MAX_FRAMES
        sent += [frame.request_number for frame in message.frames]
    assert sent == list(range(1, len(sizes) + 1))


_KINDS = st.sampled_from(["head", "data", "final", "error"])


@given(
    st.lists(st.tuples(st.integers(1, 3), _KINDS), max_size=20),
    st.lists(st.integers(1, 5), min_size=20, max_size=20),
)
def test_how_frames_are_grouped_into_messages_changes_nothing(
    frames: list[tuple[int, str]], groups: list[int]
) -> None:
    """A relay that cuts messages anew delivers the same, up to the same bad frame."""

    def run(messages: list[wire.SessionResponse]) -> list[tuple[int, FrameKind]]:
        m, got = machine(), []
        for _ in range(3):
            m.open(b"")
        try:
            for message in messages:
                for received in s.frames_of(message):
                    got += [(d.number, d.frame.kind) for d in m.receive(received)]
        except MalformedError:
            pass
        return got + [(d.number, d.frame.kind) for d in m.close("end")]

    made = [error(number) if kind == "error" else frame(number, kind) for number, kind in frames]
    grouped, at = [], 0
    for size in groups:
        if made[at : at + size]:
            grouped.append(wire.SessionResponse(frames=made[at : at + size]))
        at += size
    assert run(grouped) == run([wire.SessionResponse(frames=[one]) for one in made])


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["head", "data", "final", "error", ""]))))
def test_arbitrary_frames_raise_only_malformed(frames: list[tuple[int, str]]) -> None:
    m = machine()
    for _ in range(3):
        m.open(b"")
    ended: set[int] = set()
    for number, kind in frames:
        if kind == "error":
            message = error(number)
        else:
            message = wire.ResponseFrame(request_number=number)
            if kind:
                message = frame(number, kind)
        try:
            deliveries = m.receive(message)
        except MalformedError:
            break
        for delivery in deliveries:
            assert delivery.number not in ended
            if delivery.frame.kind not in (FrameKind.HEAD, FrameKind.DATA):
                ended.add(delivery.number)
    assert m.in_flight == 3 - len(ended)
