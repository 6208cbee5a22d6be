"""Connections to enclaves: gRPC over TLS, pinned to one certificate.

gRPC offers no hook that looks at a peer's key, so a connection is made in two steps. A bare TLS
handshake fetches the certificate that the server shows (nothing is sent on it). That certificate then
becomes the only trust anchor of the gRPC channel: whoever cannot prove possession of its key cannot
complete a handshake, now or at any later reconnect. Whether it is the *right* key is decided by
`check_pin`, which compares its SPKI hash with the appraised key binding before anything but an evidence
request is sent. See docs/spec/client.md, section 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ssl
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError, MalformedError
from cocoon_proxy.errors import NodeUnavailableError

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
_KEEPALIVE_MS: Final = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Address of an enclave's public service."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Parse ``host:port`` or ``[v6]:port``; raises `MalformedError` on anything else."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise MalformedError(f"endpoint is not host:port: {text[:100]!r}")
    plain = all(c.isascii() and (c.isalnum() or c in ".-:_%") for c in host)
    if not (colon and host and plain and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise MalformedError(f"endpoint is not host:port: {text[:100]!r}")
    return Endpoint(host=host, port=int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedCertificate:
    """The certificate that a server showed, and all that is needed to insist on it."""

    der: bytes = field(repr=False)
    spki_hash: bytes
    """SHA-256 of its DER SubjectPublicKeyInfo."""
    name: str
    """A name in it, for the library's host name check; says nothing about trust."""

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return ssl.DER_cert_to_PEM_cert(self.der).encode("ascii")


def parse_certificate(der: bytes) -> PinnedCertificate:
    """Read a server certificate; raises `MalformedError` if it does not parse or has no name."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        name = _name(certificate)
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise MalformedError("the server's certificate does not parse") from error
    return PinnedCertificate(der=der, spki_hash=hashlib.sha256(spki).digest(), name=name)


def _name(certificate: x509.Certificate) -> str:
    """First DNS name, else first IP address, else the common name."""
    with contextlib.suppress(x509.ExtensionNotFound):
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for name in alternative.get_values_for_type(x509.DNSName):
            return name.replace("*", "pinned", 1)
        for address in alternative.get_values_for_type(x509.IPAddress):
            return str(address)
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    raise ValueError("no name")


async def fetch_certificate(endpoint: Endpoint, *, timeout_s: float) -> PinnedCertificate:
    """The certificate that the server at `endpoint` shows now. Nothing is sent to it but a handshake.

    Raises:
        NodeUnavailableError: no TLS connection within `timeout_s` seconds.
        MalformedError: the certificate does not parse.
    """
    # Trust is not decided here, so the handshake accepts any certificate: it is compared with the
    # attested key binding afterwards, and no application data is ever sent on this connection.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    except (OSError, TimeoutError) as error:
        raise NodeUnavailableError(f"cannot connect to {endpoint}: {_text(error)}") from error
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if not der:
        raise NodeUnavailableError(f"{endpoint} showed no certificate")
    return parse_certificate(der)


def pinned_channel(endpoint: Endpoint, pin: PinnedCertificate) -> grpc.aio.Channel:
    """A channel whose every handshake requires the key of `pin`."""
    credentials = grpc.ssl_channel_credentials(root_certificates=pin.pem)
    return grpc.aio.secure_channel(
        str(endpoint),
        credentials,
        options=(
            ("grpc.ssl_target_name_override", pin.name),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )


def check_pin(pin: PinnedCertificate, binding: KeyBinding, checks: CheckList) -> None:
    """Require that the pinned TLS key is the one in an appraised key binding.

    Raises:
        EvidenceRejectedError: somebody else ends the TLS connection (check ``tls.spki``).
    """
    same = hmac.compare_digest(pin.spki_hash, binding.tls_spki_hash)
    checks.record(
        "tls.spki",
        same,
        "the connection's TLS key is the one in the key binding",
        spec="docs/spec/client.md#tls.spki",
        inputs=(("connection", pin.spki_hash.hex()), ("binding", binding.tls_spki_hash.hex())),
    )
    if not same:
        raise EvidenceRejectedError(
            "the TLS connection does not end in the appraised enclave", checks=checks
        )


def rpc_failure(error: grpc.aio.AioRpcError, what: str) -> NodeUnavailableError:
    """Wrap a failed call. Never used after a sealed request was sent: see `OutcomeUnknownError`."""
    return NodeUnavailableError(
        f"{what}: {error.code().name.lower()}", details={"grpc_status": error.code().name}
    )


def require_loopback(host: str) -> None:
    """Raise `ConfigError` unless `host` is a loopback address."""
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(f"{host} is not a loopback address")


def _text(error: Exception) -> str:
    return "timed out" if isinstance(error, TimeoutError) else (str(error) or type(error).__name__)[:200]
