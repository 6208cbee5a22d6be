"""A22 on the whole network: kill -9 of every process during an answer, and a restart of everything.

All tests use one network of their own, one gateway and one wallet, in the order in which they stand here;
each also works alone. Whatever dies, the app gets a typed error or its answer; afterwards nothing is lost,
nothing is paid twice, and what cannot be known is written down as such.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from cocoon_attestation.receipt import Receipt, parse_receipt
from cocoon_ton import opcodes

if TYPE_CHECKING:
    from tests.network.netkit import (
        MODEL,
        STORY,
        Book,
        Exchanged,
        InProcess,
        Running,
        Served,
        children,
        ledger_rows,
        processes_of,
        until,
        why_not,
    )
else:
    from netkit import MODEL, STORY, Running, children, ledger_rows, processes_of, until, why_not

pytestmark = [pytest.mark.network, pytest.mark.model]


@dataclass(slots=True)
class World:
    """The network, its gateway, and what was asked so far."""

    net: Running
    served: Served

    @property
    def home(self) -> Path:
        """Home of the network and of the client."""
        return self.net.home

    def ask(self, prompt: str = "Say hello.") -> Exchanged:
        """An ordinary request, retried like an app does while nodes are away."""

        found: list[Exchanged] = []

        def attempt() -> bool:
            with contextlib.suppress(AssertionError):
                found.append(self.served.ask(prompt, max_tokens=4))
            return bool(found)

        until(attempt, within=180, every=0.5, what="an answer after the restart")
        return found[0]

    def requests(self, state: str) -> list[dict[str, Any]]:
        """Requests of the client's ledger in a state."""
        rows = ledger_rows(self.home, "requests", ["id", "state", "error", "worst", "channel"])
        return [row for row in rows if row["state"] == state]

    def stream(self, max_tokens: int) -> Iterator[Any]:
        """Chunks of a streamed story."""
        with (
            openai.OpenAI(
                base_url=self.served.base_url, api_key="cocoon", max_retries=0, timeout=60
            ) as client,
            client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": STORY}],
                max_tokens=max_tokens,
                temperature=0,
                stream=True,
            ) as stream,
        ):
            yield from stream


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A network that may be broken."""
    if reason := why_not():
        pytest.skip(reason)
    net = Running.start(tmp_path_factory.mktemp("crash"))
    try:
        world = World(net, net.serve())
    except BaseException:
        net.stop()
        raise
    try:
        yield world
    finally:
        world.net.stop()
    until(lambda: not processes_of(world.home), within=10, what="no process left")


def _story(world: World, kill: Callable[[], None], *, max_tokens: int) -> tuple[list[str], list[Any]]:
    """Stream a story, call `kill` after the third piece, and return what came: pieces and receipts."""
    pieces: list[str] = []
    receipts: list[Any] = []
    killed = False
    for chunk in world.stream(max_tokens):
        receipts += [chunk.model_extra["cocoon"]] if "cocoon" in (chunk.model_extra or {}) else []
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        if len(pieces) >= 3 and not killed:
            killed = True
            kill()
    return pieces, receipts


# ---- what is not on the way of an answer may die without anybody noticing


def test_the_host_agent_dies(world: World) -> None:
    world.ask()
    pieces, receipts = _story(world, world.net.part("host").kill, max_tokens=24)
    assert not world.net.part("host").running()
    assert len(pieces) > 10
    assert len(receipts) == 1
    settled = world.net.books()
    world.ask()  # the channel is known already: nobody needs the host for this
    world.net.restart("host")
    _settled(world)
    after = world.net.books()
    assert settled.keys() == after.keys()
    assert sum(book.paid for book in after.values()) > sum(book.paid for book in settled.values())


def test_the_chain_dies(world: World) -> None:
    world.ask()
    pieces, receipts = _story(world, world.net.part("devnet").kill, max_tokens=24)
    assert not world.net.part("devnet").running()
    assert len(pieces) > 10
    assert len(receipts) == 1
    world.net.restart("devnet")
    world.ask()
    _settled(world)


# ---- what is on the way


def test_the_gateway_dies(world: World) -> None:
    """The app sees its connection break. What the node charged shows in the next receipt, and is allowed for."""
    world.ask()
    before = len(world.requests("unknown"))
    with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
        _story(world, world.served.process.kill, max_tokens=300)
    assert len(world.requests("prepared")) == 1
    world.served.process.stop()
    world.net.gateways.remove(world.served.process)
    world.served = world.net.serve()
    lost = world.requests("unknown")
    assert len(lost) == before + 1
    assert world.requests("prepared") == []
    assert [row["error"] for row in lost].count("crashed") >= 1
    world.ask()
    _settled(world)
    # The enclave saw the connection go, stopped, and charged for what it had sent: less than the worst case.
    (book,) = world.net.books().values()
    known = sum(int(row["amount"]) for row in ledger_rows(world.home, "receipts", ["amount"]))
    assert known < book.paid < known + sum(int(row["worst"]) for row in lost)


def test_the_engine_dies(world: World) -> None:
    """The model's process dies, the enclave lives: the app gets a typed error and a receipt over nothing."""
    world.ask()
    engine = _engine(world)
    before = {row["id"] for row in ledger_rows(world.home, "receipts", ["id"])}
    with pytest.raises(openai.APIError) as failed:
        _story(world, lambda: os.kill(engine, signal.SIGKILL), max_tokens=300)
    assert failed.value.code == "engine_crashed"
    rows = ledger_rows(world.home, "receipts", ["id", "amount", "status"])
    (row,) = (row for row in rows if row["id"] not in before)
    assert int(row["amount"]) == 0
    assert row["status"] >= 500
    world.ask()  # the enclave started another engine
    assert _engine(world) != engine
    _settled(world)


