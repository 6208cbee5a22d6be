"""Admission and metering: who may ask for how much, and what an answer cost. Sans-I/O.

A request is admitted when the worst case of its price fits, beside everything used and reserved before,
both under the cap that the client authorized and into what the chain says the channel holds. The worst
case is reserved, so concurrent requests cannot spend the same nanoton; the real price, never more, is
charged when the answer is complete. Prices are those of the moment of admission. See
docs/spec/metering.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cocoon.v1 import payment_pb2
from cocoon_attestation.errors import MalformedError, PaymentError
from cocoon_attestation.payment import PriceList, TokenUsage, amount, verify_authorization, worst_case
from cocoon_attestation.types import Digest32
from cocoon_enclave.errors import (
    AuthorizationError,
    BalanceTooLowError,
    CapTooLowError,
    ChannelUnknownError,
    ChannelUnusableError,
    PriceError,
)
from cocoon_ton.channel import ChannelIdentity

MAX_WANTED: Final = 256
"""Channels that the host is asked to look up; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the host says the chain says about a channel. Trusted with the host's own money only."""

    balance: int
    """Spendable, in nanoton; 0 if the account does not exist."""
    paid: int
    """Paid so far, cumulative, in nanoton."""
    close_at: int
    """Unix time at which the client may take the rest; 0 if open."""


NOT_ON_CHAIN: Final = Facts(balance=0, paid=0, close_at=0)
"""What the host says about an account that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChannel:
    """A channel as the store has it."""

    channel: Digest32
    """Account id."""
    initial_data: bytes
    """Bag of cells with the channel's initial data."""
    authorization: bytes
    """Bag of cells: the newest authorization that covers `used`."""
    authorization_signature: bytes
    used: int
    """Cumulative use, in nanoton: that of the claim."""
    claim: bytes
    """Bag of cells: the claim with the highest use."""
    claim_signature: bytes
    binding_hash: bytes
    """Key binding whose receipt key signed the claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """A payment whose authorization holds for a channel that can pay. From `Meter.authorize`."""

    channel: Digest32
    cap: int
    """Authorized, in nanoton."""
    prices: PriceList
    """Prices at admission."""
    payment: payment_pb2.Payment


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What an admitted request may cost at most. Ends with `Meter.charge` or `Meter.release`, once."""

    channel: Digest32
    amount: int
    """Reserved, in nanoton."""
    prices: PriceList
    """Prices at admission; the final price uses them."""
    initial_data: bytes
    cap: int
    authorization: payment_pb2.SignedAuthorization

    def price(self, usage: TokenUsage) -> int:
        """What `usage` costs, in nanoton; never more than `amount`."""
        return min(amount(self.prices, usage), self.amount)


@dataclass(slots=True, kw_only=True)
class _Channel:
    """State of one channel in this enclave."""

    used: int = 0
    reserved: int = 0
    facts: Facts | None = None
    frozen: bool = False
    """A history is stored that cannot be verified: neither continued nor started anew."""


