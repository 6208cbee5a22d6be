"""A10: a request is replayed, one voucher pays for two requests, several connections spend the same money."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))

from enclave_testkit import (  # type: ignore[import-not-found]
    Reply,
    Wallet,
    config,
    platform_dir,
    start_node,
    tiny_model,
)

from cocoon.v1 import host_service_pb2
from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.payment import parse_claim

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]


async def _replay(client: Any, source: Any, number: int, at: int) -> Reply:
    """Send the sealed bytes of a request once more, under another number."""
    client.pending[at], client.replies[at] = source.pending[number], Reply()
    await client.write(wire.RequestFrame(request_number=at, open=source.pending[number].sealed))
    return await client.wait(at)


async def _used(node: Any) -> int:
    claims = (await node.host.ListClaims(host_service_pb2.ListClaimsRequest())).claims
    return parse_claim(claims[0].claim.claim).used


async def test_a_replayed_request_is_refused_and_billed_once(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        number = await client.send(client.plain("pay once"))
        first = await client.wait(number)
        assert first.status == 200
        work, used = len(engine.started), await _used(node)
        assert (await _replay(client, client, number, 50)).error == "request_replayed"
        async with node.client(Wallet(salt=5)) as relay:  # anybody else who saw the bytes pass
            assert (await _replay(relay, client, number, 51)).error == "request_replayed"
            work += 1  # the relay's own first request
        assert len(engine.started) == work
        assert await _used_of(node, client) == used
        assert node.enclave.service.log.size == 3


async def _used_of(node: Any, client: Any) -> int:
    return int(node.enclave.service.meter.used(client.wallet.channel))


async def test_replays_while_the_first_is_running_are_refused(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        engine.gate.clear()
        number = await client.send(client.plain("in flight"))
        errors = [(await _replay(client, client, number, at)).error for at in (60, 61)]
        assert errors == ["request_replayed"] * 2
        engine.gate.set()
        assert (await client.wait(number)).status == 200
        assert len(engine.started) == 2


async def test_one_voucher_cannot_pay_for_two_requests_at_once(start_node: Any) -> None:
    async with start_node() as (node, engine), node.client() as client:
        voucher = client.wallet.payment(cap=3 + 12)  # what was used, and one request's worst case
        engine.gate.clear()
        numbers = [await client.send(client.plain("abcd", max_tokens=4, payment=voucher)) for _ in range(5)]
        await asyncio.sleep(0.1)
        engine.gate.set()
        replies = [client.replies[number] for number in numbers]
        while not all(reply.receipt for reply in replies):
            await client.receive()
        assert sorted(reply.status for reply in replies) == [200, 402, 402, 402, 402]
        assert await _used(node) == 15
        # Spent is spent, also one after the other.
        again = await client.ask("abcd", max_tokens=4, payment=voucher)
        assert again.document["error"]["code"] == "cap_too_low"


async def test_concurrent_double_spend_over_several_connections(start_node: Any) -> None:
    """Eight sessions with fresh vouchers of the full cap try to spend one deposit eight times."""
    async with start_node() as (node, engine), AsyncExitStack() as stack:
        wallet = Wallet()
        clients = [await stack.enter_async_context(node.client(wallet))]
        for _ in range(7):
            clients.append(await stack.enter_async_context(node.client(wallet, funded=False)))
        await node.fund(wallet, balance=3 + 3 * 12)  # three worst cases beside what was used
        engine.gate.clear()
        numbers = [
            await client.send(
                client.plain("abcd", max_tokens=4, payment=wallet.payment(cap=10**9, valid_for=600 + at))
            )
            for at, client in enumerate(clients)
        ]
        await asyncio.sleep(0.2)
        engine.gate.set()
        replies = await asyncio.gather(
            *(client.wait(number) for client, number in zip(clients, numbers, strict=True))
        )
        assert sorted(reply.status for reply in replies) == [200] * 3 + [402] * 5
        assert await _used(node) == 3 + 3 * 12
        assert {reply.receipt.cumulative for reply in replies if reply.status == 200} == {15, 27, 39}
        assert node.enclave.service.meter.reserved == 0


async def test_cancelling_does_not_make_the_prompt_free(start_node: Any) -> None:
    """A client that always cancels right after the prompt was computed still pays for the prompt."""
    async with start_node() as (node, engine), node.client() as client:
        engine.repeat, engine.step_s = 100, 0.02
        before = await _used(node)
        for _ in range(3):
            number = await client.send(client.plain("x" * 100, stream=True, max_tokens=100))
            while not client.replies[number].status:
                await client.receive()
            await client.cancel(number)
            assert (await client.wait(number)).receipt.amount >= 100
        assert await _used(node) >= before + 300
