"""One request from its sealed bytes to its receipt.

A request that cannot be opened, or is a repeat, ends with a bare error. Everything after that ends with a
sealed answer and a receipt: status 200, or the status of what went wrong. However it ends, what was sent to
the client is metered and on disk before the final chunk leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cocoon.v1 import inference_service_pb2 as wire
from cocoon.v1 import sealed_pb2
from cocoon_attestation.errors import CocoonError, EngineError
from cocoon_attestation.payment import TokenUsage
from cocoon_attestation.receipt import commit_request, commit_response_pieces
from cocoon_attestation.sealing import ResponseSealer, open_request
from cocoon_attestation.types import ZERO_DIGEST, Digest32
from cocoon_enclave import openai
from cocoon_enclave.engine.protocol import FinishReason, Generation, GenerationRequest
from cocoon_enclave.errors import (
    ChannelUnknownError,
    ContextLengthError,
    DeadlineError,
    InvalidRequestError,
    RequestReplayedError,
)
from cocoon_enclave.frames import Frame
from cocoon_enclave.keys import Keyset
from cocoon_enclave.log import Draft
from cocoon_enclave.metering import Payer, Reservation
from cocoon_enclave.plain import parse_plain
from cocoon_enclave.service import ServedModel, Service, public_message
from cocoon_enclave.text import StopMatcher

CHUNK: Final = 64 * 1024
"""Longest plaintext of a data chunk, in bytes."""
TAIL: Final = 256 * 1024
"""Longest tail; longer bodies go into data chunks first."""
BLOCKING_BODY: Final = 16 * 1024
"""Bodies above this are parsed and tokenized in a thread, so that nobody else's stream waits."""
NO_USAGE: Final = TokenUsage(prompt_tokens=0, cached_tokens=0, completion_tokens=0)