@dataclass(slots=True, kw_only=True)
class Meter:
    """All channels of one enclave."""

    node: Digest32
    """Account id of the node contract that is paid."""
    global_id: int
    prices: PriceList
    """Current prices; the host changes them."""
    claim_time_s: int = 0
    """Seconds that an authorization must outlast the request's deadline: the host's time to settle."""
    _channels: dict[Digest32, _Channel] = field(default_factory=dict)
    _wanted: OrderedDict[Digest32, bytes] = field(default_factory=OrderedDict)

    def resume(self, channels: Iterable[StoredChannel], verified: frozenset[bytes]) -> None:
        """Take over stored channels; one whose claim's binding is not in `verified` is frozen."""
        for stored in channels:
            frozen = stored.binding_hash not in verified
            self._channels[stored.channel] = _Channel(used=0 if frozen else stored.used, frozen=frozen)

    def identify(self, payment: payment_pb2.Payment) -> tuple[Digest32, ChannelIdentity]:
        """Address and identity of the channel that a request names.

        Raises:
            ChannelUnusableError: not a channel with this node on this network.
        """
        try:
            identity, channel = _identity(payment.channel.initial_data)
        except MalformedError as error:
            raise ChannelUnusableError("the payment names no channel") from error
        if identity.global_id != self.global_id:
            raise ChannelUnusableError("the channel is on another network")
        if identity.node.wc != 0 or identity.node.hash_part != self.node:
            raise ChannelUnusableError("the channel pays another node")
        return channel, identity

    def authorize(self, payment: payment_pb2.Payment, *, now: float, deadline: float = 0.0) -> Payer:
        """Check all that can be checked of a payment before anybody works for it: nothing is reserved yet.

        The answer ends at `deadline` (Unix seconds) at the latest.

        Raises:
            PaymentError: one of its leaves in `cocoon_enclave.errors`; `ChannelUnknownError` means that the
                host was asked about the channel and that a later try may succeed.
        """
        channel, identity = self.identify(payment)
        # A claim that comes after the authorization's end is worth nothing to the host.
        until = max(now, deadline) + self.claim_time_s
        cap = _check_authorization(payment, identity, channel, self.global_id, until)
        prices = self.prices
        if not prices.within(PriceList.from_proto(payment.price_limit)):
            raise PriceError("the node's prices are above the limit of the request")
        payer = Payer(channel=channel, cap=cap, prices=prices, payment=payment)
        self._covered(payer, worst_case(prices, prompt_tokens=1, max_completion_tokens=1))
        return payer

    def reserve(self, payer: Payer, *, prompt_tokens: int, max_tokens: int) -> Reservation:
        """Reserve the worst case of a request.

        Raises:
            PaymentError: as `authorize`: the channel may have changed, and now the cost is known.
        """
        cost = worst_case(payer.prices, prompt_tokens=prompt_tokens, max_completion_tokens=max_tokens)
        self._covered(payer, cost).reserved += cost
        return Reservation(
            channel=payer.channel,
            amount=cost,
            prices=payer.prices,
            initial_data=payer.payment.channel.initial_data,
            cap=payer.cap,
            authorization=payer.payment.authorization,
        )

    def _covered(self, payer: Payer, cost: int) -> _Channel:
        """The channel, if both the authorization and the balance cover `cost` beside what is open."""
        state, facts = self._usable(payer.channel, payer.payment.channel.initial_data)
        committed = state.used + state.reserved
        if committed + cost > payer.cap:
            raise CapTooLowError(
                "the authorization does not cover the worst case of this request",
                details={"needed": committed + cost, "cap": payer.cap},
            )
        if committed + cost > facts.paid + facts.balance:
            raise BalanceTooLowError(
                "the channel's balance does not cover the worst case of this request",
                details={"needed": committed + cost - facts.paid, "balance": facts.balance},
            )
        return state

    def _usable(self, channel: Digest32, initial_data: bytes) -> tuple[_Channel, Facts]:
        state = self._channels.get(channel)
        if state is not None and state.frozen:
            raise ChannelUnusableError("the channel has a history that this enclave cannot verify")
        if state is None or state.facts is None:
            self._wanted[channel] = initial_data
            self._wanted.move_to_end(channel)
            if len(self._wanted) > MAX_WANTED:
                self._wanted.popitem(last=False)
            raise ChannelUnknownError("the node has not seen the channel on chain yet")
        if state.facts.close_at:
            raise ChannelUnusableError("the channel is closing")
        if state.facts.paid > state.used:
            # More was settled than this enclave knows of: its history is lost, and starting at the paid
            # amount would let a host that lies about it charge for nothing.
            raise ChannelUnusableError("the channel has a history that this enclave does not know")
        return state, state.facts

    def charge(self, reservation: Reservation, price: int) -> None:
        """Turn a reservation into use. Call it when the receipt is durable, and only then."""
        state = self._channels[reservation.channel]
        state.reserved -= reservation.amount
        state.used += price

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back unused."""
        self._channels[reservation.channel].reserved -= reservation.amount

    def used(self, channel: Digest32) -> int:
        """Cumulative use of a channel, in nanoton; 0 for an unknown one."""
        state = self._channels.get(channel)
        return state.used if state is not None else 0

    def set_facts(self, channel: Digest32, facts: Facts) -> bool:
        """Take what the host read from the chain; False for a channel that nobody asked about.

        A channel that does not exist is forgotten: anybody can invent one.
        """
        state = self._channels.get(channel)
        if state is None:
            if self._wanted.pop(channel, None) is None or facts == NOT_ON_CHAIN:
                return False
            state = self._channels[channel] = _Channel()
        self._wanted.pop(channel, None)
        state.facts = facts
        return True

    @property
    def wanted(self) -> tuple[payment_pb2.ChannelIdentity, ...]:
        """Channels that clients want to use and whose facts are missing, oldest first."""
        return tuple(payment_pb2.ChannelIdentity(initial_data=data) for data in self._wanted.values())

    @property
    def reserved(self) -> int:
        """Reserved over all channels, in nanoton."""
        return sum(state.reserved for state in self._channels.values())


@lru_cache(maxsize=1024)
def _identity(initial_data: bytes) -> tuple[ChannelIdentity, Digest32]:
    """Identity and address of a channel, remembered: a client's requests name the same one again and again.

    Raises:
        MalformedError: not the initial data of a channel.
    """
    identity = ChannelIdentity.from_proto(payment_pb2.ChannelIdentity(initial_data=initial_data))
    return identity, Digest32(identity.address.hash_part)


def _check_authorization(
    payment: payment_pb2.Payment, identity: ChannelIdentity, channel: Digest32, global_id: int, until: float
) -> int:
    """Return the authorized cap.

    Raises:
        AuthorizationError: not a permission by this channel's client for this channel, beyond `until`.
    """
    try:
        authorization = verify_authorization(payment.authorization, identity.client_key)
    except MalformedError as error:
        raise AuthorizationError("the authorization does not parse") from error
    except PaymentError as error:
        raise AuthorizationError(str(error)) from error
    if authorization.global_id != global_id or authorization.channel != channel:
        raise AuthorizationError("the authorization is for another channel or network")
    if authorization.valid_until <= until:
        raise AuthorizationError("the authorization is expired, or ends too soon after the request")
    return authorization.cap


class ReplayGuard:
    """Remembers request ids until their deadline. Lives as long as the keys, which never leave the process.

    A request whose deadline passed is refused anyway, so an id need not be kept longer; the enclave's clock
    cannot be turned back (`cocoon_enclave.clock`).
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, float] = {}
        self._swept = 0.0

    def accept(self, key_id: bytes, request_id: bytes, *, deadline: float, now: float) -> bool:
        """True the first time, False for a repeat. `deadline` and `now` in Unix seconds."""
        if now - self._swept > 60:
            self._seen = {id: end for id, end in self._seen.items() if end > now}
            self._swept = now
        name = key_id + request_id
        if name in self._seen:
            return False
        self._seen[name] = deadline
        return True

    def __len__(self) -> int:
        return len(self._seen)
