"""``/livez``, ``/readyz`` and ``/metrics`` over HTTP on a loopback port, in a thread of their own.

A thread, so that ``/livez`` tells the truth: it asks the event loop for a sign of life, and an event loop
that hangs does not answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

ANSWER_S: Final = 2.0
"""Longest wait for the event loop."""


class HealthServer:
    """A small HTTP server; `port` is known once it is made."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        loop: asyncio.AbstractEventLoop,
        ready: Callable[[], bool],
        refresh: Callable[[], None],
        registry: CollectorRegistry,
    ) -> None:
        """Listen on `address`. `ready` and `refresh` are called on `loop`."""

        async def on_loop(work: Callable[[], object]) -> object:
            return work()

        def ask(work: Callable[[], object]) -> object:
            return asyncio.run_coroutine_threadsafe(on_loop(work), loop).result(ANSWER_S)

        def page(path: str) -> tuple[int, str, bytes]:
            if path == "/livez":
                ask(lambda: True)
                return 200, "text/plain", b"ok\n"
            if path == "/readyz":
                return (200, "text/plain", b"ok\n") if ask(ready) else (503, "text/plain", b"not ready\n")
            if path == "/metrics":
                ask(refresh)
                return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
            return 404, "text/plain", b"not found\n"

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                try:
                    status, kind, body = page(self.path)
                except (FutureTimeoutError, RuntimeError):  # hanging, or closed
                    status, kind, body = 503, "text/plain", b"no answer\n"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes are not worth a line each."""

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="health")
        self._thread.start()

    @property
    def port(self) -> int:
        """Port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
