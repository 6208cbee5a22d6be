"""Receipts that lie: each wrong field is found, the answer never looks complete, the proof is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_attestation.errors import ReceiptRejectedError
from cocoon_attestation.receipt import Receipt
from cocoon_proxy import events as e
from cocoon_proxy.errors import NoEligibleNodeError, OutcomeUnknownError

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

CHAT = "/v1/chat/completions"
LIES: dict[str, Callable[[Receipt], Receipt]] = {
    "receipt.node": lambda r: replace(r, node=b"\x01" * 32),
    "receipt.binding": lambda r: replace(r, binding_hash=b"\x01" * 32),
    "receipt.channel": lambda r: replace(r, channel=b"\x01" * 32),
    "receipt.request": lambda r: replace(r, request_commitment=b"\x01" * 32),
    "receipt.response": lambda r: replace(r, response_commitment=b"\x01" * 32),
    "receipt.model": lambda r: replace(r, model=b"\x01" * 32),
    "receipt.status": lambda r: replace(r, status=201),
    "receipt.usage": lambda r: replace(r, prompt_tokens=r.prompt_tokens + 1),
    "receipt.price": lambda r: replace(r, amount=r.amount + 1, cumulative=r.cumulative + 1),
    "receipt.amount": lambda r: replace(r, amount=10**15, cumulative=10**15),
    "receipt.cumulative": lambda r: replace(r, cumulative=r.cumulative + 1),
    "receipt.cap": lambda r: replace(r, cumulative=10**15),
    "receipt.time": lambda r: replace(r, issued_at=r.issued_at - 1000),
    "receipt.anchor": lambda r: replace(r, anchor_by=r.issued_at + 10**6),
}


@pytest.mark.parametrize("check", LIES)
async def test_a_wrong_field_is_found_by_its_check(
    network: Network, enclave: FakeEnclave, harness: Any, check: str
) -> None:
    enclave.script.edit_receipt = LIES[check]
    got: list[Any] = []
    async with network.client() as client:
        events = client.stream(CHAT, harness.body())

        async def read() -> None:
            async for event in events:
                got.append(event)

        with pytest.raises(ReceiptRejectedError) as caught:
            await read()
        assert caught.value.checks is not None
        assert check in {found.id for found in caught.value.checks.failed}
        assert not any(isinstance(event, e.Completed) or getattr(event, "last", False) for event in got)
        (row,) = await client.channels()
        assert row.account.in_flight == 0
        assert row.account.lost > 0
        (dispute,) = client.ledger.disputes()
        assert check in dispute.failed
        with pytest.raises(NoEligibleNodeError):
            await client.complete(CHAT, harness.body())


async def test_a_foreign_signature_is_found(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    def forge(signed: Any) -> Any:
        signed.signature = bytes(64)
        return signed

    enclave.script.edit_signed = forge
    async with network.client() as client:
        with pytest.raises(ReceiptRejectedError):
            await client.complete(CHAT, harness.body())


@pytest.mark.parametrize("receipt", [b"", b"\x00" * 100])
async def test_a_receipt_that_does_not_parse_is_refused(
    network: Network, enclave: FakeEnclave, harness: Any, receipt: bytes
) -> None:
    def garble(signed: Any) -> Any:
        signed.receipt = receipt
        return signed

    enclave.script.edit_signed = garble
    async with network.client() as client:
        with pytest.raises(ReceiptRejectedError):
            await client.complete(CHAT, harness.body())


async def test_tokens_that_left_no_text_are_not_paid_for(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    usage = harness.TokenUsage(prompt_tokens=1, cached_tokens=0, completion_tokens=120)
    enclave.script.usage = usage
    async with network.client() as client:
        with pytest.raises(ReceiptRejectedError, match=r"receipt\.tokens"):
            await client.complete(CHAT, harness.body(max_tokens=500))


async def test_more_tokens_than_asked_for_are_not_paid_for(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        with pytest.raises(ReceiptRejectedError, match=r"receipt\.tokens"):
            await client.complete(CHAT, harness.body(max_tokens=2))


def swap(messages: list[Any]) -> list[Any]:
    messages[1], messages[2] = messages[2], messages[1]
    return messages


FRAME_ATTACKS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "drop": lambda m: m[:1] + m[2:],
    "drop the last data": lambda m: m[:-2] + m[-1:],
    "reorder": swap,
    "repeat": lambda m: [*m[:2], m[1], *m[2:]],
    "second head": lambda m: [m[0], *m],
    "no head": lambda m: m[1:],
    "truncate": lambda m: m[:-1],
    "final at once": lambda m: [m[0], m[-1]],
}


@pytest.mark.parametrize("attack", FRAME_ATTACKS)
async def test_a_changed_stream_is_never_shown_as_complete(
    network: Network, enclave: FakeEnclave, harness: Any, attack: str
) -> None:
    enclave.script.edit_frames = FRAME_ATTACKS[attack]
    config = network.client().config
    config = replace(config, session=replace(config.session, stall_seconds=1))
    got: list[Any] = []

    async def read(client: Any) -> None:
        async for event in client.stream(CHAT, harness.body()):
            got.append(event)

    async with network.client(config) as client:
        with pytest.raises(OutcomeUnknownError):
            await read(client)
    assert not any(isinstance(event, e.Completed) or getattr(event, "last", False) for event in got)


async def test_frames_of_another_answer_do_not_open(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    seen: list[list[Any]] = []

    def splice(messages: list[Any]) -> list[Any]:
        seen.append(messages)
        if len(seen) == 1:
            return messages
        for message, other in zip(messages[1:], seen[0][1:], strict=True):
            if message.WhichOneof("frame") == "data":
                message.data = other.data
        return messages

    enclave.script.edit_frames = splice
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        with pytest.raises(OutcomeUnknownError):
            await client.complete(CHAT, harness.body())


async def test_frames_for_requests_that_were_never_made_end_the_session(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    def confuse(messages: list[Any]) -> list[Any]:
        for message in messages[1:]:
            message.request_number = 99
        return messages

    enclave.script.edit_frames = confuse
    async with network.client() as client:
        with pytest.raises(OutcomeUnknownError):
            await client.complete(CHAT, harness.body())
        async with asyncio.timeout(5):
            while not network.of(e.SessionEnded):  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)
    assert "broke the protocol" in network.of(e.SessionEnded)[0].reason