class Exchange:
    """One request. `run` does the work; the session's writer calls `take` for frames to send."""

    def __init__(
        self, service: Service, number: int, sealed: bytes, notify: Callable[[Exchange], None]
    ) -> None:
        """`notify` is called when `take` has something."""
        self.number = number
        self.done = False
        """True once nothing more will come out of `take`."""
        self._service = service
        self._sealed = sealed
        self._notify = notify
        self._keyset: Keyset | None = None
        self._sealer: ResponseSealer | None = None
        self._plain = sealed_pb2.PlainRequest()
        self._model: ServedModel | None = None
        self._reservation: Reservation | None = None
        self._generation: Generation | None = None
        self._stopped: CocoonError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._began = service.clock.now()
        self._prompt_tokens = 0
        self._started = False
        self._visible = 0
        """Tokens whose text was handed to `_emit`."""
        self._sent_visible = 0
        """Tokens whose text was taken to be sent."""
        self._head: bytes | None = None
        self._head_sent = False
        self._pending: list[bytes] = []
        self._sent: list[bytes] = []
        self._final: bytes | None = None
        self._error: wire.SessionError | None = None

    # What the session calls.

    def stop(self, reason: CocoonError) -> None:
        """End early: the client cancelled, its session ended, or the deadline passed. Idempotent."""
        if self._stopped is None and self._final is None and self._error is None:
            self._stopped = reason
            if self._generation is not None:
                self._generation.abort()

    def take(self) -> list[Frame]:
        """Seal what is ready to be sent, as few frames as possible."""
        frames: list[Frame] = []
        if self._error is not None:
            self.done = True
            return [(self.number, "error", self._error)]
        sealer = self._sealer
        if sealer is None or self.done:
            return frames
        if self._head is not None and not self._head_sent:
            self._head_sent = True
            frames.append((self.number, "head", sealer.head(self._head)))
        if self._pending:
            data, self._pending = b"".join(self._pending), []
            self._sent_visible = self._visible
            self._sent.append(data)
            for at in range(0, len(data), CHUNK):
                frames.append((self.number, "data", sealer.data(data[at : at + CHUNK])))
        if self._final is not None:
            self.done = True
            frames.append((self.number, "final", sealer.final(self._final)))
        return frames

    async def run(self) -> None:
        """Do the whole work. Raises nothing but cancellation."""
        try:
            if self._open():
                await self._answer()
        finally:
            for timer in (self._timer, self._flush_timer):
                if timer is not None:
                    timer.cancel()
            self._release()
            if self._final is None and self._error is None:
                self._give_up()

    # Opening.

    def _open(self) -> bool:
        """Open the seal and refuse repeats; False after a bare error."""
        service, now = self._service, self._service.clock.now()
        try:
            opened = open_request(service.keyring.open_keys(now), self._sealed)
            plain = parse_plain(opened.plain)
            deadline = plain.deadline_ms / 1000
            # One that is too far away is refused in any case: its id is not worth the memory.
            far = deadline - self._began > service.config.limits.deadline_s
            if not far and not service.guard.accept(
                opened.key_id, plain.request_id, deadline=deadline, now=now
            ):
                raise RequestReplayedError("the request was used before")
        except CocoonError as error:
            self._fail_bare(error)
            return False
        self._sealed = b""
        self._keyset, self._sealer = service.keyring.by_key_id(opened.key_id), opened.response_sealer
        self._plain = plain
        return True

    def _give_up(self) -> None:
        """A fault of our own ended the work: stop the engine, and let nobody wait for an answer."""
        if self._generation is not None:
            self._generation.abort()
        self._fail_bare(EngineError("the request could not be finished"))

    def _fail_bare(self, error: CocoonError) -> None:
        self._service.metrics.count(error.http_status)
        self._error = wire.SessionError(code=error.code, message=public_message(error))
        self._notify(self)

    # Answering.

    async def _answer(self) -> None:
        try:
            request = await self._admit()
        except CocoonError as error:
            await self._refuse(error)
            return
        try:
            await self._generate(request)
        except EngineError as error:
            # The node's fault: nothing is charged, whatever was sent.
            await self._finish(error.http_status, self._error_tail(error), NO_USAGE)

    async def _admit(self) -> openai.InferenceRequest:
        """See who pays, then parse, tokenize, reserve the money, and hand the prompt to the engine."""
        service = self._service
        self._check_deadline()
        # Up to a mebibyte may have to be tokenized: not for somebody who cannot pay for a single token.
        payer = await self._authorize()
        request, model, prompt = await self._prepare()
        self._model, self._prompt_tokens = model, len(prompt)
        max_tokens = self._max_tokens(request, model, len(prompt))
        self._check_stopped()
        self._reservation = service.meter.reserve(payer, prompt_tokens=len(prompt), max_tokens=max_tokens)
        self._generation = model.engine.submit(
            GenerationRequest(prompt=prompt, max_tokens=max_tokens, sampling=request.sampling)
        )
        return request

    async def _authorize(self) -> Payer:
        """The payer; for a new channel, once the host has looked it up."""
        service, plain = self._service, self._plain
        loop = asyncio.get_running_loop()
        give_up = loop.time() + service.config.limits.channel_wait_s
        while True:
            self._check_stopped()
            try:
                return service.meter.authorize(
                    plain.payment, now=service.clock.now(), deadline=plain.deadline_ms / 1000
                )
            except ChannelUnknownError:
                if loop.time() >= give_up or not service.may_wait:
                    raise
                await service.wait_for_facts(0.25)

    def _check_deadline(self) -> None:
        """Refuse what is late already or due too far away, and set the alarm.

        Ids are remembered until their deadline: one that is far away would be one that is kept for ever.
        """
        limits, now = self._service.config.limits, self._service.clock.now()
        deadline = self._plain.deadline_ms / 1000
        left = deadline - now
        if left <= 0:
            raise DeadlineError("the deadline of the request has passed")
        if deadline - self._began > limits.deadline_s:  # the same sum as in `_open`, clock and all
            raise InvalidRequestError(f"the deadline is more than {limits.deadline_s} seconds away")
        self._timer = asyncio.get_running_loop().call_later(
            left, self.stop, DeadlineError("the deadline of the request has passed")
        )

    def _check_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    async def _prepare(self) -> tuple[openai.InferenceRequest, ServedModel, tuple[int, ...]]:
        endpoint, body = self._plain.endpoint, self._plain.body

        def work() -> tuple[openai.InferenceRequest, ServedModel, tuple[int, ...]]:
            request = openai.parse_request(endpoint, body)
            model = self._service.model(request.model)
            if request.chat:
                prompt = tuple(model.text.encode_chat(request.messages))
            else:
                prompt = model.text.encode_prompt(request.prompt)
            return request, model, prompt

        return await asyncio.to_thread(work) if len(body) > BLOCKING_BODY else work()

    def _max_tokens(self, request: openai.InferenceRequest, model: ServedModel, prompt: int) -> int:
        limits = self._service.config.limits
        room = model.context_length - prompt
        if room < 1 or (request.max_tokens is not None and request.max_tokens > room):
            raise ContextLengthError(
                f"the prompt has {prompt} tokens; with max_tokens it may have {model.context_length}"
            )
        if request.max_tokens is None:
            return min(room, limits.default_max_tokens, limits.max_tokens)
        if request.max_tokens > limits.max_tokens:
            raise InvalidRequestError(f"max_tokens: at most {limits.max_tokens} on this node")
        return request.max_tokens

    async def _generate(self, request: openai.InferenceRequest) -> None:
        model, generation = self._model, self._generation
        if model is None or generation is None:
            raise EngineError("no generation was started")
        shaper = openai.Shaper(request, model=request.model, created=int(self._service.clock.now()))
        decoder, matcher = model.text.decoder(), StopMatcher(request.stop)
        whole: list[str] = []
        finish = FinishReason.ABORT
        async for delta in generation:
            self._started |= delta.started or bool(delta.tokens)
            text = "".join([matcher.push(decoder.push(token)) for token in delta.tokens])
            if delta.finish in (FinishReason.STOP, FinishReason.LENGTH) and not matcher.stopped:
                text += matcher.flush()
            if text and self._stopped is None:
                whole.append(text)
                if request.stream:
                    self._emit(shaper, text, matcher.visible)
            if delta.finish is not None or matcher.stopped:
                finish = delta.finish or FinishReason.STOP
                break
        if matcher.stopped:
            finish = FinishReason.STOP
            generation.abort()
        if finish is FinishReason.ABORT or self._stopped is not None:
            await self._finish_early()
            return
        usage = self._usage(matcher.visible)
        if request.stream:
            self._put_head(200, openai.EVENT_TYPE, shaper.start())
            await self._finish(200, shaper.end(finish, usage), usage)
        else:
            await self._finish(200, shaper.whole("".join(whole), finish, usage), usage)

    def _emit(self, shaper: openai.Shaper, text: str, visible: int) -> None:
        """Queue text for the writer: the first piece at once, later ones when it comes around to them."""
        first = self._head is None
        self._put_head(200, openai.EVENT_TYPE, shaper.start())
        self._pending.append(shaper.piece(text))
        self._visible = visible
        if first:
            self._service.metrics.first_token.observe(self._service.clock.now() - self._began)
        wait = self._service.config.coalesce_ms / 1000
        if first or not wait:
            self._notify(self)
        elif self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(wait, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        self._notify(self)

    def _put_head(self, status: int, content_type: str, start: bytes = b"") -> None:
        if self._head is None:
            head = sealed_pb2.ResponseHead(status=status, content_type=content_type)
            self._head = head.SerializeToString()
            if start:
                self._pending.append(start)

    # Ending.

    def _usage(self, completion_tokens: int) -> TokenUsage:
        return TokenUsage(
            prompt_tokens=self._prompt_tokens if self._started else 0,
            cached_tokens=0,
            completion_tokens=completion_tokens,
        )

    def _error_tail(self, error: CocoonError) -> bytes:
        """The error as the rest of the body: an event if a stream has begun, else a JSON document."""
        return openai.error_event(error) if self._head is not None else openai.error_body(error)

    async def _refuse(self, error: CocoonError) -> None:
        """A sealed answer with the error and a receipt of amount 0, unless there are too many of them."""
        try:
            self._service.check_refusal()
        except CocoonError as busy:
            self._fail_bare(busy)
            return
        await self._finish(error.http_status, openai.error_body(error), NO_USAGE)

    async def _finish_early(self) -> None:
        """The client or its deadline ended the answer: it pays for the prompt and for what was sent."""
        reason = self._stopped or EngineError("the engine gave up the request")
        self._pending.clear()
        if isinstance(reason, EngineError):
            await self._finish(reason.http_status, self._error_tail(reason), NO_USAGE)
            return
        tail = self._error_tail(reason) if isinstance(reason, DeadlineError) or not self._head_sent else b""
        await self._finish(reason.http_status, tail, self._usage(self._sent_visible))

    async def _finish(self, status: int, tail: bytes, usage: TokenUsage) -> None:
        """Put the receipt on record, then let the final chunk go."""
        keyset = self._keyset
        if keyset is None:
            raise EngineError("the request was never opened")
        if len(tail) > TAIL:
            self._pending.append(tail)
            tail = b""
        salt = self._plain.receipt_salt
        reservation, self._reservation = self._reservation, None
        price = reservation.price(usage) if reservation is not None else 0
        draft = Draft(
            keyset=keyset,
            request_commitment=commit_request(salt, self._plain.body),
            response_commitment=commit_response_pieces(salt, [*self._sent, *self._pending, tail]),
            model=self._model.digest if self._model is not None else ZERO_DIGEST,
            usage=usage,
            status=status,
            channel=reservation.channel if reservation is not None else self._channel(),
            reservation=reservation,
            price=price,
        )
        try:
            signed = await self._service.log.issue(draft)
        except CocoonError as error:
            self._fail_bare(error)
            return
        self._record(status, usage, price)
        final = sealed_pb2.ResponseFinal(tail=tail, usage=usage.to_proto(), receipt=signed)
        self._put_head(status, openai.JSON_TYPE)
        self._final = final.SerializeToString()
        self._notify(self)

    def _channel(self) -> Digest32:
        """The channel that a refused request names, if it names one of ours; else zero."""
        try:
            return self._service.meter.identify(self._plain.payment)[0]
        except CocoonError:
            return ZERO_DIGEST

    def _record(self, status: int, usage: TokenUsage, price: int) -> None:
        metrics = self._service.metrics
        metrics.count(status)
        metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
        metrics.tokens.labels("completion").inc(usage.completion_tokens)
        metrics.charged.inc(price)

    def _release(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self._service.meter.release(reservation)
