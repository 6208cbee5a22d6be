"""Where processes are killed, and how: the one list of crash points.

A point stands right before or right after a step that leaves something behind: a committed transaction of a
database, a message handed to the network, a frame handed to a peer. Production code knows nothing of it:
`crash_launch.py`, which only tests start, imports the program, wraps the functions that are named here, and
then runs it. No setting, environment variable or message of anybody can arm a point in a program that was
started in any other way.

A name is ``process/step/function:edge``. Steps are what the process is doing at that moment: for the host
agent its action, for the client the part of its payments, for the chain the message that the block executes,
for the enclave the function is the step.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoon_ton import opcodes

EDGES = ("before", "after")
CHAIN_STEPS = {
    opcodes.NODE_JOIN: "join",
    opcodes.PCK_VERIFY_AND_ATTEST: "attest",
    opcodes.PCK_ATTEST: "attest",
    opcodes.PCK_ATTESTED: "attested",
    opcodes.NODE_SETTLE: "settle",
    opcodes.CHANNEL_TOP_UP: "fund",
    opcodes.CHANNEL_START_CLOSE: "close",
    opcodes.CHANNEL_FINISH_CLOSE: "finish",
}
"""Steps of the chain by the opcode of a message that a block executes; ``anchor`` is the external one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A function with lasting effects. `where`: module and dotted name, with a colon between."""

    name: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One kind of process: its functions, the steps in which each is reached, and how a step is known."""

    name: str
    targets: tuple[Target, ...]
    steps: dict[str, tuple[str, ...]]
    """By function."""
    stages: dict[str, str]
    """Functions whose run is a step: where, and the step's name ("": named by the argument's type)."""
    first: str
    """The step that no stage names."""


_OUTBOX = (
    Target(name="outbox.add", where="cocoon_ton.outbox.store:OutboxStore.add"),
    Target(name="outbox.start", where="cocoon_ton.outbox.store:OutboxStore.start_batch"),
    Target(name="outbox.finish", where="cocoon_ton.outbox.store:OutboxStore.finish_batch"),
    Target(name="chain.send", where="cocoon_ton.chain:LiteChain.send"),
)
_PAID = ("join", "topup", "attest", "settle")
_HOST = Process(
    name="host",
    first="look",
    targets=(
        *_OUTBOX,
        Target(name="outbox.sent", where="cocoon_ton.outbox.store:OutboxStore.external_sent"),
        Target(name="outbox.settle", where="cocoon_ton.outbox.store:OutboxStore.settle"),
        Target(name="enclave.call", where="cocoon_enclave.host.agent:call"),
        Target(name="evidence.call", where="cocoon_enclave.host.attest:call"),
        Target(name="done", where="cocoon_ton.treasury:WalletTreasury.pay_all"),
    ),
    steps={
        "outbox.add": (*_PAID, "anchor"),
        "outbox.start": _PAID,
        "outbox.finish": _PAID,
        "chain.send": (*_PAID, "anchor"),
        "outbox.sent": ("anchor",),
        "outbox.settle": ("anchor",),
        "enclave.call": ("look", "anchor"),
        "evidence.call": ("attest",),
        "done": _PAID,
    },
    stages={
        "cocoon_enclave.host.agent:HostAgent._perform": "",
        "cocoon_enclave.host.agent:HostAgent._settle_all": "settle",
    },
)
_MONEY = ("fund", "open", "topup", "close", "finish")
_CLIENT = Process(
    name="client",
    first="ask",
    targets=(
        *_OUTBOX,
        Target(name="keyfile", where="cocoon_ton.files:publish"),
        Target(name="ledger.plan", where="cocoon_proxy.ledger:Ledger.plan_channel"),
        Target(name="ledger.open", where="cocoon_proxy.ledger:Ledger.set_open"),
        Target(name="ledger.state", where="cocoon_proxy.ledger:Ledger.set_channel_state"),
        Target(name="ledger.top_up", where="cocoon_proxy.ledger:Ledger.begin_top_up"),
        Target(name="ledger.topped", where="cocoon_proxy.ledger:Ledger.finish_top_up"),
        Target(name="ledger.reserve", where="cocoon_proxy.ledger:Ledger.reserve"),
        Target(name="link.send", where="cocoon_proxy.link:NodeLink.send"),
        Target(name="ledger.complete", where="cocoon_proxy.ledger:Ledger.complete"),
    ),
    steps={
        "outbox.add": _MONEY,
        "outbox.start": _MONEY,
        "outbox.finish": _MONEY,
        "chain.send": _MONEY,
        "keyfile": ("ask",),
        "ledger.plan": ("ask",),
        "ledger.open": ("open",),
        "ledger.state": ("close", "closed"),
        "ledger.top_up": ("topup",),
        "ledger.topped": ("topup",),
        "ledger.reserve": ("ask",),
        "link.send": ("ask",),
        "ledger.complete": ("ask",),
    },
    stages={
        "cocoon_proxy.treasury:_from_faucet": "fund",
        "cocoon_proxy.payments:Payments._open": "open",
        "cocoon_proxy.payments:Payments._top_up": "topup",
        "cocoon_proxy.closing:Closing._next": "close",
        "cocoon_proxy.closing:Closing._take": "finish",
        "cocoon_proxy.closing:Closing._closed": "closed",
    },
)
_ENCLAVE = Process(
    name="enclave",
    first="serve",
    targets=(
        Target(name="handover", where="cocoon_enclave.runtime:take_over"),
        Target(name="keyset", where="cocoon_enclave.store:Store.put_keyset"),
        Target(name="claims", where="cocoon_enclave.store:Store.replace_claims"),
        Target(name="receipt", where="cocoon_enclave.store:Store.append"),
        Target(name="final", where="cocoon_attestation.sealing.response:ResponseSealer.final"),
        Target(name="checkpoint", where="cocoon_enclave.store:Store.put_checkpoint"),
        Target(name="anchored", where="cocoon_enclave.store:Store.put_anchored"),
    ),
    steps={
        "handover": ("boot",),
        "keyset": ("boot", "publish"),
        "claims": ("boot",),
        "receipt": ("serve",),
        "final": ("serve",),
        "checkpoint": ("serve",),
        "anchored": ("serve",),
    },
    stages={
        "cocoon_enclave.runtime:Enclave.start": "boot",
        "cocoon_enclave.host_service:Host.PublishEvidence": "publish",
    },
)
_CHAIN = Process(
    name="chain",
    first="",
    targets=(Target(name="commit", where="cocoon_ton.devnet.store:Store.commit"),),
    steps={"commit": ("join", "attest", "attested", "anchor", "settle", "fund", "close", "finish")},
    stages={},
)
PROCESSES = {process.name: process for process in (_CHAIN, _ENCLAVE, _HOST, _CLIENT)}


