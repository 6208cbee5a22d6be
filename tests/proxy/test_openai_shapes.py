"""The OpenAI shapes that the gateway makes itself."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation import errors as base
from cocoon_proxy import errors
from cocoon_proxy.events import Completed, TokenUsage
from cocoon_proxy.gateway import openai

DONE = Completed(
    receipt_id="ab" * 32,
    usage=TokenUsage(prompt=1, cached=0, completion=1),
    amount=7,
    node="cd" * 32,
    simulated=True,
)


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def finish_chunk(**extra: object) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **extra}


def documents(stream: bytes) -> list[Any]:
    parts = stream.split(b"\n\n")
    assert parts[-2:] == [b"data: [DONE]", b""]
    return [json.loads(part.removeprefix(b"data: ")) for part in parts[:-2]]


def test_the_finish_chunk_names_the_receipt_and_keeps_its_members() -> None:
    usage = {"id": "c1", "choices": [], "usage": {"total_tokens": 2}}
    got = documents(openai.finish_stream(event(finish_chunk(x=[1, "é"])) + event(usage), DONE))
    assert got[0] == {**finish_chunk(x=[1, "é"]), "cocoon": openai.receipt_member(DONE)}
    assert got[1] == usage


def test_done_comes_exactly_once() -> None:
    for tail in (event(finish_chunk()), event(finish_chunk()) + openai.DONE, event(finish_chunk()).strip()):
        assert openai.finish_stream(tail, DONE).count(b"[DONE]") == 1


def test_a_tail_without_finish_chunk_gets_one_of_its_own() -> None:
    (only,) = documents(openai.finish_stream(b"", DONE))
    assert (only["choices"], only["cocoon"]["receipt_id"]) == ([], DONE.receipt_id)
    usage = {"id": "c9", "model": "m", "created": 3, "object": "text_completion", "choices": []}
    got = documents(openai.finish_stream(event(usage), DONE))
    assert got[0] == usage
    assert (got[1]["id"], got[1]["object"]) == ("c9", "text_completion")


def test_windows_line_ends_and_comments_survive() -> None:
    tail = b": note\r\n\r\n" + event(finish_chunk()).replace(b"\n", b"\r\n")
    got = openai.finish_stream(tail, DONE)
    assert got.startswith(b": note\n\n")
    assert json.loads(got.split(b"\n\n")[1].removeprefix(b"data: "))["cocoon"]["amount_nanoton"] == 7


@given(st.binary(max_size=300))
def test_arbitrary_tails_and_bodies_do_no_harm(data: bytes) -> None:
    assert openai.finish_stream(data, DONE).endswith(openai.DONE)
    openai.annotate_json(data, DONE)


def test_a_json_answer_is_annotated_and_anything_else_is_left() -> None:
    assert json.loads(openai.annotate_json(b'{"a":{"b":1}}', DONE)) == {
        "a": {"b": 1},
        "cocoon": openai.receipt_member(DONE),
    }
    for other in (b"[1]", b"text", b""):
        assert openai.annotate_json(other, DONE) == other


def every_error() -> list[base.CocoonError]:
    found: list[base.CocoonError] = []
    for module in (base, errors):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, base.CocoonError):
                try:
                    found.append(value("text"))
                except TypeError:
                    found.append(value())  # type: ignore[call-arg]
    return found


def test_every_error_has_a_valid_response() -> None:
    for error in every_error():
        response = openai.error_response(error)
        document = json.loads(response.content)["error"]
        assert 400 <= response.status < 600
        assert {"message", "type", "param", "code"} <= set(document)
        assert document["code"] == error.code


def test_only_errors_without_cost_invite_a_retry() -> None:
    for error in (errors.OutcomeUnknownError("x"), base.SealingError(), base.ReceiptRejectedError("x")):
        response = openai.error_response(error)
        assert response.headers["x-should-retry"] == "false"
        assert "retry-after" not in response.headers
    for retried in (errors.NodeBusyError("x"), errors.NoEligibleNodeError("x"), base.UnavailableError("x")):
        assert int(openai.error_response(retried).headers["retry-after"]) <= 120
