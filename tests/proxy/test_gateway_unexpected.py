"""A defect inside the gateway still ends as an OpenAI-shaped error that no library repeats."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import httpx
import pytest

from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.events import StreamEvent
from cocoon_proxy.gateway.app import create_app
from cocoon_proxy.values import ModelInfo


class Broken:
    """A backend with a defect."""

    async def stream(self, endpoint: str, body: bytes) -> AsyncGenerator[StreamEvent, None]:
        raise RuntimeError("never expected")
        yield

    async def models(self) -> tuple[ModelInfo, ...]:
        raise KeyError("never expected")

    async def status(self) -> Mapping[str, object]:
        raise ValueError("never expected")

    async def receipt(self, id: str) -> Mapping[str, object]:
        raise TypeError("never expected")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/cocoon/status", "/v1/cocoon/receipts/x", "/v1/completions"]
)
async def test_an_unexpected_failure(path: str, stream: bool) -> None:
    transport = httpx.ASGITransport(create_app(Broken(), GatewayConfig()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        if path == "/v1/completions":
            found = await client.post(path, json={"model": "m", "prompt": "secret", "stream": stream})
        else:
            found = await client.get(path)
    assert found.status_code == 500
    assert found.json()["error"]["code"] == "internal"
    assert found.json()["error"]["type"] == "api_error"
    assert found.headers["x-should-retry"] == "false"
    assert "never expected" not in found.text
