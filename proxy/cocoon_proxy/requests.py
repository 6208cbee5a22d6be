"""What the client must know about a request body: the model, and the most that the answer can cost.

The body itself is never rewritten: the enclave gets exactly the bytes of the app. Only a few members are
looked at, and unknown members are no error. Pure functions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.payment import PriceList
from cocoon_proxy.errors import InvalidRequestError

CHAT_COMPLETIONS: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
ENDPOINTS: Final = frozenset({CHAT_COMPLETIONS, COMPLETIONS})

TEMPLATE_ALLOWANCE: Final = 2048
"""Prompt tokens that a chat template may add to what the body spells out."""
_TOKENS_PER_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """The members of a body that matter to selection and payment."""

    model: str
    """``name`` or ``name@digest``."""
    stream: bool
    max_tokens: int | None
    """Limit of generated tokens per choice, if the body sets one."""
    choices: int
    """Answers that will be generated, at least 1."""
    body_size: int
    """Bytes."""


def parse_request(endpoint: str, body: bytes, *, max_bytes: int) -> RequestInfo:
    """Look at a request body.

    Raises:
        InvalidRequestError: unknown endpoint, too large, no JSON object, or a member of the wrong type.
    """
    if endpoint not in ENDPOINTS:
        raise InvalidRequestError(f"unknown endpoint {endpoint!r}", details={"param": "endpoint"})
    if len(body) > max_bytes:
        raise InvalidRequestError(f"the body is longer than {max_bytes} bytes", details={"param": "body"})
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON", details={"param": "body"}) from error
    if not isinstance(document, dict):
        raise InvalidRequestError("the body is not a JSON object", details={"param": "body"})
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("`model` is missing", details={"param": "model"})
    if not model.isprintable():  # half of a surrogate pair, for one, is JSON but no text
        raise InvalidRequestError("`model` is not a name", details={"param": "model"})
    stream = document.get("stream") or False
    if not isinstance(stream, bool):
        raise InvalidRequestError("`stream` is not true or false", details={"param": "stream"})
    chat = endpoint == CHAT_COMPLETIONS
    limit = _count(document, "max_completion_tokens") if chat else None
    if limit is None:
        limit = _count(document, "max_tokens")
    if limit is None and not chat:
        limit = 16  # the default of the completions endpoint
    answers = max(_count(document, "n") or 1, _count(document, "best_of") or 1)
    return RequestInfo(
        model=model,
        stream=stream,
        max_tokens=limit,
        choices=max(1, answers * (1 if chat else _prompts(document.get("prompt")))),
        body_size=len(body),
    )


def worst_cost(info: RequestInfo, prices: PriceList, context_length: int) -> int:
    """The most that an honest node can charge for this request, in nanoton.

    Prompt and answer share `context_length` tokens. A prompt has at most as many tokens as the body has
    bytes (twice that where a template repeats parts), plus what the template adds.
    """
    per_prompt_token = max(prices.prompt, prices.cached)
    completion = min(info.max_tokens if info.max_tokens is not None else context_length, context_length)
    prompt = min(context_length, 2 * info.body_size + TEMPLATE_ALLOWANCE)
    if prompt + completion > context_length:
        if prices.completion >= per_prompt_token:
            prompt = context_length - completion
        else:
            completion = context_length - prompt
    total = info.choices * (prompt * per_prompt_token + completion * prices.completion)
    return -(-total // _TOKENS_PER_MILLION)


def _count(document: dict[str, object], key: str) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequestError(f"`{key}` is not a whole number", details={"param": key})
    return value


def _prompts(value: object) -> int:
    """How many prompts a completions body holds: a list of strings or of token lists means several."""
    if isinstance(value, list) and value and isinstance(value[0], (str, list)):
        return len(value)
    return 1
