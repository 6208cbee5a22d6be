"""The cache: one refresh at a time for each endorsement, and never a good one lost to a bad one.

Rules, for every key:

* young enough (`AgeLimits.refresh_s`) and valid: taken without asking anybody;
* otherwise one fetch runs, whoever else asks waits for it;
* what comes must pass `validate` and must not be older than what was seen before (no rollback);
* if that fails, what is there is used as long as it is valid and younger than `AgeLimits.max_age_s`;
* after a failure the service is left alone for `retry_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import MalformedError, RejectedError
from cocoon_proxy.endorsements.store import EndorsementStore, StoredEndorsement
from cocoon_proxy.errors import EndorsementStoreError, EndorsementUnavailableError

_LOG: Final = logging.getLogger("cocoon_proxy.endorsements")
MAX_ENTRIES: Final = 4096
"""Most endorsements kept in memory; the least recently used go first."""
CLOCK_SKEW_S: Final = 300
Parts = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """What validation found in an endorsement."""

    valid_until: int
    """Unix time in seconds at which its first part ends."""
    rank: tuple[int, int] = (0, 0)
    """Evaluation number and issue date, or zeros: a lower one never replaces a higher one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeLimits:
    """How old an endorsement may be, in seconds since it was fetched."""

    refresh_s: int
    """A fetch is tried from this age on."""
    max_age_s: int
    """From this age on it is not used, even if nothing newer can be had."""


Validate = Callable[[Parts, int], Validity]
"""Checks the parts at a Unix time; raises `MalformedError` or `RejectedError`. Never blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request to the cache."""

    key: str
    fetch: Callable[[], Awaitable[Parts]]
    """Gets the parts; raises `EndorsementUnavailableError` or `MalformedError`."""
    validate: Validate
    ages: AgeLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """A validated endorsement."""

    key: str
    parts: Parts
    fetched_at: int
    """Unix time in seconds."""
    validity: Validity


class EndorsementCache:
    """Endorsements in memory and, if there is a store, on disk. Belongs to one event loop."""

    def __init__(
        self,
        store: EndorsementStore | None,
        *,
        clock: Callable[[], float],
        offline: bool = False,
        retry_s: float = 60.0,
    ) -> None:
        """Start empty.

        Args:
            store: where endorsements outlive the process; None: nowhere.
            clock: Unix time in seconds.
            offline: never fetch; use what the store has, as long as it is valid.
            retry_s: pause after a failed fetch, for each key.
        """
        self._store = store
        self._clock = clock
        self._offline = offline
        self._retry_s = retry_s
        self._memory: OrderedDict[str, StoredEndorsement] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Endorsement]] = {}
        self._failures: dict[str, tuple[float, EndorsementUnavailableError]] = {}

    async def get(self, wanted: Wanted) -> Endorsement:
        """A valid endorsement, fetched if need be.

        Raises:
            EndorsementUnavailableError: there is none that is valid and young enough.
        """
        known = await self._known(wanted.key)
        usable = self._usable(known, wanted)
        if usable is not None and (self._offline or self._age(usable.fetched_at) < wanted.ages.refresh_s):
            return usable
        try:
            return await self._refresh(wanted, known)
        except EndorsementUnavailableError as error:
            if usable is None:
                raise
            _LOG.warning("%s: not refreshed, the known one is used: %s", wanted.key, error)
            return usable

    async def close(self) -> None:
        """Stop all fetches."""
        flights = list(self._flights.values())
        for task in flights:
            task.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _refresh(self, wanted: Wanted, known: StoredEndorsement | None) -> Endorsement:
        if self._offline:
            raise EndorsementUnavailableError(
                f"{wanted.key}: not in the offline store, or no longer valid", details={"key": wanted.key}
            )
        until, error = self._failures.get(wanted.key, (0.0, None))
        if error is not None and self._clock() < until:
            raise EndorsementUnavailableError(str(error), hint=error.hint, details=error.details)
        task = self._flights.get(wanted.key)
        if task is None:
            task = asyncio.create_task(self._fly(wanted, known), name=f"endorsement {wanted.key}")
            self._flights[wanted.key] = task
            task.add_done_callback(lambda done: self._landed(wanted.key, done))
        # A caller that gives up must not take the fetch away from the others.
        return await asyncio.shield(task)

    async def _fly(self, wanted: Wanted, known: StoredEndorsement | None) -> Endorsement:
        now = int(self._clock())
        parts = await self._fetched(wanted)
        try:
            validity = wanted.validate(parts, now)
        except (MalformedError, RejectedError) as error:
            raise EndorsementUnavailableError(
                f"{wanted.key}: what the service sent cannot be used: {error}",
                details={"key": wanted.key, "reason": error.code},
            ) from error
        if known is not None and validity.rank < known.rank:
            raise EndorsementUnavailableError(
                f"{wanted.key}: the service sent an older statement than one seen before",
                details={"key": wanted.key, "seen": list(known.rank), "sent": list(validity.rank)},
            )
        found = StoredEndorsement(key=wanted.key, parts=parts, fetched_at=now, rank=validity.rank)
        self._remember(found)
        if self._store is not None:
            try:
                await asyncio.to_thread(self._store.put, found)
            except EndorsementStoreError as error:  # it still serves from memory
                _LOG.warning("%s: not stored: %s", wanted.key, error)
        return Endorsement(key=wanted.key, parts=parts, fetched_at=now, validity=validity)

    async def _fetched(self, wanted: Wanted) -> Parts:
        try:
            return await wanted.fetch()
        except MalformedError as error:
            raise EndorsementUnavailableError(
                f"{wanted.key}: {error}", details={"key": wanted.key, "reason": error.code}
            ) from error

    def _landed(self, key: str, task: asyncio.Task[Endorsement]) -> None:
        self._flights.pop(key, None)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, EndorsementUnavailableError):
            self._failures[key] = (self._clock() + self._retry_s, error)
        elif error is None:
            self._failures.pop(key, None)

    async def _known(self, key: str) -> StoredEndorsement | None:
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        if self._store is None:
            return None
        found = await asyncio.to_thread(self._store.get, key)
        if found is not None and key not in self._memory:
            self._remember(found)
        return self._memory.get(key)

    def _usable(self, known: StoredEndorsement | None, wanted: Wanted) -> Endorsement | None:
        """What is known, if it is valid now and not too old. Files are checked like answers."""
        if known is None:
            return None
        now = int(self._clock())
        try:
            validity = wanted.validate(known.parts, now)
        except (MalformedError, RejectedError) as error:
            _LOG.info("%s: the known one is of no use any more: %s", wanted.key, error)
            return None
        age = self._age(known.fetched_at)
        too_old = age >= wanted.ages.max_age_s or age < -CLOCK_SKEW_S
        if now >= validity.valid_until or (too_old and not self._offline):
            return None
        return Endorsement(key=known.key, parts=known.parts, fetched_at=known.fetched_at, validity=validity)

    def _age(self, fetched_at: int) -> float:
        return self._clock() - fetched_at

    def _remember(self, found: StoredEndorsement) -> None:
        self._memory[found.key] = found
        self._memory.move_to_end(found.key)
        while len(self._memory) > MAX_ENTRIES:
            self._memory.popitem(last=False)
