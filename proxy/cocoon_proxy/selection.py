"""Which node to ask. Pure: candidates, their health and the time in; an order out.

Selection is about price and luck, never about trust: whatever is picked must pass appraisal before
anything is sealed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cocoon_attestation.payment import PriceList

BACKOFF_BASE_S = 2
BACKOFF_MAX_S = 300
STICKY_NUMERATOR, STICKY_DENOMINATOR = 5, 4
"""A node with an open session is kept while it costs at most 5/4 of the cheapest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A node as the registry lists it."""

    node: bytes
    """Account id, 32 bytes."""
    endpoint: str
    """``host:port`` of its public service."""
    prices: PriceList
    """Proved prices: the limit that requests will carry."""
    models: frozenset[bytes] | None
    """Model digests it serves, as far as known; None before it was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """What this client experienced with a node."""

    failures: int = 0
    """Consecutive failures."""
    retry_at: float = 0.0
    """Do not try before this time."""
    reason: str = ""
    """Code of the last failure."""

    def failed(self, now: float, reason: str, *, wait: float = 0.0) -> NodeHealth:
        """Health after one more failure: exponential back-off, at least `wait` seconds."""
        delay = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** min(self.failures, 10))
        return NodeHealth(failures=self.failures + 1, retry_at=now + max(delay, wait), reason=reason)

    def worked(self) -> NodeHealth:
        """Health after a success."""
        return replace(self, failures=0, retry_at=0.0, reason="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request needs from a node."""

    models: frozenset[bytes]
    """Digests of allowed models with the wanted name."""
    max_prompt_price: int = 0
    """Nanoton per million; 0 for no limit."""
    max_completion_price: int = 0
    """Nanoton per million; 0 for no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Result of `rank`."""

    order: tuple[Candidate, ...]
    """Nodes to try, best first."""
    reasons: Mapping[str, str]
    """Node id in hex → why it was left out."""


def rank(
    candidates: Sequence[Candidate],
    wanted: Wanted,
    *,
    health: Mapping[bytes, NodeHealth],
    connected: Mapping[bytes, int],
    exclude: frozenset[bytes],
    now: float,
    tie_break: Callable[[], float],
) -> Ranking:
    """Order the nodes that may serve a request.

    `connected` maps nodes with a verified session to their requests in flight. A connected node comes
    first while it costs at most 5/4 of the cheapest one: it needs no new channel and may hold the
    prompt cache. Then the cheapest, then the least busy, then chance (`tie_break`).
    """
    reasons: dict[str, str] = {}
    eligible: list[Candidate] = []
    for candidate in candidates:
        reason = _refusal(candidate, wanted, health.get(candidate.node, NodeHealth()), exclude, now)
        if reason:
            reasons[candidate.node.hex()] = reason
        else:
            eligible.append(candidate)
    cheapest = min((_cost(c.prices) for c in eligible), default=0)

    def key(candidate: Candidate) -> tuple[int, int, int, float]:
        cost = _cost(candidate.prices)
        sticky = candidate.node in connected and cost * STICKY_DENOMINATOR <= cheapest * STICKY_NUMERATOR
        return (0 if sticky else 1, cost, connected.get(candidate.node, 0), tie_break())

    return Ranking(order=tuple(sorted(eligible, key=key)), reasons=reasons)


def _refusal(
    candidate: Candidate, wanted: Wanted, health: NodeHealth, exclude: frozenset[bytes], now: float
) -> str:
    if candidate.node in exclude:
        return "already tried"
    if candidate.models is not None and not candidate.models & wanted.models:
        return "does not serve the model"
    if wanted.max_prompt_price and candidate.prices.prompt > wanted.max_prompt_price:
        return "prompt price above the limit"
    if wanted.max_completion_price and candidate.prices.completion > wanted.max_completion_price:
        return "completion price above the limit"
    if health.retry_at > now:
        return f"failed recently ({health.reason})"
    return ""


def _cost(prices: PriceList) -> int:
    """Price of a typical request: three prompt tokens to one generated token."""
    return 3 * prices.prompt + prices.completion
