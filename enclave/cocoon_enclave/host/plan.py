"""What the host agent should do next: a pure function of what it sees and the time.

The agent observes (enclave status, proved node and channel state), calls `decide`, performs the actions and
observes again. Every action is idempotent, so a crash at any point only repeats the observation.

Order matters in one place: a claim is payable only while the node contract still knows the receipt key that
signed it (the current or the previous binding). So outstanding claims are settled before a new binding
rotates their key out.

Challenges come before everything: a missed answer costs stake. They are answered while the node waits for its
stake too, as are claims collected and receipts anchored.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon_attestation.payment import PriceList


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTerms:
    """When the agent acts. Times in seconds, amounts in nanoton."""

    endpoint: str
    """Public ``host:port`` of the enclave, written into the registry entry."""
    prices: PriceList
    stake: int
    working_balance: int = 500_000_000
    """What the node contract is given at a time to pay for anchors."""
    working_minimum: int = 100_000_000
    """Working balance below which it is given more: about 20 anchors."""
    anchor_every_s: int = 600
    """Longest time that a receipt waits for its anchor while the log grows."""
    anchor_margin_s: int = 120
    """How long before `anchor_by` an anchor is sent at the latest."""
    settle_minimum: int = 5_000_000
    """Unsettled amount below which a channel is not settled even if the claim is about to lapse: the fee
    would be more than the payment, and clients could make the host pay it."""
    settle_above: int = 200_000_000
    """Unsettled amount from which a channel is settled: about 50 times the fee of doing so."""
    renew_before_s: int = 3600
    """How long before the recorded evidence expires it is renewed."""
    settle_before_s: int = 600
    """How long before an authorization expires what it covers is collected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveView:
    """What the enclave says of itself."""

    binding_hash: bytes
    binding_until: int
    """Unix time at which the binding ends."""
    tree_size: int
    anchor_by: int
    """Deadline of the oldest unanchored receipt; 0 if there is none."""
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """The node contract in proved chain state."""

    joined: bool
    waiting: bool = False
    """Joining or leaving: nothing to offer until the registry answers or the stake is free."""
    working_balance: int
    """Balance apart from the stake and from deposits, nanoton."""
    endpoint: str
    prices: PriceList | None
    current_binding: bytes
    """Representation hash; empty before the first attest."""
    previous_binding: bytes
    attested_until: int
    proposed: bool = False
    """A key binding waits for the registry's answer."""
    accepted: bool = True
    """The registry lists the current binding, and accepts what stood behind it."""
    anchored_size: int
    anchored_at: int
    challenges: tuple[ChallengeView, ...] = ()
    """Challenges that await an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeView:
    """A receipt that must be shown in the log."""

    receipt_hash: bytes
    index: int
    """Its place in the log."""
    tree_size: int
    """Size of the tree that the proof must be for."""
    root: bytes
    """Root of that tree."""
    deadline: int
    """Latest answer, Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """One channel with use that the enclave signed."""

    channel: bytes
    used: int
    cap: int
    paid: int
    balance: int
    """What the channel can still pay."""
    close_at: int
    valid_until: int
    """Expiry of the client's authorization: after it the channel pays nothing for it."""
    binding_hash: bytes

    @property
    def due(self) -> int:
        """What a settlement would pay now."""
        return max(0, min(min(self.used, self.cap) - self.paid, self.balance))


@dataclass(frozen=True, slots=True)
class Join:
    """Deploy the node contract with its stake and enter the registry."""


@dataclass(frozen=True, slots=True)
class TopUp:
    """Give the node contract money for anchors."""


@dataclass(frozen=True, slots=True)
class UpdateTerms:
    """Publish the configured endpoint and prices."""


@dataclass(frozen=True, slots=True)
class Attest:
    """Have the enclave's current binding attested on chain."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Anchor the log as it is now."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Collect what a channel owes."""

    channel: bytes
    final: bool = False
    """Also close it: the rest goes back to its client at once."""


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer a challenge with an inclusion proof."""

    challenge: ChallengeView


Action = Join | TopUp | UpdateTerms | Attest | Anchor | Settle | Respond


def decide(
    terms: HostTerms,
    enclave: EnclaveView,
    node: NodeView,
    claims: tuple[ClaimView, ...],
    now: int,
    *,
    drain: bool = False,
    close: bool = False,
) -> tuple[Action, ...]:
    """The actions that are due at `now` (Unix seconds), in the order in which they must happen.

    drain: collect and anchor everything now. close: each settlement also closes its channel.
    """
    answers = tuple(
        Respond(c) for c in sorted(node.challenges, key=lambda c: c.deadline) if now <= c.deadline
    )
    rest = _routine(terms, enclave, node, claims, now, drain=drain)
    if close:
        rest = tuple(
            Settle(action.channel, final=True) if isinstance(action, Settle) else action for action in rest
        )
    return (*answers, *rest)


def _routine(
    terms: HostTerms,
    enclave: EnclaveView,
    node: NodeView,
    claims: tuple[ClaimView, ...],
    now: int,
    *,
    drain: bool,
) -> tuple[Action, ...]:
    """What is due apart from challenges."""
    if not (node.joined or node.waiting):
        return (Join(),)
    worth = max(1, min(terms.settle_minimum, terms.settle_above))
    known = {node.current_binding, node.previous_binding} - {b""}
    payable = [c for c in claims if c.due >= worth and c.valid_until > now and c.binding_hash in known]
    settles = [Settle(c.channel) for c in payable if _settle_is_due(terms, node, c, now, drain=drain)]
    anchor_due = bool(known) and enclave.ready and _anchor_is_due(terms, enclave, node, now, drain=drain)
    if not node.joined:
        if not anchor_due:
            return tuple(settles)
        # Receipts that were given before it left can still cost the stake.
        return (*settles, TopUp() if node.working_balance < terms.working_minimum else Anchor())
    if node.working_balance < terms.working_minimum:
        # Earnings may be all that the wallet has to pay for it.
        return (*settles, TopUp())
    if not enclave.ready:
        return ()
    if enclave.binding_hash != node.current_binding and not node.proposed:
        # Attesting drops the previous key; what it signed is collected first, and alone.
        leaving = [c for c in payable if c.binding_hash == node.previous_binding]
        if leaving:
            return tuple(Settle(c.channel) for c in leaving)
        return (Attest(),)
    actions: list[Action] = []
    expires = node.attested_until - now < terms.renew_before_s
    if (
        not node.accepted or (expires and node.attested_until < enclave.binding_until)
    ) and not node.proposed:
        actions.append(Attest())
    if (node.endpoint, node.prices) != (terms.endpoint, terms.prices):
        actions.append(UpdateTerms())
    if anchor_due:
        actions.append(Anchor())
    actions.extend(settles)
    return tuple(actions)


def _anchor_is_due(
    terms: HostTerms, enclave: EnclaveView, node: NodeView, now: int, *, drain: bool
) -> bool:
    if enclave.tree_size <= node.anchored_size:
        return False
    if drain or now - node.anchored_at >= terms.anchor_every_s:
        return True
    return enclave.anchor_by != 0 and enclave.anchor_by - now <= terms.anchor_margin_s


def _settle_is_due(terms: HostTerms, node: NodeView, claim: ClaimView, now: int, *, drain: bool) -> bool:
    if drain or claim.close_at != 0 or claim.due >= terms.settle_above:
        return True
    # An authorization or a key that is about to lapse takes the money with it.
    return claim.valid_until - now < terms.settle_before_s or claim.binding_hash == node.previous_binding
