"""The client against a network in this process: every step of a request, and what each failure becomes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_attestation.errors import ConfigError, EvidenceRejectedError, PaymentError
from cocoon_attestation.payment import parse_authorization
from cocoon_proxy import events as e
from cocoon_proxy.config import PolicyOverrides
from cocoon_proxy.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    NoEligibleNodeError,
    OutcomeUnknownError,
    SpendLimitError,
)
from cocoon_proxy.sync import Client
from cocoon_ton.errors import ChainUnavailableError

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

CHAT = "/v1/chat/completions"


async def collect(client: Any, body: bytes) -> list[e.StreamEvent]:
    return [event async for event in client.stream(CHAT, body)]


async def test_a_streamed_answer_arrives_with_a_verified_receipt(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    request = harness.body()
    async with network.client() as client:
        got = await collect(client, request)
        assert isinstance(got[0], e.Head)
        assert (got[0].status, got[0].content_type) == (200, "text/event-stream")
        assert [event.last for event in got if isinstance(event, e.Data)] == [False, False, False, True]
        done = got[-1]
        assert isinstance(done, e.Completed)
        assert enclave.requests[0].body == request
        assert done.amount == enclave.receipts[0].amount > 0
        assert (done.node, done.simulated) == (enclave.node.hex(), True)
        stored = await client.receipt(done.receipt_id)
        assert stored["amount"] == done.amount
    kinds = [type(event) for event in network.events]
    for kind in (
        e.RegistryRead,
        e.EvidenceChecked,
        e.ChannelOpened,
        e.RequestSealed,
        e.FirstData,
        e.ReceiptVerified,
    ):
        assert kind in kinds
    checks = network.of(e.EvidenceChecked)[0].checks
    assert "tls.spki" in {check.id for check in checks}


async def test_an_answer_in_one_piece_keeps_every_byte(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        answer = await client.complete(CHAT, harness.body(stream=False))
    document = json.loads(answer.body)
    assert document["choices"][0]["message"]["content"] == "Hello there!"
    assert document["unknown_member"] == [1, {"kept": True}]
    assert answer.text == "Hello there!"


async def test_chat_builds_the_body(network: Network, enclave: FakeEnclave) -> None:
    async with network.client() as client:
        answer = await client.chat([{"role": "user", "content": "hi"}], model="tiny", temperature=0)
    sent = json.loads(enclave.requests[0].body)
    assert sent == {
        "temperature": 0, "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": False,
    }  # fmt: skip
    assert answer.completed.usage.completion == 3


async def test_requests_share_session_and_channel(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        for _ in range(3):
            await client.complete(CHAT, harness.body())
        (channel,) = await client.channels()
    assert enclave.sessions == enclave.evidence_calls == 1
    assert len(network.of(e.ChannelOpened)) == 1
    total = sum(receipt.amount for receipt in enclave.receipts)
    assert channel.account.cumulative == channel.account.verified == total
    assert (channel.account.lost, channel.account.in_flight) == (0, 0)
    assert len({request.request_id for request in enclave.requests}) == 3
    assert len({request.receipt_salt for request in enclave.requests}) == 3


async def test_many_requests_at_once_on_one_session(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        answers = await asyncio.gather(*(client.complete(CHAT, harness.body(f"n{i}")) for i in range(24)))
        (channel,) = await client.channels()
    assert len({answer.completed.receipt_id for answer in answers}) == 24
    assert enclave.sessions == 1
    assert channel.account.verified == channel.account.cumulative
    caps = [parse_authorization(r.payment.authorization.authorization).cap for r in enclave.requests]
    assert max(caps) <= channel.deposit + channel.account.verified


async def test_a_client_that_comes_back_uses_its_channel(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    for _ in range(2):
        async with network.client() as client:
            await client.complete(CHAT, harness.body())
            assert len(await client.channels()) == 1
    assert len(network.treasury.done) == 1


async def test_models_are_those_of_verified_nodes(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    await network.add_enclave()
    async with network.client() as client:
        (model,) = await client.models()
    assert (model.name, model.digest, model.context_length) == ("tiny", harness.MODEL, harness.CONTEXT)
    assert set(model.nodes) == {found.node.hex() for found in network.enclaves}


async def test_status_names_sessions_and_spending(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        status: dict[str, Any] = await client.status()
    assert status["simulated"] is True
    assert status["spent_today_nanoton"] == enclave.receipts[0].amount
    assert [session["node"] for session in status["sessions"]] == [enclave.node.hex()]
    json.dumps(status)


async def test_the_blocking_client_does_the_same(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    def work() -> None:
        settings: dict[str, Any] = {"wallet": network.treasury, "chain": network.chain}
        with Client(network.config, network.home, config=network.client().config, **settings) as client:
            got = list(client.stream(CHAT, harness.body()))
            assert isinstance(got[-1], e.Completed)
            assert client.chat([{"role": "user", "content": "x"}], model="tiny").text == "Hello there!"
            assert client.models()[0].name == "tiny"
            for _ in client.stream(CHAT, harness.body()):
                break

    await asyncio.to_thread(work)
    assert len(enclave.requests) == 3


# ---- what cannot be sent


@pytest.mark.parametrize(
    "request_body",
    [b"", b"[]", b"{}", b'{"model": 1}', b'{"model": "tiny", "stream": "yes"}', b"[" * 100_000],
)
async def test_a_body_that_is_no_request_is_refused_here(
    network: Network, enclave: FakeEnclave, request_body: bytes
) -> None:
    async with network.client() as client:
        with pytest.raises(InvalidRequestError):
            await client.complete(CHAT, request_body)
    assert not enclave.sealed_seen


async def test_unknown_endpoint_and_model(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    async with network.client() as client:
        with pytest.raises(InvalidRequestError):
            await client.complete("/v1/other", harness.body())
        with pytest.raises(ModelNotFoundError):
            await client.complete(CHAT, harness.body(model="gpt-none"))
        with pytest.raises(ModelNotFoundError):
            await client.complete(CHAT, harness.body(model="tiny@" + "00" * 32))
        await client.complete(CHAT, harness.body(model="tiny@" + harness.MODEL.hex()))


async def test_a_network_without_nodes_says_why(network: Network, harness: Any) -> None:
    network.publish()
    async with network.client() as client:
        with pytest.raises(NoEligibleNodeError):
            await client.complete(CHAT, harness.body())
        with pytest.raises(NoEligibleNodeError):
            await client.models()


async def test_caps_and_funds_stop_a_request_before_it_is_sealed(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    config = network.client().config
    low = replace(config, payment=replace(config.payment, request_cap=10))
    async with network.client(low) as client:
        with pytest.raises(SpendLimitError):
            await client.complete(CHAT, harness.body())
    network.treasury.funds = 5
    async with network.client() as client:
        with pytest.raises(PaymentError):
            await client.complete(CHAT, harness.body())
    network.treasury.funds = 100 * harness.TON
    daily = replace(config, payment=replace(config.payment, daily_cap=1))
    async with network.client(daily) as client:
        with pytest.raises(SpendLimitError):
            await client.complete(CHAT, harness.body())
    assert not enclave.sealed_seen


async def test_policy_overrides_only_tighten(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    for overrides in (
        PolicyOverrides(refuse_simulated=True),
        PolicyOverrides(releases=("11" * 32,)),
        PolicyOverrides(releases=("not hex",)),
    ):
        async with network.client(policy_overrides=overrides) as client:
            with pytest.raises(ConfigError):
                await client.complete(CHAT, harness.body())
    for overrides in (
        PolicyOverrides(denied_nodes=(enclave.node.hex(),)),
        PolicyOverrides(nodes=("22" * 32,)),
        PolicyOverrides(max_prompt_price=1),
    ):
        async with network.client(policy_overrides=overrides) as client:
            with pytest.raises(NoEligibleNodeError):
                await client.complete(CHAT, harness.body())
    async with network.client(policy_overrides=PolicyOverrides(min_tcb_evaluation=99)) as client:
        with pytest.raises(EvidenceRejectedError):
            await client.complete(CHAT, harness.body())
    assert not enclave.sealed_seen


# ---- sessions


async def test_an_expired_session_is_appraised_again(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        network.clock_offset = 595.0
        await client.complete(CHAT, harness.body())
    assert (enclave.evidence_calls, enclave.sessions) == (2, 2)


async def test_a_restarted_node_is_appraised_again(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        port = enclave.port
        await enclave.stop()
        enclave.new_keys()
        await enclave.start(port)
        network.publish()
        await wait_for(lambda: bool(network.of(e.SessionEnded)))
        answer = await client.complete(CHAT, harness.body())
    assert answer.completed.amount > 0
    hashes = {receipt.binding_hash for receipt in enclave.receipts}
    assert len(hashes) == 2


async def test_new_seal_keys_behind_the_same_connection_are_noticed(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        tls = enclave.tls_key, enclave.tls_certificate, enclave.binding.tls_spki_hash
        enclave.new_keys()
        enclave.tls_key, enclave.tls_certificate, _ = tls
        enclave.binding = replace(enclave.binding, tls_spki_hash=tls[2])
        await client.complete(CHAT, harness.body())
    assert enclave.evidence_calls == 2
    assert len(enclave.requests) == 2


async def test_a_revocation_ends_the_use_of_a_session(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        other = replace(network.genesis, models={harness.MODEL: "tiny", b"\x09" * 32: "other"})
        network.genesis, before = other, network.genesis
        network.chain.accounts[before.address.hash_part] = network.chain.accounts[before.address.hash_part]
        data = harness.registry_cell(other, [enclave.listing], int(network.clock()))
        network.chain.accounts[before.address.hash_part].data = data
        network.clock_offset = 61.0
        await client.complete(CHAT, harness.body())
        assert enclave.evidence_calls == 2
        revoked = replace(other, models={b"\x09" * 32: "other"})
        data = harness.registry_cell(revoked, [enclave.listing], int(network.clock()))
        network.chain.accounts[before.address.hash_part].data = data
        network.clock_offset = 122.0
        with pytest.raises(ModelNotFoundError):
            await client.complete(CHAT, harness.body())


async def test_the_chain_may_be_away_for_a_while_but_not_longer(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    async with network.client() as client:
        await client.complete(CHAT, harness.body())
        network.chain.fail = ChainUnavailableError("gone")
        network.clock_offset = 120.0
        await client.complete(CHAT, harness.body())
        network.clock_offset = 601.0
        with pytest.raises(ChainUnavailableError):
            await client.complete(CHAT, harness.body())


# ---- nothing leaks


async def test_no_content_reaches_events_files_or_the_wire(
    network: Network, enclave: FakeEnclave, harness: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    request, marker = harness.random_body()
    enclave.script.words = (f"answer-{marker.decode()}",)
    async with network.client() as client:
        await client.complete(CHAT, request)
        enclave.script.die_after = 1
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.complete(CHAT, request)
    assert marker in enclave.requests[0].body
    assert marker.decode() not in "".join(repr(event) for event in network.events)
    assert marker.decode() not in caplog.text + repr(caught.value) + repr(caught.value.details)
    assert all(marker not in sealed for sealed in enclave.sealed_seen)
    files = [path for path in network.home.rglob("*") if path.is_file()]
    assert files
    assert all(marker not in path.read_bytes() for path in files)
    assert all(path.stat().st_mode & 0o077 == 0 for path in files if path.suffix in (".sqlite3", ".key"))


async def wait_for(condition: Any) -> None:
    """Poll until a condition holds; the test's own timeout ends a hopeless wait."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)
