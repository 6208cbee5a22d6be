"""The shapes of the OpenAI API: errors, model lists, server-sent events. Pure functions.

Bodies pass through as they are. The one thing that is added is a ``cocoon`` member that names the
receipt: on the last choice chunk of a stream, or in a single JSON answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cocoon_attestation.errors import (
    CocoonError,
    EvidenceRejectedError,
    PaymentError,
    ReceiptRejectedError,
    RejectedError,
    SealingError,
    UnavailableError,
)
from cocoon_proxy.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    NodeBusyError,
    OutcomeUnknownError,
    UnknownReceiptError,
)
from cocoon_proxy.events import Completed
from cocoon_proxy.values import ModelInfo

EVENT_STREAM: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"
_RETRY_UNAVAILABLE_S: Final = 5
_RETRY_BUSY_S: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse:
    """An error as HTTP."""

    status: int
    body: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body, ensure_ascii=False).encode("utf-8")


def error_response(error: CocoonError) -> ErrorResponse:
    """HTTP status, headers and body of an error.

    A request that may have been charged for must not be repeated by a client library on its own, so
    such errors carry ``x-should-retry: false``.
    """
    headers: dict[str, str] = {}
    status, kind = error.http_status, "api_error"
    match error:
        case ModelNotFoundError() | InvalidRequestError() | UnknownReceiptError():
            kind = "invalid_request_error"
        case _ if may_have_cost(error):
            status = 502
            headers["x-should-retry"] = "false"
        case EvidenceRejectedError():
            kind = "attestation_error"
        case PaymentError():
            kind = "payment_error"
            headers["x-should-retry"] = "false"
        case NodeBusyError():
            kind = "rate_limit_error"
            headers["retry-after"] = str(_RETRY_BUSY_S)
        case UnavailableError():
            kind = "unavailable_error"
            headers["retry-after"] = str(_RETRY_UNAVAILABLE_S)
        case RejectedError():
            kind = "attestation_error" if status == 403 else "invalid_request_error"
            headers["x-should-retry"] = "false"
    return ErrorResponse(status=status, body=_error_body(error, kind), headers=headers)


def may_have_cost(error: CocoonError) -> bool:
    """True if the request may have been charged for, so that repeating it could cost twice."""
    return isinstance(error, (OutcomeUnknownError, SealingError, ReceiptRejectedError))


def _error_body(error: CocoonError, kind: str) -> dict[str, object]:
    message = str(error) + (f" ({error.hint})" if error.hint else "")
    body: dict[str, object] = {
        "message": message,
        "type": kind,
        "param": error.details.get("param"),
        "code": error.code,
    }
    if isinstance(error, RejectedError) and error.checks is not None:
        body["cocoon"] = {"failed_checks": [check.to_dict() for check in error.checks.failed]}
    return {"error": body}


def plain_error(status: int, message: str, *, kind: str, code: str) -> ErrorResponse:
    """An error that the gateway finds itself."""
    return ErrorResponse(
        status=status, body={"error": {"message": message, "type": kind, "param": None, "code": code}}
    )


def receipt_member(completed: Completed) -> dict[str, object]:
    """The ``cocoon`` member of an answer."""
    return {
        "receipt_id": completed.receipt_id,
        "node": completed.node,
        "amount_nanoton": completed.amount,
        "simulated": completed.simulated,
    }


def receipt_headers(completed: Completed) -> dict[str, str]:
    """The same as headers, for answers in one piece."""
    return {
        "x-cocoon-receipt": completed.receipt_id,
        "x-cocoon-node": completed.node,
        "x-cocoon-price": str(completed.amount),
        "x-cocoon-simulated": "true" if completed.simulated else "false",
    }


def annotate_json(body: bytes, completed: Completed) -> bytes:
    """A single JSON answer with the ``cocoon`` member; other bodies come back unchanged."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(document, dict):
        return body
    document["cocoon"] = receipt_member(completed)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def finish_stream(tail: bytes, completed: Completed) -> bytes:
    """The end of a stream: `tail` with the ``cocoon`` member on its finish chunk, then ``[DONE]``.

    A tail without a finish chunk gets a chunk of its own, without choices.
    """
    events = [event for event in tail.replace(b"\r\n", b"\n").split(b"\n\n") if event.strip()]
    events = [event for event in events if event.strip() != DONE.strip()]
    annotated = False
    for index in range(len(events) - 1, -1, -1):
        chunk = _chunk(events[index])
        if chunk is not None and _finishes(chunk):
            chunk["cocoon"] = receipt_member(completed)
            events[index] = _event(chunk)
            annotated = True
            break
    if not annotated:
        last = _chunk(events[-1]) if events else None
        events.append(_event(_bare_chunk(last or {}, completed)))
    return b"".join(event.strip(b"\n") + b"\n\n" for event in events) + DONE


def stream_error(error: CocoonError) -> bytes:
    """The event that ends a stream which failed; no ``[DONE]`` follows."""
    return b"data: " + error_response(error).content + b"\n\n"


def model_list(models: Sequence[ModelInfo]) -> dict[str, object]:
    """Body of ``GET /v1/models``."""
    return {"object": "list", "data": [model_object(model) for model in models]}


def model_object(model: ModelInfo) -> dict[str, object]:
    """Body of ``GET /v1/models/{id}``."""
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "cocoon",
        "cocoon": {
            "digest": model.digest.hex(),
            "context_length": model.context_length,
            "nodes": list(model.nodes),
        },
    }


def _chunk(event: bytes) -> dict[str, object] | None:
    lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    if len(lines) != 1:
        return None
    try:
        document = json.loads(lines[0])
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _finishes(chunk: Mapping[str, object]) -> bool:
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") is not None for choice in choices
    )


def _event(document: Mapping[str, object]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8") + b"\n\n"


def _bare_chunk(like: Mapping[str, object], completed: Completed) -> dict[str, object]:
    kept = {key: like[key] for key in ("id", "object", "created", "model") if key in like}
    return {
        "id": f"cocoon-{completed.receipt_id[:16]}",
        "object": "chat.completion.chunk",
        **kept,
        "choices": [],
        "cocoon": receipt_member(completed),
    }
