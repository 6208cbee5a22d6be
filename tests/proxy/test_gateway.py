"""The HTTP gateway as apps see it: the official client library, and raw HTTP where it matters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from cocoon_proxy import events as e
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.gateway import gateway
from cocoon_proxy.gateway.idempotency import LIFETIME_S, MAX_KEYS, IdempotencyError, IdempotencyKeys

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

    from cocoon_proxy.gateway.server import Gateway

QUESTION: list[Any] = [{"role": "user", "content": "What is six times seven?"}]


@pytest.fixture
async def served(network: Network, enclave: FakeEnclave) -> AsyncIterator[Gateway]:
    """A gateway in front of one enclave."""
    async with network.client() as client, gateway(client, GatewayConfig(port=0, grpc_port=0)) as server:
        yield server


@pytest.fixture
async def app(served: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client library, pointed at the gateway and nothing else."""
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(served: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Plain HTTP."""
    async with httpx.AsyncClient(base_url=served.base_url, trust_env=False) as client:
        yield client


async def test_streaming_with_the_official_library(app: openai.AsyncOpenAI, enclave: FakeEnclave) -> None:
    text, extras, finish = "", [], None
    stream: Any = await app.chat.completions.create(
        model="tiny",
        messages=QUESTION,
        stream=True,
        max_tokens=16,
    )
    async for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        finish = chunk.choices[0].finish_reason if chunk.choices else finish
        if chunk.model_extra and "cocoon" in chunk.model_extra:
            extras.append(chunk.model_extra["cocoon"])
    assert (text, finish) == ("Hello there!", "stop")
    receipt = enclave.receipts[0]
    assert extras == [
        {
            "receipt_id": receipt.id,
            "node": enclave.node.hex(),
            "amount_nanoton": receipt.amount,
            "simulated": True,
        }
    ]


async def test_one_piece_with_the_official_library(app: openai.AsyncOpenAI, enclave: FakeEnclave) -> None:
    raw = await app.chat.completions.with_raw_response.create(
        model="tiny",
        messages=QUESTION,
        max_tokens=16,
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello there!"
    receipt = enclave.receipts[0]
    assert raw.headers["x-cocoon-receipt"] == receipt.id
    assert raw.headers["x-cocoon-node"] == enclave.node.hex()
    assert raw.headers["x-cocoon-price"] == str(receipt.amount)
    assert raw.headers["x-request-id"].startswith("req_")
    assert answer.model_extra is not None
    assert answer.model_extra["cocoon"]["receipt_id"] == receipt.id
    assert answer.model_extra["unknown_member"] == [1, {"kept": True}]


async def test_the_body_reaches_the_enclave_byte_for_byte(
    http: httpx.AsyncClient, enclave: FakeEnclave
) -> None:
    sent = b'{ "model":"tiny",\n "messages":[{"role":"user","content":"\\u00e9\xc3\xa9"}],"x_new":1e0}'
    got = await http.post("/chat/completions", content=sent)
    assert got.status_code == 200
    assert enclave.requests[0].body == sent


async def test_exact_bytes_on_request(http: httpx.AsyncClient, enclave: FakeEnclave, harness: Any) -> None:
    headers = {"x-cocoon-raw": "1"}
    got = await http.post("/chat/completions", content=harness.body(stream=False), headers=headers)
    salt = enclave.requests[0].receipt_salt
    assert harness.commit_response(salt, got.content) == enclave.receipts[0].response_commitment
    got = await http.post("/chat/completions", content=harness.body(stream=True), headers=headers)
    salt = enclave.requests[1].receipt_salt
    assert harness.commit_response(salt, got.content) == enclave.receipts[1].response_commitment


async def test_models_status_and_receipts(
    app: openai.AsyncOpenAI, http: httpx.AsyncClient, enclave: FakeEnclave, harness: Any
) -> None:
    listed = await app.models.list()
    assert [model.id for model in listed.data] == ["tiny"]
    one = await app.models.retrieve("tiny")
    assert (one.object, one.owned_by) == ("model", "cocoon")
    assert (await app.models.retrieve("tiny@" + harness.MODEL.hex())).id == "tiny"
    with pytest.raises(openai.NotFoundError) as missing:
        await app.models.retrieve("gpt-none")
    assert missing.value.code == "model_not_found"
    await http.post("/chat/completions", content=harness.body(stream=False))
    status = (await http.get("/cocoon/status")).json()
    assert status["sessions"][0]["node"] == enclave.node.hex()
    receipt = (await http.get(f"/cocoon/receipts/{enclave.receipts[0].id}")).json()
    assert receipt["amount"] == enclave.receipts[0].amount
    assert (await http.get("/cocoon/receipts/00")).status_code == 404


async def test_completions_endpoint(app: openai.AsyncOpenAI, enclave: FakeEnclave) -> None:
    await app.completions.create(model="tiny", prompt="once", max_tokens=8)
    assert enclave.requests[0].endpoint == "/v1/completions"


async def test_errors_have_the_shape_that_the_library_reads(
    app: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await app.chat.completions.create(model="gpt-none", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    assert missing.value.type == "invalid_request_error"
    assert missing.value.request_id is not None
    for method, path, status in (
        ("POST", "/embeddings", 404),
        ("GET", "/chat/completions", 405),
        ("GET", "/x", 404),
    ):
        got = await http.request(method, path)
        assert got.status_code == status
        assert set(got.json()["error"]) == {"message", "type", "param", "code"}
        assert "x-request-id" in got.headers
    bad = await http.post("/chat/completions", content=b"{")
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "body")


@pytest.mark.parametrize(
    ("fault", "status", "kind", "retry"),
    [
        ("busy", 429, "rate_limit_error", "retry-after"),
        ("no node", 503, "unavailable_error", "retry-after"),
        ("dead node", 503, "unavailable_error", "retry-after"),
        ("evidence", 403, "attestation_error", None),
        ("funds", 402, "payment_error", "x-should-retry"),
        ("cut", 502, "api_error", "x-should-retry"),
        ("receipt", 502, "api_error", "x-should-retry"),
    ],
)
async def test_each_failure_has_its_status(
    network: Network,
    enclave: FakeEnclave,
    http: httpx.AsyncClient,
    harness: Any,
    fault: str,
    status: int,
    kind: str,
    retry: str | None,
) -> None:
    match fault:
        case "busy":
            enclave.script.error = ["node_busy"]
        case "no node":
            network.publish(replace(enclave.listing, attested_until=1))
        case "dead node":
            await enclave.stop()
        case "evidence":
            enclave.make_evidence = lambda challenge: enclave.published  # type: ignore[method-assign]
        case "funds":
            network.treasury.funds = 1
        case "cut":
            enclave.script.die_after = 0
        case "receipt":
            enclave.script.edit_receipt = lambda r: replace(r, node=bytes(32))
    got = await http.post("/chat/completions", content=harness.body(stream=False))
    assert (got.status_code, got.json()["error"]["type"]) == (status, kind)
    if retry is not None:
        assert got.headers[retry] == ("false" if retry == "x-should-retry" else got.headers["retry-after"])
    if fault == "evidence":
        assert got.json()["error"]["cocoon"]["failed_checks"]


async def test_the_library_does_not_repeat_what_may_have_been_charged(
    network: Network, served: Gateway, enclave: FakeEnclave
) -> None:
    enclave.script.die_after = 0
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="x", max_retries=3) as app:
        with pytest.raises(openai.APIStatusError) as caught:
            await app.chat.completions.create(model="tiny", messages=QUESTION)
    assert caught.value.status_code == 502
    assert len(enclave.requests) == 1


async def test_a_repeat_under_the_same_key_is_not_paid_twice(
    network: Network, http: httpx.AsyncClient, enclave: FakeEnclave, harness: Any
) -> None:
    headers, request = {"idempotency-key": "k1"}, harness.body(stream=False)
    assert (await http.post("/chat/completions", content=request, headers=headers)).status_code == 200
    again = await http.post("/chat/completions", content=request, headers=headers)
    assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")
    assert again.json()["error"]["code"] == "idempotency_conflict"
    other = await http.post("/chat/completions", content=harness.body("other"), headers=headers)
    assert other.status_code == 400
    assert len(enclave.requests) == 1
    enclave.script.die_after = 0
    headers = {"idempotency-key": "k2"}
    assert (await http.post("/chat/completions", content=request, headers=headers)).status_code == 502
    assert (await http.post("/chat/completions", content=request, headers=headers)).status_code == 409
    enclave.script.die_after = None
    enclave.script.error = ["node_busy"]
    network.clock_offset = 60.0
    headers = {"idempotency-key": "k3"}
    assert (await http.post("/chat/completions", content=request, headers=headers)).status_code == 429
    network.clock_offset = 90.0
    assert (await http.post("/chat/completions", content=request, headers=headers)).status_code == 200
    too_long = {"idempotency-key": "k" * 300}
    assert (await http.post("/chat/completions", content=request, headers=too_long)).status_code == 400


def test_idempotency_keys_expire_and_are_bounded() -> None:
    now = [0.0]
    keys = IdempotencyKeys(lambda: now[0])
    keys.claim("a", b"1")
    with pytest.raises(IdempotencyError):
        keys.claim("a", b"1")
    now[0] = LIFETIME_S + 1
    keys.claim("a", b"2")
    for number in range(MAX_KEYS):
        keys.claim(f"n{number}", b"")
    keys.claim("a", b"3")


async def test_a_failure_in_mid_stream_is_an_event_and_no_done(
    app: openai.AsyncOpenAI, http: httpx.AsyncClient, enclave: FakeEnclave, network: Network, harness: Any
) -> None:
    enclave.script.die_after = 2
    got = await http.post("/chat/completions", content=harness.body())
    assert got.status_code == 200
    assert b"[DONE]" not in got.content
    last = got.content.strip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "outcome_unknown"
    network.clock_offset = 60.0

    async def read() -> None:
        stream: Any = await app.chat.completions.create(
            model="tiny",
            messages=QUESTION,
            stream=True,
        )
        async for _ in stream:
            pass

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert caught.value.code == "outcome_unknown"


async def test_an_error_of_the_model_keeps_its_status(
    app: openai.AsyncOpenAI, enclave: FakeEnclave
) -> None:
    for stream in (False, True):
        enclave.script.refuse = [(400, "context_length_exceeded")]
        with pytest.raises(openai.BadRequestError) as caught:
            await app.chat.completions.create(
                model="tiny",
                messages=QUESTION,
                stream=stream,
            )
        assert caught.value.code == "context_length_exceeded"


async def test_signs_of_life_while_the_node_is_slow(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    from cocoon_proxy.gateway.app import create_app

    enclave.script.delay_head_s = 0.5
    async with network.client() as client:
        app = create_app(client, GatewayConfig(), keep_alive_s=0.1)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            got = await http.post("/v1/chat/completions", content=harness.body())
            assert got.content.startswith(b": keep-alive\n\n")
            assert got.content.endswith(b"data: [DONE]\n\n")
            enclave.script.refuse = [(400, "context_length_exceeded")]
            late = await http.post("/v1/chat/completions", content=harness.body())
            assert late.status_code == 200
            assert b"context_length_exceeded" in late.content
            assert b"[DONE]" not in late.content


async def test_a_caller_that_goes_away_stops_the_engine(
    network: Network, served: Gateway, enclave: FakeEnclave, harness: Any
) -> None:
    enclave.script.stall_after = 1
    async with (
        httpx.AsyncClient(base_url=served.base_url, trust_env=False) as http,
        http.stream("POST", "/chat/completions", content=harness.body()) as got,
    ):
        async for _ in got.aiter_bytes():
            break
    async with asyncio.timeout(5):
        while not enclave.cancelled:  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)


async def test_many_streams_at_once(app: openai.AsyncOpenAI, enclave: FakeEnclave) -> None:
    async def one() -> str:
        stream: Any = await app.chat.completions.create(
            model="tiny",
            messages=QUESTION,
            stream=True,
            max_tokens=16,
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    assert await asyncio.gather(*(one() for _ in range(16))) == ["Hello there!"] * 16
    assert enclave.sessions == 1


async def test_a_body_that_is_too_long_is_refused(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    config = GatewayConfig(port=0, grpc_port=0, max_body_bytes=1000)
    async with (
        network.client() as client,
        gateway(client, config) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as http,
    ):
        got = await http.post("/chat/completions", content=harness.body("x" * 2000))
    assert got.status_code == 400


async def test_events_tell_of_every_request(network: Network, app: openai.AsyncOpenAI) -> None:
    await app.chat.completions.create(model="tiny", messages=QUESTION)
    assert len(network.of(e.ReceiptVerified)) == 1
