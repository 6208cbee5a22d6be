"""Value helpers: lengths, ranges, hex and amounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import (
    MAX_NANOTON,
    digest32,
    exact_bytes,
    format_ton,
    nanoton,
    parse_hex,
    parse_ton,
    sint,
    uint,
)


@pytest.mark.parametrize("value", [b"", b"\x00" * 31, b"\x00" * 33, "a" * 32, None, 32, [0] * 32])
def test_digest_refuses_everything_but_32_bytes(value: object) -> None:
    with pytest.raises(MalformedError):
        digest32(value)


def test_bytes_like_values_become_immutable() -> None:
    source = bytearray(32)
    digest = digest32(memoryview(source))
    source[0] = 1
    assert digest == bytes(32)
    assert exact_bytes(bytearray(b"ab"), 2, "x") == b"ab"


@pytest.mark.parametrize("value", [-1, 2**32, True, 1.0, "1", None])
def test_uint_refuses(value: object) -> None:
    with pytest.raises(MalformedError):
        uint(value, 32, "x")


@pytest.mark.parametrize("value", [-(2**31) - 1, 2**31, False, "1"])
def test_sint_refuses(value: object) -> None:
    with pytest.raises(MalformedError):
        sint(value, 32, "x")


def test_limits_are_inclusive() -> None:
    assert uint(2**32 - 1, 32, "x") == 2**32 - 1
    assert sint(-(2**31), 32, "x") == -(2**31)
    assert nanoton(MAX_NANOTON) == MAX_NANOTON
    with pytest.raises(MalformedError):
        nanoton(MAX_NANOTON + 1)


@pytest.mark.parametrize(
    "text", ["", "0", "AA" * 32, " " + "a" * 63, "0x" + "a" * 62, "g" * 64, b"a" * 64, "é" * 64]
)
def test_hex_has_one_spelling(text: object) -> None:
    with pytest.raises(MalformedError):
        parse_hex(text, 32)


@given(st.binary(min_size=32, max_size=32))
def test_hex_round_trip(value: bytes) -> None:
    assert parse_hex(value.hex(), 32) == value


@given(st.integers(0, MAX_NANOTON))
def test_ton_round_trip(amount: int) -> None:
    assert parse_ton(format_ton(amount)) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1", 10**9), ("0.000000001", 1), ("1.25", 1_250_000_000), ("007.50", 7_500_000_000)],
)
def test_ton_values(text: str, amount: int) -> None:
    assert parse_ton(text) == amount


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", ".5", "-1", "+1", "1e9", "1,5", "0.0000000001", " 1", "1 ", "1_0", "٣", "²", "9" * 40],
)
def test_ton_refuses(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_ton(text)


@given(st.text(max_size=40))
def test_ton_raises_only_malformed(text: str) -> None:
    try:
        amount = parse_ton(text)
    except MalformedError:
        return
    assert 0 <= amount <= MAX_NANOTON


def test_format() -> None:
    assert format_ton(0) == "0"
    assert format_ton(1) == "0.000000001"
    assert format_ton(-1_500_000_000) == "-1.5"