def test_the_enclave_dies(world: World) -> None:
    """The app gets a typed error and no end mark; with the enclave its keys are gone, and new ones follow."""
    first = world.ask()
    bundle = world.net.export(first, world.home / "tmp" / "before.json")
    before = len(world.requests("unknown"))
    (paid,) = (book.paid for book in world.net.books().values())
    with pytest.raises(openai.APIError) as failed:
        _story(world, world.net.part("enclave").kill, max_tokens=300)
    assert failed.value.code == "outcome_unknown"
    assert failed.value.type == "api_error"
    until(
        lambda: len(world.requests("unknown")) == before + 1,
        within=20,
        what="unknown outcome in the ledger",
    )
    refused = httpx.post(
        f"{world.served.base_url}/chat/completions",
        json={"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3},
        timeout=60,
        trust_env=False,
    )
    assert refused.status_code == 503, refused.text
    assert refused.json()["error"]["code"] in ("node_unavailable", "no_eligible_node")
    assert int(refused.headers["retry-after"]) > 0
    old = _keys(world)
    world.net.restart("enclave")
    world.ask()
    until(lambda: _keys(world) != old, what="new keys on chain")
    assert _keys(world)[1] == old[0]  # the dead enclave's keys are kept as the previous ones
    _settled(world)
    (book,) = world.net.books().values()
    assert book.paid > paid
    # Its receipts are provable still, with the dead keys' evidence.
    assert world.net.export(first, world.home / "tmp" / "after.json") != bundle


# ---- the books


def test_every_receipt_is_provable_and_money_adds_up(world: World, cocoon: InProcess) -> None:
    cocoon.home = world.home
    world.ask()
    _settled(world)
    rows = ledger_rows(world.home, "receipts", ["id", "boc"])
    for (
        row
    ) in rows:  # those of the dead enclave's keys as well: the chain keeps the current and the previous
        found = cocoon("verify", "receipt", row["id"].hex(), "--network", world.net.network_file, "--json")
        assert found.code == 0, found.out
    receipts = sorted((parse_receipt(row["boc"]) for row in rows), key=lambda receipt: receipt.index)
    assert len({receipt.index for receipt in receipts}) == len(receipts)
    for before, after in itertools.pairwise(receipts):
        assert after.cumulative >= before.cumulative + after.amount
    lost = world.requests("unknown")
    known = sum(receipt.amount for receipt in receipts)
    allowed = known + sum(int(row["worst"]) for row in lost)
    (book,) = world.net.books().values()
    assert known <= book.paid == book.used <= allowed
    assert book.paid <= book.cap
    if not lost:
        assert book.paid == known
    assert _account(world)["verified"] == known
    assert _account(world)["lost"] == allowed - known
    assert _account(world)["in_flight"] == 0
    _nothing_was_paid_twice(world, book)


def _nothing_was_paid_twice(world: World, book: Book) -> None:
    """On chain: no settlement was repeated, and what left the channel is what it says it paid."""
    (channel,) = (row["id"] for row in ledger_rows(world.home, "channels", ["id"]))
    deposits, settlements = 0, 0
    for transaction in world.net.transactions(channel):
        message = transaction.in_msg
        assert message is not None
        assert transaction.success, (hex(message.opcode or 0), transaction.exit_code)
        deposits += message.value if message.opcode == opcodes.CHANNEL_TOP_UP else 0
        settlements += message.opcode == opcodes.CHANNEL_SETTLE
    assert settlements >= 1
    assert 0 <= deposits - book.paid - book.balance < 5_000_000  # fees of the deposits, and storage


# ---- everything stops, everything comes back


def test_everything_is_stopped_and_started_again(world: World, cocoon: InProcess) -> None:
    answer = world.ask()
    file = world.home / "tmp" / "kept.json"
    world.net.export(answer, file)
    _settled(world)
    registry, node, size = world.net.network.registry, world.net.node_id, world.net.node().log.tree_size
    (book,) = world.net.books().values()
    world.net.stop()
    assert processes_of(world.home) == []
    _logs_add_up(world, book.paid)
    world.net = Running.start(world.home)
    world.served = world.net.serve()
    assert world.net.network.registry == registry
    assert world.net.node_id == node
    # Old proofs hold: the exported one without any network, and a new one from the chain that went on.
    assert cocoon("verify", "bundle", file, "--network", world.net.network_file, "--offline").code == 0
    assert world.net.export(answer, file)
    assert cocoon("verify", "bundle", file, "--network", world.net.network_file, "--offline").code == 0
    after = world.ask()
    _settled(world)
    receipts = {
        row["id"].hex(): row for row in ledger_rows(world.home, "receipts", ["id", "boc", "log_index"])
    }
    new = parse_receipt(receipts[after.receipt]["boc"])
    assert new.index >= size
    assert new.cumulative == book.used + new.amount
    assert len(ledger_rows(world.home, "channels", ["id"])) == 1  # no second deposit
    world.net.export(after, file)
    assert cocoon("verify", "bundle", file, "--network", world.net.network_file, "--offline").code == 0


def _settled(world: World) -> None:
    """Wait until all that the client has receipts for is anchored, and all that is claimed is paid."""

    def done() -> bool:
        highest = max(row["log_index"] for row in ledger_rows(world.home, "receipts", ["log_index"]))
        if world.net.node().log.tree_size <= highest:
            return False
        return all(book.paid == book.used for book in world.net.books().values())

    until(done, within=90, every=0.5, what="anchored and settled")


def _engine(world: World) -> int:
    """Process id of the engine: the child that is not Python's resource tracker."""
    for pid in children(world.net.part("enclave").pid):
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("the enclave has no engine")


def _keys(world: World) -> tuple[bytes, bytes]:
    """Current and previous key binding on chain."""
    key = world.net.node().key
    assert key is not None
    return key.binding_hash, key.previous.binding_hash if key.previous else b""


def _account(world: World) -> dict[str, int]:
    columns = ["verified", "lost", "in_flight"]
    (row,) = ledger_rows(world.home, "channels", columns)
    return {name: int(value) for name, value in row.items()}


def _logs_add_up(world: World, paid: int) -> None:
    """The stopped enclave's store: every receipt counted once, and their sum is what the chain paid."""
    path = world.net.dev.root / "enclave" / "enclave.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT position, receipt FROM receipts ORDER BY position").fetchall()
    assert [position for position, _ in rows] == list(range(len(rows)))
    receipts: list[Receipt] = [parse_receipt(boc) for _, boc in rows]
    total = 0
    for receipt in receipts:
        total += receipt.amount
        assert receipt.cumulative == total or receipt.amount == 0
    assert total == paid
    assert time.time() - 3600 < receipts[-1].issued_at
