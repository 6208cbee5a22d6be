"""Size classes: bounds on overhead, on what a length shows, and strict removal."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError, SealingError
from cocoon_attestation.sealing.padding import (
    MAX_CHUNK,
    MAX_REQUEST,
    SizeClass,
    data_class,
    final_class,
    head_class,
    pad,
    request_class,
    unpad,
)

CLASSES = [request_class, head_class, data_class, final_class]


@given(st.integers(1024, MAX_REQUEST))
@example(1024)
@example(MAX_REQUEST)
def test_overhead_of_requests(length: int) -> None:
    """Length prefix, padding and authentication tag together stay below 12 %."""
    assert request_class(length + 4) + 16 <= length * 1.12


def test_overhead_of_every_length_up_to_64_kib() -> None:
    assert all(request_class(length + 4) + 16 <= length * 1.12 for length in range(1024, 65_536))


@given(st.integers(4096, MAX_CHUNK))
def test_overhead_of_long_chunks(length: int) -> None:
    assert data_class(length + 4) + 16 <= length * 1.12


@pytest.mark.parametrize("size_class", CLASSES)
@given(length=st.integers(4, MAX_CHUNK))
def test_a_class_is_its_own_class_and_never_shorter(size_class: SizeClass, length: int) -> None:
    size = size_class(length)
    assert size >= length
    assert size_class(size) == size


@pytest.mark.parametrize("size_class", CLASSES)
@given(lengths=st.tuples(st.integers(4, 100_000), st.integers(4, 100_000)))
def test_classes_grow_with_the_length(size_class: SizeClass, lengths: tuple[int, int]) -> None:
    assert size_class(min(lengths)) <= size_class(max(lengths))


def test_small_classes() -> None:
    assert {data_class(n) for n in range(4, 4097)} == {64, 128, 256, 512, 1024, 2048, 4096}
    assert {head_class(n) for n in range(4, 4097)} == {256, 512, 1024, 2048, 4096}
    assert {final_class(n) for n in range(4, 4097)} == {1024, 2048, 4096}
    assert {request_class(n) for n in range(4, 1025)} == {1024}
    assert len({request_class(n) for n in range(4, 65_536)}) <= 120


def test_a_short_token_looks_like_any_other() -> None:
    """Up to 60 bytes of text share one class."""
    assert {len(pad(b"x" * n, data_class, MAX_CHUNK)) for n in range(61)} == {64}


@pytest.mark.parametrize("size_class", CLASSES)
@given(data=st.binary(max_size=3000))
def test_round_trip(size_class: SizeClass, data: bytes) -> None:
    padded = pad(data, size_class, MAX_CHUNK)
    assert len(padded) == size_class(len(data) + 4)
    assert unpad(padded, size_class, MAX_CHUNK) == data


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_canonical(padded: bytes) -> None:
    try:
        data = unpad(padded, data_class, MAX_CHUNK)
    except SealingError:
        return
    assert pad(data, data_class, MAX_CHUNK) == padded


@given(st.binary(max_size=200), st.data())
def test_other_padding_is_refused(data: bytes, draw: st.DataObject) -> None:
    padded = bytearray(pad(data, data_class, MAX_CHUNK))
    for wrong in (padded + bytes(64), padded[:-1], bytes(padded) + bytes(len(padded))):
        with pytest.raises(SealingError):
            unpad(bytes(wrong), data_class, MAX_CHUNK)
    if len(data) + 4 < len(padded):
        padded[draw.draw(st.integers(len(data) + 4, len(padded) - 1))] = 1
        with pytest.raises(SealingError):
            unpad(bytes(padded), data_class, MAX_CHUNK)


def test_limit() -> None:
    assert len(pad(bytes(MAX_CHUNK), data_class, MAX_CHUNK)) >= MAX_CHUNK
    with pytest.raises(MalformedError):
        pad(bytes(MAX_CHUNK + 1), data_class, MAX_CHUNK)
    with pytest.raises(SealingError):
        unpad(pad(b"x" * 65, data_class, MAX_CHUNK), data_class, 64)
