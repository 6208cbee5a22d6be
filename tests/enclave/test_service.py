"""The service end to end in one process: sealed requests over gRPC and TLS, scripted engine, real store."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from enclave_testkit import NODE, Wallet  # type: ignore[import-not-found]

from cocoon.v1 import attestation_service_pb2, host_service_pb2
from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.checkpoint import parse_checkpoint, verify_checkpoint
from cocoon_attestation.merkle import verify_consistency, verify_inclusion
from cocoon_attestation.payment import verify_claim
from cocoon_enclave.config import Limits
from cocoon_enclave.text import TextModel


async def test_streamed_answer_with_receipt(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        reply = await client.ask("hello wörld", stream=True, stream_options={"include_usage": True})
    assert (reply.status, reply.content_type) == (200, "text/event-stream")
    assert "".join(reply.texts) == "hello wörld"
    assert reply.events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert reply.events[-2]["choices"][0]["finish_reason"] == "stop"
    assert reply.events[-1]["usage"]["completion_tokens"] == 12
    assert b"[DONE]" not in reply.body
    receipt = reply.receipt
    assert (receipt.status, receipt.prompt_tokens, receipt.completion_tokens) == (200, 12, 12)
    assert receipt.amount == 12 * 1 + 12 * 2
    assert receipt.model == node.config.models[0].digest


async def test_whole_answer(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        reply = await client.ask("hello", max_tokens=3)
    assert (reply.status, reply.content_type) == (200, "application/json")
    choice = reply.document["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "hel"}
    assert choice["finish_reason"] == "length"
    assert reply.document["usage"]["total_tokens"] == 8
    assert reply.document["id"].startswith("chatcmpl-")
    assert reply.receipt.amount == 5 * 1 + 3 * 2


async def test_stop_string_ends_the_answer_and_the_work(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.repeat = 20
        reply = await client.ask("one two three ", stream=True, stop=["two", "zzz"], max_tokens=200)
        assert "".join(reply.texts) == "one "
        assert reply.events[-1]["choices"][0]["finish_reason"] == "stop"
        # Only tokens whose text was sent are counted.
        assert reply.receipt.completion_tokens == 4
        await _until(lambda: engine.active == 0)
        assert engine.started[-1].steps < 12


async def test_bare_completion(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        body = b'{"model": "tiny", "prompt": "abc", "max_tokens": 2}'
        reply = await client.ask(endpoint="/v1/completions", body=body)
    assert reply.document["object"] == "text_completion"
    assert reply.document["choices"][0]["text"] == "ab"


async def test_the_model_may_be_named_with_its_digest(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        digest = node.config.models[0].digest.hex()
        assert (await client.ask(model=f"tiny@{digest}")).status == 200
        assert (await client.ask(model="tiny@" + "00" * 32)).status == 404


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"body": b"{"}, 400, "invalid_request"),
        ({"body": b'{"model": "tiny", "messages": []}'}, 400, "invalid_request"),
        ({"endpoint": "/v1/embeddings"}, 404, "unknown_endpoint"),
        ({"model": "other"}, 404, "model_not_found"),
        ({"max_tokens": 5000}, 400, "context_length_exceeded"),
        ({"text": "x" * 600}, 400, "context_length_exceeded"),
        ({"n": 2}, 400, "invalid_request"),
        ({"deadline_s": -1}, 504, "deadline_exceeded"),
        ({"deadline_s": 100_000}, 400, "invalid_request"),
    ],
)
async def test_bad_requests_get_a_sealed_answer_and_a_receipt_of_zero(
    start_node: Any, arguments: dict[str, Any], status: int, code: str
) -> None:
    async with start_node() as (node, engine), node.client() as client:
        before = len(engine.started)
        reply = await client.ask(**arguments)
        assert (reply.status, reply.document["error"]["code"]) == (status, code)
        assert (reply.receipt.status, reply.receipt.amount) == (status, 0)
        assert reply.receipt.channel == client.wallet.channel
        assert len(engine.started) == before


def _payments() -> list[tuple[str, str]]:
    return [
        ("expired", "authorization_refused"),
        ("foreign_key", "authorization_refused"),
        ("other_channel", "authorization_refused"),
        ("price", "price_above_limit"),
        ("cap", "cap_too_low"),
    ]


@pytest.mark.parametrize(("fault", "code"), _payments())
async def test_bad_payments_are_refused(start_node: Any, fault: str, code: str) -> None:
    async with start_node() as (node, engine), node.client() as client:
        faults: dict[str, dict[str, Any]] = {
            "expired": {"valid_for": -5},
            "foreign_key": {"key": Ed25519PrivateKey.generate()},
            "other_channel": {"channel": b"\x77" * 32},
            "price": {"price_limit": 999_999},
            "cap": {"cap": 20},
        }
        before = len(engine.started)
        reply = await client.ask(payment=client.wallet.payment(**faults[fault]), max_tokens=20)
        assert (reply.status, reply.document["error"]["code"]) == (402, code)
        assert reply.receipt.amount == 0
        assert len(engine.started) == before


async def test_nothing_is_tokenized_for_who_cannot_pay(
    start_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[object] = []
    encode = TextModel.encode_chat

    def encode_chat(self: TextModel, messages: Any) -> Any:
        worked.append(messages)
        return encode(self, messages)

    monkeypatch.setattr(TextModel, "encode_chat", encode_chat)
    async with start_node() as (node, _), node.client() as client:
        worked.clear()  # a template is tried out at the start
        reply = await client.ask(payment=client.wallet.payment(cap=0))
        assert (reply.status, reply.document["error"]["code"]) == (402, "cap_too_low")
        assert not worked
        assert (await client.ask()).status == 200
        assert len(worked) == 1


async def test_channels_of_other_nodes_and_networks_are_refused(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        for wallet in (Wallet(node=b"\x12" * 32), Wallet(global_id=-239)):
            reply = await client.ask(payment=wallet.payment())
            assert reply.document["error"]["code"] == "channel_unusable"
            assert reply.receipt.channel == bytes(32)


async def test_balance_limits_what_is_reserved(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        await node.fund(client.wallet, balance=50)
        reply = await client.ask("hello", max_tokens=30)
        assert reply.document["error"]["code"] == "balance_too_low"
        assert (await client.ask("hello", max_tokens=15)).status == 200


async def test_unknown_channel_is_looked_up_while_the_request_waits(start_node: Any) -> None:
    async with start_node() as (node, _), node.client(funded=False) as client:
        refused = await client.ask()
        assert refused.document["error"]["code"] == "channel_unknown"
        status = await node.host.GetStatus(host_service_pb2.GetStatusRequest())
        assert list(status.unknown_channels) == [client.wallet.identity.to_proto()]
        number = await client.send(client.plain())
        await asyncio.sleep(0.05)
        await node.fund(client.wallet)
        assert (await client.wait(number)).status == 200
        status = await node.host.GetStatus(host_service_pb2.GetStatusRequest())
        assert not status.unknown_channels


@pytest.mark.parametrize(
    "facts", [{"close_at": 1_900_000_000}, {"paid": 10_000, "balance": 10**9}], ids=["closing", "paid"]
)
async def test_unusable_channels(start_node: Any, facts: dict[str, int]) -> None:
    async with start_node() as (node, _), node.client() as client:
        await node.fund(client.wallet, **facts)
        assert (await client.ask()).document["error"]["code"] == "channel_unusable"


async def test_concurrent_requests_share_one_session(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        texts = [f"request {number} " * number for number in range(1, 12)]
        numbers = [await client.send(client.plain(text, stream=True)) for text in texts]
        ended = 0
        while ended < len(numbers):
            _, kind = await client.receive()
            ended += kind in ("final", "error")
        replies = [client.replies[number] for number in numbers]
        assert ["".join(reply.texts) for reply in replies] == texts
        totals = sorted(reply.receipt.cumulative for reply in replies)
        first = min(reply.receipt.cumulative - reply.receipt.amount for reply in replies)
        assert totals[-1] - first == sum(reply.receipt.amount for reply in replies)
        assert sorted(reply.receipt.index for reply in replies) == list(range(1, 12))


async def test_first_token_is_sent_before_the_second_exists(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.gate.clear()
        number = await client.send(client.plain("ab", stream=True))
        await _until(lambda: engine.active == 1)
        engine.gate.set()
        await asyncio.sleep(0)
        engine.step_s = 0.5
        kinds = [(await client.receive())[1] for _ in range(2)]
        assert kinds == ["head", "data"]
        assert client.replies[number].texts[-1] == "a"


async def test_cancel_stops_within_a_step_and_charges_what_was_sent(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.repeat, engine.step_s = 100, 0.02
        number = await client.send(client.plain("abcdefgh", stream=True, max_tokens=300))
        while len(client.replies[number].texts) < 5:
            await client.receive()
        await client.cancel(number)
        steps = engine.started[-1].steps
        reply = await client.wait(number)
        assert engine.started[-1].steps <= steps + 2
        assert reply.receipt.status == 499
        sent = "".join(reply.texts)
        assert reply.receipt.completion_tokens == len(sent)
        assert reply.receipt.amount == 8 + 2 * len(sent)
        assert engine.active == 0


async def test_end_of_session_cancels_and_meters(start_node: Any) -> None:
    async with start_node() as (node, engine):
        async with node.client() as client:
            engine.repeat, engine.step_s = 100, 0.02
            number = await client.send(client.plain("abcdefgh", stream=True, max_tokens=300))
            while len(client.replies[number].texts) < 3:
                await client.receive()
        await _until(lambda: engine.active == 0)
        await _until(lambda: node.enclave.service.log.size == 2)
        claims = (await node.host.ListClaims(host_service_pb2.ListClaimsRequest())).claims
        claim = verify_claim(claims[0].claim, client.verified.binding.receipt_key)
        assert claim.used > 3 + 8 + 2  # the introduction, the prompt, and some tokens
        assert claim.used < 3 + 8 + 2 * 100
        assert node.enclave.service.meter.reserved == 0


async def test_closing_the_sending_half_lets_answers_finish(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.step_s = 0.02
        number = await client.send(client.plain("abcdefgh", stream=True))
        await client.stream.done_writing()
        reply = await client.wait(number)
        assert "".join(reply.texts) == "abcdefgh"


async def test_deadline_in_the_middle(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.repeat, engine.step_s = 100, 0.05
        reply = await client.ask("abc", stream=True, deadline_s=0.5, max_tokens=200)
        assert reply.receipt.status == 504
        assert reply.events[-1]["error"]["code"] == "deadline_exceeded"
        assert 0 < reply.receipt.completion_tokens < 20
        assert reply.receipt.completion_tokens == len("".join(text for text in reply.texts))


async def test_engine_crash_costs_nothing(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.crash_after = 3
        reply = await client.ask("abcdefgh", stream=True)
        assert reply.receipt.status == 503
        assert reply.receipt.amount == 0
        assert reply.events[-1]["error"]["code"] == "engine_crashed"
        engine.crash_after = 0
        whole = await client.ask("abcdefgh")
        assert (whole.status, whole.receipt.amount) == (503, 0)
        assert node.enclave.service.meter.reserved == 0


async def test_limits_end_in_node_busy(start_node: Any) -> None:
    limits = Limits(requests_per_session=2, channel_wait_s=0.3)
    async with start_node(limits=limits) as (node, engine), node.client() as client:
        engine.gate.clear()
        numbers = [await client.send(client.plain()) for _ in range(3)]
        assert (await client.wait(numbers[2])).error == "node_busy"
        engine.gate.set()
        assert (await client.wait(numbers[0])).status == 200


async def test_too_many_bad_requests_leave_no_more_receipts(start_node: Any) -> None:
    limits = Limits(refusals_per_minute=2, channel_wait_s=0.3)
    async with start_node(limits=limits) as (node, _), node.client() as client:
        errors = [(await client.ask(model="other")).error for _ in range(4)]
        assert errors == ["", "", "node_busy", "node_busy"]
        assert node.enclave.service.log.size == 3


async def test_unreadable_requests_get_a_bare_error(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        for number, data, code in ((91, b"\xff", "malformed"), (92, b"", "malformed")):
            client.pending[number], client.replies[number] = client.pending[1], type(client.replies[1])()
            await client.write(wire.RequestFrame(request_number=number, open=data))
            assert (await client.wait(number)).error == code
        plain = client.plain()
        plain.receipt_salt = b"short"
        assert (await client.wait(await client.send(plain))).error == "malformed"
        assert node.enclave.service.log.size == 1


async def test_drain(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.gate.clear()
        first = await client.send(client.plain())
        await _until(lambda: engine.active == 1)
        await node.host.SetTerms(host_service_pb2.SetTermsRequest(drain=True))
        assert (await client.ask()).error == "node_draining"
        # New prices do not end it; only the host's word does.
        await node.host.SetTerms(
            host_service_pb2.SetTermsRequest(prices=node.enclave.service.meter.prices.to_proto())
        )
        assert (await client.ask()).error == "node_draining"
        engine.gate.set()
        assert (await client.wait(first)).status == 200
        await node.host.SetTerms(host_service_pb2.SetTermsRequest(drain=False))
        assert (await client.ask()).status == 200


async def test_new_prices_bind_new_requests_only(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.gate.clear()
        first = await client.send(client.plain("ab"))
        await _until(lambda: engine.active == 1)
        terms = host_service_pb2.SetTermsRequest()
        terms.prices.prompt = terms.prices.completion = 10_000_000
        await node.host.SetTerms(terms)
        engine.gate.set()
        assert (await client.wait(first)).receipt.amount == 2 * 1 + 2 * 2
        assert (await client.ask("ab")).receipt.amount == 40


async def test_log_is_provable(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        receipts = [(await client.ask(f"text {number}")).receipt for number in range(6)]
        first = await node.host.GetCheckpoint(host_service_pb2.GetCheckpointRequest())
        root = parse_checkpoint(first.checkpoint.checkpoint).root
        receipts.append((await client.ask("more")).receipt)
        request = host_service_pb2.GetCheckpointRequest(anchored_size=7, anchored_root=root)
        second = await node.host.GetCheckpoint(request)
        status = await node.host.GetStatus(host_service_pb2.GetStatusRequest())
        assert (status.tree_size, status.unanchored) == (8, 1)
        assert status.anchor_by == receipts[-1].anchor_by
        checkpoint = verify_checkpoint(second.checkpoint, client.verified.binding.receipt_key)
        verify_consistency(
            first_size=7,
            first_root=root,
            second_size=checkpoint.tree_size,
            second_root=checkpoint.root,
            proof=second.consistency.hashes,
        )
        for receipt in receipts:
            wanted = attestation_service_pb2.GetInclusionProofRequest(receipt_hash=receipt.hash)
            answer = await node.attestation.GetInclusionProof(wanted)
            verify_inclusion(
                leaf=receipt.hash,
                index=answer.proof.leaf_index,
                size=answer.proof.tree_size,
                proof=answer.proof.hashes,
                root=checkpoint.root,
            )


async def test_an_anchor_that_the_log_does_not_have_stops_the_node(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        request = host_service_pb2.GetCheckpointRequest(anchored_size=9, anchored_root=b"\x01" * 32)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.host.GetCheckpoint(request)
        assert "cocoon-code" in str(caught.value.trailing_metadata())
        assert "state_rejected" in str(caught.value.trailing_metadata())
        assert (await client.ask()).error == "state_rejected"
        assert not (await node.host.GetStatus(host_service_pb2.GetStatusRequest())).ready


async def test_published_evidence_is_kept_byte_for_byte(start_node: Any) -> None:
    async with start_node() as (node, _):
        empty = attestation_service_pb2.GetPublishedEvidenceRequest()
        with pytest.raises(grpc.aio.AioRpcError):
            await node.attestation.GetPublishedEvidence(empty)
        request = host_service_pb2.PublishEvidenceRequest()
        request.beacon.seqno, request.beacon.root_hash = 17, b"\x05" * 32
        made = (await node.host.PublishEvidence(request)).evidence
        assert (await node.attestation.GetPublishedEvidence(empty)).evidence == made
        info = await node.attestation.GetNodeInfo(attestation_service_pb2.GetNodeInfoRequest())
        assert (info.node, info.simulated, info.models[0].name) == (NODE, True, "tiny")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.attestation.GetEvidence(
                attestation_service_pb2.GetEvidenceRequest(challenge=b"short")
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


class _Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


async def test_rotation_keeps_the_old_key_open_until_its_end(start_node: Any, config: Any) -> None:
    clock = _Clock()
    async with (
        start_node(clock=clock, key_lifetime_s=1000, key_overlap_s=300) as (node, _),
        node.client() as old,
    ):
        enclave = node.enclave
        assert not await enclave.rotate_if_due()
        clock.ahead = 800
        assert await enclave.rotate_if_due()
        current = enclave.service.keyring.current
        assert current.binding_hash != old.verified.binding.hash
        reply = await old.ask("old key", payment=old.wallet.payment(valid_for=5000), deadline_s=2000)
        assert reply.status == 200
        assert reply.receipt.binding_hash == old.verified.binding.hash
        clock.ahead = 1200
        await enclave.rotate_if_due()
        assert (await old.ask("too late")).error == "sealing"
        claims = (await node.host.ListClaims(host_service_pb2.ListClaimsRequest())).claims
        assert claims[0].binding_hash == old.verified.binding.hash
    changed = dataclasses.replace(config, key_lifetime_s=999)
    assert changed.config_hash != config.config_hash


async def _until(condition: Any, seconds: float = 10) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")
