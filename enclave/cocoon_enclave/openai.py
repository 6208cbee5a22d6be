"""The OpenAI-compatible face: request bodies in, JSON and server-sent events out. Sans-I/O.

What a client may say is listed here; a parameter that would change the answer and is not supported is
refused, one that would not (``user``, ``metadata``) is ignored. Errors never quote the request.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from cocoon_attestation.errors import CocoonError
from cocoon_attestation.payment import TokenUsage
from cocoon_enclave.engine.protocol import FinishReason, Sampling
from cocoon_enclave.errors import InvalidRequestError, UnknownEndpointError

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
MAX_STOPS: Final = 4
MAX_STOP_LENGTH: Final = 256
MAX_MESSAGES: Final = 4096
JSON_TYPE: Final = "application/json"
EVENT_TYPE: Final = "text/event-stream"
_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
}
"""Parameters that are not supported, with the values that mean "not used"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """A parsed body. No repr of content."""

    chat: bool
    model: str
    messages: tuple[dict[str, Any], ...]
    """Chat messages; empty for a bare prompt."""
    prompt: str | tuple[int, ...]
    """Bare prompt, as text or token ids."""
    stream: bool
    include_usage: bool
    max_tokens: int | None
    """None if the request does not say."""
    sampling: Sampling
    stop: tuple[str, ...]

    def __repr__(self) -> str:
        """Shows no content."""
        return f"InferenceRequest(model={self.model!r}, stream={self.stream})"


