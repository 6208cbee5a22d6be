"""Admission: reservations never let more be promised than was authorized and deposited."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from enclave_testkit import GLOBAL_ID, NODE, Wallet  # type: ignore[import-not-found]
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cocoon.v1 import payment_pb2
from cocoon_attestation.errors import PaymentError
from cocoon_attestation.payment import PriceList, TokenUsage, amount
from cocoon_enclave.errors import CapTooLowError, ChannelUnknownError, ChannelUnusableError
from cocoon_enclave.metering import MAX_WANTED, Facts, Meter, ReplayGuard, Reservation, StoredChannel

PRICES = PriceList(prompt=3_000_000, cached=1_000_000, completion=5_000_000)


def _admit(
    meter: Meter, payment: payment_pb2.Payment, prompt_tokens: int = 1, max_tokens: int = 1
) -> Reservation:
    payer = meter.authorize(payment, now=0)
    return meter.reserve(payer, prompt_tokens=prompt_tokens, max_tokens=max_tokens)


def _meter(wallet: Any, facts: Facts | None) -> Meter:
    meter = Meter(node=NODE, global_id=GLOBAL_ID, prices=PRICES)
    with pytest.raises(ChannelUnknownError):
        _admit(meter, wallet.payment())
    if facts is not None:
        assert meter.set_facts(wallet.channel, facts)
    return meter


def test_worst_case_is_reserved_and_the_real_price_charged() -> None:
    wallet = Wallet()
    meter = _meter(wallet, Facts(balance=1000, paid=0, close_at=0))
    reservation = _admit(meter, wallet.payment(cap=1000), 10, 20)
    assert reservation.amount == 10 * 3 + 20 * 5
    assert meter.reserved == reservation.amount
    usage = TokenUsage(prompt_tokens=10, cached_tokens=4, completion_tokens=3)
    assert reservation.price(usage) == 6 * 3 + 4 * 1 + 3 * 5 == amount(PRICES, usage)
    meter.charge(reservation, reservation.price(usage))
    assert (meter.used(wallet.channel), meter.reserved) == (37, 0)


def test_price_never_exceeds_the_reservation() -> None:
    wallet = Wallet()
    meter = _meter(wallet, Facts(balance=1000, paid=0, close_at=0))
    reservation = _admit(meter, wallet.payment(cap=1000))
    usage = TokenUsage(prompt_tokens=100, cached_tokens=0, completion_tokens=100)
    assert reservation.price(usage) == reservation.amount


def test_facts_for_channels_nobody_asked_about_are_ignored() -> None:
    meter = Meter(node=NODE, global_id=GLOBAL_ID, prices=PRICES)
    assert not meter.set_facts(Wallet().channel, Facts(balance=1, paid=0, close_at=0))


def test_wanted_channels_are_bounded() -> None:
    meter = Meter(node=NODE, global_id=GLOBAL_ID, prices=PRICES)
    wallets = [Wallet(salt=salt) for salt in range(MAX_WANTED + 3)]
    for wallet in wallets:
        with pytest.raises(ChannelUnknownError):
            _admit(meter, wallet.payment())
    assert len(meter.wanted) == MAX_WANTED
    assert meter.wanted[-1] == wallets[-1].identity.to_proto()
    assert wallets[0].identity.to_proto() not in meter.wanted


def _stored(wallet: Any, used: int, binding: bytes) -> StoredChannel:
    payment = wallet.payment()
    return StoredChannel(
        channel=wallet.channel,
        initial_data=payment.channel.initial_data,
        authorization=payment.authorization.authorization,
        authorization_signature=payment.authorization.signature,
        used=used,
        claim=b"",
        claim_signature=b"",
        binding_hash=binding,
    )


def test_verified_history_is_continued_and_other_history_freezes() -> None:
    good, bad = Wallet(salt=1), Wallet(salt=2)
    meter = Meter(node=NODE, global_id=GLOBAL_ID, prices=PRICES)
    meter.resume(
        [_stored(good, 40, b"\x01" * 32), _stored(bad, 40, b"\x02" * 32)], frozenset({b"\x01" * 32})
    )
    meter.set_facts(good.channel, Facts(balance=100, paid=40, close_at=0))
    meter.set_facts(bad.channel, Facts(balance=100, paid=0, close_at=0))
    reservation = _admit(meter, good.payment(cap=100))
    meter.charge(reservation, 8)
    assert meter.used(good.channel) == 48
    with pytest.raises(ChannelUnusableError):
        _admit(meter, bad.payment())


def test_a_paid_amount_from_the_host_never_becomes_use() -> None:
    """A host that invents settled amounts must not make the enclave claim them."""
    wallet = Wallet()
    meter = _meter(wallet, Facts(balance=1000, paid=500, close_at=0))
    with pytest.raises(ChannelUnusableError):
        _admit(meter, wallet.payment())
    assert meter.used(wallet.channel) == 0


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xb5\xee\x9c\x72" * 10])
def test_any_bytes_for_a_channel_are_a_payment_error(data: bytes) -> None:
    meter = Meter(node=NODE, global_id=GLOBAL_ID, prices=PRICES)
    payment = payment_pb2.Payment(channel=payment_pb2.ChannelIdentity(initial_data=data))
    with pytest.raises(ChannelUnusableError):
        _admit(meter, payment)


def test_replay_guard_remembers_until_the_deadline() -> None:
    guard = ReplayGuard()
    key, other = b"k" * 32, b"o" * 32
    assert guard.accept(key, b"a" * 16, deadline=100, now=10)
    assert not guard.accept(key, b"a" * 16, deadline=100, now=11)
    assert guard.accept(other, b"a" * 16, deadline=100, now=11)
    assert guard.accept(key, b"b" * 16, deadline=300, now=200)
    assert len(guard) == 1  # the first two are past their deadline and refused for that


class MeterMachine(RuleBasedStateMachine):
    """Any order of admissions, charges and releases keeps the promises."""

    @initialize(balance=st.integers(1, 400), paid=st.just(0))
    def start(self, balance: int, paid: int) -> None:
        self.wallet = Wallet()
        self.balance = balance
        self.cap = 0
        self.meter = _meter(self.wallet, Facts(balance=balance, paid=paid, close_at=0))
        self.open: list[Reservation] = []
        self.charged = 0

    @rule(cap=st.integers(0, 500), prompt=st.integers(0, 20), tokens=st.integers(1, 20))
    def admit(self, cap: int, prompt: int, tokens: int) -> None:
        try:
            payment = self.wallet.payment(cap=cap)
            reservation = _admit(self.meter, payment, prompt, tokens)
        except PaymentError:
            return
        self.cap = max(self.cap, cap)
        self.open.append(reservation)
        assert self.charged + sum(r.amount for r in self.open) <= min(cap, self.balance)

    @precondition(lambda self: self.open)
    @rule(part=st.floats(0, 1))
    def charge(self, part: float) -> None:
        reservation = self.open.pop()
        price = int(reservation.amount * part)
        self.meter.charge(reservation, price)
        self.charged += price

    @precondition(lambda self: self.open)
    @rule()
    def release(self) -> None:
        self.meter.release(self.open.pop(0))

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "meter"):
            return
        assert self.meter.used(self.wallet.channel) == self.charged <= min(self.cap, self.balance)
        assert self.meter.reserved == sum(r.amount for r in self.open)


MeterMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestMeterMachine = MeterMachine.TestCase


def test_foreign_signature_is_refused() -> None:
    wallet = Wallet()
    meter = _meter(wallet, Facts(balance=1000, paid=0, close_at=0))
    payment = wallet.payment(key=Ed25519PrivateKey.generate())
    with pytest.raises(PaymentError):
        _admit(meter, payment)
    assert meter.reserved == 0


@pytest.mark.parametrize("cap", [0, 7])
def test_who_cannot_pay_for_one_token_is_refused_before_any_work(cap: int) -> None:
    wallet = Wallet()
    meter = _meter(wallet, Facts(balance=1000, paid=0, close_at=0))
    with pytest.raises(CapTooLowError):
        meter.authorize(wallet.payment(cap=cap), now=0)
    assert meter.authorize(wallet.payment(cap=8), now=0).cap == 8
    assert meter.reserved == 0


def test_a_channel_that_changes_between_authorization_and_reservation_is_looked_at_again() -> None:
    wallet = Wallet()
    meter = _meter(wallet, Facts(balance=1000, paid=0, close_at=0))
    payer = meter.authorize(wallet.payment(cap=1000), now=0)
    meter.set_facts(wallet.channel, Facts(balance=1000, paid=0, close_at=99))
    with pytest.raises(ChannelUnusableError, match="closing"):
        meter.reserve(payer, prompt_tokens=1, max_tokens=1)
