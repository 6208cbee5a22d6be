"""From protobuf messages and proved chain state to the values that `plan.decide` works on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pytoniq_core import Address

from cocoon.v1 import host_service_pb2, payment_pb2
from cocoon_attestation.binding import KeyBinding, parse_key_binding
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.payment import parse_authorization, parse_claim
from cocoon_enclave.host.plan import ChallengeView, ClaimView, EnclaveView, NodeView
from cocoon_ton.chain import AccountState
from cocoon_ton.channel import CLOSED, MIN_MESSAGE_VALUE, ChannelIdentity, ChannelState, parse_channel
from cocoon_ton.code import channel_code
from cocoon_ton.node import PROPOSAL_TIMEOUT_S, BondState, NodeState, parse_node
from cocoon_ton.registry import RegistryState

CHANNEL_RESERVE: Final = MIN_MESSAGE_VALUE
"""Part of a channel's balance that is not counted on, as clients do: it pays for the channel's storage, and
the contract does not pay it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelView:
    """A channel of this node as proved chain state has it; `state` is None if it is not deployed."""

    identity: ChannelIdentity
    address: Address
    balance: int
    """What may be spent, in nanoton: the balance less `CHANNEL_RESERVE`."""
    state: ChannelState | None

    @property
    def account_id(self) -> bytes:
        """Account id, 32 bytes."""
        return bytes(self.address.hash_part)

    @property
    def closed(self) -> bool:
        """True if it was closed for good."""
        return self.state is not None and self.state.close_at == CLOSED

    def facts(self, close_delay: int) -> host_service_pb2.ChannelFacts:
        """What the enclave is told.

        close_delay: shortest delay that leaves time to settle, in seconds. A channel that its client could
        empty faster is as good as closed.
        """
        if self.state is None:
            return host_service_pb2.ChannelFacts(channel=self.account_id)
        if self.closed or self.identity.close_delay < close_delay:
            return host_service_pb2.ChannelFacts(channel=self.account_id, close_at=CLOSED)
        return host_service_pb2.ChannelFacts(
            channel=self.account_id,
            balance=self.balance,
            paid=self.state.paid,
            close_at=self.state.close_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A claim of the enclave with everything that settling it needs."""

    identity: ChannelIdentity
    message: host_service_pb2.ChannelClaim
    view: ClaimView
    """Without chain facts: `paid`, `balance` and `close_at` are 0 until `with_channel`."""

    def with_channel(self, channel: ChannelView) -> Claimed:
        """The same claim with what the chain says about its channel."""
        state = channel.state
        if state is None or channel.closed:
            return self
        view = replace(self.view, paid=state.paid, balance=channel.balance, close_at=state.close_at)
        return replace(self, view=view)


def enclave_view(status: host_service_pb2.GetStatusResponse) -> tuple[EnclaveView, KeyBinding]:
    """The enclave's status, and its key binding. Raises `MalformedError`."""
    binding = parse_key_binding(status.key_binding)
    view = EnclaveView(
        binding_hash=binding.hash,
        binding_until=binding.not_after,
        tree_size=status.tree_size,
        anchor_by=status.anchor_by,
        ready=status.ready,
    )
    return view, binding


def node_state(account: AccountState) -> NodeState | None:
    """The node contract's state, or None if it is not deployed. Raises `MalformedError`."""
    return parse_node(account.data) if account.active and account.data is not None else None


def is_accepted(state: NodeState, registry: RegistryState) -> bool:
    """Whether the registry lists the node's current binding and accepts what stood behind it."""
    entry = registry.nodes.get(state.identity.account_id)
    return (
        state.key is not None
        and entry is not None
        and entry.claim is not None
        and entry.claim.record.binding_hash == state.key.binding_hash
        and registry.accepts(entry.claim, entry.stake)
    )


def node_view(state: NodeState | None, balance: int, *, now: int = 0, accepted: bool = True) -> NodeView:
    """The node contract as `decide` sees it.

    Args:
        state: what it holds; None if it is not deployed.
        balance: of the account, in nanoton.
        now: Unix time; a proposal without an answer does not count for ever.
        accepted: see `is_accepted`.
    """
    if state is None or state.bond is BondState.IDLE or state.terms is None:
        return NodeView(
            joined=False,
            working_balance=0,
            endpoint="",
            prices=None,
            current_binding=b"",
            previous_binding=b"",
            attested_until=0,
            anchored_size=0,
            anchored_at=0,
        )
    key = state.key
    return NodeView(
        joined=state.bond is BondState.ACTIVE,
        waiting=state.bond is not BondState.ACTIVE,
        working_balance=balance - state.held,
        endpoint=state.terms.endpoint,
        prices=state.terms.next_prices,
        current_binding=key.binding_hash if key else b"",
        previous_binding=key.previous.binding_hash if key and key.previous else b"",
        attested_until=key.attested_until if key else 0,
        proposed=state.proposal is not None and now <= state.proposal.made_at + PROPOSAL_TIMEOUT_S,
        accepted=accepted,
        anchored_size=state.log.tree_size,
        anchored_at=state.log.anchored_at,
        challenges=tuple(
            ChallengeView(
                receipt_hash=challenge.receipt_hash,
                index=challenge.index,
                tree_size=challenge.tree_size,
                root=challenge.root,
                deadline=challenge.deadline,
            )
            for challenge in state.challenges
            if not challenge.slashed
        ),
    )


def channel_view(identity: ChannelIdentity, account: AccountState) -> ChannelView:
    """A channel as the chain has it: only the account at the identity's own address, with our code, counts.

    Raises:
        MalformedError: the account belongs to something else.
    """
    address = identity.address
    if account.address != address:
        raise MalformedError("channel: another account was read")
    if not account.active or account.data is None:
        return ChannelView(identity=identity, address=address, balance=0, state=None)
    if account.code_hash != channel_code().code_hash:
        raise MalformedError("channel: foreign code")
    return ChannelView(
        identity=identity,
        address=address,
        balance=max(0, account.balance - CHANNEL_RESERVE),
        state=parse_channel(account.data),
    )


def claimed(message: host_service_pb2.ChannelClaim) -> Claimed:
    """One entry of ListClaims. Raises `MalformedError`."""
    identity = ChannelIdentity.from_proto(message.channel)
    claim = parse_claim(message.claim.claim)
    authorization = parse_authorization(message.authorization.authorization)
    view = ClaimView(
        channel=claim.channel,
        used=claim.used,
        cap=authorization.cap,
        paid=0,
        balance=0,
        close_at=0,
        valid_until=authorization.valid_until,
        binding_hash=message.binding_hash,
    )
    return Claimed(identity=identity, message=message, view=view)


def own_channels(messages: list[payment_pb2.ChannelIdentity], node: Address) -> tuple[ChannelIdentity, ...]:
    """The identities that parse and name this node; clients may send anything, so the rest is dropped."""
    found = []
    for message in messages:
        try:
            identity = ChannelIdentity.from_proto(message)
        except MalformedError:
            continue
        if identity.node == node:
            found.append(identity)
    return tuple(found)