def parse_request(endpoint: str, body: bytes) -> InferenceRequest:
    """Read a request body.

    Raises:
        UnknownEndpointError: no such endpoint.
        InvalidRequestError: not what the endpoint takes. Names the parameter, never its value.
    """
    if endpoint not in (CHAT, COMPLETIONS):
        raise UnknownEndpointError("this endpoint does not exist")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError("the body is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidRequestError("the body is not a JSON object")
    _refuse_unsupported(document)
    fields = _Fields(document)
    chat = endpoint == CHAT
    options = fields.get("stream_options", dict, {})
    limit = fields.integer("max_completion_tokens", 1, 1 << 31)
    return InferenceRequest(
        chat=chat,
        model=fields.text("model"),
        messages=_messages(document) if chat else (),
        prompt="" if chat else _prompt(document),
        stream=fields.get("stream", bool, False),
        include_usage=options.get("include_usage") is True,
        max_tokens=limit if limit is not None else fields.integer("max_tokens", 1, 1 << 31),
        sampling=Sampling(
            temperature=fields.number("temperature", 1.0, 0.0, 2.0),
            top_p=fields.number("top_p", 1.0, 0.0, 1.0),
            top_k=fields.integer("top_k", 0, 1 << 31) or 0,
            seed=fields.integer("seed", -(2**63), 2**63 - 1),
        ),
        stop=_stops(document),
    )


def _refuse_unsupported(document: Mapping[str, Any]) -> None:
    for name, neutral in _NEUTRAL.items():
        value = document.get(name)
        if value is not None and value not in neutral:
            raise InvalidRequestError(f"{name}: not supported by this node")


class _Fields:
    """Typed access to an object; null is the same as absent."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def get(self, name: str, kind: type, default: Any) -> Any:
        value = self._document.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InvalidRequestError(f"{name}: wrong type")
        return value

    def text(self, name: str) -> str:
        value = self.get(name, str, "")
        if not value:
            raise InvalidRequestError(f"{name}: missing")
        return str(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.get(name, int, None)
        if value is not None and not low <= value <= high:
            raise InvalidRequestError(f"{name}: out of range")
        return value if value is None else int(value)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self._document.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise InvalidRequestError(f"{name}: a number from {low} to {high} expected")
        return float(value)


def _messages(document: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    messages = document.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise InvalidRequestError(f"messages: a list of 1 to {MAX_MESSAGES} expected")
    return tuple(_message(message) for message in messages)


def _message(message: object) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequestError("messages: each needs a role")
    content = message.get("content")
    if isinstance(content, list):  # the list form, of which only text parts are supported
        content = "".join(_text_part(part) for part in content)
    if not isinstance(content, str):
        raise InvalidRequestError("messages: content must be text")
    if message.get("tool_calls") or message["role"] == "tool":
        raise InvalidRequestError("messages: tools are not supported by this node")
    kept = {"role": message["role"], "content": content}
    if isinstance(message.get("name"), str):
        kept["name"] = message["name"]
    return kept


def _text_part(part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise InvalidRequestError("messages: only text content is supported")


def _prompt(document: Mapping[str, Any]) -> str | tuple[int, ...]:
    prompt = document.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(type(id) is int and 0 <= id < 1 << 31 for id in prompt):
        return tuple(prompt)
    raise InvalidRequestError("prompt: one text, or one list of token ids, expected")


def _stops(document: Mapping[str, Any]) -> tuple[str, ...]:
    stop = document.get("stop")
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise InvalidRequestError(f"stop: a text or a list of at most {MAX_STOPS} expected")
    if not all(isinstance(item, str) and 1 <= len(item) <= MAX_STOP_LENGTH for item in stops):
        raise InvalidRequestError(f"stop: texts of 1 to {MAX_STOP_LENGTH} characters expected")
    return tuple(stops)


def error_body(error: CocoonError) -> bytes:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if error.http_status < 500 else "server_error"
    content = {"message": str(error), "type": kind, "param": None, "code": error.code}
    if error.hint:
        content["hint"] = error.hint
    return orjson.dumps({"error": content})


def error_event(error: CocoonError) -> bytes:
    """An error in the middle of a stream."""
    return b"data: " + error_body(error) + b"\n\n"


class Shaper:
    """Builds the JSON of one answer. The parts that do not change are encoded once."""

    def __init__(self, request: InferenceRequest, *, model: str, created: int) -> None:
        prefix, kind = ("chatcmpl-", "chat.completion") if request.chat else ("cmpl-", "text_completion")
        self._request = request
        self._base = {"id": prefix + secrets.token_hex(12), "created": created, "model": model}
        self._object = kind
        streamed = "chat.completion.chunk" if request.chat else "text_completion"
        self._head = b"data: " + orjson.dumps({**self._base, "object": streamed})[:-1] + b',"choices":['
        usage = b',"usage":null' if request.include_usage else b""
        self._foot = b"]" + usage + b"}\n\n"

    def start(self) -> bytes:
        """The first event of a stream; empty for a bare completion."""
        if not self._request.chat:
            return b""
        delta = b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}'
        return self._head + delta + self._foot

    def piece(self, text: str) -> bytes:
        """An event with text."""
        quoted = orjson.dumps(text)
        if self._request.chat:
            choice = b'{"index":0,"delta":{"content":' + quoted + b'},"finish_reason":null}'
        else:
            choice = b'{"index":0,"text":' + quoted + b',"finish_reason":null}'
        return self._head + choice + self._foot

    def end(self, finish: FinishReason, usage: TokenUsage) -> bytes:
        """The last events of a stream: why it ended and, if asked for, usage. Without ``[DONE]``."""
        reason = orjson.dumps(_reason(finish))
        if self._request.chat:
            choice = b'{"index":0,"delta":{},"finish_reason":' + reason + b"}"
        else:
            choice = b'{"index":0,"text":"","finish_reason":' + reason + b"}"
        events = self._head + choice + self._foot
        if self._request.include_usage:
            events += self._head + b'],"usage":' + orjson.dumps(_usage(usage)) + b"}\n\n"
        return events

    def whole(self, text: str, finish: FinishReason, usage: TokenUsage) -> bytes:
        """The body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": _reason(finish), "logprobs": None}
        if self._request.chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        document = {**self._base, "object": self._object, "choices": [choice], "usage": _usage(usage)}
        return orjson.dumps(document)


def _reason(finish: FinishReason) -> str:
    return "length" if finish is FinishReason.LENGTH else "stop"


def _usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
