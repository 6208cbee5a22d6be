"""How frames are cut into messages: nothing lost, nothing held back, limits kept."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from cocoon.v1 import inference_service_pb2 as wire
from cocoon_enclave.frames import MAX_BATCH_BYTES, MAX_FRAMES, Frame, FrameQueue, message


class Request:
    """A source whose frames carry their own positions."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = False
        self.made = 0
        self.taken = 0
        self.last: int | None = None
        self._sizes: deque[int] = deque()

    def make(self, size: int) -> None:
        """Have one more frame ready, of about `size` bytes."""
        self._sizes.append(size)
        self.made += 1

    def take(self) -> list[Frame]:
        frames: list[Frame] = []
        while self._sizes:
            data = self.taken.to_bytes(4) + bytes(self._sizes.popleft())
            frames.append((self.number, "data", data))
            self.taken += 1
        self.done = self.last is not None and self.taken == self.last
        return frames


def test_one_message_for_one_step() -> None:
    queue, requests = FrameQueue(), [Request(n) for n in range(1, 65)]
    for request in requests:
        request.make(200)
        queue.notify(request)
        queue.notify(request)
    assert [number for number, _, _ in queue.batch()] == list(range(1, 65))
    assert queue.batch() == []
    assert queue.written() == []


def test_limits_of_a_message() -> None:
    queue, request = FrameQueue(), Request(1)
    for size in (MAX_BATCH_BYTES * 2, 10, MAX_BATCH_BYTES - 100, 1000, *[0] * MAX_FRAMES):
        request.make(size)
    request.last = request.made
    queue.notify(request)
    counts, ended = [], []
    while frames := queue.batch():
        counts.append(len(frames))
        ended.append(queue.written())
    assert counts == [1, 2, MAX_FRAMES, 1]
    assert ended == [[], [], [], [request]]


def test_the_queue_says_when_nobody_reads() -> None:
    queue = FrameQueue()
    for _ in range(MAX_FRAMES):
        assert not queue.full
        queue.push((1, "error", wire.SessionError(code="c")))
    assert queue.full
    queue.batch()
    assert not queue.full
    assert queue.empty


_SIZES = st.one_of(st.integers(0, 300), st.sampled_from([60_000, MAX_BATCH_BYTES, 300_000]))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.integers(1, 4), st.lists(_SIZES, max_size=6)),
        st.tuples(st.just("push"), st.integers(5, 6), st.just([])),
        st.tuples(st.just("end"), st.integers(1, 4), st.just([])),
        st.tuples(st.just("batch"), st.just(0), st.just([])),
    ),
    max_size=40,
)


@given(_STEPS)
def test_any_schedule_keeps_every_frame_in_order(steps: list[tuple[str, int, list[int]]]) -> None:
    queue, requests = FrameQueue(), {n: Request(n) for n in range(1, 5)}
    pushed, errors, ended = 0, 0, []
    seen = dict.fromkeys(requests, 0)

    def take() -> int:
        nonlocal errors
        response = message(queue.batch())
        frames = response.frames
        assert len(frames) <= MAX_FRAMES
        assert len(frames) <= 1 or response.ByteSize() <= MAX_BATCH_BYTES
        for frame in frames:
            if frame.request_number >= 5:
                errors += 1
                continue
            assert int.from_bytes(frame.data[:4]) == seen[frame.request_number]
            seen[frame.request_number] += 1
        for source in queue.written():
            assert seen[source.number] == requests[source.number].last
            ended.append(source.number)
        return len(frames)

    for kind, number, sizes in steps:
        if kind == "batch":
            take()
        elif kind == "push":
            pushed += 1
            queue.push((number, "error", wire.SessionError(code="c")))
        elif requests[number].last is None:
            for size in sizes or [1]:
                requests[number].make(size)
            if kind == "end":
                requests[number].last = requests[number].made
            queue.notify(requests[number])
            assert queue.waiting(requests[number])
    while take():
        pass
    assert errors == pushed
    assert seen == {n: request.made for n, request in requests.items()}
    assert sorted(ended) == [n for n, request in requests.items() if request.last is not None]
