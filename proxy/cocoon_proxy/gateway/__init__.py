"""The local gateway: OpenAI-compatible HTTP and gRPC on loopback.

Needs the optional dependencies of ``cocoon-network[gateway]``; they are imported only by `serve` and
`create_app`, so that the library stays light.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from cocoon_proxy.errors import MissingExtraError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from cocoon_proxy.config import GatewayConfig
    from cocoon_proxy.gateway.backend import Backend
    from cocoon_proxy.gateway.server import Gateway

_NEEDED = ("starlette", "uvicorn")


def require_extra() -> None:
    """Raise `MissingExtraError` unless the gateway's dependencies are installed."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtraError("gateway")


def create_app(backend: Backend, config: GatewayConfig) -> Starlette:
    """The ASGI application. Raises `MissingExtraError` without the extra."""
    require_extra()
    from cocoon_proxy.gateway.app import create_app as create

    return create(backend, config)


def gateway(backend: Backend, config: GatewayConfig) -> Gateway:
    """Both servers as an async context manager. Raises `MissingExtraError` without the extra."""
    require_extra()
    from cocoon_proxy.gateway.server import Gateway as Server

    return Server(backend, config)


__all__ = ["create_app", "gateway", "require_extra"]
