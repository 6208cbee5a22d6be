"""One sealed request on one link, from the first frame to the durable receipt.

However an exchange ends, the ledger learns how: completed with a receipt, refused without charge, or
outcome unknown. When the consumer goes away, the node is told to stop and the receipt for the part that
was done is still collected in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import CocoonError, MalformedError, ReceiptRejectedError, SealingError
from cocoon_attestation.receipt import Receipt
from cocoon_proxy.accounts import ChannelAccount
from cocoon_proxy.answer import AnswerReader, Expected, FinalChunk, check_receipt, error_code
from cocoon_proxy.errors import OutcomeUnknownError
from cocoon_proxy.events import (
    ClientEvent,
    Completed,
    Data,
    FirstData,
    Head,
    ReceiptVerified,
    StreamEvent,
    TokenUsage,
)
from cocoon_proxy.ledger import Ledger
from cocoon_proxy.session import Frame, FrameKind
from cocoon_proxy.stream import RequestStream
from cocoon_proxy.tasks import TaskScope

DRAIN_S: Final = 10.0
"""How long a cancelled request's receipt is waited for."""

_T = TypeVar("_T")


async def durable(work: Callable[[], _T]) -> _T:
    """Run a ledger transaction in a thread; cancellation waits until it is over, so its result is known."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


class NodeRefusal(Exception):  # noqa: N818  # control flow between modules, never shown
    """The enclave did not do the work and charged nothing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times of one exchange, in seconds."""

    first_frame_s: float
    stall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request that was handed to the connection."""

    id: bytes
    """Request id, 16 bytes."""
    stream: RequestStream
    reader: AnswerReader
    expected: Expected
    salt: bytes
    simulated: bool


