"""One client connection: many requests over one stream, and one writer that never makes the engine wait.

Whatever is ready when the writer comes around leaves in one message: as a rule, the frames of one engine
step. While a write is under way, new text of every request waits and is merged; when the writer is idle, text
leaves at once. So a slow reader costs fewer, larger frames, and a first token is never held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.errors import CocoonError, MalformedError
from cocoon_enclave.errors import CancelledByClientError, NodeBusyError
from cocoon_enclave.exchange import Exchange
from cocoon_enclave.frames import MAX_FRAMES, Frame, FrameQueue, Source, message
from cocoon_enclave.service import Service, public_message

IDLE_S: Final = 900.0
"""A session without a request for this long is ended."""
Write = Callable[[wire.SessionResponse], Awaitable[None]]


class Session:
    """The server's end of one session."""

    def __init__(self, service: Service, *, idle_s: float = IDLE_S) -> None:
        self._service = service
        self._idle_s = idle_s
        self._exchanges: dict[int, Exchange] = {}
        self._frames = FrameQueue()
        self._closing = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        """Unset while a client that does not read has earned too many errors."""
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._busy = True

    async def run(self, requests: AsyncIterator[wire.SessionRequest], write: Write) -> None:
        """Serve until the client is done or gone. Then whatever still runs is cancelled, and metered."""
        service = self._service
        if service.sessions >= service.config.limits.sessions:
            refusal = _error(0, NodeBusyError("too many sessions"))
            await write(message([refusal]))
            return
        service.sessions += 1
        tasks = {
            asyncio.ensure_future(work)
            for work in (self._read(requests), self._write(write), self._watch_idle())
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            service.sessions -= 1
            for task in tasks:
                task.cancel()
            for exchange in list(self._exchanges.values()):
                exchange.stop(CancelledByClientError("the session ended"))
            # A broken connection shows as an exception in the reader or the writer: both mean "ended".
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[wire.SessionRequest]) -> None:
        async for request in requests:
            await self._room.wait()
            numbered = all(frame.request_number for frame in request.frames)
            if not numbered or not 1 <= len(request.frames) <= MAX_FRAMES:
                self._closing = True
                self._push(_error(0, MalformedError("a session message that breaks the rules")))
                break
            for frame in request.frames:
                self.receive(frame)
        # The client sends no more, but may wait for what it asked for.
        await self._empty.wait()

    async def _watch_idle(self) -> None:
        """End after a while without requests."""
        idle = False
        while not (idle and self._empty.is_set()):
            idle = self._empty.is_set() and not self._busy
            self._busy = False
            await asyncio.sleep(self._idle_s / 2)

    def receive(self, frame: wire.RequestFrame) -> None:
        """Act on one frame from the client."""
        self._busy = True
        number = frame.request_number
        kind = frame.WhichOneof("frame")
        if kind == "cancel":
            exchange = self._exchanges.get(number)
            if exchange is not None:
                exchange.stop(CancelledByClientError("the client cancelled the request"))
            return
        try:
            if kind != "open":
                raise MalformedError("a session frame without content")
            self._check(number, frame.open)
        except CocoonError as error:
            self._push(_error(number, error))
            return
        exchange = Exchange(self._service, number, frame.open, self._notify)
        self._exchanges[number] = exchange
        self._empty.clear()
        self._service.active += 1
        task = asyncio.create_task(exchange.run())
        task.add_done_callback(lambda _: self._ended(exchange))
        self._service.keep(task)

    def _push(self, frame: Frame) -> None:
        """Queue a frame that belongs to no exchange."""
        self._frames.push(frame)
        self._empty.clear()
        if self._frames.full:
            self._room.clear()
        self._wake.set()

    def _check(self, number: int, sealed: bytes) -> None:
        limits = self._service.config.limits
        if number in self._exchanges:
            raise MalformedError("a request number is used twice")
        if len(sealed) > limits.sealed_bytes:
            raise MalformedError("the sealed request is too long")
        if len(self._exchanges) >= limits.requests_per_session:
            raise NodeBusyError("too many requests in this session")
        self._service.check_open()

    def _notify(self, exchange: Exchange) -> None:
        self._frames.notify(exchange)
        self._wake.set()

    def _ended(self, exchange: Exchange) -> None:
        """The work is over; the last frame may still wait for the writer."""
        self._service.active -= 1
        if not exchange.done and not self._frames.waiting(exchange):
            self._forget(exchange)

    def _forget(self, exchange: Source) -> None:
        if self._exchanges.get(exchange.number) is exchange:
            del self._exchanges[exchange.number]
        self._check_empty()

    def _check_empty(self) -> None:
        if not self._exchanges and self._frames.empty:
            self._empty.set()

    async def _write(self, write: Write) -> None:
        """Write messages for as long as the session lasts; return after the last one of a bad session."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while frames := self._frames.batch():
                if not self._frames.full:
                    self._room.set()
                await write(message(frames))
                for exchange in self._frames.written():
                    self._forget(exchange)
                self._check_empty()
            if self._closing:
                return


def _error(number: int, error: CocoonError) -> Frame:
    return number, "error", wire.SessionError(code=error.code, message=public_message(error))
