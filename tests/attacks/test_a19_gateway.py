"""A19: web pages, rebound names, other local users and open interfaces do not reach the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from cocoon_attestation.errors import ConfigError
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.events import StreamEvent
from cocoon_proxy.gateway import create_app, gateway
from cocoon_proxy.values import ModelInfo

TOKEN = "correct-horse-battery"
PATHS = ("/v1/models", "/v1/cocoon/status")


class Untouched:
    """A backend that counts what reaches it."""

    def __init__(self) -> None:
        self.calls = 0

    async def stream(self, endpoint: str, body: bytes) -> AsyncIterator[StreamEvent]:
        self.calls += 1
        nothing: tuple[StreamEvent, ...] = ()
        for event in nothing:
            yield event

    async def models(self) -> tuple[ModelInfo, ...]:
        self.calls += 1
        return ()

    async def status(self) -> Mapping[str, object]:
        self.calls += 1
        return {}

    async def receipt(self, id: str) -> Mapping[str, object]:
        self.calls += 1
        return {}


async def get(config: GatewayConfig, headers: dict[str, str], method: str = "GET") -> list[tuple[int, int]]:
    """Status, and calls that reached the backend, for each path."""
    found = []
    for path in PATHS:
        backend: Any = Untouched()
        transport = httpx.ASGITransport(create_app(backend, config))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8480") as http:
            got = await http.request(method, path, headers=headers)
        assert "x-request-id" in got.headers
        allowed = got.headers.get("access-control-allow-origin")
        assert allowed is None or allowed in config.allowed_origins
        found.append((got.status_code, backend.calls))
    return found


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8480", "localhost:8480", "LOCALHOST", "[::1]:8480", "127.0.0.1"]
)
async def test_loopback_names_are_served(host: str) -> None:
    assert await get(GatewayConfig(), {"host": host}) == [(200, 1)] * 2


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8480", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1:x",
     "[::1", "", "127.0.0.1@evil.example", "0.0.0.0:8480"],
)  # fmt: skip
async def test_a_rebound_name_is_refused(host: str) -> None:
    assert await get(GatewayConfig(), {"host": host}) == [(421, 0)] * 2


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8480"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_web_pages_are_refused(headers: dict[str, str]) -> None:
    assert await get(GatewayConfig(), headers) == [(403, 0)] * 2
    assert await get(GatewayConfig(token=TOKEN), headers) == [(403, 0)] * 2


async def test_an_allowed_origin_is_served_and_its_preflight_answered() -> None:
    config = GatewayConfig(allowed_origins=("http://localhost:3000",), token=TOKEN)
    origin = {"origin": "http://localhost:3000"}
    assert await get(config, {**origin, "authorization": f"Bearer {TOKEN}"}) == [(200, 1)] * 2
    assert await get(config, origin) == [(401, 0)] * 2
    assert await get(config, origin, "OPTIONS") == [(204, 0)] * 2
    assert await get(config, {"origin": "http://localhost:3001"}, "OPTIONS") == [(403, 0)] * 2


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN]
)
async def test_a_wrong_token_is_refused(value: str) -> None:
    headers = {"authorization": value} if value else {}
    assert await get(GatewayConfig(token=TOKEN), headers) == [(401, 0)] * 2


async def test_the_right_token_is_served() -> None:
    assert await get(GatewayConfig(token=TOKEN), {"authorization": f"bearer {TOKEN}"}) == [(200, 1)] * 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
async def test_an_open_interface_needs_a_token(host: str) -> None:
    backend: Any = Untouched()
    with pytest.raises(ConfigError):
        gateway(backend, GatewayConfig(host=host, port=0, grpc_port=0))
    with pytest.raises(ConfigError):
        gateway(backend, GatewayConfig(host=host, token="short", port=0, grpc_port=0))


async def test_websockets_are_refused() -> None:
    backend: Any = Untouched()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await create_app(backend, GatewayConfig())({"type": "websocket", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert backend.calls == 0
