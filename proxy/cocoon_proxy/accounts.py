"""The client's account of one payment channel: what it allowed, and what the receipts say was used.

Pure: values in, values out. Several requests may be in flight on one channel, and their receipts may
arrive in another order than the enclave wrote them. What must hold at any time:

* the cap that was signed covers everything used plus the worst case of all requests in flight;
* the cumulative amount of a receipt never exceeds what verified receipts, requests in flight and
  requests with unknown outcome can explain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cocoon_attestation.checks import CheckList


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAccount:
    """State of one channel. All amounts in nanoton, cumulative over the life of the channel."""

    cap: int = 0
    """Highest cap that was ever signed."""
    cumulative: int = 0
    """Highest cumulative amount of a verified receipt."""
    verified: int = 0
    """Sum of the amounts of all verified receipts, and of lost requests whose cost became known."""
    lost: int = 0
    """Sum of the worst cases of requests whose outcome is unknown."""
    in_flight: int = 0
    """Sum of the worst cases of requests in flight."""

    @property
    def exposure(self) -> int:
        """The most that can have been used so far, if every doubt goes to the node."""
        return max(self.cumulative, self.verified + self.lost + self.in_flight)

    def cap_for(self, worst: int) -> int:
        """Cap to sign for one more request that costs at most `worst`. Caps never go down."""
        return max(self.cap, self.exposure + worst)

    def reserve(self, worst: int, cap: int) -> ChannelAccount:
        """Account after an authorization up to `cap` was signed for a request of at most `worst`."""
        return replace(self, cap=max(self.cap, cap), in_flight=self.in_flight + worst)

    def release(self, worst: int) -> ChannelAccount:
        """Account after a request ended without charge (refused before it was opened)."""
        return replace(self, in_flight=max(0, self.in_flight - worst))

    def lose(self, worst: int) -> ChannelAccount:
        """Account after contact was lost with a request in flight: it may have been charged in full."""
        return replace(self, in_flight=max(0, self.in_flight - worst), lost=self.lost + worst)

    def settle(self, worst: int, amount: int, cumulative: int) -> ChannelAccount:
        """Account after a receipt passed `check_receipt`."""
        return replace(
            self,
            cumulative=max(self.cumulative, cumulative),
            verified=self.verified + amount,
            in_flight=max(0, self.in_flight - worst),
        )

    def resolve(self) -> ChannelAccount:
        """Account once no request is in flight and none with unknown outcome can be charged any more.

        What they cost is then exactly what the cumulative amount holds beyond the verified receipts.
        """
        return replace(self, lost=0, verified=max(self.verified, self.cumulative))

    def check_receipt(self, checks: CheckList, *, worst: int, amount: int, cumulative: int) -> None:
        """Record whether a receipt's amounts can be true.

        `worst` is the reservation of the request that the receipt is for. What lies between the sum of
        known amounts and the highest cumulative amount must fit into the other requests in flight and
        those with unknown outcome: with neither, cumulative = previous cumulative + amount exactly.
        """
        unexplained = max(self.cumulative, cumulative) - (self.verified + amount)
        allowance = self.in_flight - worst + self.lost
        record(
            checks,
            "receipt.amount",
            0 <= amount <= worst,
            f"{amount} nanoton is at most the {worst} nanoton agreed for this request",
        )
        record(
            checks,
            "receipt.cumulative",
            cumulative >= amount and 0 <= unexplained <= max(0, allowance),
            f"cumulative {cumulative} nanoton leaves {unexplained} unexplained, {allowance} may be",
        )
        record(
            checks,
            "receipt.cap",
            cumulative <= self.cap,
            f"cumulative {cumulative} nanoton is within the signed cap of {self.cap} nanoton",
        )


def record(
    checks: CheckList, id: str, ok: bool, detail: str, *, inputs: tuple[tuple[str, str], ...] = ()
) -> None:
    """Record a check whose rule stands in docs/spec/client.md."""
    checks.record(id, ok, detail, spec=f"docs/spec/client.md#{id}", inputs=inputs)
