"""Payment records: what a client allows, what an enclave claims, and what an answer costs.

The client signs an `Authorization` up to a cumulative cap; the enclave signs a `Claim` of what was used.
Settling needs both. All amounts are integers in nanoton. See docs/spec/payment.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cocoon.v1 import payment_pb2, sealed_pb2
from cocoon_attestation.cell import Cell, CellBuilder, parse_boc
from cocoon_attestation.errors import MalformedError, PaymentError
from cocoon_attestation.signing import sign_cell, signed_by
from cocoon_attestation.types import Digest32, digest32, nanoton, sint, uint

AUTHORIZATION_TAG: Final = 0xC0C00004
CLAIM_TAG: Final = 0xC0C00005
TOKENS_PER_PRICE: Final = 1_000_000
"""Prices are nanoton per this many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The client's permission to charge a channel. Signed by the channel's client key.

    Raises `MalformedError` at construction if a field has the wrong length or range.
    """

    global_id: int
    """TON network."""
    channel: bytes
    """Account id of the channel, 32 bytes."""
    cap: int
    """Highest cumulative use, in nanoton over the life of the channel."""
    valid_until: int
    """Unix time in seconds after which it must not be used any more."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        sint(self.global_id, 32, "authorization global_id")
        digest32(self.channel, "authorization channel")
        nanoton(self.cap, "authorization cap")
        uint(self.valid_until, 32, "authorization valid_until")

    @property
    def cell(self) -> Cell:
        """The authorization as a cell."""
        head = CellBuilder().uint(AUTHORIZATION_TAG, 32).sint(self.global_id, 32).raw(self.channel, 32)
        return head.coins(self.cap).uint(self.valid_until, 32).build()

    @property
    def hash(self) -> Digest32:
        """Representation hash."""
        return Digest32(self.cell.hash)

    def to_boc(self) -> bytes:
        """The authorization as a bag of cells."""
        return self.cell.to_boc()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The enclave's statement of a channel's use. Signed by the receipt key.

    Raises `MalformedError` at construction if a field has the wrong length or range.
    """

    global_id: int
    """TON network."""
    channel: bytes
    """Account id of the channel, 32 bytes."""
    used: int
    """Cumulative use in nanoton."""
    index: int
    """Log index of the receipt that raised `used`."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        sint(self.global_id, 32, "claim global_id")
        digest32(self.channel, "claim channel")
        nanoton(self.used, "claim used")
        uint(self.index, 64, "claim index")

    @property
    def cell(self) -> Cell:
        """The claim as a cell."""
        head = CellBuilder().uint(CLAIM_TAG, 32).sint(self.global_id, 32).raw(self.channel, 32)
        return head.coins(self.used).uint(self.index, 64).build()

    @property
    def hash(self) -> Digest32:
        """Representation hash."""
        return Digest32(self.cell.hash)

    def to_boc(self) -> bytes:
        """The claim as a bag of cells."""
        return self.cell.to_boc()


def parse_authorization(boc: bytes | memoryview) -> Authorization:
    """Read an authorization from its bag of cells, without looking at any signature.

    Raises:
        MalformedError: anything but one canonical Authorization cell.
    """
    root = parse_boc(boc).read()
    root.tag(AUTHORIZATION_TAG)
    authorization = Authorization(
        global_id=root.sint(32), channel=root.raw(32), cap=root.coins(), valid_until=root.uint(32)
    )
    root.end()
    return authorization


def parse_claim(boc: bytes | memoryview) -> Claim:
    """Read a claim from its bag of cells, without looking at any signature.

    Raises:
        MalformedError: anything but one canonical Claim cell.
    """
    root = parse_boc(boc).read()
    root.tag(CLAIM_TAG)
    claim = Claim(global_id=root.sint(32), channel=root.raw(32), used=root.coins(), index=root.uint(64))
    root.end()
    return claim


def sign_authorization(
    authorization: Authorization, client_key: Ed25519PrivateKey
) -> payment_pb2.SignedAuthorization:
    """Sign an authorization; the result carries the exact bytes that were hashed."""
    cell = authorization.cell
    return payment_pb2.SignedAuthorization(
        authorization=cell.to_boc(), signature=sign_cell(cell, client_key)
    )


