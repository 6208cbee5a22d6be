"""Endpoints, certificates, keys and the small parts around a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import ConfigError, MalformedError, UnsupportedError
from cocoon_proxy.errors import NodeUnavailableError
from cocoon_proxy.keys import ChannelKeys, load_channel_keys
from cocoon_proxy.tasks import TaskScope
from cocoon_proxy.transport import Endpoint, fetch_certificate, parse_certificate, parse_endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("node.example:65535", "node.example", 65535),
        ("[::1]:443", "::1", 443),
    ],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    endpoint = parse_endpoint(text)
    assert (endpoint.host, endpoint.port, str(endpoint)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:1x", "::1:443", "ho st:1", "h/x:1",
     "unix:/tmp/x", "dns:///h:1", "h\u00e9:1", "http://h:1", "h:\u0661"],
)  # fmt: skip
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_endpoint(text)


@given(st.text(max_size=60))
def test_arbitrary_endpoints_raise_only_malformed(text: str) -> None:
    with contextlib.suppress(MalformedError):
        parse_endpoint(text)


@given(st.binary(max_size=300))
def test_arbitrary_certificates_raise_only_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_certificate(data)


def test_a_certificate_is_read(harness: Any) -> None:
    _, pem, spki_hash = harness.tls_identity("some-name")
    pin = parse_certificate(ssl.PEM_cert_to_DER_cert(pem.decode()))
    assert (pin.spki_hash, pin.name) == (spki_hash, "some-name")
    assert ssl.PEM_cert_to_DER_cert(pin.pem.decode()) == pin.der


async def test_nobody_there_and_nobody_who_speaks_tls() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(NodeUnavailableError):
        await fetch_certificate(Endpoint(host="127.0.0.1", port=port), timeout_s=0.3)
    server.close()
    await server.wait_closed()
    with pytest.raises(NodeUnavailableError):
        await fetch_certificate(Endpoint(host="127.0.0.1", port=port), timeout_s=1)


def test_channel_keys_differ_by_node_and_salt_and_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "client" / "channel.key"
    keys = load_channel_keys(path)
    again = load_channel_keys(path)
    node, other = bytes(32), b"\x01" * 32
    assert keys.public_key(node, 7) == again.public_key(node, 7)
    assert len({keys.public_key(n, s) for n in (node, other) for s in (7, 8)}) == 4
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().hex() not in repr(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keys)
    path.chmod(0o644)
    with pytest.raises(ConfigError):
        load_channel_keys(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError):
        load_channel_keys(path)
    with pytest.raises(ConfigError):
        ChannelKeys(b"")


async def test_a_scope_ends_its_tasks_and_names_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    scope = TaskScope()
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def fails() -> None:
        raise ValueError("quotes a peer")

    scope.spawn(forever(), "forever")
    await asyncio.gather(scope.spawn(fails(), "fails"), return_exceptions=True)
    await scope.close()
    assert ended.is_set()
    assert "ValueError" in caplog.text
    assert "quotes a peer" not in caplog.text
    with pytest.raises(RuntimeError):
        scope.spawn(forever(), "late")


def test_importing_the_library_is_light() -> None:
    code = (
        "import sys, cocoon_proxy, cocoon_proxy.client, cocoon_proxy.sync, cocoon_proxy.gateway\n"
        "heavy = {'torch', 'transformers', 'starlette', 'uvicorn', 'cocoon_enclave', 'wasmtime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ}, timeout=60)


def test_without_its_extra_the_gateway_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from cocoon_proxy.config import GatewayConfig
    from cocoon_proxy.gateway import create_app, gateway

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for make in (create_app, gateway):
        with pytest.raises(UnsupportedError, match=r"cocoon-network\[gateway\]"):
            make(None, GatewayConfig())  # type: ignore[arg-type]
