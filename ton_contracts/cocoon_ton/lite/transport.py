"""pytoniq's ADNL client as a plain transport: queries in, TL dictionaries out, nothing believed.

pytoniq follows blocks and checks proofs by itself in ways that are not sound or stop silently
(``docs/spec/ledger-client.md#the-library-underneath``). This subclass keeps its handshake, ciphers and TL
writer, and replaces the rest: it bounds what a server may send, reads in linear time, keeps ``bytes``
fields as bytes, and starts no task but its reader.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
from typing import Any, Literal

from pytoniq import LiteClient
from pytoniq.liteclient.client import LiteServerError
from pytoniq_core.tl.generator import TlGenerator, TlSchema, TlSchemas

from cocoon_ton.network import Liteserver

MAX_PACKET = 8 << 20
"""Largest ADNL packet accepted, in bytes."""
_MIN_PACKET = 64  # nonce and checksum
_ERROR_TL = bytes.fromhex("48e1a9bb")  # liteServer.error

__all__ = ["MAX_PACKET", "LiteServerError", "Transport"]


class _ViewSchemas(TlSchemas):
    """TL schemes that read from a `memoryview`, so that skipping over a field copies nothing."""

    def get_by_id(self, tl_id: Any, byteorder: Literal["little", "big"] = "big") -> TlSchema | None:
        if isinstance(tl_id, memoryview):
            tl_id = bytes(tl_id)
        return super().get_by_id(tl_id, byteorder)


@functools.cache
def _schemas() -> TlSchemas:
    return _ViewSchemas(TlGenerator.with_default_schemas().generate().list, auto_deserialize=False)


def _plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


class Transport(LiteClient):
    """One ADNL connection to one liteserver. Use it once: `connect`, `query`…, `close`."""

    def __init__(self, server: Liteserver, timeout: float) -> None:
        super().__init__(
            host=server.host,
            port=server.port,
            server_pub_key=base64.b64encode(server.public_key).decode(),
            trust_level=2,
        )
        self._limit = timeout
        self.schemas = _schemas()
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Open the connection and start reading. Raises `OSError` or `TimeoutError`."""
        async with asyncio.timeout(self._limit):
            hello = self.handshake()
            self.reader, self.writer = await asyncio.open_connection(self.server.host, self.server.port)
            try:
                self.writer.write(hello)
                await self.writer.drain()
                await self._read_packet()  # the server's empty greeting
            except BaseException:
                self.writer.close()
                raise
        self._reading = asyncio.create_task(self._read(), name="liteserver reader")

    @property
    def alive(self) -> bool:
        """Whether the connection still reads."""
        return self._reading is not None and not self._reading.done()

    async def query(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        """One ``liteServer.*`` query.

        Raises `LiteServerError` if the server answers with an error, `OSError` if the connection is or
        gets lost, `TimeoutError`, and `ValueError` on an answer that is not TL.
        """
        if not self.alive:
            raise ConnectionResetError("connection is closed")
        request, query_id = self.serialize_adnl_ls_query(
            self.schemas.get_by_name(f"liteServer.{method}"), fields
        )
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[query_id] = future
        try:
            async with asyncio.timeout(self._limit):
                self.writer.write(self.encrypt(self.serialize_packet(request)))
                await self.writer.drain()
                raw = await future
        finally:
            self._answers.pop(query_id, None)
            if not future.cancel() and not future.cancelled():
                future.exception()  # looked at, should nobody have waited for it
        return self._parse(raw)

    async def close(self) -> None:
        """Close the connection; queries under way end with `ConnectionResetError`."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading], timeout=1.0)
        if self.writer is not None:
            self.writer.close()

    def _parse(self, raw: bytes) -> dict[str, Any]:
        view: Any = raw if raw[:4] == _ERROR_TL else memoryview(raw)  # text fields need real bytes
        answer, _ = self.schemas.deserialize(view)
        if not isinstance(answer, dict):
            raise ValueError("answer is not TL")
        if answer["@type"] == "liteServer.error":
            raise LiteServerError(answer["code"], answer["message"][:300])
        plain: dict[str, Any] = _plain(answer)
        return plain

    async def _read(self) -> None:
        """Hand each answer to its query until the connection ends, whatever ends it."""
        try:
            while True:
                packet = await self._read_packet()
                message, _ = self.schemas.deserialize(packet)
                if isinstance(message, dict) and message.get("@type") == "adnl.message.answer":
                    future = self._answers.pop(message["query_id"], None)
                    if future is not None and not future.done():
                        future.set_result(message["answer"])
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: S110  # the TL reader on hostile bytes: end the connection
            pass
        finally:
            self._fail_all()
            if self.writer is not None:
                self.writer.close()

    def _fail_all(self) -> None:
        for future in self._answers.values():
            if not future.done():
                future.set_exception(ConnectionResetError("connection is closed"))
        self._answers.clear()

    async def _read_packet(self) -> bytes:
        """The payload of one packet: length, nonce, payload, SHA-256 of both."""
        length = int.from_bytes(self.decrypt(await self.reader.readexactly(4)), "little")
        if not _MIN_PACKET <= length <= MAX_PACKET:
            raise ConnectionResetError("liteserver sent a packet of a refused size")
        packet = self.decrypt(await self.reader.readexactly(length))
        if not hmac.compare_digest(hashlib.sha256(packet[:-32]).digest(), packet[-32:]):
            raise ConnectionResetError("liteserver sent a damaged packet")
        return bytes(packet[32:-32])
