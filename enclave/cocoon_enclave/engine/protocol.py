"""The seam between the service and whatever runs the model: token ids in, token ids out, step by step.

Text never crosses it. An engine is fair to all its requests, stops one within a step of `abort`, and
tells of its own death instead of leaving anybody waiting.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class FinishReason(enum.StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model ended its answer."""
    LENGTH = "length"
    """`max_tokens` or the context is used up."""
    ABORT = "abort"
    """`Engine.abort` was called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn from the model's distribution."""

    temperature: float = 1.0
    """0 picks the most likely token (greedy)."""
    top_p: float = 1.0
    """Nucleus: the smallest set of most likely tokens with at least this probability."""
    top_k: int = 0
    """Only the k most likely tokens; 0 for all."""
    seed: int | None = None
    """Makes the draw repeatable, as far as the arithmetic is (it depends on the batch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt."""

    prompt: tuple[int, ...]
    """Token ids, at least one."""
    max_tokens: int
    """Most tokens to generate, at least 1; prompt plus this fits the context."""
    sampling: Sampling = Sampling()
    stop_tokens: frozenset[int] = frozenset()
    """Ends the answer, beside the model's own end tokens; not delivered."""

    def __repr__(self) -> str:
        """Shows no content."""
        return f"GenerationRequest(prompt=<{len(self.prompt)} tokens>, max_tokens={self.max_tokens})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one engine step brought to one request."""

    tokens: tuple[int, ...] = ()
    """New token ids, in order; end tokens are left out."""
    finish: FinishReason | None = None
    """Set on the last delta."""
    started: bool = False
    """True on the first delta: the engine began to compute the prompt (no token need be there yet)."""
    cached_tokens: int = 0
    """On the first delta: prompt tokens found in the client's own cache."""

    def __repr__(self) -> str:
        """Shows no content."""
        return f"Delta(<{len(self.tokens)} tokens>, finish={self.finish}, started={self.started})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine is."""

    name: str
    """Kind of engine, for example ``transformers``."""
    context_length: int
    """Longest prompt plus answer, in tokens."""
    slots: int
    """Sequences decoded together."""
    detail: tuple[tuple[str, str], ...] = ()
    """Data type, kernels and so on, for a person."""


class Generation(Protocol):
    """A running request: iterate over its deltas; the last has `finish` set."""

    def __aiter__(self) -> AsyncIterator[Delta]:
        """Deltas in order.

        Raises:
            EngineError: the engine failed or died; no more deltas come.
        """
        ...

    def abort(self) -> None:
        """Stop within one engine step; a last delta with `FinishReason.ABORT` follows. Idempotent."""
        ...


class Engine(Protocol):
    """Runs one model."""

    @property
    def info(self) -> EngineInfo:
        """What it is; known once started."""
        ...

    @property
    def ready(self) -> bool:
        """True while requests are accepted."""
        ...

    @property
    def active(self) -> int:
        """Requests that are waiting or running."""
        ...

    async def start(self) -> None:
        """Load the model.

        Raises:
            EngineError: it cannot be loaded.
        """
        ...

    async def close(self) -> None:
        """Abort everything and free the model. Idempotent."""
        ...

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request.

        Raises:
            ContextLengthError: it does not fit the context.
            NodeBusyError: too many requests wait already.
            EngineError: the engine is not running.
        """
        ...
