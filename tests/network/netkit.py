"""A whole Cocoon network as processes, for tests: chain, enclave with the real model, host agent, gateway.

`shared` gives the one network that most tests use; it is started once per test run. Tests that kill things
start their own with `Running.start`. Everything a network writes lies below one ``COCOON_HOME``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import httpx
import pytest

from cocoon.v1 import host_service_pb2, host_service_pb2_grpc
from cocoon_attestation.payment import parse_authorization, parse_claim
from cocoon_cli.devnetwork import DevNetwork, DevSettings
from cocoon_cli.processes import ManagedProcess
from cocoon_ton.chain import LiteChain, TransactionInfo
from cocoon_ton.channel import parse_channel
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import NodeState, parse_node

if TYPE_CHECKING:
    from tests.network.netkit_relay import Relay
    from tests.network.netkit_tools import (
        InProcess,
        Outcome,
        children,
        cocoon_process,
        environment,
        ledger_rows,
        processes_of,
        until,
        why_not,
    )
else:
    from netkit_relay import Relay
    from netkit_tools import (
        InProcess,
        Outcome,
        children,
        cocoon_process,
        environment,
        ledger_rows,
        processes_of,
        until,
        why_not,
    )

__all__ = [
    "MODEL",
    "STORY",
    "Book",
    "DemoRun",
    "Exchanged",
    "InProcess",
    "Outcome",
    "Running",
    "Served",
    "children",
    "cocoon_process",
    "demo_run",
    "environment",
    "ledger_rows",
    "processes_of",
    "shared",
    "until",
    "why_not",
]

MODEL = "smollm2-135m-instruct"
STORY = "Tell me a long story about a lighthouse keeper who finds a map. Use many details."
"""A prompt whose answer is long enough to be interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """One finished chat completion with the exact bytes that its receipt covers."""

    request: bytes
    response: bytes
    receipt: str
    """Receipt id, hex."""
    text: str


@dataclass(slots=True, kw_only=True)
class Served:
    """A running `cocoon serve`."""

    process: ManagedProcess
    home: Path
    base_url: str
    grpc_port: int

    def ask(self, prompt: str, *, max_tokens: int = 8) -> Exchanged:
        """One chat completion in one piece."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        request = json.dumps(body).encode()
        found = httpx.post(
            f"{self.base_url}/chat/completions",
            content=request,
            headers={"content-type": "application/json", "x-cocoon-raw": "1"},
            timeout=120,
            trust_env=False,
        )
        assert found.status_code == 200, found.text
        return Exchanged(
            request=request,
            response=found.content,
            receipt=found.headers["x-cocoon-receipt"],
            text=found.json()["choices"][0]["message"]["content"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One channel from both sides. Nanoton."""

    used: int
    """What the enclave signed for."""
    cap: int
    """What the client signed for."""
    paid: int
    """What the channel paid, on chain."""
    balance: int
    """What is left in it, on chain."""


