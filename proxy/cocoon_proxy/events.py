"""What the client says while it works, and what an answer is made of. Never carries content.

`StreamEvent` values are the answer itself. `ClientEvent` values tell a user interface which step was
made; they hold sizes, identifiers and verdicts, and nothing of a prompt or an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cocoon_attestation.checks import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The answer begins."""

    status: int
    """HTTP-like status."""
    content_type: str
    """Media type of the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Body bytes, exactly as the enclave sent them."""

    data: bytes = field(repr=False)
    last: bool = False
    """True for the tail, which is handed out only after the receipt was verified and recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Token counts that the receipt states."""

    prompt: int
    """Prompt tokens, cached ones included."""
    cached: int
    """Prompt tokens found in the client's own cache."""
    completion: int
    """Generated tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The receipt was verified and is durable in the ledger."""

    receipt_id: str
    """Representation hash of the receipt cell, hex."""
    usage: TokenUsage
    amount: int
    """Cost of this request, nanoton."""
    node: str
    """Account id of the node, hex."""
    simulated: bool
    """True when the node's TEE is simulated."""
    status: int = 200
    """HTTP-like status that the receipt states; 400 or more after a head below 400 means that the answer
    was cut short, and the tail says why."""


StreamEvent = Head | Data | Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletReady:
    """The wallet exists and can pay."""

    address: str
    created: bool
    funded: int
    """Nanoton that the development faucet gave just now; 0 otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsafeRules:
    """The user's own rules contain some that check nothing."""

    reasons: tuple[str, ...]
    """What the user wrote down for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRead:
    """The registry was read from proved chain state."""

    registry: str
    block_seqno: int
    block_age_s: int
    nodes: int
    policy_digest: bytes
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSelected:
    """A node was picked for a request."""

    node: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceChecked:
    """A node's fresh evidence was appraised."""

    node: str
    accepted: bool
    checks: tuple[Check, ...]
    simulated: bool
    expires_at: int
    """Unix time at which the session must be verified again; 0 if refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOpened:
    """A payment channel was deployed and funded."""

    channel: str
    node: str
    deposit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelToppedUp:
    """Money was added to a channel."""

    channel: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClosing:
    """A channel is being closed, by this client or by another user of its wallet: it pays no more requests."""

    channel: str
    node: str
    close_at: int
    """Unix time from which the rest is free; it is then taken by itself while a client runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClosed:
    """A channel is closed for good and its rest is in the wallet."""

    channel: str
    node: str
    returned: int
    """Nanoton that this client took just now; 0 if somebody else had it sent before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSealed:
    """A request was sealed; nothing else of it leaves the process."""

    node: str
    size: int
    """Bytes of the sealed request."""
    recipients: int
    suite: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstData:
    """The first body bytes arrived."""

    node: str
    elapsed_ms: int
    """Milliseconds since the request was sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptVerified:
    """The receipt was checked against the exact bytes and recorded."""

    receipt_id: str
    node: str
    checks: tuple[Check, ...]
    usage: TokenUsage
    amount: int
    cumulative: int
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOver:
    """A node could not take the request, and another one is tried. Nothing was paid."""

    node: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """A verified session was closed."""

    node: str
    reason: str


ClientEvent = (
    WalletReady
    | UnsafeRules
    | RegistryRead
    | NodeSelected
    | EvidenceChecked
    | ChannelOpened
    | ChannelToppedUp
    | ChannelClosing
    | ChannelClosed
    | RequestSealed
    | FirstData
    | ReceiptVerified
    | FailedOver
    | SessionEnded
)

EventHandler = Callable[[ClientEvent], None]
