"""Addresses and amounts as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Address

from cocoon_attestation.errors import MalformedError
from cocoon_ton.address import friendly_address, parse_address, raw_address
from cocoon_ton.amounts import MAX_COINS, TON, format_ton, parse_ton

hashes = st.binary(min_size=32, max_size=32)
workchains = st.sampled_from([0, -1])


class TestAddress:
    @given(workchains, hashes)
    def test_raw(self, workchain: int, account: bytes) -> None:
        address = Address((workchain, account))
        assert parse_address(raw_address(address)) == address

    @given(workchains, hashes, st.booleans(), st.booleans())
    def test_friendly(self, workchain: int, account: bytes, bounceable: bool, test_only: bool) -> None:
        address = Address((workchain, account))
        text = friendly_address(address, bounceable=bounceable, test_only=test_only)
        found = parse_address(text)
        assert found == address
        assert (found.is_bounceable, found.is_test_only) == (bounceable, test_only)
        assert parse_address(text.replace("-", "+").replace("_", "/")) == address

    def test_known_form(self) -> None:
        text = "Ef8zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM0vF"
        address = parse_address(text)
        assert raw_address(address) == "-1:" + "33" * 32
        assert friendly_address(address, bounceable=True, test_only=False) == text

    @given(hashes, st.data())
    def test_any_changed_character(self, account: bytes, data: st.DataObject) -> None:
        text = friendly_address(Address((0, account)), bounceable=True, test_only=False)
        position = data.draw(st.integers(0, 47))
        letter = data.draw(st.sampled_from("ABCDEFabcdef0123456789-_"))
        changed = text[:position] + letter + text[position + 1 :]
        if changed != text:
            with pytest.raises(MalformedError):
                parse_address(changed)

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        try:
            address = parse_address(text)
        except MalformedError:
            return
        assert len(address.hash_part) == 32

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0:",
            "0:" + "ab" * 31,
            "0:" + "ab" * 33,
            "5:" + "ab" * 32,
            " 0:" + "ab" * 32,
            "0:" + "zz" * 32,
        ],
    )
    def test_not_quite_raw(self, text: str) -> None:
        with pytest.raises(MalformedError):
            parse_address(text)


class TestAmounts:
    @given(st.integers(0, MAX_COINS))
    def test_round_trip(self, nanoton: int) -> None:
        assert parse_ton(format_ton(nanoton)) == nanoton

    @pytest.mark.parametrize(
        ("nanoton", "text"),
        [
            (0, "0"),
            (1, "0.000000001"),
            (TON, "1"),
            (1_500_000_000, "1.5"),
            (-2 * TON, "-2"),
            (10 * TON, "10"),
        ],
    )
    def test_text(self, nanoton: int, text: str) -> None:
        assert format_ton(nanoton) == text

    @pytest.mark.parametrize(
        "text", ["", "-1", "+1", "1e9", ".5", "1.", "1.0000000001", " 1", "1 ", "1_0", "١", "9" * 30, "NaN"]
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(MalformedError):
            parse_ton(text)
