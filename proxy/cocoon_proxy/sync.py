"""The client for programs without an event loop: the same words as `AsyncClient`, blocking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cocoon_proxy.client import AsyncClient
from cocoon_proxy.config import ClientConfig, PolicyOverrides
from cocoon_proxy.events import EventHandler, StreamEvent
from cocoon_proxy.values import Answer, ModelInfo
from cocoon_ton.network import NetworkConfig

_T = TypeVar("_T")


class Client:
    """A client of one Cocoon network, as a context manager. May be used from several threads.

    Runs an `AsyncClient` on an event loop in a thread of its own; arguments and errors are the same.
    """

    def __init__(
        self,
        network: NetworkConfig,
        home: Path | None = None,
        *,
        config: ClientConfig | None = None,
        policy_overrides: PolicyOverrides | None = None,
        on_event: EventHandler | None = None,
        **injected: Any,
    ) -> None:
        self._client = AsyncClient(
            network, home, config=config, policy_overrides=policy_overrides, on_event=on_event, **injected
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start the loop and open the client."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cocoon-client", daemon=True)
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client and stop the loop."""
        try:
            self._run(self._client.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def stream(self, endpoint: str, body: bytes) -> Iterator[StreamEvent]:
        """As `AsyncClient.stream`; closing the iterator cancels the work."""
        events = self._client.stream(endpoint, body)
        try:
            while True:
                try:
                    yield self._run(anext(events))
                except StopAsyncIteration:
                    return
        finally:
            self._run(events.aclose())

    def complete(self, endpoint: str, body: bytes) -> Answer:
        """As `AsyncClient.complete`."""
        return self._run(self._client.complete(endpoint, body))

    def chat(self, messages: Sequence[Mapping[str, object]], *, model: str, **options: object) -> Answer:
        """As `AsyncClient.chat`."""
        return self._run(self._client.chat(messages, model=model, **options))

    def models(self) -> tuple[ModelInfo, ...]:
        """As `AsyncClient.models`."""
        return self._run(self._client.models())

    def status(self) -> dict[str, object]:
        """As `AsyncClient.status`."""
        return self._run(self._client.status())

    def receipt(self, id: str) -> dict[str, object]:
        """As `AsyncClient.receipt`."""
        return self._run(self._client.receipt(id))

    def export_bundle(
        self, receipt_id: str, *, request: bytes | None = None, response: bytes | None = None
    ) -> bytes:
        """As `AsyncClient.export_bundle`."""
        return self._run(self._client.export_bundle(receipt_id, request=request, response=response))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            work.close()
            raise RuntimeError("use the client in a `with` statement")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = None
