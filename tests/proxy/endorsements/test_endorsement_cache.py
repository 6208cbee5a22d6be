"""The cache: one fetch at a time, and a good endorsement is never lost to a bad one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError, RejectedError, UnsupportedError
from cocoon_proxy.endorsements import cache as module
from cocoon_proxy.endorsements.cache import AgeLimits, EndorsementCache, Parts, Validity, Wanted
from cocoon_proxy.endorsements.store import EndorsementStore, StoredEndorsement
from cocoon_proxy.errors import EndorsementStoreError, EndorsementUnavailableError

NOW = 1_800_000_000
AGES = AgeLimits(refresh_s=100, max_age_s=1000)


class Service:
    """A vendor's service: each answer is ``rank,end`` or an error."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.gate: asyncio.Event | None = None

    async def fetch(self) -> Parts:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"body": answer}

    def wanted(self, key: str = "key") -> Wanted:
        return Wanted(key=key, fetch=self.fetch, validate=validate, ages=AGES)


def validate(parts: Parts, now: int) -> Validity:
    text = parts["body"].decode()
    if text == "malformed":
        raise MalformedError("not a statement")
    if text == "unsupported":
        raise UnsupportedError("no library")
    rank, end = map(int, text.split(","))
    if now >= end:
        raise RejectedError("expired")
    return Validity(valid_until=end, rank=(rank, 0))


def good(rank: int = 1, lasts: int = 10_000) -> bytes:
    return f"{rank},{NOW + lasts}".encode()


DOWN = EndorsementUnavailableError("service down")


def cache(
    clock: Callable[[], float], store: EndorsementStore | None = None, **options: Any
) -> EndorsementCache:
    return EndorsementCache(store, clock=clock, **options)


async def test_young_one_is_taken_without_asking(clock: Any) -> None:
    service, found = Service(good()), cache(clock)
    first = await found.get(service.wanted())
    clock.now += 99
    assert await found.get(service.wanted()) == first
    assert (service.calls, first.fetched_at, first.validity.valid_until) == (1, NOW, NOW + 10_000)


async def test_older_one_is_fetched_again(clock: Any) -> None:
    service, found = Service(good(1), good(2)), cache(clock)
    await found.get(service.wanted())
    clock.now += 100
    assert (await found.get(service.wanted())).validity.rank == (2, 0)
    assert service.calls == 2


@pytest.mark.parametrize("bad", [DOWN, b"malformed", b"2,1", b"0,1900000000", MalformedError("bad")])
async def test_bad_answer_never_replaces_a_good_one(clock: Any, tmp_path: Path, bad: Any) -> None:
    store = EndorsementStore(tmp_path)
    service, found = Service(good(1), bad, bad, good(3)), cache(clock, store)
    first = await found.get(service.wanted())
    clock.now += 200
    assert await found.get(service.wanted()) == first
    kept = store.get("key")
    assert kept is not None
    assert kept.parts == {"body": good(1)}
    clock.now += 70
    assert await found.get(service.wanted()) == first
    clock.now += 70
    assert (await found.get(service.wanted())).validity.rank == (3, 0)


async def test_known_one_is_not_used_forever(clock: Any) -> None:
    service, found = Service(good(), DOWN), cache(clock, retry_s=0)
    await found.get(service.wanted())
    clock.now += 999
    await found.get(service.wanted())
    clock.now += 1
    with pytest.raises(EndorsementUnavailableError, match="service down"):
        await found.get(service.wanted())


async def test_expired_one_is_never_used(clock: Any) -> None:
    service, found = Service(good(1, lasts=50), DOWN), cache(clock)
    await found.get(service.wanted())
    clock.now += 50
    with pytest.raises(EndorsementUnavailableError):
        await found.get(service.wanted())


async def test_rollback_is_refused_even_after_expiry(clock: Any, tmp_path: Path) -> None:
    store = EndorsementStore(tmp_path)
    service = Service(good(19, lasts=50), good(18))
    await cache(clock, store).get(service.wanted())
    clock.now += 60
    with pytest.raises(EndorsementUnavailableError, match="older statement") as caught:
        await cache(clock, EndorsementStore(tmp_path)).get(service.wanted())
    assert caught.value.details["seen"] == [19, 0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(b"malformed", "malformed"), (b"1,1", "rejected"), (MalformedError("x"), "malformed")],
)
async def test_first_answer_must_be_good(clock: Any, tmp_path: Path, bad: Any, reason: str) -> None:
    store = EndorsementStore(tmp_path)
    with pytest.raises(EndorsementUnavailableError) as caught:
        await cache(clock, store).get(Service(bad).wanted())
    assert caught.value.details == {"key": "key", "reason": reason}
    assert store.get("key") is None


async def test_missing_library_is_said_as_it_is(clock: Any) -> None:
    with pytest.raises(UnsupportedError):
        await cache(clock).get(Service(b"unsupported").wanted())


async def test_one_fetch_for_all_who_ask(clock: Any) -> None:
    service, found = Service(good()), cache(clock)
    service.gate = asyncio.Event()
    waiting = [asyncio.create_task(found.get(service.wanted())) for _ in range(20)]
    await asyncio.sleep(0.01)
    service.gate.set()
    results = await asyncio.gather(*waiting)
    assert service.calls == 1
    assert len(set(map(id, results))) == 1


async def test_one_failure_for_all_who_ask(clock: Any) -> None:
    service, found = Service(DOWN), cache(clock)
    service.gate = asyncio.Event()
    waiting = [asyncio.create_task(found.get(service.wanted())) for _ in range(5)]
    await asyncio.sleep(0.01)
    service.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert service.calls == 1
    assert all(isinstance(one, EndorsementUnavailableError) for one in results)


