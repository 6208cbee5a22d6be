"""Looking at request bodies, and what an answer can cost at most."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.payment import PriceList, worst_case
from cocoon_proxy.errors import InvalidRequestError
from cocoon_proxy.requests import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    TEMPLATE_ALLOWANCE,
    RequestInfo,
    parse_request,
    worst_cost,
)

PRICES = PriceList(prompt=100, cached=10, completion=400)


def parse(document: object, endpoint: str = CHAT_COMPLETIONS) -> RequestInfo:
    return parse_request(endpoint, json.dumps(document).encode(), max_bytes=10_000)


def test_members_that_matter() -> None:
    info = parse({"model": "m", "stream": True, "max_tokens": 5, "n": 2, "tools": [{}], "unknown": None})
    assert (info.model, info.stream, info.max_tokens, info.choices) == ("m", True, 5, 2)
    assert parse({"model": "m", "max_tokens": 5, "max_completion_tokens": 7}).max_tokens == 7
    assert parse({"model": "m", "stream": None}).stream is False
    assert parse({"model": "m"}).max_tokens is None


def test_text_completions_have_their_own_rules() -> None:
    assert parse({"model": "m", "prompt": "x"}, COMPLETIONS).max_tokens == 16
    assert parse({"model": "m", "prompt": ["a", "b"], "n": 3}, COMPLETIONS).choices == 6
    assert parse({"model": "m", "prompt": [1, 2, 3], "best_of": 4}, COMPLETIONS).choices == 4
    assert parse({"model": "m", "prompt": [[1], [2]]}, COMPLETIONS).choices == 2


@pytest.mark.parametrize(
    "members",
    [{"model": ""}, {"model": None}, {"stream": 1}, {"max_tokens": -1}, {"max_tokens": 1.5}, {"n": True},
     {"max_completion_tokens": "9"}],
)  # fmt: skip
def test_wrong_types_are_refused(members: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        parse({"model": "m", **members})


def test_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        parse_request(CHAT_COMPLETIONS, b" " * 11, max_bytes=10)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_one_error(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        parse_request(CHAT_COMPLETIONS, body, max_bytes=1000)


@given(
    size=st.integers(0, 5000),
    context=st.integers(1, 4000),
    limit=st.none() | st.integers(1, 5000),
    prices=st.builds(
        PriceList,
        prompt=st.integers(0, 10**9),
        cached=st.integers(0, 10**9),
        completion=st.integers(0, 10**9),
    ),
    data=st.data(),
)
def test_no_admissible_request_costs_more(
    size: int, context: int, limit: int | None, prices: PriceList, data: st.DataObject
) -> None:
    """Whatever prompt the body makes and whatever the enclave reserves for it is covered."""
    info = RequestInfo(model="m", stream=True, max_tokens=limit, choices=1, body_size=size)
    prompt = data.draw(st.integers(0, min(context, 2 * size + TEMPLATE_ALLOWANCE)))
    room = context - prompt
    completion = data.draw(st.integers(0, room if limit is None else min(room, limit)))
    cost = worst_case(prices, prompt_tokens=prompt, max_completion_tokens=completion)
    assert worst_cost(info, prices, context) >= cost


def test_a_small_body_does_not_reserve_the_whole_context() -> None:
    info = RequestInfo(model="m", stream=True, max_tokens=10, choices=1, body_size=100)
    assert worst_cost(info, PRICES, 1_000_000) < worst_cost(info, PRICES, 10**9) + 1 < 10


@pytest.mark.parametrize("name", ["\\ud800", "a\\u0000b", "a\\nb"])
def test_a_model_that_is_no_text_is_refused(name: str) -> None:
    """JSON can hold what no log, database or answer can."""
    body = f'{{"model": "{name}", "messages": []}}'.encode()
    with pytest.raises(InvalidRequestError):
        parse_request(CHAT_COMPLETIONS, body, max_bytes=1000)
