"""The service end to end in one process: sealed requests over gRPC and TLS, scripted engine, real store."""

from __future__ import annotations

from typing import Any


async def test_streamed_answer_with_receipt(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        reply = await client.ask("hello wörld", stream=True, stream_options={"include_usage": True})
    assert reply.status == 200
    assert reply.content_type == "text/event-stream"
    assert "".join(reply.texts) == "hello wörld"
    assert reply.events[-2]["choices"][0]["finish_reason"] == "stop"
    assert reply.events[-1]["usage"]["completion_tokens"] == 12
    assert b"[DONE]" not in reply.body
    receipt = reply.receipt
    assert (receipt.status, receipt.prompt_tokens, receipt.completion_tokens) == (200, 12, 12)
    assert receipt.amount == 12 * 1 + 12 * 2
    assert receipt.model == node.config.models[0].digest
