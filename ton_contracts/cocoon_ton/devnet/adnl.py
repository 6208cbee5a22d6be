"""ADNL over TCP, the server side: handshake, encryption, packets, ping, queries.

A connection starts with 256 bytes: id of the server's key, the client's key, SHA-256 of 160 random
bytes, and those bytes encrypted. The random bytes hold both directions' AES-CTR keys. A packet is a
length (u32 LE), a 32-byte nonce, the payload and SHA-256 of nonce and payload, all encrypted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from nacl.bindings import crypto_scalarmult, crypto_sign_ed25519_pk_to_curve25519
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from cocoon_attestation.errors import MalformedError
from cocoon_ton.devnet import tl
from cocoon_ton.devnet.genesis import public_key, short_key_id

logger = logging.getLogger(__name__)

HANDSHAKE_BYTES: Final = 256
MAX_PACKET_BYTES: Final = 1 << 22
MAX_CONNECTIONS: Final = 256
MAX_PENDING: Final = 64
"""Queries of one connection that are worked on at once; further ones wait unread."""
HANDSHAKE_SECONDS: Final = 10.0
_OVERHEAD: Final = 64  # nonce and hash

Handler = Callable[[bytes], Awaitable[bytes]]


class HandshakeError(Exception):
    """The first bytes are no handshake for this server."""


def _cipher(key: bytes, counter: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()


class Session:
    """The keys of one connection: turns packets into bytes and back. No I/O."""

    def __init__(self, key: SigningKey, handshake: bytes) -> None:
        """Read the 256 bytes of a client. Raises HandshakeError."""
        if len(handshake) != HANDSHAKE_BYTES or not hmac.compare_digest(
            handshake[:32], short_key_id(public_key(key))
        ):
            raise HandshakeError("another server's key")
        checksum = handshake[64:96]
        try:
            client = crypto_sign_ed25519_pk_to_curve25519(handshake[32:64])
            shared = crypto_scalarmult(bytes(key.to_curve25519_private_key()), client)
        except (CryptoError, RuntimeError, ValueError) as error:
            raise HandshakeError("not a usable public key") from error
        opener = _cipher(shared[:16] + checksum[16:32], checksum[:4] + shared[20:32])
        seed = opener.update(handshake[96:])
        if not hmac.compare_digest(hashlib.sha256(seed).digest(), checksum):
            raise HandshakeError("wrong checksum")
        self._encrypt = _cipher(seed[:32], seed[64:80])
        self._decrypt = _cipher(seed[32:64], seed[80:96])

    def seal(self, payload: bytes) -> bytes:
        """The encrypted packet of a payload. Packets must be sent in the order they are made."""
        packet = os.urandom(32) + payload
        packet += hashlib.sha256(packet).digest()
        return self._encrypt.update(len(packet).to_bytes(4, "little") + packet)

    def open_length(self, data: bytes) -> int:
        """Length of the packet after these 4 bytes. Raises MalformedError."""
        length = int.from_bytes(self._decrypt.update(data), "little")
        if not _OVERHEAD <= length <= MAX_PACKET_BYTES:
            raise MalformedError(f"ADNL: a packet of {length} bytes")
        return length

    def open(self, data: bytes) -> bytes:
        """The payload of a packet. Raises MalformedError."""
        packet = self._decrypt.update(data)
        if not hmac.compare_digest(hashlib.sha256(packet[:-32]).digest(), packet[-32:]):
            raise MalformedError("ADNL: wrong checksum")
        return packet[32:-32]


class AdnlServer:
    """Listens on 127.0.0.1 and hands every ``liteServer.query`` to `handler`."""

    def __init__(self, key: SigningKey, handler: Handler) -> None:
        self._key = key
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> int:
        """Begin to listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and end all connections."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError, MalformedError, HandshakeError) as error:
            logger.debug("connection ended: %s", error)
        except asyncio.CancelledError:
            pass  # the server stops; asyncio logs a cancelled connection task as an error
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            session = Session(self._key, await reader.readexactly(HANDSHAKE_BYTES))
        connection = _Connection(session, writer, self._handler)
        pending: set[asyncio.Task[None]] = set()
        slots = asyncio.Semaphore(MAX_PENDING)

        def done(task: asyncio.Task[None]) -> None:
            pending.discard(task)
            slots.release()

        try:
            await connection.send(b"")  # the client waits for one empty packet
            while True:
                length = session.open_length(await reader.readexactly(4))
                payload = session.open(await reader.readexactly(length))
                await slots.acquire()
                task = asyncio.create_task(connection.handle(payload))
                pending.add(task)
                task.add_done_callback(done)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)


class _Connection:
    """The sending half of a connection, and what one packet does."""

    def __init__(self, session: Session, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._session = session
        self._writer = writer
        self._handler = handler
        self._lock = asyncio.Lock()

    async def send(self, payload: bytes) -> None:
        async with self._lock:
            self._writer.write(self._session.seal(payload))
            await self._writer.drain()

    async def handle(self, payload: bytes) -> None:
        """Answer a ping or a query; anything else is not answered."""
        try:
            await self._handle(payload)
        except (OSError, MalformedError) as error:  # the client left, or sends nonsense
            logger.debug("packet not answered: %s", error)

    async def _handle(self, payload: bytes) -> None:
        if payload[:4] == tl.tag("tcp.ping"):
            await self.send(tl.tag("tcp.pong") + payload[4:12])
            return
        message = tl.read(payload)
        if message["@type"] != "adnl.message.query":
            return
        query = tl.read(message["query"])
        if query["@type"] != "liteServer.query":
            return
        answer = await self._handler(query["data"])
        fields = {"query_id": message["query_id"], "answer": answer}
        await self.send(tl.write("adnl.message.answer", fields))
