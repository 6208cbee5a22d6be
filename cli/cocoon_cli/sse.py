"""The text of a streamed answer, piece by piece, for terminals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from cocoon_attestation.errors import EngineError
from cocoon_proxy.events import Completed, Data, Head, StreamEvent


async def content_pieces(events: AsyncIterator[StreamEvent]) -> AsyncIterator[str]:
    """Yield the `content` deltas of an OpenAI event stream as they arrive.

    Raises:
        EngineError: the enclave answered with an error.
    """
    buffer, status = b"", 200
    async for event in events:
        match event:
            case Head():
                status = event.status
            case Data():
                buffer += event.data
                if status < 400:
                    *whole, buffer = buffer.split(b"\n\n")
                    for block in whole:
                        if piece := _delta(block):
                            yield piece
            case Completed():
                pass
    if status >= 400:
        raise EngineError(_message(buffer))


def _delta(block: bytes) -> str:
    data = block.removeprefix(b"data: ")
    try:
        choices = json.loads(data)["choices"]
        return str(choices[0]["delta"].get("content") or "") if choices else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the enclave refused the request"
