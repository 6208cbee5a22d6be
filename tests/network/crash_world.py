"""One life of a small network in which processes die at crash points and are started again.

Chain, enclave (scripted engine, tiny model), host agent and command line run as processes of their own, through
`crash_launch.py`. The life is always the same: join, attest, open a channel, ask, anchor, top up, ask, close,
settle, finish. `Life.live` runs it, whatever dies; `books` adds up everything that was ever paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
from pytoniq_core import Address, Transaction

from cocoon.v1 import host_service_pb2, host_service_pb2_grpc
from cocoon_attestation.payment import parse_claim
from cocoon_attestation.receipt import Receipt, parse_receipt
from cocoon_cli import devchain
from cocoon_cli.devfiles import enclave_toml, host_toml
from cocoon_cli.devnetwork import DevSettings, host_wallet, node_identity
from cocoon_cli.processes import ManagedProcess
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.models import measure
from cocoon_enclave.models.demo import FetchedModel
from cocoon_ton import opcodes
from cocoon_ton.chain import LiteChain
from cocoon_ton.channel import parse_channel
from cocoon_ton.devnet.control import send_command
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import NodeState, parse_node
from cocoon_ton.proof.boc import parse_boc

HERE = Path(__file__).parent
TON = 10**9
CLOSE_DELAY_S = 600
"""Passes at once, by the chain's virtual time, when the host has settled."""
T = TypeVar("T")
sys.path.insert(0, str(HERE.parent / "enclave"))


class CrashError(AssertionError):
    """A process ended otherwise than by a crash point, or the network did not get on."""


