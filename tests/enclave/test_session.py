"""One session's writer and reader, without a network: merging, order, ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from enclave_testkit import Reply  # type: ignore[import-not-found]

from cocoon.v1 import inference_service_pb2 as wire
from cocoon_enclave.config import Limits
from cocoon_enclave.frames import MAX_FRAMES
from cocoon_enclave.session import Session


async def test_a_slow_reader_gets_fewer_and_larger_frames(start_node: Any) -> None:
    """While one write is under way, text is merged; the engine is never held up."""
    async with start_node() as (node, engine), node.client() as client:
        from cocoon_attestation.sealing import seal_request

        engine.step_s = 0.002
        plain = client.plain("a" * 100, stream=True)
        sealed, opener = seal_request([client.verified], plain.SerializeToString(), now=int(_now()))
        frames: list[wire.ResponseFrame] = []
        messages: list[wire.SessionResponse] = []
        done = asyncio.Event()

        async def write(message: wire.SessionResponse) -> None:
            await asyncio.sleep(0.05)
            messages.append(message)
            frames.extend(message.frames)
            if frames[-1].WhichOneof("frame") == "final":
                done.set()

        async def requests() -> AsyncIterator[wire.SessionRequest]:
            yield _open(1, sealed)
            await done.wait()

        await Session(node.enclave.service).run(requests(), write)
        kinds = [frame.WhichOneof("frame") for frame in frames]
        assert kinds[0] == "head"
        assert kinds[-1] == "final"
        assert 2 < len(kinds) < 40
        assert [frame.WhichOneof("frame") for frame in messages[0].frames] == ["head", "data"]
        opener.head(frames[0].head)
        body = b"".join(opener.data(frame.data) for frame in frames[1:-1])
        events = [json.loads(part[6:]) for part in body.decode().split("\n\n") if part]
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
        assert text == "a" * 100


def _now() -> float:
    import time

    return time.time()


def _open(number: int, sealed: bytes) -> wire.SessionRequest:
    return wire.SessionRequest(frames=[wire.RequestFrame(request_number=number, open=sealed)])


async def test_coalescing_holds_back_all_but_the_first_piece(start_node: Any) -> None:
    async with start_node(coalesce_ms=200) as (node, engine), node.client() as client:
        engine.step_s = 0.005
        number = await client.send(client.plain("b" * 60, stream=True))
        assert (await client.receive(), await client.receive()) == ((number, "head"), (number, "data"))
        assert client.replies[number].texts[-1] == "b"
        reply = await client.wait(number)
        assert "".join(reply.texts) == "b" * 60
        assert reply.frames <= 8


async def test_frames_without_sense(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        for at, frame in enumerate(
            (wire.RequestFrame(request_number=70), wire.RequestFrame(request_number=71, cancel=True))
        ):
            client.pending[70 + at], client.replies[70 + at] = client.pending[1], Reply()
            await client.write(frame)
        assert (await client.wait(70)).error == "malformed"
        engine.gate.clear()
        number = await client.send(client.plain())
        await client.write(wire.RequestFrame(request_number=number, open=client.pending[number].sealed))
        engine.gate.set()
        # The second use of a running number is refused, and its answer is told apart by nothing but order.
        assert client.replies[71].frames == 0
        assert (await client.wait(number)).error == "malformed"


async def test_sealed_requests_above_the_limit_are_refused_unread(start_node: Any) -> None:
    limits = Limits(sealed_bytes=4000, channel_wait_s=0.3)
    async with start_node(limits=limits) as (node, _), node.client() as client:
        assert (await client.ask("x" * 6000)).error == "malformed"
        assert (await client.ask("short")).status == 200


async def test_sessions_are_limited(start_node: Any) -> None:
    limits = Limits(sessions=1, channel_wait_s=0.3)
    async with start_node(limits=limits) as (node, _), node.client() as client:
        stream = node.inference.Session()
        (frame,) = (await asyncio.wait_for(stream.read(), 10)).frames
        assert (frame.request_number, frame.error.code) == (0, "node_busy")
        assert (await client.ask()).status == 200


async def test_an_idle_session_ends_and_a_busy_one_does_not(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        from cocoon_attestation.sealing import seal_request

        service = node.enclave.service

        async def silent() -> AsyncIterator[wire.SessionRequest]:
            await asyncio.Event().wait()
            yield wire.SessionRequest()

        async def write(message: wire.SessionResponse) -> None:
            ended.extend(frame.WhichOneof("frame") for frame in message.frames)

        ended: list[Any] = []
        await asyncio.wait_for(Session(service, idle_s=0.2).run(silent(), write), 10)
        engine.repeat, engine.step_s = 30, 0.05
        plain = client.plain("c", stream=True)
        sealed, _ = seal_request([client.verified], plain.SerializeToString(), now=int(_now()))

        async def one() -> AsyncIterator[wire.SessionRequest]:
            yield _open(1, sealed)
            await asyncio.Event().wait()

        await asyncio.wait_for(Session(service, idle_s=0.2).run(one(), write), 20)
        assert ended[-1] == "final"
        assert service.sessions == 1  # the client's own


async def test_a_connection_that_breaks_while_writing_ends_the_session(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        from cocoon_attestation.sealing import seal_request

        engine.repeat, engine.step_s = 100, 0.01
        plain = client.plain("dddd", stream=True, max_tokens=300)
        sealed, _ = seal_request([client.verified], plain.SerializeToString(), now=int(_now()))

        async def write(_: wire.SessionResponse) -> None:
            raise ConnectionResetError

        async def one() -> AsyncIterator[wire.SessionRequest]:
            yield _open(1, sealed)
            await asyncio.Event().wait()

        await asyncio.wait_for(Session(node.enclave.service).run(one(), write), 10)
        for _ in range(500):
            if not engine.active and not node.enclave.service.active:
                break
            await asyncio.sleep(0.01)
        assert engine.active == 0
        assert node.enclave.service.meter.reserved == 0


async def test_requests_that_move_together_share_messages(start_node: Any) -> None:
    """One message per step and session, not one per token; the text is the same."""
    async with start_node() as (node, engine), node.client() as client:
        engine.gate.clear()
        engine.step_s = 0.02
        count, before = 12, client.messages
        numbers = [await client.send(client.plain("e" * 20, stream=True)) for _ in range(count)]
        await _until(lambda: engine.active == count)
        engine.gate.set()
        for number in numbers:
            reply = client.replies[number]
            while reply.receipt is None:
                await client.receive()
            assert "".join(reply.texts) == "e" * 20
        frames = sum(client.replies[number].frames for number in numbers)
        assert frames > 100
        assert client.messages - before < frames / 3


async def test_a_message_may_hold_several_frames(start_node: Any) -> None:
    """Each is judged by itself: a bad one does not hurt its neighbours."""
    async with start_node() as (node, _), node.client() as client:
        frames = []
        for number in (40, 41, 42):
            client.next_number = number
            sealed = client.seal(client.plain(f"text {number}"))
            frames.append(wire.RequestFrame(request_number=number, open=sealed))
        frames[1].open = b"\xff"
        await client.write(*frames, wire.RequestFrame(request_number=99, cancel=True))
        ended: set[int] = set()
        while len(ended) < 3:
            number, kind = await client.receive()
            if kind in ("final", "error"):
                ended.add(number)
        assert [client.replies[n].status for n in (40, 41, 42)] == [200, 0, 200]
        assert client.replies[41].error == "malformed"


@pytest.mark.parametrize("numbers", [(), tuple(range(1, MAX_FRAMES + 2)), (5, 0)])
async def test_a_message_against_the_rules_ends_the_session(
    start_node: Any, numbers: tuple[int, ...]
) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.gate.clear()
        await client.send(client.plain("never answered"))
        await _until(lambda: engine.active == 1)
        await client.write(*(wire.RequestFrame(request_number=n, cancel=True) for n in numbers))
        message = await asyncio.wait_for(client.stream.read(), 10)
        assert [(f.request_number, f.error.code) for f in message.frames] == [(0, "malformed")]
        assert not isinstance(await asyncio.wait_for(client.stream.read(), 10), wire.SessionResponse)
        engine.gate.set()
        await _until(lambda: not engine.active and not node.enclave.service.active)
        assert node.enclave.service.meter.reserved == 0


async def test_an_error_is_told_to_a_client_that_sends_no_more(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        await client.write(wire.RequestFrame(request_number=70))
        await client.stream.done_writing()
        message = await asyncio.wait_for(client.stream.read(), 10)
        assert [(f.request_number, f.error.code) for f in message.frames] == [(70, "malformed")]


async def test_a_client_that_only_sends_nonsense_is_held_up(start_node: Any) -> None:
    """What waits for a client that does not read is bounded."""
    async with start_node() as (node, _):
        taken, reading = 0, asyncio.Event()
        nonsense = wire.SessionRequest(frames=[wire.RequestFrame(request_number=1)] * MAX_FRAMES)

        async def requests() -> AsyncIterator[wire.SessionRequest]:
            nonlocal taken
            for _ in range(20):
                taken += 1
                yield nonsense

        answered = 0

        async def write(message: wire.SessionResponse) -> None:
            nonlocal answered
            await reading.wait()
            answered += len(message.frames)

        session = asyncio.create_task(Session(node.enclave.service).run(requests(), write))
        await asyncio.sleep(0.1)
        assert taken < 5
        reading.set()
        await asyncio.wait_for(session, 10)
        assert (taken, answered) == (20, 20 * MAX_FRAMES)


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen")


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_refusal_budget(left: float) -> None:
    from cocoon_enclave.service import RefusalBudget

    budget = RefusalBudget(60)
    assert all(budget.take(100) for _ in range(60))
    assert not budget.take(100)
    assert not budget.take(100 + left)
    assert budget.take(101.6)
