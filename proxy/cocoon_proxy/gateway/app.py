"""The HTTP side of the gateway: OpenAI paths in, verified and sealed requests out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cocoon_attestation.errors import CocoonError
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.errors import InvalidRequestError, ModelNotFoundError, OutcomeUnknownError
from cocoon_proxy.events import Completed, Data, Head, StreamEvent
from cocoon_proxy.gateway import openai
from cocoon_proxy.gateway.backend import Backend
from cocoon_proxy.gateway.guard import Guard
from cocoon_proxy.gateway.idempotency import IdempotencyKeys
from cocoon_proxy.requests import CHAT_COMPLETIONS, COMPLETIONS, parse_request

KEEP_ALIVE_S: Final = 15.0
_JSON: Final = "application/json"
_STREAM_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def create_app(backend: Backend, config: GatewayConfig, *, keep_alive_s: float = KEEP_ALIVE_S) -> Starlette:
    """The ASGI application. Raises `ConfigError` for a non-loopback address without token."""
    routes = _Routes(backend, config, keep_alive_s)
    return Starlette(
        routes=[
            Route(CHAT_COMPLETIONS, routes.complete, methods=["POST"]),
            Route(COMPLETIONS, routes.complete, methods=["POST"]),
            Route("/v1/models", routes.models, methods=["GET"]),
            Route("/v1/models/{id:path}", routes.model, methods=["GET"]),
            Route("/v1/cocoon/status", routes.status, methods=["GET"]),
            Route("/v1/cocoon/receipts/{id}", routes.receipt, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, config=config)],
        exception_handlers={HTTPException: _http_error, CocoonError: _cocoon_error, Exception: _unexpected},
    )


class _Routes:
    def __init__(self, backend: Backend, config: GatewayConfig, keep_alive_s: float) -> None:
        self._backend = backend
        self._config = config
        self._keep_alive_s = keep_alive_s
        self._keys = IdempotencyKeys(time.monotonic)

    async def complete(self, request: Request) -> Response | _StreamedAnswer:
        """POST of a chat or text completion."""
        endpoint = request.url.path
        body = await _read_body(request, self._config.max_body_bytes)
        info = parse_request(endpoint, body, max_bytes=self._config.max_body_bytes)
        key = request.headers.get("idempotency-key")
        if key is not None:
            self._keys.claim(key, body)
        events = self._tracked(self._backend.stream(endpoint, body), key)
        raw = request.headers.get("x-cocoon-raw") == "1"
        return _StreamedAnswer(events, stream=info.stream, raw=raw, keep_alive_s=self._keep_alive_s)

    async def _tracked(
        self, events: AsyncGenerator[StreamEvent, None], key: str | None
    ) -> AsyncGenerator[StreamEvent, None]:
        """The events; frees the idempotency key if the request ends without charge."""
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    if key is not None and isinstance(event, Completed):
                        self._keys.completed(key, event.receipt_id)
                    yield event
        except CocoonError as error:
            if key is not None and not openai.may_have_cost(error):
                self._keys.release(key)
            raise

    async def models(self, _: Request) -> Response:
        """GET of the model list."""
        return _json(openai.model_list(await self._backend.models()))

    async def model(self, request: Request) -> Response:
        """GET of one model, by name or ``name@digest``."""
        wanted = request.path_params["id"]
        for model in await self._backend.models():
            if wanted in (model.name, f"{model.name}@{model.digest.hex()}"):
                return _json(openai.model_object(model))
        raise ModelNotFoundError(f"The model '{wanted[:200]}' does not exist", details={"param": "model"})

    async def status(self, _: Request) -> Response:
        """GET of the client's state."""
        return _json(await self._backend.status())

    async def receipt(self, request: Request) -> Response:
        """GET of one receipt."""
        return _json(await self._backend.receipt(request.path_params["id"]))


