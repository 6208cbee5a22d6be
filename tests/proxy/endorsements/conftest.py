"""A small HTTP server on this machine that answers like the vendors' services, or as badly as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from cocoon_proxy.endorsements.fetch import Fetcher, FetchLimits
from cocoon_proxy.endorsements.sources import EndorsementSources

NOW = 1_800_000_000


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of the server."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Wait before the first byte."""
    drip_s: float = 0.0
    """Wait after every byte of the body."""
    no_length: bool = False
    """Leave Content-Length out and end by closing."""
    cut: bool = False
    """Close in the middle of the body."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Request], Reply]


class VendorServer:
    """Routes by path; what has none gets 404."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.routes: dict[str, Handler] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Drop all connections."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Base address."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def on(self, path: str, *replies: Reply | Handler) -> None:
        """Answer requests for `path` with `replies` in turn; the last one stays."""
        left = list(replies)

        def handle(request: Request) -> Reply:
            reply = left.pop(0) if len(left) > 1 else left[0]
            return reply if isinstance(reply, Reply) else reply(request)

        self.routes[path] = handle

    def paths(self) -> list[str]:
        """Paths of all requests so far."""
        return [request.path for request in self.requests]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._serve(reader, writer):
                pass
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (h.partition(":") for h in head[1:] if h)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(method=method, path=parts.path, query=query, headers=headers, body=body)
        self.requests.append(request)
        handler = self.routes.get(parts.path)
        reply = handler(request) if handler else Reply(status=404, body=b"not found")
        await asyncio.sleep(reply.delay_s)
        lines = [
            f"HTTP/1.1 {reply.status} X",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
        ]
        lines.append("Connection: close" if reply.no_length else f"Content-Length: {len(reply.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
        for piece in [body] if not reply.drip_s else [bytes((byte,)) for byte in body]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(reply.drip_s)
        return not (reply.no_length or reply.cut)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        """Unix time in seconds."""
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[VendorServer]:
    """A running server without routes."""
    found = VendorServer()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def clock() -> Clock:
    """A clock at `NOW`."""
    return Clock()


@pytest.fixture
def sources(server: VendorServer) -> EndorsementSources:
    """All services at the local server."""
    return EndorsementSources(
        intel_pcs=server.url,
        intel_root_crl=f"{server.url}/IntelSGXRootCA.der",
        amd_kds=server.url,
        nvidia_rim=server.url,
        nvidia_ocsp=f"{server.url}/ocsp",
    )


@pytest.fixture
async def fetcher(sources: EndorsementSources) -> AsyncIterator[Fetcher]:
    """A fetcher that does not wait between attempts."""

    async def sleep(seconds: float) -> None:
        assert seconds > 0

    async with Fetcher(sources, limits=FetchLimits(total_s=2.0, backoff_s=0.01), sleep=sleep) as found:
        yield found


@pytest.fixture
def reply() -> type[Reply]:
    """The class of answers."""
    return Reply
