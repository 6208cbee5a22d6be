"""Who is at the other end of a loopback connection."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from cocoon_proxy.gateway import guard
from cocoon_proxy.gateway.peer import is_other_user, peer_uid

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket owners are read from /proc")


@pytest.fixture(params=["127.0.0.1", "::1"])
def connection(request: pytest.FixtureRequest) -> Iterator[tuple[tuple[str, int], int]]:
    """Client address and server port of a real connection on loopback."""
    host = str(request.param)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 loopback here")
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection((host, port)) as client, listener.accept()[0]:
            yield (host, client.getsockname()[1]), port


def test_own_connections_are_recognised(connection: tuple[tuple[str, int], int]) -> None:
    client, port = connection
    assert peer_uid(client, port) == os.getuid()
    assert not is_other_user(client, port)


def test_another_user_is_other(connection: tuple[tuple[str, int], int]) -> None:
    client, port = connection
    # Seen from a gateway of some other user, this process's connection is foreign, unless we are root.
    assert is_other_user(client, port, uid=os.getuid() + 1) is (os.getuid() != 0)


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("10.0.0.1", 1), ("nonsense", 1)])
def test_unknown_ends_are_not_accused(client: tuple[str, int]) -> None:
    assert peer_uid(client, 2) is None
    assert not is_other_user(client, 2)


@pytest.mark.parametrize(("token", "status"), [("", 403), ("0123456789abcdef", 401)])
def test_the_guard_refuses_another_user(monkeypatch: pytest.MonkeyPatch, token: str, status: int) -> None:
    from starlette.applications import Starlette

    from cocoon_proxy.config import GatewayConfig

    monkeypatch.setattr(guard, "is_other_user", lambda client, port: True)
    app = guard.Guard(Starlette(), GatewayConfig(token=token))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/v1/models").status_code == status
