"""Request bodies and answer shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.payment import TokenUsage
from cocoon_enclave.engine.protocol import FinishReason
from cocoon_enclave.errors import InvalidRequestError, NodeBusyError, UnknownEndpointError
from cocoon_enclave.openai import CHAT, COMPLETIONS, Shaper, error_body, error_event, parse_request

GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
USAGE = TokenUsage(prompt_tokens=3, cached_tokens=1, completion_tokens=2)


def _parse(endpoint: str = CHAT, **fields: Any) -> Any:
    return parse_request(endpoint, json.dumps({**GOOD, **fields}).encode())


def test_defaults() -> None:
    request = _parse()
    assert request.messages == ({"role": "user", "content": "hi"},)
    assert (request.stream, request.include_usage, request.max_tokens, request.stop) == (
        False,
        False,
        None,
        (),
    )
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (1.0, 1.0, None)


def test_everything() -> None:
    request = _parse(
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=5,
        max_completion_tokens=7,
        temperature=0,
        top_p=0.5,
        top_k=3,
        seed=-4,
        stop=["a", "b"],
        n=1,
        user="x",
        metadata={"a": "b"},
        logprobs=False,
        tools=None,
        response_format={"type": "text"},
    )
    assert (request.stream, request.include_usage, request.max_tokens) == (True, True, 7)
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.seed) == (0.0, 3, -4)
    assert request.stop == ("a", "b")


def test_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert _parse(messages=[{"role": "user", "content": parts}]).messages[0]["content"] == "ab"


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": 3},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"stream": 1},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"max_tokens": 1.5},
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"temperature": "hot"},
        {"top_p": 1.1},
        {"seed": 2**63},
        {"stop": ["a"] * 5},
        {"stop": [""]},
        {"stop": {"a": 1}},
        {"n": 2},
        {"logprobs": True},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"frequency_penalty": 0.5},
        {"logit_bias": {"5": 1}},
    ],
)
def test_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _parse(**fields)
    # The message names the parameter and quotes nothing.
    assert str(caught.value).split(":")[0] in {*fields, "messages"}


def test_endpoints() -> None:
    with pytest.raises(UnknownEndpointError):
        parse_request("/v1/embeddings", b"{}")
    assert parse_request(COMPLETIONS, b'{"model":"m","prompt":[1,2]}').prompt == (1, 2)
    assert parse_request(COMPLETIONS, b'{"model":"m","prompt":["x"]}').prompt == "x"
    for prompt in (b"[]", b'""', b'["a","b"]', b"[1.5]", b"[-1]", b"[true]", b"null"):
        with pytest.raises(InvalidRequestError):
            parse_request(COMPLETIONS, b'{"model":"m","prompt":' + prompt + b"}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from([*GOOD, "stop", "stream", "max_tokens", "temperature", "n", "tools", "logit_bias"])


@given(st.sampled_from([CHAT, COMPLETIONS]), st.dictionaries(NAMES | st.just("prompt"), JSON))
def test_any_document_parses_or_is_invalid(endpoint: str, document: dict[str, Any]) -> None:
    try:
        parse_request(endpoint, json.dumps(document).encode())
    except InvalidRequestError:
        return


@given(st.binary(max_size=64))
def test_any_bytes_parse_or_are_invalid(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_request(CHAT, body)


@given(st.text(max_size=40))
def test_pieces_are_what_a_json_encoder_would_write(text: str) -> None:
    for stream_options in (None, {"include_usage": True}):
        shaper = Shaper(_parse(stream=True, stream_options=stream_options), model="m", created=5)
        event = json.loads(shaper.piece(text)[6:])
        assert event["choices"] == [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
        assert (event["object"], event["model"], event["created"]) == ("chat.completion.chunk", "m", 5)
        assert ("usage" in event) == (stream_options is not None)


def test_end_of_a_stream() -> None:
    shaper = Shaper(_parse(stream=True, stream_options={"include_usage": True}), model="m", created=5)
    events = [json.loads(part[6:]) for part in shaper.end(FinishReason.LENGTH, USAGE).split(b"\n\n")[:-1]]
    assert events[0]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert events[1]["choices"] == []
    assert events[1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_bare_completion_shapes() -> None:
    request = parse_request(COMPLETIONS, b'{"model":"m","prompt":"x","stream":true}')
    shaper = Shaper(request, model="m", created=5)
    assert shaper.start() == b""
    assert json.loads(shaper.piece("a")[6:])["choices"][0]["text"] == "a"
    whole = json.loads(shaper.whole("ab", FinishReason.STOP, USAGE))
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", "ab")


def test_errors_have_openais_form() -> None:
    error = NodeBusyError("too many")
    document = json.loads(error_body(error))["error"]
    assert document["type"] == "invalid_request_error"
    assert (document["code"], document["message"], document["param"]) == ("node_busy", "too many", None)
    assert error_event(error).startswith(b'data: {"error"')


def test_repr_shows_no_content() -> None:
    assert "hi" not in repr(_parse())
