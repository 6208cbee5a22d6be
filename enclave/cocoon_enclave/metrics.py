"""Counters for the operator: coarse, and without a label that could name a client or a request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """All metrics of one enclave, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cocoon_requests", "Requests by class of status.", ["status"], registry=self.registry
        )
        self.tokens = Counter("cocoon_tokens", "Tokens by class.", ["kind"], registry=self.registry)
        self.charged = Counter("cocoon_charged_nanoton", "Charged, in nanoton.", registry=self.registry)
        self.active = Gauge("cocoon_active_requests", "Requests in flight.", registry=self.registry)
        self.sessions = Gauge("cocoon_sessions", "Open sessions.", registry=self.registry)
        self.log_size = Gauge("cocoon_log_receipts", "Receipts in the log.", registry=self.registry)
        self.unanchored = Gauge(
            "cocoon_log_unanchored",
            "Receipts not covered by an anchored checkpoint.",
            registry=self.registry,
        )
        self.engine_restarts = Gauge(
            "cocoon_engine_restarts", "Times an engine process was started again.", registry=self.registry
        )
        self.first_token = Histogram(
            "cocoon_first_token_seconds",
            "From the start of a request to its first text.",
            buckets=(0.1, 0.5, 1, 5, 30),
            registry=self.registry,
        )

    def count(self, status: int) -> None:
        """Count a request that ended with an HTTP-like status."""
        self.requests.labels(f"{status // 100}xx").inc()
