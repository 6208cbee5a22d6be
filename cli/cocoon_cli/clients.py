"""How commands reach the client library: network, settings and state directory in one place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cocoon_ton.network import NetworkConfig, load_network
from cocoon_ton.paths import home_dir

if TYPE_CHECKING:
    from cocoon_proxy.client import AsyncClient
    from cocoon_proxy.config import ClientConfig
    from cocoon_proxy.events import ClientEvent, EventHandler
    from cocoon_proxy.ledger import Ledger

T = TypeVar("T")


def client_home(network: NetworkConfig) -> Path:
    """Directory of the client's wallet and ledger on a network."""
    return home_dir() / "client" / network.name


def client_config(path: Path | None, overrides: dict[str, object]) -> ClientConfig:
    """Settings of the client: flags, then environment, then file, then defaults."""
    from cocoon_proxy.config import load_config

    default = home_dir() / "client.toml"
    chosen = path or (default if default.exists() else None)
    return load_config(chosen, env=os.environ, overrides=overrides)


def open_client(
    network: str,
    *,
    config_path: Path | None = None,
    overrides: dict[str, object] | None = None,
    on_event: EventHandler | None = None,
) -> AsyncClient:
    """A client on the named network, not yet entered."""
    from cocoon_proxy.client import AsyncClient

    chosen = load_network(network)
    return AsyncClient(
        chosen,
        home_dir(),
        config=client_config(config_path, overrides or {}),
        on_event=on_event,
        passphrase=os.environ.get("COCOON_WALLET_PASSPHRASE"),
    )


def open_ledger(network: str) -> Ledger:
    """The client's ledger on the named network; close it."""
    from cocoon_proxy.ledger import Ledger

    return Ledger(client_home(load_network(network)))


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end; cancellation by Ctrl-C closes sessions properly."""

    async def whole() -> T:
        return await main()

    return asyncio.run(whole())


def event_json(event: ClientEvent) -> dict[str, Any]:
    """A progress event as JSON: type, and its fields with bytes in hex."""
    return {"event": type(event).__name__, **{k: _plain(v) for k, v in asdict(event).items()}}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