async def test_keys_do_not_wait_for_each_other(clock: Any) -> None:
    slow, fast, found = Service(good()), Service(good()), cache(clock)
    slow.gate = asyncio.Event()
    waiting = asyncio.create_task(found.get(slow.wanted("slow")))
    await found.get(fast.wanted("fast"))
    assert not waiting.done()
    slow.gate.set()
    await waiting


async def test_caller_that_gives_up_does_not_stop_the_others(clock: Any) -> None:
    service, found = Service(good()), cache(clock)
    service.gate = asyncio.Event()
    first, second = (asyncio.create_task(found.get(service.wanted())) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    service.gate.set()
    assert (await second).validity.rank == (1, 0)
    assert service.calls == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_all_callers_may_give_up(clock: Any) -> None:
    service, found = Service(DOWN), cache(clock)
    service.gate = asyncio.Event()
    only = asyncio.create_task(found.get(service.wanted()))
    await asyncio.sleep(0.01)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    service.gate.set()
    await asyncio.sleep(0.01)  # the failure of the fetch is taken; nothing is left to warn about
    await found.close()


async def test_close_stops_fetches(clock: Any) -> None:
    service, found = Service(good()), cache(clock)
    service.gate = asyncio.Event()
    waiting = asyncio.create_task(found.get(service.wanted()))
    await asyncio.sleep(0.01)
    await found.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_failing_service_is_left_alone_for_a_while(clock: Any) -> None:
    service, found = Service(DOWN, good()), cache(clock, retry_s=60)
    for _ in range(3):
        with pytest.raises(EndorsementUnavailableError, match="service down"):
            await found.get(service.wanted())
    assert service.calls == 1
    clock.now += 60
    await found.get(service.wanted())
    assert service.calls == 2


async def test_store_outlives_the_process(clock: Any, tmp_path: Path) -> None:
    await cache(clock, EndorsementStore(tmp_path)).get(Service(good()).wanted())
    service = Service(DOWN)
    again = await cache(clock, EndorsementStore(tmp_path)).get(service.wanted())
    assert (again.parts["body"], service.calls) == (good(), 0)


async def test_offline_uses_what_is_valid_and_never_asks(clock: Any, tmp_path: Path) -> None:
    await cache(clock, EndorsementStore(tmp_path)).get(Service(good(1, lasts=5000)).wanted())
    service = Service(good(2))
    found = cache(clock, EndorsementStore(tmp_path), offline=True)
    clock.now += 4999  # older than max_age_s, but still valid by its own dates
    assert (await found.get(service.wanted())).validity.rank == (1, 0)
    clock.now += 1
    with pytest.raises(EndorsementUnavailableError, match="offline store"):
        await found.get(service.wanted())
    with pytest.raises(EndorsementUnavailableError, match="offline store"):
        await found.get(service.wanted("another"))
    assert service.calls == 0


async def test_files_are_checked_like_answers(clock: Any, tmp_path: Path) -> None:
    store = EndorsementStore(tmp_path)
    store.put(StoredEndorsement(key="key", parts={"body": b"malformed"}, fetched_at=NOW, rank=(0, 0)))
    service = Service(good())
    assert (await cache(clock, store).get(service.wanted())).parts["body"] == good()


async def test_clock_that_goes_back_makes_no_endorsement_young(clock: Any) -> None:
    service, found = Service(good()), cache(clock)
    await found.get(service.wanted())
    clock.now -= module.CLOCK_SKEW_S + 1
    await found.get(service.wanted())
    assert service.calls == 2


async def test_full_disk_does_not_stop_anything(clock: Any, tmp_path: Path) -> None:
    class Full(EndorsementStore):
        def put(self, endorsement: StoredEndorsement) -> None:
            raise EndorsementStoreError("full")

    service, found = Service(good()), cache(clock, Full(tmp_path))
    assert (await found.get(service.wanted())).parts["body"] == good()
    await found.get(service.wanted())
    assert service.calls == 1


async def test_memory_is_bounded(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    service, found = Service(good()), cache(clock)
    for key in ("a", "b", "c", "a", "d"):
        await found.get(service.wanted(key))
    assert service.calls == 4
    await found.get(service.wanted("a"))
    assert service.calls == 4
    await found.get(service.wanted("b"))
    assert service.calls == 5


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["good", "old", "malformed", "expired", "down"]),
            st.integers(min_value=0, max_value=400),
        ),
        max_size=20,
    )
)
def test_any_history_serves_the_newest_good_one(history: list[tuple[str, int]]) -> None:
    """A model of the rules: whatever the service does, only valid statements come out, in rising rank."""

    class Time:
        now = float(NOW)

        def __call__(self) -> float:
            return self.now

    async def play() -> None:
        clock, best = Time(), 0
        service = Service(DOWN)
        found = cache(clock, retry_s=0)
        for kind, wait in history:
            clock.now += wait
            rank = {"good": best + 1, "old": max(best - 1, 0)}.get(kind, best + 5)
            answers: dict[str, bytes | Exception] = {
                "malformed": b"malformed",
                "expired": f"{rank},{NOW}".encode(),
                "down": DOWN,
            }
            service.answers = [answers.get(kind, good(rank, lasts=100_000))]
            try:
                result = await found.get(service.wanted())
            except EndorsementUnavailableError:
                continue
            assert result.validity.rank[0] >= best
            assert clock.now - result.fetched_at < AGES.max_age_s
            assert result.validity.valid_until > clock.now
            best = result.validity.rank[0]

    asyncio.run(play())