class Exchange:
    """Reads the answer of one sent request."""

    def __init__(
        self,
        sent: Sent,
        *,
        ledger: Ledger,
        scope: TaskScope,
        limits: Limits,
        clock: Callable[[], float],
        emit: Callable[[ClientEvent], None],
    ) -> None:
        self._sent = sent
        self._ledger = ledger
        self._scope = scope
        self._limits = limits
        self._clock = clock
        self._emit = emit
        self._started = clock()
        self._settled = False
        self._first_data = False
        self._reason = "cancelled"

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Head, Data…, Completed.

        Raises:
            NodeRefusal: refused without charge before anything was yielded.
            OutcomeUnknownError: the answer stopped, or did not authenticate.
            ReceiptRejectedError: the answer came, but its receipt is wrong.
        """
        try:
            head = await self._head()
            if head.status >= 400:
                async for event in self._refused(head):
                    yield event
                return
            yield head
            while True:
                frame = await self._sent.stream.next(self._limits.stall_s)
                if frame.kind is FrameKind.DATA:
                    yield self._data(frame)
                    continue
                final = self._final(frame)
                completed = await self._complete(final)
                yield Data(data=final.tail, last=True)
                yield completed
                return
        finally:
            self._abandon()

    async def _head(self) -> Head:
        frame = await self._sent.stream.next(self._limits.first_frame_s)
        if frame.kind is FrameKind.ERROR:
            self._settled = True
            await durable(lambda: self._ledger.refuse(self._sent.id, frame.code))
            raise NodeRefusal(frame.code, frame.message)
        if frame.kind is not FrameKind.HEAD:
            raise self._lost(frame)
        return self._opened(lambda: self._sent.reader.head(frame.payload))

    async def _refused(self, head: Head) -> AsyncGenerator[StreamEvent, None]:
        """An answer with an error status: read it whole before anything is shown."""
        while (frame := await self._sent.stream.next(self._limits.stall_s)).kind is FrameKind.DATA:
            self._data(frame)
        final = self._final(frame)
        completed = await self._complete(final)
        body = self._sent.reader.body
        if completed.amount == 0:
            code = error_code(body)
            if code in RETRYABLE:
                raise NodeRefusal(code, f"the node answered {head.status} {code}")
        yield head
        yield Data(data=body, last=True)
        yield completed

    def _data(self, frame: Frame) -> Data:
        data = self._opened(lambda: self._sent.reader.data(frame.payload))
        if not self._first_data:
            self._first_data = True
            elapsed = int((self._clock() - self._started) * 1000)
            self._emit(FirstData(node=self._sent.expected.node.hex(), elapsed_ms=elapsed))
        return data

    def _final(self, frame: Frame) -> FinalChunk:
        if frame.kind is not FrameKind.FINAL:
            raise self._lost(frame)
        return self._opened(lambda: self._sent.reader.final(frame.payload))

    def _opened(self, work: Callable[[], _T]) -> _T:
        """Open a frame; one that does not authenticate or parse ends the exchange for good."""
        try:
            return work()
        except (SealingError, MalformedError) as error:
            self._sent.stream.cancel()
            self._sent.stream.forget()
            self._sent.stream.ended = True
            self._reason = error.code
            raise OutcomeUnknownError("the answer did not authenticate") from error

    def _lost(self, frame: Frame) -> OutcomeUnknownError:
        self._reason = frame.code
        return OutcomeUnknownError(
            f"the answer stopped: {frame.message}", details={"reason": frame.code, "node": self._node}
        )

    @property
    def _node(self) -> str:
        return self._sent.expected.node.hex()

    async def _complete(self, final: FinalChunk) -> Completed:
        """Verify the receipt and record it; when this returns, it is on disk."""
        sent = self._sent
        now = int(self._clock())

        def check(account: ChannelAccount) -> tuple[Receipt, CheckList]:
            return check_receipt(
                final, sent.reader, sent.expected, salt=sent.salt, account=account, now=now
            )

        try:
            receipt, checks = await durable(
                lambda: self._ledger.complete(sent.id, check, signed=final.signed, simulated=sent.simulated)
            )
        except (ReceiptRejectedError, MalformedError) as error:
            self._settled = True
            failed = _failed(error)
            await durable(lambda: self._ledger.dispute(sent.id, final.signed, failed))
            if isinstance(error, ReceiptRejectedError):
                raise
            raise ReceiptRejectedError(str(error)) from error
        self._settled = True
        completed = Completed(
            receipt_id=receipt.id,
            usage=TokenUsage(
                prompt=receipt.prompt_tokens,
                cached=receipt.cached_tokens,
                completion=receipt.completion_tokens,
            ),
            amount=receipt.amount,
            node=receipt.node.hex(),
            simulated=sent.simulated,
            status=receipt.status,
        )
        self._emit(
            ReceiptVerified(
                receipt_id=receipt.id,
                node=completed.node,
                checks=tuple(checks),
                usage=completed.usage,
                amount=receipt.amount,
                cumulative=receipt.cumulative,
                simulated=sent.simulated,
            )
        )
        return completed

    def _abandon(self) -> None:
        """Called when reading ended, for whatever reason: settle in the background what is open."""
        if self._settled or self._scope.closed:
            return  # a closed client's open requests are recovered as lost by the next one
        self._settled = True
        if not self._sent.stream.ended:
            self._sent.stream.cancel()
        self._scope.spawn(self._drain(), "drain")

    async def _drain(self) -> None:
        """Collect the receipt of a cancelled request, or record that its outcome is unknown."""
        stream, reader = self._sent.stream, self._sent.reader
        try:
            async with asyncio.timeout(DRAIN_S):
                while not stream.ended:
                    frame = await stream.next(DRAIN_S)
                    if frame.kind is FrameKind.HEAD:
                        reader.head(frame.payload)
                    elif frame.kind is FrameKind.DATA:
                        reader.data(frame.payload)
                    elif frame.kind is FrameKind.FINAL:
                        await self._complete(reader.final(frame.payload))
        except (CocoonError, TimeoutError):
            pass  # recorded below: the request is then still open in the ledger
        finally:
            stream.forget()
            await durable(lambda: self._ledger.lose(self._sent.id, self._reason))


RETRYABLE: Final = frozenset(
    {
        "balance_too_low",
        "cap_too_low",
        "channel_unknown",
        "channel_unusable",
        "engine_crashed",
        "node_busy",
        "node_draining",
        "price_above_limit",
        "store",
    }
)
"""Codes of refusals without charge after which the client does something else: wait, pay, or move on."""


def _failed(error: CocoonError) -> str:
    if isinstance(error, ReceiptRejectedError) and error.checks is not None:
        return ",".join(check.id for check in error.checks.failed)
    return error.code
