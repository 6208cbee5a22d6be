"""A TCP relay on loopback, in a thread of its own: it passes bytes on, keeps them, and can end TLS itself."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

T = TypeVar("T")
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Relay:
    """Listens on `port` and forwards every connection to `upstream`, which may be changed at any time.

    With `tls` it ends TLS with the certificate of that context, and speaks TLS to the upstream as a client
    that trusts anybody: what it keeps is then plaintext.
    """

    def __init__(self, upstream: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.sent = bytearray()
        """All that clients sent."""
        self.received = bytearray()
        """All that the upstream answered."""
        self.connections = 0
        self.route: Callable[[], int] | None = None
        """Chooses the upstream of each new connection, instead of `upstream`."""
        self._tls = tls
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # refused handshakes are no news here
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls))
        self.port = int(self._server.sockets[0].getsockname()[1])

    def forget(self) -> None:
        """Drop what was kept so far."""
        self.sent.clear()
        self.received.clear()
        self.connections = 0

    def cut(self) -> None:
        """Break all open connections."""
        self._do(self._cut())

    def close(self) -> None:
        """Stop."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # aborted transports say goodbye in the next rounds of the loop

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            client_tls = _trusting_anybody() if self._tls else None
            port = self.route() if self.route else self.upstream
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(up_writer)
        try:
            await asyncio.gather(
                _pump(reader, up_writer, self.sent), _pump(up_reader, writer, self.received)
            )
        finally:
            for end in (writer, up_writer):
                end.transport.abort()
                self._open.discard(end)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            record += data
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            return
    writer.transport.abort()


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def impostor(directory: Path, name: str = "cocoon-enclave") -> ssl.SSLContext:
    """A TLS server context with a fresh key and a self-signed certificate that carries the enclave's name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "impostor.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["h2"])
    return context


def data_frames(record: bytes) -> Iterator[bytes]:
    """Payloads of the HTTP/2 DATA frames in what one or more clients sent, one connection after the other."""
    rest = bytes(record)
    while rest:
        if rest.startswith(H2_PREFACE):
            rest = rest[len(H2_PREFACE) :]
            continue
        if len(rest) < 9:
            return
        length = int.from_bytes(rest[:3])
        if rest[3] == 0:
            yield rest[9 : 9 + length]
        rest = rest[9 + length :]