class _StreamedAnswer(Response):
    """Sends one answer as it arrives, and cancels the work when the caller goes away."""

    def __init__(
        self,
        events: AsyncGenerator[StreamEvent, None],
        *,
        stream: bool,
        raw: bool,
        keep_alive_s: float,
    ) -> None:
        self.background = None
        self._events = events
        self._stream = stream
        self._raw = raw
        self._keep_alive_s = keep_alive_s
        self._started = False
        self._at_boundary = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: run the answer against the caller's disconnect."""
        answer = asyncio.ensure_future(self._answer(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answer, gone):
                if not task.done():
                    task.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
        if not answer.cancelled() and (error := answer.exception()) is not None:
            raise error

    async def _answer(self, send: Send) -> None:
        try:
            await (self._send_stream(send) if self._stream else self._send_whole(send))
        except CocoonError as error:
            if not self._started:
                response = openai.error_response(error)
                await _send_all(send, response.status, response.headers, response.content)
                return
            boundary = b"" if self._at_boundary else b"\n\n"
            await _send_body(send, boundary + openai.stream_error(error), more=False)
        finally:
            await self._events.aclose()

    async def _send_whole(self, send: Send) -> None:
        head, body, completed = await _collect(self._events)
        headers = {"content-type": head.content_type, **openai.receipt_headers(completed)}
        if not self._raw and max(head.status, completed.status) < 400:
            body = openai.annotate_json(body, completed)
        await _send_all(send, max(head.status, completed.status), headers, body)

    async def _send_stream(self, send: Send) -> None:
        tail = b""
        async for event in _with_idle(self._events, self._keep_alive_s):
            match event:
                case None:
                    # The head is late: commit to a stream, so that the caller sees signs of life.
                    await self._start(send, 200, openai.EVENT_STREAM)
                    await self._pass_on(send, openai.KEEP_ALIVE if self._at_boundary else b"")
                case Head() if event.status >= 400 or not _is_stream(event.content_type):
                    await self._send_refusal(send, event)
                    return
                case Head():
                    await self._start(send, event.status, event.content_type)
                case Data(data=data, last=False):
                    await self._pass_on(send, data)
                case Data(data=data):
                    tail = data
                case Completed():
                    cut_short = event.status >= 400  # the tail says why, and no [DONE] may follow
                    end = tail if self._raw or cut_short else openai.finish_stream(tail, event)
                    await _send_body(send, end, more=False)
                    return
        raise OutcomeUnknownError("the answer ended early")

    async def _send_refusal(self, send: Send, head: Head) -> None:
        """An answer in one piece although a stream was asked for: an error of the enclave."""
        pieces, completed = [], None
        async for event in self._events:
            if isinstance(event, Data):
                pieces.append(event.data)
            elif isinstance(event, Completed):
                completed = event
        if completed is None:
            raise OutcomeUnknownError("the answer ended early")
        body = b"".join(pieces)
        if self._started:
            await _send_body(send, b"data: " + body.replace(b"\n", b" ") + b"\n\n", more=False)
            return
        headers = {"content-type": head.content_type, **openai.receipt_headers(completed)}
        await _send_all(send, head.status, headers, body)

    async def _start(self, send: Send, status: int, content_type: str) -> None:
        if not self._started:
            self._started = True
            await _send_head(send, status, {"content-type": content_type, **_STREAM_HEADERS})

    async def _pass_on(self, send: Send, data: bytes) -> None:
        if data:
            await _send_body(send, data, more=True)
            self._at_boundary = data.endswith((b"\n\n", b"\r\n\r\n"))


async def _collect(events: AsyncIterator[StreamEvent]) -> tuple[Head, bytes, Completed]:
    head: Head | None = None
    pieces: list[bytes] = []
    async for event in events:
        match event:
            case Head():
                head = event
            case Data(data=data):
                pieces.append(data)
            case Completed() if head is not None:
                return head, b"".join(pieces), event
    raise OutcomeUnknownError("the answer ended early")


async def _with_idle(
    events: AsyncIterator[StreamEvent], seconds: float
) -> AsyncIterator[StreamEvent | None]:
    """The events, with None whenever nothing came for `seconds`."""
    pending: asyncio.Future[StreamEvent] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(anext(events))
            while not (await asyncio.wait({pending}, timeout=seconds))[0]:
                yield None
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        if pending is not None and not pending.done():
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(request: Request, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise InvalidRequestError(f"the body is longer than {limit} bytes")
            pieces.append(piece)
    except ClientDisconnect as error:
        raise InvalidRequestError("the caller went away") from error
    return b"".join(pieces)


def _is_stream(content_type: str) -> bool:
    return content_type.split(";")[0].strip().lower() == openai.EVENT_STREAM


def _json(document: Mapping[str, object]) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), media_type=_JSON)


async def _cocoon_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, CocoonError):
        raise error
    response = openai.error_response(error)
    return Response(response.content, response.status, headers=dict(response.headers), media_type=_JSON)


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    found = openai.plain_error(
        error.status_code, error.detail, kind="invalid_request_error", code="unknown_url"
    )
    return Response(found.content, error.status_code, media_type=_JSON)


async def _unexpected(_: Request, __: Exception) -> Response:
    """A defect of the gateway. What was sent may have been charged for, so nobody repeats it unasked."""
    found = openai.plain_error(500, "the gateway failed unexpectedly", kind="api_error", code="internal")
    return Response(found.content, found.status, headers={"x-should-retry": "false"}, media_type=_JSON)


async def _send_head(send: Send, status: int, headers: Mapping[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send_body(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _send_all(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    full = {"content-type": _JSON, **headers, "content-length": str(len(body))}
    await _send_head(send, status, full)
    await _send_body(send, body, more=False)
