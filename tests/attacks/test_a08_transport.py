"""A8 on the wire: a man in the middle swaps the TLS key, the seal key, or both, before or after appraisal.

The attacker sits on the TCP path and ends TLS with a key of his own where it suits him. He has an enclave
service that relays honest evidence, changes it, or makes up its own, and he keeps every byte. In no case
may a prompt reach him, not even sealed: a request that was sealed to the honest key is not sent either.
"""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import CocoonError, EvidenceRejectedError
from cocoon_attestation.sealing import generate_seal_keypair
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_proxy import events as e

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

CHAT = "/v1/chat/completions"


def _load_harness() -> Any:
    name = "cocoon_proxy_harness"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "proxy" / "harness.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


harness = _load_harness()
Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Middle:
    """A TCP relay that sends each new connection to the honest enclave or to the attacker's."""

    def __init__(self, honest: FakeEnclave, attacker: FakeEnclave) -> None:
        self.honest, self.attacker = honest, attacker
        self.route: Callable[[int], FakeEnclave] = lambda number: honest
        self.connections = 0
        self.seen = bytearray()
        self._open: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Drop every connection."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def stop(self) -> None:
        assert self._server is not None
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self.route(self.connections)
        self.connections += 1
        try:
            onward = await asyncio.open_connection("127.0.0.1", target.port)
        except OSError:
            writer.transport.abort()
            return
        self._open += [writer, onward[1]]
        await asyncio.gather(self._pump(reader, onward[1]), self._pump(onward[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.seen += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture(scope="module")
def platform() -> DevPlatform:
    return DevPlatform.create(int(time.time()) - 86_400, secrets.token_bytes)


@pytest.fixture
async def network(platform: DevPlatform, tmp_path: Path) -> AsyncIterator[Network]:
    found: Network = harness.Network(platform, tmp_path)
    yield found
    await found.stop()


@pytest.fixture
async def middle(network: Network) -> AsyncIterator[Middle]:
    """The honest enclave is listed at the attacker's address."""
    honest = await network.add_enclave()
    attacker = harness.FakeEnclave(network.platform, network.genesis.address, 99)
    await attacker.start()
    relay = Middle(honest, attacker)
    await relay.start()
    listing = honest.listing
    listing.endpoint = f"127.0.0.1:{relay.port}"
    network.publish(listing)
    yield relay
    await relay.stop()
    await attacker.stop()


async def attempt(network: Network) -> tuple[CocoonError, bytes]:
    """Make a request that must fail; returns the error and the marker in the prompt."""
    request, marker = harness.random_body()
    async with network.client() as client:
        with pytest.raises(CocoonError) as caught:
            await client.complete(CHAT, request)
    return caught.value, marker


def assert_nothing_left(network: Network, middle: Middle, marker: bytes) -> None:
    assert middle.connections > 0
    assert not middle.attacker.sealed_seen
    assert not middle.honest.sealed_seen
    assert not network.of(e.RequestSealed)
    assert marker not in middle.seen


def failed_checks(error: CocoonError) -> set[str]:
    assert isinstance(error, EvidenceRejectedError)
    assert error.checks is not None
    return {check.id for check in error.checks.failed}


async def test_the_relay_is_transparent_when_honest(network: Network, middle: Middle) -> None:
    request, marker = harness.random_body()
    async with network.client() as client:
        answer = await client.complete(CHAT, request)
    assert answer.status == 200
    assert marker in middle.honest.requests[0].body
    assert marker not in middle.seen


async def test_own_tls_key_and_honest_evidence(network: Network, middle: Middle) -> None:
    """The attacker ends TLS and relays the honest enclave's answer to the client's own nonce."""
    middle.route = lambda number: middle.attacker
    middle.attacker.make_evidence = middle.honest.make_evidence  # type: ignore[method-assign]
    error, marker = await attempt(network)
    assert failed_checks(error) == {"tls.spki"}
    assert_nothing_left(network, middle, marker)


async def test_own_tls_key_and_swapped_seal_key(network: Network, middle: Middle) -> None:
    """He also puts his seal key beside the honest key binding."""
    own = generate_seal_keypair()

    def swapped(challenge: bytes) -> bytes:
        message = evidence_pb2.Evidence.FromString(middle.honest.make_evidence(challenge))
        message.seal_public_key = own.public_key
        return message.SerializeToString(deterministic=True)

    middle.route = lambda number: middle.attacker
    middle.attacker.make_evidence = swapped  # type: ignore[method-assign]
    error, marker = await attempt(network)
    assert "binding.seal_key" in failed_checks(error)
    assert_nothing_left(network, middle, marker)


async def test_own_binding_under_the_honest_quote(network: Network, middle: Middle) -> None:
    """A whole key binding of his own for the honest node, under a quote for the honest one."""

    def rebound(challenge: bytes) -> bytes:
        message = evidence_pb2.Evidence.FromString(middle.honest.make_evidence(challenge))
        binding = harness.replace(middle.attacker.binding, node=middle.honest.node)
        message.key_binding = binding.to_boc()
        message.seal_public_key = middle.attacker.seal.public_key
        return message.SerializeToString(deterministic=True)

    middle.route = lambda number: middle.attacker
    middle.attacker.make_evidence = rebound  # type: ignore[method-assign]
    error, marker = await attempt(network)
    assert "binding.report_data" in failed_checks(error)
    assert_nothing_left(network, middle, marker)


async def test_a_genuine_enclave_of_another_node(network: Network, middle: Middle) -> None:
    """The attacker runs a genuine, allowed enclave; it is not the node that is paid and listed."""
    middle.route = lambda number: middle.attacker
    error, marker = await attempt(network)
    assert failed_checks(error)
    assert_nothing_left(network, middle, marker)


async def test_recorded_evidence_of_an_earlier_session(network: Network, middle: Middle) -> None:
    """Old honest evidence does not answer a new nonce."""
    recorded = middle.honest.make_evidence(bytes(32))
    middle.route = lambda number: middle.attacker
    middle.attacker.make_evidence = lambda challenge: recorded  # type: ignore[method-assign]
    error, marker = await attempt(network)
    assert "challenge" in failed_checks(error)
    assert_nothing_left(network, middle, marker)


async def test_the_key_changes_between_certificate_and_handshake(network: Network, middle: Middle) -> None:
    """The first connection sees the honest certificate; gRPC's own connections go to the attacker."""
    middle.route = lambda number: middle.honest if number == 0 else middle.attacker
    middle.attacker.make_evidence = middle.honest.make_evidence  # type: ignore[method-assign]
    error, marker = await attempt(network)
    assert error.code == "node_unavailable"
    assert middle.attacker.evidence_calls == 0
    assert_nothing_left(network, middle, marker)


async def test_the_other_way_round(network: Network, middle: Middle) -> None:
    """The first connection sees the attacker's certificate; gRPC's own go to the honest enclave."""
    middle.route = lambda number: middle.attacker if number == 0 else middle.honest
    error, marker = await attempt(network)
    assert error.code == "node_unavailable"
    assert_nothing_left(network, middle, marker)


@pytest.mark.parametrize("relays_evidence", [True, False])
async def test_the_connection_is_taken_over_after_appraisal(
    network: Network, middle: Middle, relays_evidence: bool
) -> None:
    """Everything is honest until a request was served; then the path is cut and leads to the attacker."""
    first, _ = harness.random_body()
    second, marker = harness.random_body()
    if relays_evidence:
        middle.attacker.make_evidence = middle.honest.make_evidence  # type: ignore[method-assign]
    async with network.client() as client:
        await client.complete(CHAT, first)
        middle.route = lambda number: middle.attacker
        middle.cut()
        async with asyncio.timeout(10):
            while not network.of(e.SessionEnded):  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)
        with pytest.raises(EvidenceRejectedError):
            await client.complete(CHAT, second)
    assert len(network.of(e.RequestSealed)) == 1
    assert len(middle.honest.sealed_seen) == 1
    assert not middle.attacker.sealed_seen
    assert marker not in middle.seen


async def test_grpc_itself_reconnects_to_nobody_else(network: Network, middle: Middle) -> None:
    """The channel is pinned for its whole life: its own reconnects refuse the attacker's key as well."""
    from cocoon.v1 import attestation_service_pb2 as info
    from cocoon.v1 import attestation_service_pb2_grpc as rpc
    from cocoon_proxy.transport import fetch_certificate, parse_endpoint, pinned_channel

    endpoint = parse_endpoint(f"127.0.0.1:{middle.port}")
    pin = await fetch_certificate(endpoint, timeout_s=5)
    channel = pinned_channel(endpoint, pin)
    try:
        stub = rpc.AttestationServiceStub(channel)
        await stub.GetEvidence(info.GetEvidenceRequest(challenge=bytes(32)), timeout=5)
        middle.route = lambda number: middle.attacker
        middle.cut()
        for _ in range(3):
            with pytest.raises(Exception, match=r"UNAVAILABLE|DEADLINE"):
                await stub.GetEvidence(info.GetEvidenceRequest(challenge=bytes(32)), timeout=2)
    finally:
        await channel.close(None)
    assert middle.attacker.evidence_calls == 0
