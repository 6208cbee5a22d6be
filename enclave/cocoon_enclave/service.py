"""What all sessions of an enclave share: keys, models, meter, log, limits. See `session` and `exchange`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from cocoon_attestation.errors import CocoonError
from cocoon_attestation.types import Digest32
from cocoon_enclave.clock import Clock
from cocoon_enclave.config import EnclaveConfig
from cocoon_enclave.engine.protocol import Engine
from cocoon_enclave.errors import ModelNotServedError, NodeBusyError, NodeDrainingError
from cocoon_enclave.keys import Keyring
from cocoon_enclave.log import ReceiptLog
from cocoon_enclave.metering import Meter, ReplayGuard
from cocoon_enclave.metrics import Metrics
from cocoon_enclave.text import TextModel

_LOG: Final = logging.getLogger("cocoon_enclave")
WAITING_PART: Final = 4
"""One place in so many may be held by requests whose channel the host has not looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model with what runs it."""

    name: str
    digest: Digest32
    context_length: int
    engine: Engine
    text: TextModel


class RefusalBudget:
    """How many receipts of amount 0 may be written: nobody fills the log for free. A token bucket."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._capacity = self._left = float(per_minute)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """True if one more may be written at Unix time `now`."""
        self._left = min(self._capacity, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True, kw_only=True)
class Service:
    """The state behind `InferenceService`. Lives on one event loop."""

    config: EnclaveConfig
    clock: Clock
    keyring: Keyring
    meter: Meter
    log: ReceiptLog
    models: dict[str, ServedModel]
    metrics: Metrics
    guard: ReplayGuard = field(default_factory=ReplayGuard)
    draining: bool = False
    """No new requests; those in flight are finished."""
    active: int = 0
    """Requests in flight."""
    sessions: int = 0
    _waiting: int = 0
    _refusals: RefusalBudget = field(init=False)
    _facts: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Set up the budget."""
        self._refusals = RefusalBudget(self.config.limits.refusals_per_minute)

    def check_open(self) -> None:
        """Raise if no request can be taken now, whoever asks.

        Raises:
            StateRejectedError: the log was found to be rolled back.
            NodeDrainingError, NodeBusyError: not now.
        """
        if self.log.rejected is not None:
            raise self.log.rejected
        if self.draining:
            raise NodeDrainingError("the node takes no more requests")
        if self.active >= self.config.limits.requests:
            raise NodeBusyError("the node has as many requests as it takes")

    def check_refusal(self) -> None:
        """Raise `NodeBusyError` if no more refusals are put on record for now."""
        if not self._refusals.take(self.clock.now()):
            raise NodeBusyError("too many bad requests")

    def model(self, name: str) -> ServedModel:
        """The model called `name` or `name@digest`.

        Raises:
            ModelNotServedError: not served here.
        """
        plain, _, digest = name.partition("@")
        model = self.models.get(plain)
        if model is None or (digest and digest != model.digest.hex()):
            raise ModelNotServedError("this node does not serve that model")
        return model

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let a task outlive the session that started it: what was served is metered in any case."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Only the type: a message or a traceback could quote a prompt.
            _LOG.error("a request failed: %s", type(error).__name__)

    def facts_changed(self) -> None:
        """Wake requests that wait for their channel."""
        self._facts.set()
        self._facts = asyncio.Event()

    @property
    def may_wait(self) -> bool:
        """True while one more request may wait for its channel: they cost nothing, and hold a place."""
        return self._waiting < max(1, self.config.limits.requests // WAITING_PART)

    async def wait_for_facts(self, seconds: float) -> None:
        """Return when the host told something about channels, or after `seconds`."""
        self._waiting += 1
        try:
            await asyncio.wait_for(self._facts.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self._waiting -= 1

    async def drain(self, seconds: float) -> None:
        """Take no more requests; return when those in flight are done, or after `seconds`."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    def refresh_metrics(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.active.set(self.active)
        self.metrics.sessions.set(self.sessions)
        self.metrics.log_size.set(self.log.size)
        self.metrics.unanchored.set(self.log.unanchored)
        restarts = sum(getattr(model.engine, "restarts", 0) for model in self.models.values())
        self.metrics.engine_restarts.set(restarts)

    @property
    def ready(self) -> bool:
        """True while requests can be served."""
        return (
            self.log.rejected is None
            and not self.draining
            and all(model.engine.ready for model in self.models.values())
        )


def public_message(error: CocoonError) -> str:
    """What a client is told outside the seal: nothing but the kind of error."""
    return f"{error.code}: {error.default_hint}" if error.default_hint else error.code