def verify_authorization(signed: payment_pb2.SignedAuthorization, client_key: bytes) -> Authorization:
    """Return the authorization if `client_key` (32 bytes, from the channel's identity) signed it.

    The caller compares network, channel, cap and time.

    Raises:
        MalformedError: the cell does not parse.
        PaymentError: the signature is not by `client_key`.
    """
    authorization = parse_authorization(signed.authorization)
    if not signed_by(authorization.cell, signed.signature, client_key):
        raise PaymentError("the authorization is not signed by the channel's client key")
    return authorization


def sign_claim(claim: Claim, receipt_key: Ed25519PrivateKey) -> payment_pb2.SignedClaim:
    """Sign a claim; the result carries the exact bytes that were hashed."""
    cell = claim.cell
    return payment_pb2.SignedClaim(claim=cell.to_boc(), signature=sign_cell(cell, receipt_key))


def verify_claim(signed: payment_pb2.SignedClaim, receipt_key: bytes) -> Claim:
    """Return the claim if `receipt_key` (32 bytes, from a verified key binding) signed it.

    Raises:
        MalformedError: the cell does not parse.
        PaymentError: the signature is not by `receipt_key`.
    """
    claim = parse_claim(signed.claim)
    if not signed_by(claim.cell, signed.signature, receipt_key):
        raise PaymentError("the claim is not signed by the node's receipt key")
    return claim


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Nanoton per million tokens, by class of token; each is a u64.

    Raises `MalformedError` at construction if a price is out of range.
    """

    prompt: int
    """Prompt tokens that were computed."""
    cached: int
    """Prompt tokens that were found in the client's own cache."""
    completion: int
    """Generated tokens."""

    def __post_init__(self) -> None:
        """Check ranges."""
        uint(self.prompt, 64, "price of prompt tokens")
        uint(self.cached, 64, "price of cached tokens")
        uint(self.completion, 64, "price of completion tokens")

    @classmethod
    def from_proto(cls, message: payment_pb2.PriceList) -> Self:
        """Read the wire form."""
        return cls(prompt=message.prompt, cached=message.cached, completion=message.completion)

    def to_proto(self) -> payment_pb2.PriceList:
        """The wire form."""
        return payment_pb2.PriceList(prompt=self.prompt, cached=self.cached, completion=self.completion)

    def within(self, limit: PriceList) -> bool:
        """True if no price is above the one in `limit`."""
        return (
            self.prompt <= limit.prompt
            and self.cached <= limit.cached
            and self.completion <= limit.completion
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Token counts of one answer; each is a u32.

    Raises `MalformedError` at construction if a count is out of range or more is cached than prompted.
    """

    prompt_tokens: int
    """Prompt tokens, cached ones included."""
    cached_tokens: int
    """Prompt tokens found in the client's own cache."""
    completion_tokens: int
    """Generated tokens."""

    def __post_init__(self) -> None:
        """Check ranges."""
        uint(self.prompt_tokens, 32, "prompt tokens")
        uint(self.cached_tokens, 32, "cached tokens")
        uint(self.completion_tokens, 32, "completion tokens")
        if self.cached_tokens > self.prompt_tokens:
            raise MalformedError("usage: more cached than prompt tokens")

    @classmethod
    def from_proto(cls, message: sealed_pb2.Usage) -> Self:
        """Read the wire form.

        Raises:
            MalformedError: more cached than prompt tokens.
        """
        return cls(
            prompt_tokens=message.prompt_tokens,
            cached_tokens=message.cached_tokens,
            completion_tokens=message.completion_tokens,
        )

    def to_proto(self) -> sealed_pb2.Usage:
        """The wire form."""
        return sealed_pb2.Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
        )


def amount(prices: PriceList, usage: TokenUsage) -> int:
    """Price of one answer in nanoton: the exact sum over the classes, rounded up once."""
    total = (
        (usage.prompt_tokens - usage.cached_tokens) * prices.prompt
        + usage.cached_tokens * prices.cached
        + usage.completion_tokens * prices.completion
    )
    return -(-total // TOKENS_PER_PRICE)


def worst_case(prices: PriceList, *, prompt_tokens: int, max_completion_tokens: int) -> int:
    """Highest price that an answer within these bounds can have, in nanoton.

    Covers every split of the prompt into computed and cached tokens, whichever price is higher.
    """
    dearest = max(prices.prompt, prices.cached)
    total = prompt_tokens * dearest + max_completion_tokens * prices.completion
    return -(-total // TOKENS_PER_PRICE)
