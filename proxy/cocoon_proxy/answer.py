"""One answer: sealed frames in, events out, and the receipt checked against the exact bytes.

Pure. Nothing is taken from a frame before it authenticated, and the last bytes of the body are handed
out only by `finish`, whose caller has verified the receipt: an answer that was cut, or whose receipt is
wrong, never looks complete. See docs/spec/client.md, section 6.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from cocoon.v1 import record_pb2, sealed_pb2
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError, ReceiptRejectedError
from cocoon_attestation.payment import PriceList, TokenUsage, amount
from cocoon_attestation.receipt import Receipt, commit_response_pieces, verify_receipt
from cocoon_proxy.accounts import ChannelAccount, record
from cocoon_proxy.events import Data, Head

CLOCK_SKEW_S: Final = 120
"""How far the enclave's clock may be off."""
MAX_ANCHOR_S: Final = 24 * 3600
"""Longest time from a receipt to its anchor that a client accepts."""
TOKEN_SLACK: Final = 64
"""Generated tokens that may leave no text: end of turn, stop strings, special tokens."""


class Opener(Protocol):
    """What `cocoon_attestation.sealing.ResponseOpener` offers."""

    def head(self, frame: bytes) -> bytes:
        """Open the first chunk."""
        ...

    def data(self, frame: bytes) -> bytes:
        """Open the next chunk."""
        ...

    def final(self, frame: bytes) -> bytes:
        """Open the last chunk."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalChunk:
    """What the final chunk says; not verified yet."""

    tail: bytes = field(repr=False)
    usage: TokenUsage
    signed: record_pb2.SignedReceipt


class AnswerReader:
    """Opens the frames of one answer in order and keeps its bytes for the commitment."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._pieces: list[bytes] = []
        self.status = 0
        self.received = 0

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self._pieces)

    def head(self, frame: bytes) -> Head:
        """Open the head; raises `SealingError` or `MalformedError`."""
        plain = self._opener.head(frame)
        message = sealed_pb2.ResponseHead()
        _parse(message, plain)
        if not 100 <= message.status <= 599:
            raise MalformedError("answer: status out of range")
        if len(message.content_type) > 200 or not message.content_type.isprintable():
            raise MalformedError("answer: bad media type")
        self.status = message.status
        return Head(status=message.status, content_type=message.content_type)

    def data(self, frame: bytes) -> Data:
        """Open a piece of the body; raises `SealingError`."""
        plain = self._opener.data(frame)
        self._pieces.append(plain)
        self.received += len(plain)
        return Data(data=plain)

    def final(self, frame: bytes) -> FinalChunk:
        """Open the final chunk; raises `SealingError` or `MalformedError`."""
        message = sealed_pb2.ResponseFinal()
        _parse(message, self._opener.final(frame))
        usage = TokenUsage.from_proto(message.usage)
        self._pieces.append(message.tail)
        self.received += len(message.tail)
        return FinalChunk(tail=message.tail, usage=usage, signed=message.receipt)

    def commitment(self, salt: bytes) -> bytes:
        """Commitment to all body bytes."""
        return commit_response_pieces(salt, self._pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the receipt of one answer must say."""

    node: bytes
    binding_hash: bytes
    receipt_key: bytes
    """From the verified key binding."""
    channel: bytes
    request_commitment: bytes
    models: frozenset[bytes]
    """Digests of allowed models with the wanted name that the enclave has measured."""
    price_limit: PriceList
    worst: int
    """Nanoton reserved for this request."""
    token_limit: int
    """Most generated tokens over all choices."""
    sent_at: int
    """Unix time at which the request was sealed."""


def check_receipt(
    final: FinalChunk,
    answer: AnswerReader,
    expected: Expected,
    *,
    salt: bytes,
    account: ChannelAccount,
    now: int,
) -> tuple[Receipt, CheckList]:
    """Verify a receipt against everything the client knows.

    `account` is the channel's account with this request still in flight.

    Raises:
        MalformedError: the receipt does not parse.
        ReceiptRejectedError: a check failed; the list is on the error.
    """
    checks = CheckList()
    try:
        receipt = verify_receipt(final.signed, expected.receipt_key)
    except ReceiptRejectedError as error:
        record(checks, "receipt.signature", False, str(error))
        raise ReceiptRejectedError(str(error), checks=checks) from error
    record(checks, "receipt.signature", True, "signed by the verified enclave's receipt key")
    _check_identity(checks, receipt, answer, expected, salt)
    _check_tokens(checks, receipt, final, answer, expected)
    limit = amount(expected.price_limit, final.usage)
    record(
        checks,
        "receipt.price",
        receipt.amount <= limit,
        f"{receipt.amount} nanoton is at most {limit} for this use",
    )
    account.check_receipt(
        checks, worst=expected.worst, amount=receipt.amount, cumulative=receipt.cumulative
    )
    _check_times(checks, receipt, expected.sent_at, now)
    if not checks.accepted:
        failed = ", ".join(check.id for check in checks.failed)
        raise ReceiptRejectedError(f"the receipt is not what was agreed: {failed}", checks=checks)
    return receipt, checks


def _check_identity(
    checks: CheckList, receipt: Receipt, answer: AnswerReader, expected: Expected, salt: bytes
) -> None:
    for id, found, wanted, detail in (
        ("receipt.node", receipt.node, expected.node, "names the node that was asked"),
        ("receipt.binding", receipt.binding_hash, expected.binding_hash, "names the appraised keys"),
        ("receipt.request", receipt.request_commitment, expected.request_commitment, "covers the request"),
        ("receipt.response", receipt.response_commitment, answer.commitment(salt), "covers the answer"),
    ):
        record(
            checks,
            id,
            found == wanted,
            detail,
            inputs=(("receipt", found.hex()), ("expected", wanted.hex())),
        )
    refused = receipt.status >= 400 and receipt.amount == 0
    record(
        checks,
        "receipt.channel",
        receipt.channel == expected.channel or (refused and receipt.channel == bytes(32)),
        "names the channel that pays",
    )
    record(
        checks,
        "receipt.model",
        receipt.model in expected.models or (refused and receipt.model == bytes(32)),
        "names a measured, allowed model",
    )
    cut_short = answer.status < 400 <= receipt.status
    record(
        checks,
        "receipt.status",
        receipt.status == answer.status or cut_short,
        "has the status of the answer, or says why a begun answer was cut short",
    )


def _check_tokens(
    checks: CheckList, receipt: Receipt, final: FinalChunk, answer: AnswerReader, expected: Expected
) -> None:
    counted = (receipt.prompt_tokens, receipt.cached_tokens, receipt.completion_tokens)
    told = (final.usage.prompt_tokens, final.usage.cached_tokens, final.usage.completion_tokens)
    record(checks, "receipt.usage", counted == told, f"prompt, cached, completion = {told}")
    text = sum(_text_sizes(answer.body)) if counted[2] > TOKEN_SLACK else 0
    record(
        checks,
        "receipt.tokens",
        counted[2] <= min(text + TOKEN_SLACK, max(expected.token_limit, 0)),
        f"{counted[2]} generated tokens fit the limit of {expected.token_limit} and the text that came",
    )


def _check_times(checks: CheckList, receipt: Receipt, sent_at: int, now: int) -> None:
    record(
        checks,
        "receipt.time",
        sent_at - CLOCK_SKEW_S <= receipt.issued_at <= now + CLOCK_SKEW_S,
        f"issued at {receipt.issued_at}, between the request and now",
    )
    record(
        checks,
        "receipt.anchor",
        receipt.issued_at < receipt.anchor_by <= receipt.issued_at + MAX_ANCHOR_S,
        f"will be anchored by {receipt.anchor_by}",
    )


def _text_sizes(body: bytes) -> Iterator[int]:
    """Sizes in bytes of all generated text in a body, be it one JSON object or server-sent events."""
    pieces = body.split(b"\n") if body.lstrip()[:1] != b"{" else [b"data:" + body.replace(b"\n", b" ")]
    for line in pieces:
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        try:
            document = json.loads(line[5:])
        except (ValueError, RecursionError):
            continue
        choices = document.get("choices") if isinstance(document, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                yield _strings(choice.get("text"), 0)
                yield _strings(choice.get("delta"), 0)
                yield _strings(choice.get("message"), 0)


def _strings(value: object, depth: int) -> int:
    """UTF-8 size of all strings below a JSON value."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if depth < 8 and isinstance(value, dict):
        return sum(_strings(item, depth + 1) for item in value.values())
    if depth < 8 and isinstance(value, list):
        return sum(_strings(item, depth + 1) for item in value)
    return 0


def _parse(message: sealed_pb2.ResponseHead | sealed_pb2.ResponseFinal, data: bytes) -> None:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedError("answer: not the expected message") from error


def error_code(body: bytes) -> str:
    """The stable code in an OpenAI-shaped error body; empty if there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = document.get("error") if isinstance(document, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code[:64] if isinstance(code, str) else ""
