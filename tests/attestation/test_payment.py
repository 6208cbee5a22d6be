"""Authorizations, claims and the price of an answer."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from math import ceil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.boc.builder import Builder as OracleBuilder

from cocoon.v1 import payment_pb2, sealed_pb2
from cocoon_attestation.errors import MalformedError, PaymentError
from cocoon_attestation.payment import (
    Authorization,
    Claim,
    PriceList,
    TokenUsage,
    amount,
    parse_authorization,
    parse_claim,
    sign_authorization,
    sign_claim,
    verify_authorization,
    verify_claim,
    worst_case,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x12" * 32).public_key().public_bytes_raw()

digests = st.binary(min_size=32, max_size=32)
coins = st.integers(0, 2**120 - 1)
networks = st.integers(-(2**31), 2**31 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
authorizations = st.builds(Authorization, global_id=networks, channel=digests, cap=coins, valid_until=u32)
claims = st.builds(Claim, global_id=networks, channel=digests, used=coins, index=u64)
prices = st.builds(PriceList, prompt=u64, cached=u64, completion=u64)
usages = st.tuples(u32, u32, u32).map(
    lambda counts: TokenUsage(
        prompt_tokens=max(counts[:2]), cached_tokens=min(counts[:2]), completion_tokens=counts[2]
    )
)


@given(authorizations)
def test_authorization_round_trip_and_layout(value: Authorization) -> None:
    assert parse_authorization(value.to_boc()) == value
    oracle = OracleBuilder().store_uint(0xC0C00004, 32).store_int(value.global_id, 32)
    oracle.store_bytes(value.channel).store_coins(value.cap).store_uint(value.valid_until, 32)
    assert value.hash == oracle.end_cell().hash


@given(claims)
def test_claim_round_trip_and_layout(value: Claim) -> None:
    assert parse_claim(value.to_boc()) == value
    oracle = OracleBuilder().store_uint(0xC0C00005, 32).store_int(value.global_id, 32)
    oracle.store_bytes(value.channel).store_coins(value.used).store_uint(value.index, 64)
    assert value.hash == oracle.end_cell().hash


@given(authorizations)
def test_authorization_signature(value: Authorization) -> None:
    signed = sign_authorization(value, KEY)
    assert verify_authorization(signed, PUBLIC) == value
    with pytest.raises(PaymentError):
        verify_authorization(signed, OTHER)


@given(claims)
def test_claim_signature(value: Claim) -> None:
    signed = sign_claim(value, KEY)
    assert verify_claim(signed, PUBLIC) == value
    with pytest.raises(PaymentError):
        verify_claim(signed, OTHER)


@given(authorizations, st.data())
def test_every_changed_byte_of_an_authorization_is_refused(
    value: Authorization, data: st.DataObject
) -> None:
    signed = sign_authorization(value, KEY)
    part = data.draw(st.sampled_from(["authorization", "signature"]))
    changed = bytearray(getattr(signed, part))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    setattr(signed, part, bytes(changed))
    with pytest.raises((MalformedError, PaymentError)):
        verify_authorization(signed, PUBLIC)


@given(claims, st.data())
def test_every_changed_byte_of_a_claim_is_refused(value: Claim, data: st.DataObject) -> None:
    signed = sign_claim(value, KEY)
    part = data.draw(st.sampled_from(["claim", "signature"]))
    changed = bytearray(getattr(signed, part))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    setattr(signed, part, bytes(changed))
    with pytest.raises((MalformedError, PaymentError)):
        verify_claim(signed, PUBLIC)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_authorization(data)
    with pytest.raises(MalformedError):
        parse_claim(data)


def test_a_claim_is_no_authorization() -> None:
    claim = Claim(global_id=-3, channel=bytes(32), used=1, index=0)
    with pytest.raises(MalformedError):
        parse_authorization(claim.to_boc())
    permission = Authorization(global_id=-3, channel=bytes(32), cap=1, valid_until=0)
    with pytest.raises(MalformedError):
        parse_claim(permission.to_boc())
    forged = payment_pb2.SignedClaim(claim=claim.to_boc(), signature=KEY.sign(permission.hash))
    with pytest.raises(PaymentError):
        verify_claim(forged, PUBLIC)


def test_network_and_channel_are_signed() -> None:
    here = Authorization(global_id=-3, channel=b"\x01" * 32, cap=5, valid_until=9)
    signature = sign_authorization(here, KEY).signature
    for moved in (
        dataclasses.replace(here, global_id=-239),
        dataclasses.replace(here, channel=b"\x02" * 32),
        dataclasses.replace(here, cap=6),
        dataclasses.replace(here, valid_until=10),
    ):
        signed = payment_pb2.SignedAuthorization(authorization=moved.to_boc(), signature=signature)
        with pytest.raises(PaymentError):
            verify_authorization(signed, PUBLIC)


@given(prices, usages)
def test_amount_is_the_exact_sum_rounded_up_once(price: PriceList, usage: TokenUsage) -> None:
    computed = usage.prompt_tokens - usage.cached_tokens
    exact = (
        Fraction(computed * price.prompt, 10**6)
        + Fraction(usage.cached_tokens * price.cached, 10**6)
        + Fraction(usage.completion_tokens * price.completion, 10**6)
    )
    assert amount(price, usage) == ceil(exact)


@given(prices, usages, u32, u32)
def test_worst_case_covers_every_smaller_answer(
    price: PriceList, usage: TokenUsage, more_prompt: int, more_completion: int
) -> None:
    limit = worst_case(
        price,
        prompt_tokens=usage.prompt_tokens + more_prompt,
        max_completion_tokens=usage.completion_tokens + more_completion,
    )
    assert amount(price, usage) <= limit


@given(prices, st.integers(0, 1000), st.integers(0, 1000))
def test_worst_case_is_reached(price: PriceList, prompt: int, completion: int) -> None:
    limit = worst_case(price, prompt_tokens=prompt, max_completion_tokens=completion)
    reached = max(
        amount(price, TokenUsage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion))
        for cached in (0, prompt)
    )
    assert reached == limit


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0), 0),
        ((1, 0, 0), 1),
        ((1, 1, 0), 1),
        ((0, 0, 1), 1),
        ((1_000_000, 0, 0), 3),
        ((2, 1, 1), 1),
    ],
)
def test_rounding(counts: tuple[int, int, int], expected: int) -> None:
    usage = TokenUsage(prompt_tokens=counts[0], cached_tokens=counts[1], completion_tokens=counts[2])
    assert amount(PriceList(prompt=3, cached=1, completion=7), usage) == expected


def test_usage_refuses_more_cached_than_prompt_tokens() -> None:
    with pytest.raises(MalformedError):
        TokenUsage.from_proto(sealed_pb2.Usage(prompt_tokens=1, cached_tokens=2))


@given(prices, usages)
def test_wire_forms_round_trip(price: PriceList, usage: TokenUsage) -> None:
    assert PriceList.from_proto(price.to_proto()) == price
    assert TokenUsage.from_proto(usage.to_proto()) == usage


def test_price_limit() -> None:
    limit = PriceList(prompt=3, cached=1, completion=7)
    assert limit.within(limit)
    assert PriceList(prompt=0, cached=0, completion=0).within(limit)
    for field in ("prompt", "cached", "completion"):
        higher = dataclasses.replace(limit, **{field: getattr(limit, field) + 1})
        assert not higher.within(limit)


@pytest.mark.parametrize("value", [-1, 2**64, 1.5])
def test_prices_are_u64(value: int) -> None:
    with pytest.raises(MalformedError):
        PriceList(prompt=value, cached=0, completion=0)