class Life:
    """A network below `home`. `armed`: the points at which processes die, each once."""

    def __init__(self, home: Path, armed: Iterable[str] = ()) -> None:
        self.home = home
        self.root = home / "dev"
        self.log = home / "points.log"
        self._plan = home / "plan.json"
        (home / "tmp").mkdir(parents=True)
        self._plan.write_text(json.dumps({"armed": sorted(armed), "log": str(self.log)}))
        self._ports = {name: free_port() for name in ("liteserver", "public", "host", "health")}
        self._parts: dict[str, ManagedProcess] = {}
        self.network: NetworkConfig | None = None
        self.channels: list[bytes] = []
        self.answers = 0

    # ---- processes

    def _start(self, name: str, program: str, *arguments: str) -> None:
        argv = [sys.executable, str(HERE / "crash_launch.py"), str(self._plan), name, program, *arguments]
        process = ManagedProcess(name, argv, self.root / "logs" / f"{name}.log", env=self._environment())
        self._parts[name] = process
        process.start()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "COCOON_HOME": str(self.home), "TMPDIR": str(self.home / "tmp")}

    def tend(self) -> None:
        """Start again what a crash point killed."""
        for name, process in self._parts.items():
            if process.running():
                continue
            if process.exit_code != -signal.SIGKILL:
                raise CrashError(f"{name} ended with {process.exit_code}: {self._tail(name)}")
            process.stop()
            process.start()

    def _tail(self, name: str) -> str:
        log = self.root / "logs" / f"{name}.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else ""

    def until(self, look: Callable[[], T], what: str, within: float = 150.0) -> T:
        """Wait until `look` returns something true, while the processes are tended."""
        end = time.monotonic() + within
        while True:
            self.tend()
            with contextlib.suppress(Exception):  # the chain may be away just now
                if found := look():
                    return found
            if time.monotonic() > end:
                tails = "\n".join(f"== {name}\n{self._tail(name)}" for name in self._parts)
                raise CrashError(f"not within {within:.0f} s: {what}; deaths {self.deaths}\n{tails}")
            time.sleep(0.1)

    def cocoon(
        self,
        *arguments: str,
        ok: Callable[[dict[str, Any]], bool] = lambda _: True,
        done: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Run a command until it ends well and `ok` likes its answer; a person would type it again.

        done: whether a command that died had done its work, as a person would look before typing it again.
        """
        end = time.monotonic() + 240
        argv = [
            sys.executable, str(HERE / "crash_launch.py"), str(self._plan), "client", "cocoon_cli", *arguments,
            "--network", str(self.root / "network.json"), "--json",
        ]  # fmt: skip
        while True:
            with subprocess.Popen(
                argv,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                while process.poll() is None:
                    self.tend()
                    time.sleep(0.05)
                out, err = process.communicate()
            if process.returncode == 0 and ok(document := json.loads(out)):
                return dict(document)
            if process.returncode == -signal.SIGKILL and done():
                return {}
            if process.returncode == 2 or b"Traceback" in err or time.monotonic() > end:
                raise CrashError(
                    f"{arguments}: {process.returncode} {out.decode()} {err.decode()[-3000:]}; {self.deaths}"
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop everything."""
        for process in reversed(self._parts.values()):
            process.stop()

    def _points(self, word: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split()[1] for line in lines if line.startswith(word)]

    @property
    def deaths(self) -> list[str]:
        """Points at which a process died, in order."""
        return self._points("died ")

    @property
    def reached(self) -> set[str]:
        """Points that were passed."""
        return set(self._points("reached "))

    # ---- the life

    def live(self, *, rounds: int = 1) -> None:
        """Everything from nothing to an empty outbox, with `rounds` channels one after the other."""
        network = self.begin()
        node = node_identity(network, host_wallet(self.root / "host", network.global_id)).address
        self.until(lambda: self._attested(node), "attested")
        for _ in range(rounds):
            self._one_channel(node)
        self.until(self._quiet, "nothing pending")

    def _one_channel(self, node: Address) -> None:
        self.ask()
        (channel,) = self.ledger("SELECT id FROM channels WHERE state = 'open'")
        id = bytes(channel["id"])
        self.channels.append(id)
        self.cocoon("wallet", "top-up", id.hex(), "0.5", "--yes", done=lambda: self._topped_up(id))
        self.ask()
        self.until(lambda: self._anchored(node), "anchored")
        self.cocoon("wallet", "close", id.hex(), "--yes")
        self.until(lambda: self._settled(id), "settled after the close began")
        self.until(self._warp, "time")
        self.cocoon("wallet", "close", id.hex(), "--yes", ok=lambda found: found["state"] == "closed")

    def begin(self) -> NetworkConfig:
        """Start everything up to the host agent."""
        from enclave_testkit import write_tiny_model  # type: ignore[import-not-found]

        write_tiny_model(self.home / "tiny")
        model = FetchedModel(
            name="tiny", path=self.home / "tiny", digest=measure(self.home / "tiny").digest
        )
        platform = DevPlatform.create(int(time.time()) - 3600, secrets.token_bytes)
        platform.save(self.root / "platform")
        self._start(
            "chain", "cocoon_ton.devnet", "--dir", str(self.root / "chain"), "--block-ms", "100",
            "--port", str(self._ports["liteserver"]),
        )  # fmt: skip
        self.until(lambda: self._network(platform, ""), "chain")
        network = self.until(lambda: self._deploy(platform, model), "registry")
        network.save(self.root / "network.json")
        self.network = network
        self._write_configs(network, platform, model)
        self._start(
            "enclave", str(HERE.parent / "enclave" / "enclave_testkit.py"), str(self.root / "enclave.toml")
        )
        self.start_host()
        return network

    def start_host(self) -> None:
        """Start the host agent."""
        self._start("host", "cocoon_cli", "host", "run", "--config", str(self.root / "host.toml"), "--json")

    def end(self, name: str) -> None:
        """Kill a process for good: it is not tended any more."""
        process = self._parts.pop(name)
        process.kill()
        process.stop()

    def _network(self, platform: DevPlatform, registry: str) -> NetworkConfig:
        directory = self.root / "chain"
        return NetworkConfig(
            name="dev",
            global_id=-217,
            registry=registry,
            global_config=json.loads((directory / "global.config.json").read_text()),
            dev_root=platform.root_der,
            simulated=True,
            faucet={"seed": str(json.loads((directory / "faucet.json").read_text())["seed"])},
        )

    def _deploy(self, platform: DevPlatform, model: FetchedModel) -> NetworkConfig:
        base = self._network(platform, "")

        async def main() -> str:
            registry = await devchain.deploy_registry(
                base, self.root / "faucet", platform=platform, release=platform.release(), model=model,
                genesis_file=self.root / "genesis.json", close_delay=CLOSE_DELAY_S,
            )  # fmt: skip
            host = host_wallet(self.root / "host", base.global_id)
            network = dataclasses.replace(base, registry=registry)
            await devchain.fund(network, self.root / "faucet", host.address, 100 * TON, key="fund-host")
            return registry

        return dataclasses.replace(base, registry=asyncio.run(main()))

    def _write_configs(self, network: NetworkConfig, platform: DevPlatform, model: FetchedModel) -> None:
        host = host_wallet(self.root / "host", network.global_id)
        # Settled only because the client begins to close: the host must notice that.
        settings = DevSettings(root=self.root, anchor_every_s=1, settle_above=10 * TON, poll_s=0.1)
        (self.root / "enclave.toml").write_text(
            enclave_toml(
                network, settings, node=node_identity(network, host).account_id,
                release=platform.release(), model=model, ports=self._ports,
            )
        )  # fmt: skip
        text = host_toml(
            settings, endpoint=f"127.0.0.1:{self._ports['public']}",
            host_service=f"127.0.0.1:{self._ports['host']}", model=model.digest,
        )  # fmt: skip
        (self.root / "host.toml").write_text(text + 'settle_minimum = "0.000001"\n')

    def ask(self) -> None:
        """One answer."""
        before = self.answers
        self.cocoon("chat", "Say something.", "--model", "tiny", "--max-tokens", "6")
        self.answers = before + 1

    # ---- looking

    def account(self, address: Address) -> Any:
        """An account from proved state."""
        assert self.network is not None
        network = self.network

        async def main() -> Any:
            async with LiteChain(network) as chain:
                return await chain.account(address)

        return asyncio.run(main())

    def now(self) -> int:
        """The chain's time."""
        return int(asyncio.run(send_command(self.root / "chain", "status"))["now"])

    def node(self, address: Address) -> NodeState:
        """The node contract."""
        return parse_node(self.account(address).data)

    def _attested(self, node: Address) -> bool:
        key = self.node(node).key
        return key is not None

    def _anchored(self, node: Address) -> bool:
        rows = self.ledger("SELECT max(log_index) AS highest FROM receipts")
        return bool(self.node(node).log.tree_size > rows[0]["highest"])

    def _quiet(self) -> bool:
        """No outbox has anything left to do."""
        paths = [self.root / "host" / "outbox.sqlite3", self.home / "client" / "dev" / "outbox.sqlite3"]
        return not any(
            _rows(path, "SELECT key FROM operations WHERE state IN ('queued', 'sent')") for path in paths
        )

    def _settled(self, channel: bytes) -> bool:
        """Whether the chain has paid all that the enclave has a claim for."""

        async def used() -> int:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{self._ports['host']}") as connection:
                stub: Any = host_service_pb2_grpc.HostServiceStub(connection)
                listed = await stub.ListClaims(host_service_pb2.ListClaimsRequest(), timeout=5)
            claims = [parse_claim(message.claim.claim) for message in listed.claims]
            return sum(claim.used for claim in claims if claim.channel == channel)

        state = parse_channel(self.account(Address((0, channel))).data)
        return state.close_at > 0 and state.paid == asyncio.run(used())

    def _warp(self) -> bool:
        asyncio.run(send_command(self.root / "chain", "warp", seconds=CLOSE_DELAY_S))
        return True

    def _topped_up(self, channel: bytes) -> bool:
        rows = self.ledger("SELECT id, top_ups, pending_top_up FROM channels")
        return any((row["id"], row["top_ups"], row["pending_top_up"]) == (channel, 1, "0") for row in rows)

    def ledger(self, query: str) -> list[sqlite3.Row]:
        """Rows of the client's ledger."""
        return _rows(self.home / "client" / "dev" / "ledger.sqlite3", query)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rows(path: Path, query: str) -> list[sqlite3.Row]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        db.row_factory = sqlite3.Row
        return db.execute(query).fetchall()


# ---- the books, after everything was stopped


def check(life: Life) -> None:
    """Nothing lost, nothing paid twice, and every nanoton accounted for. Raises AssertionError."""
    receipts = _log_adds_up(life)
    books = _Books(life.root / "chain" / "chain.sqlite")
    books.add_up()
    for channel in life.channels:
        paid = parse_channel(books.states[channel]).paid
        used = sum(receipt.amount for receipt in receipts if receipt.channel == channel)
        assert paid == used > 0, f"{paid} nanoton were paid for receipts of {used}"
    _client_agrees(life, receipts)
    _nothing_twice(life, books)


def _log_adds_up(life: Life) -> list[Receipt]:
    """The enclave's store: no gap, and every amount in the cumulative use."""
    rows = _rows(
        life.root / "enclave" / "enclave.sqlite3", "SELECT position, receipt FROM receipts ORDER BY 1"
    )
    assert [row["position"] for row in rows] == list(range(len(rows)))
    receipts = [parse_receipt(row["receipt"]) for row in rows]
    totals: Counter[bytes] = Counter()
    for receipt in receipts:
        totals[receipt.channel] += receipt.amount
        assert receipt.cumulative == totals[receipt.channel] or not receipt.amount
    return receipts


def _client_agrees(life: Life, receipts: list[Receipt]) -> None:
    """Every receipt that the client was shown is in the log; what it does not know of is booked as lost."""
    shown = [parse_receipt(row["boc"]) for row in life.ledger("SELECT boc FROM receipts")]
    assert len(shown) == len({receipt.hash for receipt in shown})
    assert {receipt.hash for receipt in shown} <= {receipt.hash for receipt in receipts}
    assert len(shown) >= life.answers
    for row in life.ledger("SELECT id, state, lost, in_flight FROM channels"):
        assert row["state"] == "closed"
        unseen = sum(r.amount for r in receipts if r.channel == row["id"] and r not in shown)
        assert 0 <= unseen <= int(row["lost"]) + int(row["in_flight"])
    states = Counter(row["state"] for row in life.ledger("SELECT state FROM requests"))
    assert states["completed"] == len(shown)


def _nothing_twice(life: Life, books: _Books) -> None:
    """What both wallets sent, message by message: each piece of work once."""
    assert life.network is not None
    host = host_wallet(life.root / "host", life.network.global_id).address.hash_part
    client = bytes(parse_channel(books.states[life.channels[0]]).identity.client.hash_part)
    many = len(life.channels)
    assert Counter(message.opcode for message in books.sent[client]) == {
        opcodes.CHANNEL_TOP_UP: 2 * many,
        opcodes.CHANNEL_START_CLOSE: many,
        opcodes.CHANNEL_FINISH_CLOSE: many,
    }
    deposits = Counter(m.value for m in books.sent[client] if m.opcode == opcodes.CHANNEL_TOP_UP)
    assert deposits == {TON // 2 + 50_000_000: many, TON + 100_000_000: many}
    assert len(books.received_plain(client)) == 1  # one gift of the faucet
    sent = Counter(message.opcode for message in books.sent[host])
    assert sent[opcodes.NODE_JOIN] == 1
    assert sent[opcodes.NODE_TOP_UP] == 1
    bodies = [message.body for message in books.sent[host]]
    assert len(bodies) == len(set(bodies)), "a message was sent twice"
    assert [refused for refused in books.refused if refused[0] in life.channels] == []


@dataclasses.dataclass(frozen=True, slots=True)
class _Message:
    """An internal message that was sent."""

    value: int
    opcode: int
    body: bytes
    hash: bytes


class _Books:
    """All transactions of a stopped chain."""

    def __init__(self, path: Path) -> None:
        self.sent: dict[bytes, list[_Message]] = {}
        self.received: dict[bytes, list[_Message]] = {}
        self.refused: list[tuple[bytes, int]] = []
        self.states: dict[bytes, Any] = {}
        self._path = path
        self._fees = 0
        self._queue = len(_rows(path, "SELECT 1 FROM queue"))
        for row in _rows(path, "SELECT account, boc FROM transactions ORDER BY lt"):
            self._read(bytes(row["account"]), parse_boc(row["boc"])[0])
        self._load_states()

    def _read(self, account: bytes, cell: Any) -> None:
        found = Transaction.deserialize(cell.begin_parse())
        self._fees += found.total_fees.grams
        if found.in_msg is not None and found.in_msg.is_internal:
            self.received.setdefault(account, []).append(_message(found.in_msg))
            if getattr(found.description, "aborted", False) and not found.in_msg.info.bounced:
                self.refused.append((account, _message(found.in_msg).opcode))
        for out in found.out_msgs:
            if out.is_internal:
                self._fees += out.info.fwd_fee
                if not out.info.bounced:
                    self.sent.setdefault(account, []).append(_message(out))

    def _load_states(self) -> None:
        from pytoniq_core import Account

        query = (
            "SELECT h.account, a.boc FROM history h JOIN accounts a ON a.hash = h.state"
            " WHERE h.seqno = (SELECT max(seqno) FROM history WHERE account = h.account)"
        )
        for row in _rows(self._path, query):
            account = Account.deserialize(parse_boc(row["boc"])[0].begin_parse())
            init = getattr(account.storage.state, "state_init", None) if account else None
            if init is not None:
                self.states[bytes(row["account"])] = init.data

    def received_plain(self, account: bytes) -> list[_Message]:
        """Messages without a body that an account got: gifts."""
        return [message for message in self.received.get(account, []) if message.opcode == 0]

    def add_up(self) -> None:
        """Balances at the beginning = balances now + fees; and every message arrived once."""
        at = "SELECT balance FROM history h WHERE h.seqno = (SELECT {}(seqno) FROM history WHERE account = h.account)"
        first = _rows(
            self._path, "SELECT balance FROM history WHERE seqno = (SELECT min(seqno) FROM history)"
        )
        last = _rows(self._path, at.format("max"))
        minted = sum(int(row["balance"]) for row in first)
        left = sum(int(row["balance"]) for row in last)
        assert self._queue == 0
        assert minted == left + self._fees, (minted, left, self._fees)
        arrived = Counter(m.hash for messages in self.received.values() for m in messages)
        assert set(arrived.values()) == {1}
        assert {m.hash for messages in self.sent.values() for m in messages} <= set(arrived)


def _message(message: Any) -> _Message:
    bits = message.body.bits
    return _Message(
        value=message.info.value_coins,
        opcode=int(bits[:32].to01(), 2) if len(bits) >= 32 else 0,
        body=bytes(message.body.hash),
        hash=bytes(message.serialize().hash),
    )
