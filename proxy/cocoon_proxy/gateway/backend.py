"""What the gateway needs from the client. `cocoon_proxy.client.AsyncClient` is the implementation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from cocoon_proxy.events import StreamEvent
from cocoon_proxy.values import ModelInfo


class Backend(Protocol):
    """The verified, sealed path behind the gateway."""

    def stream(self, endpoint: str, body: bytes) -> AsyncGenerator[StreamEvent, None]:
        """Send one request; yields Head, Data…, Completed. Closing it cancels the work."""
        ...

    async def models(self) -> tuple[ModelInfo, ...]:
        """Models that verified nodes serve."""
        ...

    async def status(self) -> Mapping[str, object]:
        """Sessions, policy and spending, JSON-ready."""
        ...

    async def receipt(self, id: str) -> Mapping[str, object]:
        """A receipt of the ledger, JSON-ready; raises `UnknownReceiptError`."""
        ...
