"""The frames of one request, as its one reader takes them: waiting, silence, the end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from cocoon_proxy.session import Frame, FrameKind


class Link(Protocol):
    """What a stream asks of the connection it belongs to; `link.NodeLink`."""

    def consumed(self, number: int, size: int) -> None:
        """The reader took `size` bytes of a request."""
        ...

    def cancel(self, number: int) -> None:
        """Tell the node to stop a request."""
        ...

    def forget(self, number: int) -> None:
        """Drop a request; late frames are ignored."""
        ...


class RequestStream:
    """The frames of one request on a link. There is one reader."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self.number = number
        self.ended = False
        self._frames: deque[Frame] = deque()
        self._waiter: asyncio.Future[bool] | None = None
        """Set while the reader waits: True when a frame came, False when none came in time."""
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """One timer for all waits, moved when it fires: a new one for every token would cost more than it."""

    def deliver(self, frame: Frame) -> None:
        """Called by the link."""
        self._frames.append(frame)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    async def next(self, timeout_s: float) -> Frame:
        """The next frame. Nothing follows FINAL, ERROR or LOST.

        If none comes in time, the node is told to stop and a LOST frame is made here; the node's own
        last frame may still be read after that.
        """
        if not self._frames and not await self._arrival(timeout_s):
            self.cancel()
            return Frame(kind=FrameKind.LOST, code="stalled", message="the node stopped answering")
        frame = self._frames.popleft()
        self._link.consumed(self.number, len(frame.payload))
        if frame.kind not in (FrameKind.HEAD, FrameKind.DATA):
            self.ended = True
            self._stop_timer()
        return frame

    async def _arrival(self, timeout_s: float) -> bool:
        """Wait for a frame; False if none came in time."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + timeout_s
        self._waiter = loop.create_future()
        if self._timer is None or self._timer.when() > self._deadline:
            self._stop_timer()
            self._timer = loop.call_at(self._deadline, self._check_time, loop)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _check_time(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return  # the next wait sets it again
        if loop.time() >= self._deadline:
            self._waiter.set_result(False)
        else:
            self._timer = loop.call_at(self._deadline, self._check_time, loop)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cancel(self) -> None:
        """Tell the node to stop; its final frame still arrives, with the receipt for what was done."""
        self._link.cancel(self.number)

    def forget(self) -> None:
        """Drop every further frame of this request."""
        self._stop_timer()
        self._link.forget(self.number)
