"""Messages between the front-end and the engine process: one msgpack list each, many events in one.

To the engine: ``[ADD, id, prompt, max_tokens, [temperature, top_p, top_k, seed], stop_tokens]``,
``[ABORT, id]``, ``[QUIT]``. From the engine: ``[READY, {detail}, context_length, slots]``, ``[STEP, [[id,
tokens, finish, started], ...]]`` (an empty list is a sign of life), ``[FAILED, code, message]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from cocoon_enclave.engine.protocol import FinishReason, GenerationRequest, Sampling

ADD: Final = 0
ABORT: Final = 1
QUIT: Final = 2
READY: Final = 10
STEP: Final = 11
FAILED: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an engine process needs to know; passed to it when it is spawned."""

    directory: Path
    digest: bytes
    """Model digest that the files must have."""
    context_length: int
    dtype: str = "auto"
    slots: int = 16
    prefill_chunk: int = 64
    threads: int = 1


def pack(message: list[Any]) -> bytes:
    """Encode a message."""
    data: bytes = msgpack.packb(message)
    return data


def unpack(data: bytes) -> list[Any]:
    """Decode a message that the other half of this program made."""
    message: list[Any] = msgpack.unpackb(data)
    return message


def pack_add(id: int, request: GenerationRequest) -> bytes:
    """Encode a request."""
    how = request.sampling
    return pack(
        [
            ADD,
            id,
            request.prompt,
            request.max_tokens,
            [how.temperature, how.top_p, how.top_k, how.seed],
            sorted(request.stop_tokens),
        ]
    )


def unpack_add(message: list[Any]) -> tuple[int, GenerationRequest]:
    """Decode a request."""
    _, id, prompt, max_tokens, how, stop = message
    temperature, top_p, top_k, seed = how
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    request = GenerationRequest(
        prompt=tuple(prompt), max_tokens=max_tokens, sampling=sampling, stop_tokens=frozenset(stop)
    )
    return id, request


def pack_step(events: Iterable[tuple[int, tuple[int, ...], FinishReason | None, bool]]) -> bytes:
    """Encode the events of one pass."""
    return pack(
        [STEP, [[id, tokens, finish and finish.value, started] for id, tokens, finish, started in events]]
    )