def points(process: str | None = None) -> Iterator[str]:
    """The names of all points, or of those of one process."""
    for found in PROCESSES.values():
        if process in (None, found.name):
            for target in found.targets:
                for step in found.steps[target.name]:
                    yield from (f"{found.name}/{step}/{target.name}:{edge}" for edge in EDGES)


class Crasher:
    """Wraps the functions of one process and kills it with SIGKILL at the armed points, at each once.

    log: file to which every point is written when it is reached first, as ``reached NAME TIME``, and ``died NAME
    TIME`` right before a death. It outlives the process, so a point that killed once does not kill again.
    """

    def __init__(self, process: str, armed: frozenset[str], log: Path) -> None:
        self._process = PROCESSES[process]
        self._step = PROCESSES[process].first
        self._known = frozenset(points(process))
        self._log = log
        text = log.read_text() if log.exists() else ""
        self._reached = {line.split()[1] for line in text.splitlines() if line.startswith("reached ")}
        self._armed = set(armed) - {
            line.split()[1] for line in text.splitlines() if line.startswith("died ")
        }
        self._file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def install(self) -> None:
        """Wrap. Raises AttributeError if a function has another name now."""
        for where, step in self._process.stages.items():
            _wrap(where, lambda work, step=step: self._stage(work, step))  # type: ignore[misc]
        for target in self._process.targets:
            _wrap(target.where, lambda work, target=target: self._target(work, target))  # type: ignore[misc]

    def reach(self, point: str) -> None:
        """Note that a point was reached, and die there if it is armed."""
        if point in self._known and point not in self._reached:
            self._reached.add(point)
            self._note("reached", point)
        if point in self._armed:
            self._note("died", point)
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, what: str, point: str) -> None:
        os.write(self._file, f"{what} {point} {time.time():.1f}\n".encode())

    def _stage(self, work: Callable[..., Any], step: str) -> Callable[..., Any]:
        @functools.wraps(work)
        async def stage(*arguments: Any, **named: Any) -> Any:
            before, self._step = self._step, step or type(arguments[1]).__name__.lower()
            try:
                return await work(*arguments, **named)
            finally:
                self._step = before

        return stage

    def _target(self, work: Callable[..., Any], target: Target) -> Callable[..., Any]:
        def at(edge: str, arguments: tuple[Any, ...]) -> None:
            for step in chain_steps(arguments[1]) if self._process is _CHAIN else (self._step,):
                self.reach(f"{self._process.name}/{step}/{target.name}:{edge}")

        if inspect.iscoroutinefunction(work):

            @functools.wraps(work)
            async def slow(*arguments: Any, **named: Any) -> Any:
                at("before", arguments)
                result = await work(*arguments, **named)
                at("after", arguments)
                return result

            return slow

        @functools.wraps(work)
        def quick(*arguments: Any, **named: Any) -> Any:
            at("before", arguments)
            result = work(*arguments, **named)
            at("after", arguments)
            return result

        return quick


def chain_steps(commit: Any) -> Iterator[str]:
    """The steps that the transactions of one tick of the chain belong to."""
    from cocoon_ton.proof.boc import parse_boc
    from cocoon_ton.proof.transactions import parse_message

    for record in commit.transactions:
        messages = parse_boc(record.boc)[0].refs[0].begin_parse()
        if not messages.load_bit():
            continue
        message = parse_message(messages.load_ref())
        if message.kind == "external_in" and len(message.body.bits) == 512:
            yield "anchor"  # a signature and a reference, as no wallet writes it
        elif message.kind == "internal" and not message.bounced:
            step = CHAIN_STEPS.get(message.opcode or 0)
            if step:
                yield step


def _wrap(where: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, wrapper(getattr(owner, name)))
