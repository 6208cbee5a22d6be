"""The gRPC side of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from cocoon.v1 import local_service_pb2 as wire
from cocoon.v1 import local_service_pb2_grpc as rpc
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.gateway import gateway

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

TOKEN = "correct-horse-battery"


@asynccontextmanager
async def local(network: Network, token: str = "") -> AsyncIterator[Any]:
    config = GatewayConfig(port=0, grpc_port=0, token=token)
    async with (
        network.client() as client,
        gateway(client, config) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        yield rpc.LocalInferenceServiceStub(channel)


async def test_an_answer_with_its_receipt(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    async with local(network) as stub:
        request = wire.CompleteRequest(endpoint="/v1/chat/completions", body=harness.body())
        got = [message async for message in stub.Complete(request)]
    assert got[0].head.status == 200
    assert b"".join(message.data for message in got[1:-1]).count(b"data: ") == 4
    receipt = enclave.receipts[0]
    completed = got[-1].completed
    assert (completed.receipt_id, completed.node) == (receipt.id, enclave.node.hex())
    assert (completed.amount_nanoton, completed.usage.completion_tokens) == (receipt.amount, 3)


async def test_models(network: Network, enclave: FakeEnclave, harness: Any) -> None:
    async with local(network) as stub:
        got = await stub.ListModels(wire.ListModelsRequest())
    assert [(m.name, m.digest, m.context_length) for m in got.models] == [("tiny", harness.MODEL, 2048)]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("model", grpc.StatusCode.NOT_FOUND, "model_not_found"),
        ("funds", grpc.StatusCode.FAILED_PRECONDITION, "insufficient_funds"),
        ("cut", grpc.StatusCode.DATA_LOSS, "outcome_unknown"),
        ("busy", grpc.StatusCode.RESOURCE_EXHAUSTED, "node_busy"),
    ],
)
async def test_errors_have_a_status_and_the_stable_code(
    network: Network, enclave: FakeEnclave, harness: Any, fault: str, status: grpc.StatusCode, code: str
) -> None:
    body = harness.body(model="none") if fault == "model" else harness.body()
    if fault == "funds":
        network.treasury.funds = 1
    if fault == "cut":
        enclave.script.die_after = 1
    if fault == "busy":
        enclave.script.error = ["node_busy"]

    async def read(stub: Any) -> None:
        async for _ in stub.Complete(wire.CompleteRequest(endpoint="/v1/chat/completions", body=body)):
            pass

    async with local(network) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(stub)
    assert caught.value.code() is status
    metadata: Any = caught.value.trailing_metadata()
    assert dict(metadata)["cocoon-code"] == code


async def test_models_of_no_node(network: Network) -> None:
    network.publish()
    async with local(network) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(wire.ListModelsRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_token_counts_here_too(network: Network, enclave: FakeEnclave) -> None:
    async with local(network, TOKEN) as stub:
        for metadata in ((), (("authorization", "Bearer wrong-wrong-wrong"),), (("authorization", TOKEN),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListModels(wire.ListModelsRequest(), metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        right = (("authorization", f"Bearer {TOKEN}"),)
        assert (await stub.ListModels(wire.ListModelsRequest(), metadata=right)).models
