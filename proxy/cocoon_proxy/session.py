"""A verified session with one node, as a pure state machine.

One session carries many requests. It may be used for new requests while the appraisal behind it is
fresh; requests in flight may finish after that. It ends for good when the stream ends, when the peer
breaks the frame rules, or when the node shows other keys: then a new appraisal is needed, never a
silent switch. No I/O, no clock: frames and `now` in, values out.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.errors import MalformedError

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Ciphertext of one answer; a longer one ends the request."""
MAX_BUFFERED_BYTES: Final = 16 * 1024 * 1024
"""Ciphertext that waits for a slow consumer; more ends the request."""
MAX_FRAMES: Final = 256
"""Most frames of one message, in either direction."""
MAX_BATCH_BYTES: Final = 64 * 1024
"""Most bytes of frames in a message to the enclave that has more than one."""
RENEW_MARGIN_S: Final = 5
"""New requests go to a session only if it stays fresh for this long."""


class FrameKind(enum.Enum):
    """What a frame from the enclave is."""

    HEAD = "head"
    DATA = "data"
    FINAL = "final"
    ERROR = "error"
    LOST = "lost"
    """Made here, not received: the session ended first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of one request, still sealed."""

    kind: FrameKind
    payload: bytes = field(default=b"", repr=False)
    code: str = ""
    """Of an error or of the end of the session."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A frame for the request with this number."""

    number: int
    frame: Frame


@dataclass(slots=True)
class _Request:
    head_seen: bool = False
    cancelled: bool = False
    received: int = 0
    buffered: int = 0


class SessionMachine:
    """Numbers, frame order, limits and freshness of one session."""

    def __init__(self, *, binding_hash: bytes, expires_at: float) -> None:
        self.binding_hash = binding_hash
        self.expires_at = expires_at
        self.closed_reason = ""
        self._next = 1
        self._requests: dict[int, _Request] = {}

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._requests)

    def usable(self, now: float) -> bool:
        """True if a new request may be sent."""
        return not self.closed_reason and now + RENEW_MARGIN_S < self.expires_at

    def drained(self, now: float) -> bool:
        """True if the session serves no purpose any more and its connection may be closed."""
        return bool(self.closed_reason) or (not self.usable(now) and not self._requests)

    def open(self, sealed: bytes) -> tuple[int, wire.RequestFrame]:
        """Start a request: its number, and the frame to send."""
        number = self._next
        self._next += 1
        self._requests[number] = _Request()
        return number, wire.RequestFrame(request_number=number, open=sealed)

    def cancel(self, number: int) -> wire.RequestFrame | None:
        """Ask the enclave to stop: the frame to send, or None if the request ended or was cancelled.

        The request stays known: its final frame, with the receipt for what was done, may still come.
        """
        request = self._requests.get(number)
        if request is None or request.cancelled:
            return None
        request.cancelled = True
        return wire.RequestFrame(request_number=number, cancel=True)

    def forget(self, number: int) -> None:
        """End a request on this side; late frames for it are ignored."""
        self._requests.pop(number, None)

    def receive(self, message: wire.ResponseFrame) -> tuple[Delivery, ...]:
        """Take a frame from the enclave: what to deliver; nothing for a request that was forgotten here.

        Number 0 is the session itself: the enclave does not take it, so requests without an answer yet
        were refused.

        Raises:
            MalformedError: the frame breaks the rules; the session must be closed.
        """
        number = message.request_number
        if number == 0 and message.WhichOneof("frame") == "error":
            return self._refused(_parse(message))
        if not 0 < number < self._next:
            raise MalformedError("frame of a request that was never made")
        request = self._requests.get(number)
        frame = _parse(message)
        if request is None:
            return ()
        if frame.kind is FrameKind.HEAD and request.head_seen:
            raise MalformedError("second head frame")
        if frame.kind in (FrameKind.DATA, FrameKind.FINAL) and not request.head_seen:
            raise MalformedError("body frame without head")
        request.head_seen = True
        request.received += len(frame.payload)
        request.buffered += len(frame.payload)
        if frame.kind in (FrameKind.FINAL, FrameKind.ERROR):
            del self._requests[number]
        elif request.received > MAX_ANSWER_BYTES or request.buffered > MAX_BUFFERED_BYTES:
            del self._requests[number]
            frame = Frame(kind=FrameKind.LOST, code="too_large", message="the answer is too large")
        return (Delivery(number=number, frame=frame),)

    def _refused(self, error: Frame) -> tuple[Delivery, ...]:
        untouched = [number for number, request in self._requests.items() if not request.head_seen]
        for number in untouched:
            del self._requests[number]
        refused = tuple(Delivery(number=number, frame=error) for number in untouched)
        return refused + self.close(f"the node refused the session: {error.code}")

    def consumed(self, number: int, size: int) -> None:
        """The consumer took `size` payload bytes of a request from its buffer."""
        request = self._requests.get(number)
        if request is not None:
            request.buffered -= size

    def close(self, reason: str) -> tuple[Delivery, ...]:
        """End the session; one LOST delivery for every request in flight."""
        if not self.closed_reason:
            self.closed_reason = reason
        lost = Frame(kind=FrameKind.LOST, code="session_ended", message=reason)
        deliveries = tuple(Delivery(number=number, frame=lost) for number in self._requests)
        self._requests.clear()
        return deliveries


def frames_of(message: wire.SessionResponse) -> Sequence[wire.ResponseFrame]:
    """The frames of a message, in order; give each to `SessionMachine.receive`.

    Raises:
        MalformedError: none, or too many; the session must be closed.
    """
    if not 1 <= len(message.frames) <= MAX_FRAMES:
        raise MalformedError("a session message without frames, or with too many")
    return message.frames


def batch(waiting: deque[wire.RequestFrame]) -> wire.SessionRequest:
    """Take from `waiting` what fits in one message; it must not be empty."""
    frames = [waiting.popleft()]
    size = frames[0].ByteSize()
    while waiting and len(frames) < MAX_FRAMES:
        size += waiting[0].ByteSize()
        if size > MAX_BATCH_BYTES:
            break
        frames.append(waiting.popleft())
    return wire.SessionRequest(frames=frames)


def _parse(message: wire.ResponseFrame) -> Frame:
    match message.WhichOneof("frame"):
        case "head":
            return Frame(kind=FrameKind.HEAD, payload=message.head)
        case "data":
            return Frame(kind=FrameKind.DATA, payload=message.data)
        case "final":
            return Frame(kind=FrameKind.FINAL, payload=message.final)
        case "error":
            return Frame(
                kind=FrameKind.ERROR, code=message.error.code[:64], message=message.error.message[:500]
            )
        case _:
            raise MalformedError("empty frame")
