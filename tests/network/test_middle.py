"""A8 over real TCP: somebody between client and enclave ends TLS himself. No request reaches him."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.network.netkit import MODEL, InProcess, Running
    from tests.network.netkit_relay import Relay, data_frames, impostor
else:
    from netkit import MODEL
    from netkit_relay import Relay, data_frames, impostor

pytestmark = [pytest.mark.network, pytest.mark.model]
SECRET = "canary-" + secrets.token_hex(12)


@pytest.fixture
def middle(net: Running, tmp_path: Path) -> Iterator[Relay]:
    """The man in the middle: he has the connection, a certificate with the right name, and the wrong key."""
    relay = net.public
    assert relay is not None
    honest = relay.upstream
    end = Relay(honest, tls=impostor(tmp_path))
    relay.upstream = end.port
    yield end
    relay.upstream = honest
    relay.cut()
    end.close()


def _only_a_nonce_was_sent(middle: Relay) -> None:
    """He saw one message: GetEvidenceRequest with 32 random bytes. He could read it, so he can read."""
    (message,) = data_frames(bytes(middle.sent))
    assert message[:7] == b"\0\0\0\0\x22\x0a\x20"
    assert len(message) == 5 + 2 + 32
    assert SECRET.encode() not in middle.sent


def test_a_first_contact_is_refused_by_the_tls_key(net: Running, middle: Relay, cocoon: InProcess) -> None:
    found = cocoon("chat", SECRET, "--network", net.network_file, "--json")
    assert found.code == 10, found.out
    assert found.json["error"]["code"] == "evidence_rejected"
    # Every other check passes: he relays the genuine enclave's evidence.
    assert found.failed_checks() == {"tls.spki"}
    _only_a_nonce_was_sent(middle)
    assert not (cocoon.home / "client" / "dev" / "outbox.sqlite3").exists()  # and no money moved


def test_verify_node_names_the_check(net: Running, middle: Relay, cocoon: InProcess) -> None:
    found = cocoon("verify", "node", "--network", net.network_file, "--json")
    assert found.code == 10, found.out
    assert found.json["verdict"] == "rejected"
    assert len(found.json["checks"]) > 25
    _only_a_nonce_was_sent(middle)


def test_after_the_certificate_was_fetched_it_is_too_late(
    net: Running, middle: Relay, cocoon: InProcess
) -> None:
    """He lets the first connection through, on which the certificate is read, and takes the second one."""
    relay = net.public
    assert relay is not None
    honest, mine = middle.upstream, middle.port

    class Switch:
        """Ports in the order of the connections."""

        def __init__(self) -> None:
            self.ports = [honest]

        def next(self) -> int:
            return self.ports.pop() if self.ports else mine

    relay.route = Switch().next
    try:
        found = cocoon("chat", SECRET, "--network", net.network_file, "--json")
    finally:
        relay.route = None
    assert found.code == 40, found.out
    assert found.json["error"]["code"] == "node_unavailable"
    assert list(data_frames(bytes(middle.sent))) == []


def test_a_session_that_is_cut_is_not_resumed_with_somebody_else(
    net: Running, middle: Relay, tmp_path: Path
) -> None:
    """The gateway has an appraised session; he cuts it and answers the next connection himself."""
    relay = net.public
    assert relay is not None
    mine, relay.upstream = relay.upstream, middle.upstream
    with net.gateway(tmp_path / "home") as served:
        served.ask("Hello", max_tokens=3)
        relay.upstream = mine
        relay.cut()
        body = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}], "max_tokens": 3}
        url = f"{served.base_url}/chat/completions"
        refused = httpx.post(url, json=body, timeout=60, trust_env=False)
        assert refused.status_code == 403, refused.text
        error = refused.json()["error"]
        assert error["code"] == "evidence_rejected"
        assert error["type"] == "attestation_error"
        assert [check["id"] for check in error["cocoon"]["failed_checks"]] == ["tls.spki"]
        _only_a_nonce_was_sent(middle)
        # A second try does not soften it.
        again = httpx.post(url, json=body, timeout=60, trust_env=False)
        assert again.status_code in (403, 503), again.text
        assert SECRET.encode() not in middle.sent
        assert json.dumps(SECRET).encode() not in middle.received
