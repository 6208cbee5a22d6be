"""The client library: prompts that only a verified enclave can read, and a proof for every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cocoon_proxy.config import ClientConfig, PolicyOverrides
from cocoon_proxy.events import Completed, EventHandler, StreamEvent

if TYPE_CHECKING:
    from cocoon_ton.network import NetworkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that a verified node serves."""

    name: str
    digest: bytes
    """Model digest, 32 bytes."""
    context_length: int
    """Longest prompt plus answer, tokens."""
    nodes: tuple[str, ...]
    """Account ids of the nodes, hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer with its verified receipt."""

    status: int
    content_type: str
    body: bytes = field(repr=False)
    completed: Completed


class AsyncClient:
    """See docs/spec/client.md. Use it as an async context manager."""

    def __init__(
        self,
        network: NetworkConfig,
        home: Path | None = None,
        *,
        config: ClientConfig | None = None,
        policy_overrides: PolicyOverrides | None = None,
        on_event: EventHandler | None = None,
    ) -> None:
        self.on_event = on_event

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def models(self) -> tuple[ModelInfo, ...]:
        """Models that verified nodes serve."""
        raise NotImplementedError

    def stream(self, endpoint: str, body: bytes) -> AsyncIterator[StreamEvent]:
        """Send one OpenAI-shaped request; yields Head, Data…, Completed."""
        raise NotImplementedError

    async def complete(self, endpoint: str, body: bytes) -> Answer:
        """Send one request and collect the whole answer."""
        raise NotImplementedError

    async def chat(
        self, messages: Sequence[Mapping[str, object]], *, model: str, **options: object
    ) -> Answer:
        """Convenience for ``/v1/chat/completions`` without streaming."""
        raise NotImplementedError