@dataclass(slots=True, kw_only=True)
class Running:
    """A started network. `home` is its ``COCOON_HOME``; clients of other homes use `network_file`."""

    home: Path
    dev: DevNetwork
    network: NetworkConfig
    public: Relay | None = None
    """In front of the enclave's public port, if asked for: the endpoint that the registry lists."""
    private: Relay | None = None
    """Between host agent and enclave."""
    gateways: list[ManagedProcess] = field(default_factory=list)

    @classmethod
    def start(cls, home: Path, *, relayed: bool = False, tee: str = "tdx", gpus: int = 0) -> Running:
        """Start everything below `home`, or go on where an earlier network in `home` stopped.

        `tee` and `gpus` are those of `DevSettings`: which machine is simulated.
        """
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        settings = DevSettings(
            name="dev",
            root=home / "dev",
            anchor_every_s=1,
            settle_above=1,
            poll_s=0.3,
            block_ms=300,
            tee=tee,
            gpus=gpus,
        )
        dev = DevNetwork(settings, lambda *_: None)
        try:
            with environment(COCOON_HOME=str(home), TMPDIR=str(home / "tmp")):
                network = dev.start()
            running = cls(home=home, dev=dev, network=network)
            if relayed:
                running._relay()
        except BaseException:
            dev.stop()
            raise
        return running

    def _relay(self) -> None:
        """Put relays in front of both ports, and have the host agent publish the new endpoint."""
        ports = json.loads((self.dev.root / "ports.json").read_text())
        self.public, self.private = Relay(ports["public"]), Relay(ports["host"])
        config = self.dev.root / "host.toml"
        text = config.read_text().replace(
            f'endpoint = "127.0.0.1:{ports["public"]}"', f'endpoint = "127.0.0.1:{self.public.port}"'
        )
        text = text.replace(
            f'host_service = "127.0.0.1:{ports["host"]}"', f'host_service = "127.0.0.1:{self.private.port}"'
        )
        config.write_text(text)
        self.restart("host")
        endpoint = f"127.0.0.1:{self.public.port}"
        until(lambda: (terms := self.node().terms) and terms.endpoint == endpoint, what="new endpoint")

    def stop(self) -> None:
        """Stop all processes."""
        for gateway in self.gateways:
            gateway.stop()
        self.dev.stop()
        for relay in (self.public, self.private):
            if relay is not None:
                relay.close()
        self.gateways.clear()
        self.public = self.private = None

    @property
    def network_file(self) -> Path:
        """The network for ``--network``."""
        return self.dev.root / "network.json"

    @property
    def node_id(self) -> str:
        """Account id of the node, hex."""
        found = self.part("host").ready["account_id"]
        assert isinstance(found, str)
        return found

    def part(self, name: str) -> ManagedProcess:
        """``devnet``, ``enclave`` or ``host``."""
        process = {"devnet": self.dev.devnet, "enclave": self.dev.enclave, "host": self.dev.host}[name]
        assert process is not None
        return process

    def restart(self, name: str, *, timeout: float = 120) -> None:
        """Start a part again on its files."""
        self.dev.restart(self.part(name), timeout=timeout)

    @contextlib.contextmanager
    def gateway(self, home: Path | None = None) -> Iterator[Served]:
        """`cocoon serve` with the wallet and ledger of `home`."""
        served = self.serve(home)
        try:
            yield served
        finally:
            served.process.stop()
            self.gateways.remove(served.process)

    def serve(self, home: Path | None = None) -> Served:
        """Start `cocoon serve`; `stop` ends it."""
        chosen = home or self.home
        argv = [
            sys.executable, "-m", "cocoon_cli", "serve", "--network", str(self.network_file),
            "--port", "0", "--grpc-port", "0", "--json",
        ]  # fmt: skip
        env = {**os.environ, "COCOON_HOME": str(chosen), "TMPDIR": str(self.home / "tmp")}
        log = self.home / "dev" / "logs" / f"gateway-{len(self.gateways)}.log"
        process = ManagedProcess("gateway", argv, log, env=env)
        process.start()
        try:
            ready = process.wait_ready(60)
        except BaseException as error:
            process.stop()
            raise AssertionError(f"no gateway: {log.read_text()[-2000:]}") from error
        self.gateways.append(process)
        port = ready["grpc_port"]
        assert isinstance(port, int)
        return Served(process=process, home=chosen, base_url=str(ready["base_url"]), grpc_port=port)

    def export(self, exchanged: Exchanged, target: Path, *, home: Path | None = None) -> bytes:
        """The bundle of an answer, as soon as its receipt is anchored."""
        request, response = target.with_suffix(".request"), target.with_suffix(".response")
        request.write_bytes(exchanged.request)
        response.write_bytes(exchanged.response)

        def attempt() -> bool:
            found = cocoon_process(
                "receipts", "export", exchanged.receipt, "--request", request, "--response", response,
                "--output", target, "--network", self.network_file, "--json", home=home or self.home,
            )  # fmt: skip
            assert found.code in (0, 40), found.out + found.err  # 40: not anchored yet
            return found.code == 0

        until(attempt, what="anchored receipt")
        return target.read_bytes()

    def node(self) -> NodeState:
        """The node contract as the chain has it."""

        async def main() -> NodeState:
            async with LiteChain(self.network) as chain:
                account = await chain.account(_account(bytes.fromhex(self.node_id)))
                assert account.data is not None
                return parse_node(account.data)

        return asyncio.run(main())

    def transactions(self, account: bytes) -> list[TransactionInfo]:
        """All transactions of an account, oldest first."""

        async def main() -> list[TransactionInfo]:
            async with LiteChain(self.network) as chain:
                return list(reversed(await chain.transactions(_account(account), limit=1000)))

        return asyncio.run(main())

    def books(self) -> dict[str, Book]:
        """Every channel that the enclave has a claim on, and what the chain says about it."""

        async def main() -> dict[str, Book]:
            endpoint = f"127.0.0.1:{self.part('enclave').ready['host_port']}"
            async with grpc.aio.insecure_channel(endpoint) as channel, LiteChain(self.network) as chain:
                stub: host_service_pb2_grpc.HostServiceAsyncStub = host_service_pb2_grpc.HostServiceStub(
                    channel
                )
                listed = await stub.ListClaims(host_service_pb2.ListClaimsRequest(), timeout=20)
                found = {}
                for message in listed.claims:
                    claim = parse_claim(message.claim.claim)
                    account = await chain.account(_account(claim.channel))
                    assert account.data is not None
                    found[claim.channel.hex()] = Book(
                        used=claim.used,
                        cap=parse_authorization(message.authorization.authorization).cap,
                        paid=parse_channel(account.data).paid,
                        balance=account.balance,
                    )
                return found

        return asyncio.run(main())

    def metrics(self) -> str:
        """The enclave's ``/metrics`` page."""
        port = self.part("enclave").ready["health_port"]
        return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


def _account(id: bytes) -> Any:
    from pytoniq_core import Address

    return Address((0, id))


_SHARED = pytest.StashKey[Running]()


def shared(config: pytest.Config) -> Running:
    """The network that tests share, started at its first use and stopped at the end of the test run."""
    if _SHARED not in config.stash:
        if reason := why_not():
            pytest.skip(reason)
        directory = tempfile.TemporaryDirectory(prefix="cocoon-net-")
        config.add_cleanup(directory.cleanup)
        running = Running.start(Path(directory.name), relayed=True)
        config.add_cleanup(running.stop)
        config.stash[_SHARED] = running
    return config.stash[_SHARED]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """What `cocoon demo --json` did."""

    home: Path
    outcome: Outcome
    seconds: float


def demo_run(home: Path) -> DemoRun:
    """Run the demo in a home of its own."""
    if reason := why_not():
        pytest.skip(reason)
    started = time.monotonic()
    outcome = cocoon_process("demo", "--json", home=home, timeout=200)
    return DemoRun(home=home, outcome=outcome, seconds=time.monotonic() - started)
