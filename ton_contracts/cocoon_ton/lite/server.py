"""One liteserver under supervision: reconnects with growing pauses, is put aside when it lies."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from nacl.exceptions import CryptoError

from cocoon_ton.errors import ChainUnavailableError
from cocoon_ton.lite.transport import LiteServerError, Transport
from cocoon_ton.network import Liteserver

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 30.0
_PENALTY = 300.0
_log = logging.getLogger(__name__)


class LiteserverRefusalError(ChainUnavailableError):
    """The liteserver answered with an error of its own."""

    code = "liteserver_refusal"

    def __init__(self, server: str, number: int, message: str) -> None:
        super().__init__(f"liteserver {server}: error {number}: {message}", details={"number": number})
        self.number = number


class _ConnectionLostError(ChainUnavailableError):
    """The connection ended before the answer came."""


class Server:
    """Queries to one liteserver. All failures are `ChainUnavailableError`."""

    def __init__(self, address: Liteserver, timeout: float) -> None:
        self.name = f"{address.host}:{address.port}"
        self._address = address
        self._timeout = timeout
        self._transport: Transport | None = None
        self._lock = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._distrusted_until = 0.0

    @property
    def trusted(self) -> bool:
        """False for a while after the server was caught with a wrong proof."""
        return time.monotonic() >= self._distrusted_until

    def distrust(self, reason: str) -> None:
        """Put the server aside: it answered something that the chain does not prove."""
        _log.warning("liteserver %s put aside for %.0f s: %s", self.name, _PENALTY, reason)
        self._distrusted_until = time.monotonic() + _PENALTY

    async def query(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        """One ``liteServer.*`` query.

        A connection that was opened earlier may have been closed meanwhile; then the query, which never
        does harm twice, is repeated once over a new one.
        """
        reused = self._transport
        try:
            return await self._query(method, fields)
        except _ConnectionLostError:
            if reused is None:
                raise
            return await self._query(method, fields)

    async def _query(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        transport = await self._connected()
        try:
            answer = await transport.query(method, fields)
        except LiteServerError as error:
            self._failures = 0
            raise LiteserverRefusalError(self.name, error.code, error.message) from error
        except TimeoutError as error:
            self._failed()  # one that connects and then says nothing costs a timeout ever more rarely
            await self._drop(transport)
            raise ChainUnavailableError(f"liteserver {self.name} did not answer in time") from error
        except OSError as error:
            await self._drop(transport)
            raise _ConnectionLostError(f"liteserver {self.name} closed the connection") from error
        except Exception as error:  # pytoniq's TL reader and writer raise anything on odd input
            await self._drop(transport)
            raise ChainUnavailableError(f"liteserver {self.name} answered nonsense") from error
        self._failures = 0
        return answer

    async def close(self) -> None:
        """Close the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def _connected(self) -> Transport:
        async with self._lock:
            if self._transport is not None and self._transport.alive:
                return self._transport
            await self.close()
            if time.monotonic() < self._not_before:
                raise ChainUnavailableError(f"liteserver {self.name} is down; trying again soon")
            try:
                transport = Transport(self._address, self._timeout)
                await transport.connect()
            except (OSError, EOFError, CryptoError) as error:  # IncompleteReadError is an EOFError
                self._failed()
                raise ChainUnavailableError(f"cannot connect to liteserver {self.name}") from error
            self._transport, self._not_before = transport, 0.0
            return transport

    def _failed(self) -> None:
        pause = min(_LAST_PAUSE, _FIRST_PAUSE * 2**self._failures)
        self._failures = min(self._failures + 1, 20)
        self._not_before = time.monotonic() + pause

    async def _drop(self, transport: Transport) -> None:
        if self._transport is transport:
            self._transport = None
        await transport.close()
