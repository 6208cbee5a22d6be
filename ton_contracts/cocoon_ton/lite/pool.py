"""Several liteservers: ask until one gives an answer that holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from cocoon_ton.errors import ChainProofError, ChainUnavailableError
from cocoon_ton.lite.server import Server
from cocoon_ton.network import Liteserver

_T = TypeVar("_T")


async def _attempt(ask: Callable[[Server], Awaitable[_T]], server: Server) -> _T | _Failure:
    try:
        return await ask(server)
    except ChainProofError as error:
        server.distrust(str(error))
        return _Failure(error)
    except ChainUnavailableError as error:
        return _Failure(error)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error in place of an answer."""

    error: ChainProofError | ChainUnavailableError


class ServerPool:
    """The liteservers of a network."""

    def __init__(self, servers: tuple[Liteserver, ...], timeout: float) -> None:
        self.servers = tuple(Server(server, timeout) for server in servers)

    def usable(self) -> list[Server]:
        """Servers that were not caught lying lately; all of them if every one was."""
        return [server for server in self.servers if server.trusted] or list(self.servers)

    async def first(self, ask: Callable[[Server], Awaitable[_T]]) -> _T:
        """The first answer that holds, asking one server after the other.

        A server whose answer raises `ChainProofError` is put aside. If no answer holds, a wrong one
        (`ChainProofError`) is reported rather than a missing one (`ChainUnavailableError`).
        """
        lie: ChainProofError | None = None
        silence: ChainUnavailableError | None = None
        for server in self.usable():
            try:
                return await ask(server)
            except ChainProofError as error:
                server.distrust(str(error))
                lie = lie or error
            except ChainUnavailableError as error:
                silence = error
        raise lie or silence or ChainUnavailableError("the network has no liteservers")

    async def all(self, ask: Callable[[Server], Awaitable[_T]]) -> list[tuple[Server, _T]]:
        """The answers of all usable servers at once; servers that fail are left out.

        Raises one of the failures if all fail.
        """
        servers = self.usable()
        results = await asyncio.gather(*(_attempt(ask, server) for server in servers))
        good: list[tuple[Server, _T]] = []
        failure: ChainProofError | ChainUnavailableError | None = None
        for server, result in zip(servers, results, strict=True):
            if isinstance(result, _Failure):
                failure = failure or result.error
            else:
                good.append((server, result))
        if failure is not None and not good:
            raise failure
        return good

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(server.close() for server in self.servers))
