"""The client library: prompts that only a verified enclave can read, and a proof for every answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cocoon_proxy.client import AsyncClient
    from cocoon_proxy.config import (
        ClientConfig,
        GatewayConfig,
        PaymentConfig,
        PolicyOverrides,
        SessionConfig,
        load_config,
    )
    from cocoon_proxy.events import (
        ClientEvent,
        Completed,
        Data,
        Head,
        StreamEvent,
    )
    from cocoon_proxy.sync import Client
    from cocoon_proxy.values import Answer, ModelInfo
    from cocoon_ton.network import NetworkConfig, load_network

_HOME = {
    "Answer": "cocoon_proxy.values",
    "AsyncClient": "cocoon_proxy.client",
    "Client": "cocoon_proxy.sync",
    "ClientConfig": "cocoon_proxy.config",
    "ClientEvent": "cocoon_proxy.events",
    "Completed": "cocoon_proxy.events",
    "Data": "cocoon_proxy.events",
    "GatewayConfig": "cocoon_proxy.config",
    "Head": "cocoon_proxy.events",
    "ModelInfo": "cocoon_proxy.values",
    "NetworkConfig": "cocoon_ton.network",
    "PaymentConfig": "cocoon_proxy.config",
    "PolicyOverrides": "cocoon_proxy.config",
    "SessionConfig": "cocoon_proxy.config",
    "StreamEvent": "cocoon_proxy.events",
    "load_config": "cocoon_proxy.config",
    "load_network": "cocoon_ton.network",
}

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClientConfig",
    "ClientEvent",
    "Completed",
    "Data",
    "GatewayConfig",
    "Head",
    "ModelInfo",
    "NetworkConfig",
    "PaymentConfig",
    "PolicyOverrides",
    "SessionConfig",
    "StreamEvent",
    "load_config",
    "load_network",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use, so that importing the package costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
