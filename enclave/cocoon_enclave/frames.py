"""What one session has to send, cut into messages. Sans-I/O.

A message costs the same whether it holds one frame or a hundred, so `FrameQueue.batch` takes everything that
is ready when the writer comes around: as a rule the frames of one engine step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from cocoon.v1 import inference_service_pb2 as wire

MAX_FRAMES: Final = 256
"""Most frames of one message, in either direction."""
MAX_BATCH_BYTES: Final = 256 * 1024
"""Most bytes of frames in a message to the client that has more than one."""
CLIENT_BATCH_BYTES: Final = 64 * 1024
"""Most bytes of frames in a message from the client that has more than one."""


FRAME_OVERHEAD: Final = 24
"""More than a frame adds to its payload in bytes: number, kind and lengths."""

Frame = tuple[int, str, bytes | wire.SessionError]
"""Request number, kind (the field of `ResponseFrame`) and payload. Bare, because one is made for every token."""


def message(frames: Iterable[Frame]) -> wire.SessionResponse:
    """The message that carries `frames`."""
    response = wire.SessionResponse()
    add = response.frames.add
    for number, kind, payload in frames:
        frame = add()
        frame.request_number = number
        if isinstance(payload, bytes):
            setattr(frame, kind, payload)
        else:
            frame.error.CopyFrom(payload)
    return response


def _size(frame: Frame) -> int:
    payload = frame[2]
    return FRAME_OVERHEAD + (len(payload) if isinstance(payload, bytes) else payload.ByteSize())


class Source(Protocol):
    """A request that has frames to send; `exchange.Exchange`."""

    number: int
    done: bool
    """True once nothing more will come out of `take`."""

    def take(self) -> list[Frame]:
        """Everything that is ready, merged into as few frames as possible."""
        ...


class FrameQueue:
    """Frames of all requests of a session, on their way to the writer."""

    def __init__(self) -> None:
        self._unsent: deque[Frame] = deque()
        """Frames that are made: bare errors, and what did not fit in the last message."""
        self._ready: deque[Source] = deque()
        self._queued: set[Source] = set()
        self._done: list[Source] = []

    @property
    def empty(self) -> bool:
        """True if every frame that was made has been taken."""
        return not self._unsent

    @property
    def full(self) -> bool:
        """True while no further frame of the session's own should be made: the client does not read."""
        return len(self._unsent) >= MAX_FRAMES

    def waiting(self, source: Source) -> bool:
        """True if `source` was notified and not taken from since."""
        return source in self._queued

    def push(self, frame: Frame) -> None:
        """Queue a frame of the session's own."""
        self._unsent.append(frame)

    def notify(self, source: Source) -> None:
        """Note that `source` has something. Its text is sealed only when there is room for it."""
        if source not in self._queued:
            self._queued.add(source)
            self._ready.append(source)

    def batch(self) -> list[Frame]:
        """Everything that is ready, as far as it fits in a message; empty if there is nothing."""
        frames: list[Frame] = []
        size = 0
        while len(frames) < MAX_FRAMES:
            if self._unsent:
                size += _size(self._unsent[0])
                if frames and size > MAX_BATCH_BYTES:
                    break
                frames.append(self._unsent.popleft())
            elif self._ready:
                source = self._ready.popleft()
                self._queued.discard(source)
                self._unsent.extend(source.take())
                if source.done:
                    self._done.append(source)
            else:
                break
        return frames

    def written(self) -> list[Source]:
        """After a batch was written: the requests that have no more frames. Each is named once."""
        if self._unsent:
            return []
        done, self._done = self._done, []
        return done
